"""A recipe of detection: its fields go together, it trains by the loop of all recipes, and resumes to the bit."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_contexts, make_objects
from PIL import Image
from torch import nn

from kornia_cag import PGD, Feather, InputError, OneOf, Over, Recipe, SceneRange, Training, WorstOf
from kornia_cag.adversary.losses import OfTargets
from kornia_cag.core.checks import Diverged
from kornia_cag.evaluation.detection import Found
from kornia_cag.scenes.layout import Layout
from kornia_cag.training.checkpoint import check_saved
from kornia_cag.training.detector import Detector
from kornia_cag.training.makers import build_network
from kornia_cag.training.recipe_data import changed
from kornia_cag.training.recipes import SIGNS, STREET
from kornia_cag.training.task import DetectionTask

TINY = replace(STREET, size=32, width=4, batch_size=8, images=96, procedural=6, learning_rate=1e-2, ema=0.9,
               ranges=replace(STREET.ranges, layout=Layout(count=(0, 3), side=(0.3, 0.7)), camera=SceneRange().camera),
               detection=DetectionTask(name="thing", objects=3))  # fmt: skip


def training(recipe: Recipe = TINY, images: int | None = None, function: str | None = None) -> Training:
    return Training(recipe, make_objects(size=64), make_contexts(size=64), images=images, function=function)


@pytest.mark.parametrize(
    ("field", "value"),
    [("smoothing", 0.1), ("grey", True),
     ("views", 3), ("dropout", 0.1), ("fit", "cover"), ("hard_pairing", True)],
)  # fmt: skip
def test_a_field_without_an_effect_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected \w+ in a recipe of detection, got \w.* Leave it out\."):
        changed(STREET, {field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("classes", "some"), ("name", ""), ("name", "a\nb"), ("objects", 0), ("min_visible", 1.5)]
)
def test_a_task_out_of_range_is_named(untyped: None, field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field}: expected "):
        replace(DetectionTask(), **{field: value})  # type: ignore[arg-type]


def test_a_task_s_error_has_its_path() -> None:
    with pytest.raises(InputError, match=r"^detection\.classes: expected one of one, all, got"):
        changed(STREET, {"detection.classes": "some"})


def test_scenes_and_network_go_with_the_task() -> None:
    with pytest.raises(InputError, match=r"^network: expected detector in a recipe of detection"):
        replace(STREET, network="pooled")
    with pytest.raises(InputError, match=r"^network: expected detector in a recipe of detection"):
        replace(SIGNS, network="detector")
    with pytest.raises(InputError, match=r"^network: .*, got 'detector'\. Without detection, set network, too"):
        changed(STREET, {"detection": None})
    with pytest.raises(InputError, match=r"^ranges.layout: expected none, .* Set detection"):
        replace(STREET, network="pooled", detection=None)
    with pytest.raises(InputError, match=r"^ranges.layout.count: expected at most the 3 of detection.objects, got 4"):
        changed(STREET, {"detection.objects": 3})


def test_one_name_for_all_or_each_its_own() -> None:
    assert STREET.names(("a", "b")) == ("sign",)
    assert changed(STREET, {"detection.classes": "all"}).names(("a", "b")) == ("a", "b")
    assert SIGNS.names(("a", "b")) == ("a", "b")


@pytest.mark.parametrize("classes", ["one", "all"])
def test_targets_are_what_the_layout_shows(classes: str) -> None:
    run = training(changed(TINY, {"detection.classes": classes}))
    rows = next(iter(run.pairs))
    batch = run.collate(rows)
    task = run.recipe.detection
    assert task is not None
    found = task.targets(batch)
    assert rows.layers.shape == (8, 3)
    present = found.present
    assert 0 < int(present.sum()) < present.numel()
    assert (found.labels[~present] == -1).all()
    if classes == "one":
        assert (found.labels[present] == 0).all()
    else:
        assert torch.equal(found.labels[present], batch.targets.labels[present])


def test_it_learns() -> None:
    run = training(images=1200)
    run.run()
    assert run.seen >= 1200
    start, end = training(images=8), float(run.learner.loss)
    start.run()
    assert end < 0.7 * float(start.learner.loss)


@pytest.mark.parametrize("classes", ["one", "all"])
def test_over_the_scene_before_all_objects_are_to_be_found(classes: str) -> None:
    """Three in front, and three behind, which are those that were in front."""
    recipe = changed(TINY, {"detection.classes": classes, "reset": 0.0, "samples_per_class": 24})
    run = Training(recipe, make_objects(size=64), make_contexts(size=64, count=40))
    chain, task = run.collate.chain, run.recipe.detection
    assert chain is not None
    assert task is not None
    assert chain.generations == 1
    before = None
    for number, rows in enumerate(itertools.islice(run.pairs, 4)):
        batch = run.collate(rows)
        found = task.targets(batch)
        assert found.present.shape == (8, 6)
        assert batch.chained.all() if number % 2 else not batch.chained.any()
        assert found.present[:, :3].any() == bool(number % 2)
        if before is not None and number % 2:
            assert torch.equal(batch.targets.labels[:, :3], before.targets.labels[:, 3:])
            assert (task.targets(before).present[:, 3:] >= found.present[:, :3]).all()
        before = batch


def test_only_a_detector_finds_what_lies_behind() -> None:
    chain = SIGNS.chain(5)
    assert chain is not None
    assert chain.generations == 0
    assert STREET.chain(5) is None


def test_a_saved_chain_of_other_objects_is_refused(tmp_path: Path) -> None:
    run, file = training(replace(TINY, reset=0.3), images=16), tmp_path / "checkpoint.pt"
    run.run(save=file)
    state = torch.load(file, weights_only=True)
    chain = state["collate"]["chain"]
    targets = {**chain["targets"], "labels": chain["targets"]["labels"] + 9}
    for changes, message in (({"labels": chain["labels"][:, :1]}, "labels"), ({"targets": targets}, "targets")):
        broken = {**state, "collate": {**state["collate"], "chain": {**chain, **changes}}}
        with pytest.raises(InputError, match=rf"collate\.chain\.{message}"):
            check_saved(broken, run._state(run.loader), run.model, run.collate.size, 5, 3)


@pytest.mark.parametrize("reset", [None, 0.3])
def test_stopped_and_resumed_it_is_the_same_to_the_bit(tmp_path: Path, reset: float | None) -> None:
    file, recipe = tmp_path / "checkpoint.pt", replace(TINY, reset=reset)
    straight = training(recipe)
    straight.run()
    first = training(recipe)
    first.run(save=file, save_every=0.0, stop=lambda: first.steps >= 5)
    assert first.steps == 5
    again = training(recipe)
    again.load(file)
    again.run()
    assert again.steps == straight.steps
    for one, other in zip(again.result.state_dict().values(), straight.result.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_one_class_may_come_several_times_to_a_scene() -> None:
    objects = make_objects(size=64)
    alone = replace(objects, labels=torch.zeros_like(objects.labels), classes=("all",))
    run = Training(TINY, alone, make_contexts(size=64), images=8)
    run.run()
    assert run.pairs.repeats


def test_a_loss_that_is_not_finite_stops_it() -> None:
    run = training()
    with torch.no_grad():
        run.model.get_parameter("heat.1.bias").fill_(float("inf"))
    with pytest.raises(Diverged):
        run.run()


class Mine(nn.Module):
    """Another's network: one box in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(3, 1)

    def loss(self, images: torch.Tensor, targets: object) -> torch.Tensor:
        return self.score(images.mean(dim=(2, 3))).square().mean()

    def detect(self, images: torch.Tensor, *, threshold: float) -> list[Found]:
        return [Found(torch.tensor([[1.0, 1, 9, 9]]), torch.zeros(1, dtype=torch.int64), torch.ones(1))
                for _ in images]  # fmt: skip


def test_another_s_network_needs_two_methods() -> None:
    built = build_network(TINY, 1, lambda classes, size: Mine())
    assert isinstance(built, Mine)
    for name in ("loss", "detect"):
        bare = type("Bare", (Mine,), {name: None})
        with pytest.raises(InputError, match=f"^function: expected a network with the methods .* without {name}"):
            build_network(TINY, 1, lambda classes, size, bare=bare: bare())
    silent = type("Silent", (Mine,), {"detect": lambda self, images, threshold: []})
    with pytest.raises(InputError, match=r"whose detect returns a Found for each picture"):
        build_network(TINY, 1, lambda classes, size: silent())
    cut = type("Cut", (Mine,), {"loss": lambda self, images, targets: Mine.loss(self, images, targets).detach()})
    with pytest.raises(InputError, match=r"^function: expected a loss with gradients"):
        build_network(TINY, 1, lambda classes, size: cut())
    several = type("Several", (Mine,), {"loss": lambda self, images, targets: self.score(images.mean(dim=(2, 3)))})
    with pytest.raises(InputError, match=r"^function: expected a network whose loss is a single number"):
        build_network(TINY, 1, lambda classes, size: several())
    broken = type("Broken", (Mine,), {"detect": lambda self, images, threshold: 1 / 0})
    with pytest.raises(InputError, match=r"raised ZeroDivisionError"):
        build_network(TINY, 1, lambda classes, size: broken())


def test_the_detector_is_one_of_those() -> None:
    assert isinstance(build_network(TINY, 1, lambda classes, size: Detector(classes, width=4)), Detector)


@pytest.mark.parametrize("field", ["scene_attack", "attack"])
def test_adversaries_harden_a_detector_s_scenes(tmp_path: Path, field: str) -> None:
    """They raise its own loss, of boxes; a run with them resumes to the bit."""
    recipe = changed(TINY, {field: "WorstOf" if field == "scene_attack" else {"eps": 0.1, "steps": 2}})
    run = training(recipe, images=32)
    (stage,) = run.collate.adversaries
    assert isinstance(stage, WorstOf | PGD)
    assert isinstance(stage.loss, OfTargets)
    run.run(stop=lambda: run.steps == 2, save=tmp_path / "half.pt")
    resumed = training(recipe, images=32)
    resumed.load(tmp_path / "half.pt")
    for one in (run, resumed):
        one.run()
    mine, other = (one.learner.average.state_dict() for one in (run, resumed))
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_detector_without_losses_cannot_be_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Detector, "losses")
    with pytest.raises(InputError, match=r"^function: expected a network with a method losses\(output, targets\)"):
        training(changed(TINY, {"scene_attack": "WorstOf"}))


def test_every_scene_under_all_its_blends() -> None:
    """The batch has each scene once for every blend, with the same targets."""
    several = replace(TINY.ranges, blend=OneOf((Over(), Feather(width=(3.0, 3.0)))))
    run = training(replace(TINY, ranges=several, all_blends=True, batch_size=4), images=16)
    batch = run.collate(next(iter(run.pairs)))
    one, other = batch.images.chunk(2)
    assert len(batch.images) == 8
    assert not torch.equal(one, other)
    assert torch.equal(*batch.targets.labels.chunk(2))
    run.run()
    assert run.seen == 16
    with pytest.raises(InputError, match=r"^all_blends: expected false in a recipe with a single blend"):
        replace(TINY, all_blends=True)


def test_a_run_with_everything_that_hardens_resumes_to_the_bit(tmp_path: Path) -> None:
    """A chain that keeps targets, a distractor, and an adversary of scenes."""
    recipe = changed(TINY, {"reset": 0.3, "distractors": 1, "scene_attack": {"type": "ScenePGD", "steps": 1}})
    objects, contexts = make_objects(size=64), make_contexts(size=64)
    objects = objects + objects.unlabelled()
    whole, run, resumed = (Training(recipe, objects, contexts, images=32) for _ in range(3))
    whole.run()
    run.run(stop=lambda: run.steps == 2, save=tmp_path / "half.pt")
    resumed.load(tmp_path / "half.pt")
    resumed.run()
    mine, other = (one.learner.average.state_dict() for one in (whole, resumed))
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scene_attack": {"type": "WorstOf", "loss": "margin"}}, r"scene_attack\.loss: expected to be left out"),
        ({"attack": {"eps": 0.1, "target": "random"}}, r"attack\.target: expected to be left out in .*, got random"),
        ({"attack": {"eps": 0.1, "early_stop": True}}, r"attack\.early_stop: expected to be left out"),
    ],
)
def test_an_attack_that_names_classes_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        changed(STREET, fields)


def test_all_blends_have_one_picture_each_of_scenes_of_their_own() -> None:
    several = replace(TINY, ranges=replace(TINY.ranges, blend=OneOf((Over(), Feather()))), all_blends=True)
    assert (TINY.pictures, several.pictures) == (1, 2)
    run = training(several)
    assert next(run._steps()) == 2 * len(next(iter(run.pairs)))
    for name, value in (("reset", 0.1), ("scene_attack", WorstOf())):
        with pytest.raises(InputError, match=rf"^all_blends: expected false in a recipe with {name}, got true"):
            replace(several, **{name: value})


def test_distractors_are_none_of_the_objects(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture = Image.new("RGBA", (64, 64))
        picture.paste((200, 40 if name == "a" else 190, 40, 255), (8, 8, 56, 56))
        picture.save(tmp_path / f"{name}.png")
    recipe = replace(TINY, distractors=1)
    with pytest.raises(InputError, match=r"^distractors: expected pictures of what is not to be found"):
        recipe.objects(str(tmp_path), distractors=str(tmp_path))
