"""Label -1, of distractors and of objects that are left out: whoever gets it passes it by."""

import io
import json
import tarfile

import pytest
import torch
import torch.nn.functional as F
from conftest import make_contexts, make_objects
from models import network
from tinyrun import TINY, training

from kornia_cag import (
    PGD,
    CAGCollate,
    Coco,
    ContextChain,
    Detections,
    External,
    HardPairing,
    InputError,
    Layout,
    OverfittingMonitor,
    PairSampler,
    ScenePGD,
    SceneRange,
    Shards,
    WorstOf,
    Yolo,
    attacked_loss,
    detection_targets,
    instance_map,
    mixed_loss,
    semantic_map,
    trades_loss,
    write_dataset,
)
from kornia_cag.adversary.losses import kl
from kornia_cag.command.explain import explained, in_text
from kornia_cag.evaluation.robustness import Pictures, composites
from kornia_cag.training.objectives import mean_cross_entropy

SCENES = SceneRange(layout=Layout(count=(0, 3), side=(0.3, 0.7), visible=0.6, tries=2))


def bank():
    """Five objects of five classes, and the same without classes."""
    return make_objects() + make_objects().unlabelled()


def pairs_of(**options):
    some = {"batch_size": 16, "objects_per_scene": 2, "distractors_per_scene": 1, "seed": 4}
    return PairSampler(bank().labels, 28, **{**some, **options})


def collated(*adversaries, model=None, **options):
    given = {"ranges": SCENES, "adversaries": adversaries, "model": model, "returns": "batch", **options}
    return CAGCollate(bank(), make_contexts(count=28), 16, **given)


def batch_of(*adversaries, model=None, **options):
    """One batch; its lowest objects are with a class, and without."""
    batch = collated(*adversaries, model=model, **options)(next(iter(pairs_of())))
    assert 2 <= (batch.labels >= 0).sum() <= 14
    return batch


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_training_losses_are_those_of_the_samples_with_a_class(smoothing):
    net = network("cpu")
    batch = batch_of(PGD(eps=0.1), model=net)
    known, clean, attacked = batch.labels >= 0, net(batch.clean), net(batch.images)
    first, second = (F.cross_entropy(x[known], batch.labels[known], label_smoothing=smoothing)
                     for x in (clean, attacked))  # fmt: skip
    torch.testing.assert_close(attacked_loss(net, batch, smoothing=smoothing), second)
    torch.testing.assert_close(mixed_loss(net, batch, smoothing=smoothing), 0.5 * (first + second))
    trades = first + 6 * kl(attacked, clean).mean()
    torch.testing.assert_close(trades_loss(net, batch, smoothing=smoothing), trades)


def test_where_no_sample_has_a_class_there_is_nothing_to_learn():
    logits = torch.randn(4, 5, requires_grad=True)
    loss = mean_cross_entropy(logits, torch.full((4,), -1), smoothing=0.1)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_a_training_step_is_that_on_the_samples_with_a_class():
    learner = training(TINY, images=40).learner
    images, labels = torch.rand(8, 3, TINY.size, TINY.size), torch.arange(8) % 3 - 1
    logits, known = learner.step(images, labels), labels >= 0
    wanted = F.cross_entropy(logits[known].float(), labels[known], label_smoothing=TINY.smoothing)
    torch.testing.assert_close(learner.loss, wanted)


def test_another_library_s_attack_never_sees_it_and_leaves_such_samples_alone():
    seen = []

    def darken(images, labels):
        seen.append(labels)
        return 0.5 * images

    batch = batch_of(External(darken))
    layers = batch.targets.labels
    known = (layers >= 0).any(dim=1)
    assert 0 < known.sum() < 16
    lowest = torch.stack([next((n for n in row if n >= 0), torch.tensor(0)) for row in layers])
    assert torch.equal(seen[0], lowest)
    assert torch.equal(batch.attacked, known)
    assert torch.equal(batch.images[known], 0.5 * batch.clean[known])
    assert torch.equal(batch.images[~known], batch.clean[~known])


def test_attacks_have_no_aim_in_such_samples():
    net = network("cpu")
    batch = batch_of(PGD(eps=0.1, steps=2, random_start=False), model=net)
    known = (batch.targets.labels >= 0).any(dim=1)
    changed = (batch.images - batch.clean).flatten(1).abs().amax(dim=1) > 0
    assert torch.equal(changed, known)


@pytest.mark.parametrize("stage", [ScenePGD(steps=1), WorstOf(k=2)], ids=["gradient", "worst"])
def test_adversaries_of_scenes_keep_labels_with_their_scenes(stage):
    """Also where a scene that they move or choose leaves out others than the one drawn."""
    batch = batch_of(stage, model=network("cpu"), chain=ContextChain(0.3))
    shown = torch.stack([layer.shown for layer in batch.scene.layers], dim=1)
    known = torch.stack([bank().labels[layer.objects] for layer in batch.scene.layers], dim=1)
    assert torch.equal(batch.targets.labels, torch.where(shown, known, -1))
    assert torch.equal(batch.labels, batch.targets.labels[:, 0])
    assert not batch.targets.full[~shown].any()


def test_a_pairing_learns_of_classes_alone_and_offers_every_slot_once():
    net, pairing = network("cpu"), HardPairing(5)
    batch = batch_of(chain=ContextChain(0.2, pairing=pairing))
    known, logits = batch.labels >= 0, net(batch.images)
    want = HardPairing(5)
    want.observe(logits[known], batch.labels[known])
    pairing.observe(logits, batch.labels)
    torch.testing.assert_close(pairing.confusion, want.confusion)
    pairing.publish()
    order = pairing.order(batch.labels.roll(3), batch.labels, batch.scene.keys)
    assert torch.equal(order.sort().values, torch.arange(16))


def test_a_monitor_counts_samples_with_a_class():
    net, attack = network("cpu"), PGD(eps=0.1)
    monitor = OverfittingMonitor(attack, 5, every=1)
    batch = batch_of(attack, model=net)
    monitor(net, batch)
    assert monitor.report()["looks"][0][1] == int((batch.labels >= 0).sum())


def test_what_is_measured_has_a_class(untyped):
    with pytest.raises(InputError, match=r"^labels: expected a class of each picture, got -1\."):
        Pictures(torch.zeros(2, 3, 4, 4), torch.tensor([0, -1]))
    with pytest.raises(InputError, match=r"^ranges: expected no layout"):
        composites(make_objects(), make_contexts(), 16, SCENES, 4)


def test_photos_get_objects_with_a_class():
    photos = [torch.rand(3, 30, 40) for _ in range(10)]
    batch = CAGCollate(bank(), None, 16, returns="batch")(photos)
    assert sorted(batch.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    alone = CAGCollate(make_objects().unlabelled(), None, 16, returns="batch")
    with pytest.raises(InputError, match=r"^objects: expected some with a class to put on photos, got none\."):
        alone(photos)


def test_an_explanation_names_no_class():
    collate = collated(chain=ContextChain(0.0))
    for batch in [collate(rows) for rows in pairs_of(batch_size=8)][1:3]:  # the first has nothing behind it
        for place in range(8):
            said = " ".join(" ".join(in_text(explained(collate.composer, batch, place))).split())
            label = int(batch.labels[place])
            assert (f"class '{label}' cut-out" if label >= 0 else "no class cut-out") in said
            shown = [bool(layer.shown[place]) for layer in batch.scene.layers]
            assert said.count("not shown") == shown.count(False)
            if bool(batch.chained[place]):
                behind = ", ".join(f"'{n}'" for n in batch.earlier.labels[place].tolist() if n >= 0)
                assert f"with {behind} " in said


def test_detections_and_maps_hold_none():
    batch = batch_of()
    targets, found = batch.targets, Detections.of(batch)
    silent = targets.labels < 0
    assert (targets.full[silent].amax(dim=(1, 2)) > 0.5).any()  # some are painted
    assert not (found.present & silent).any()
    assert not found.boxes[silent].any()
    assert (found.labels[silent] == -1).all()
    maps = instance_map(batch), semantic_map(batch, background=9)
    for numbers, classes, labels, there in zip(*maps, targets.labels, found.present, strict=True):
        assert set(numbers.unique().tolist()) - {0} == set((1 + there.nonzero()[:, 0]).tolist())
        assert set(classes.unique().tolist()) - {9} == set(labels[there].tolist())
    dicts = detection_targets(batch, first_label=1)
    assert [len(one["labels"]) for one in dicts] == found.present.sum(dim=1).tolist()
    assert all((one["labels"] >= 1).all() for one in dicts)


@pytest.mark.parametrize("format", [Coco(), Yolo(), Shards(batches=2)], ids=str)
def test_exports_hold_none(format, tmp_path):
    pairs, collate, wanted = pairs_of(batch_size=8), collated(), []
    folder = write_dataset(collate, pairs, tmp_path / "data", format, images=16)
    for batch in (collate(rows) for rows in list(pairs)[:2]):
        wanted += [one["labels"].tolist() for one in detection_targets(batch, first_label=0)]
    assert 0 < sum(map(len, wanted)) < 3 * 16
    found: list[list[int]] = [[] for _ in wanted]
    if isinstance(format, Coco):
        known = json.loads((folder / "annotations.json").read_text())
        for one in known["annotations"]:
            found[one["image_id"] - 1].append(one["category_id"] - 1)
        assert len(known["categories"]) == 5
    elif isinstance(format, Yolo):
        for place, path in enumerate(sorted((folder / "labels").iterdir())):
            found[place] = [int(line.split()[0]) for line in path.read_text().splitlines()]
    else:
        with tarfile.open(folder / "shard-000000.tar") as archive:
            names = [name for name in archive.getnames() if name.endswith(".json")]
            for place, name in enumerate(sorted(names)):
                found[place] = json.load(io.TextIOWrapper(archive.extractfile(name)))["labels"]
    assert found == wanted
