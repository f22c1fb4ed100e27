"""A chain that keeps targets: whatever is seen in a composite, of whichever generation, is told, and told truly."""

import itertools
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from kornia_cag import (
    Average,
    Batch,
    CAGCollate,
    ContextBank,
    ContextChain,
    Detections,
    Feather,
    Hard,
    HardPairing,
    InputError,
    Layout,
    ObjectBank,
    Over,
    PairSampler,
    PoseRange,
    Prefetcher,
    Rows,
    ScenePGD,
    SceneRange,
    WorstOf,
)
from kornia_cag.core.records import tensors
from kornia_cag.scenes import chunks
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import THIN
from kornia_cag.scenes.targets import Targets
from kornia_cag.scenes.warp import SEEN

PLAIN = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
POSE = PoseRange(scale=(0.2, 0.5), angle=(-180, 180), translate=(-0.4, 0.4), perspective=(0, 0))
FLAT = SceneRange(pose=POSE, color=PLAIN, blend=Hard())
SIZE = (24, 30)
CONTEXTS = 48  # enough for 16 batches of 7 scenes of three objects
COLORS = torch.tensor([*itertools.product((0.0, 1.0), repeat=3)][1:])  # seven that 8 bits hold exactly, one per class
EVERY = [(layers, generations) for layers in (1, 3) for generations in (1, 2)]


def cards(labels: list[int] | None = None) -> ObjectBank:
    """Discs and squares, each of a colour of its own."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 40), indexing="ij")
    disc, square = (x**2 + y**2 < 0.9).float(), (torch.maximum(x.abs(), y.abs()) < 0.9).float()
    images = [torch.cat([color[:, None, None].expand(3, 40, 40), (disc, square)[n % 2][None]])
              for n, color in enumerate(COLORS)]  # fmt: skip
    return ObjectBank.from_tensors(images, labels, size=32, device="cpu")


def dark() -> ContextBank:
    """Contexts of none of these colours."""
    some = torch.rand(CONTEXTS, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return ContextBank.from_tensors(0.2 * some, size=16, device="cpu")


def collated(generations: int, ranges: SceneRange = FLAT, reset: float = 0.2, **options: object) -> CAGCollate[Batch]:
    chain = ContextChain(reset, generations=generations, pairing=options.pop("pairing", None))  # type: ignore[arg-type]
    given: dict[str, object] = {"objects": cards(), "returns": "batch", "ranges": ranges, "chain": chain, **options}
    return CAGCollate(contexts=dark(), size=SIZE, **given)  # type: ignore[arg-type, call-overload, no-any-return]


def rows_of(layers: int, count: int, b: int = 7) -> list[Rows]:
    pairs = PairSampler(torch.arange(7), CONTEXTS, batch_size=b, samples_per_class=CONTEXTS, objects_per_scene=layers,
                        seed=1)  # fmt: skip
    return [*itertools.islice(pairs, count)]


def same(one: object, other: object) -> bool:
    pairs = [*zip(tensors(one), tensors(other), strict=True)]
    return bool(pairs) and all(torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) for a, b in pairs)


def check_colors(images: Tensor, targets: Targets, unlabelled: int | None = None) -> int:
    """Hold targets against the very colours of the pictures; say how many pixels show objects behind."""
    seen = ((images[:, None] - COLORS[None, :, :, None, None]).abs() < 1e-3).all(dim=2)
    masks = targets.masks
    assert masks.unique().tolist() == [0, 1]
    for i, labels in enumerate(targets.labels):
        for color in range(len(COLORS)):
            if color != unlabelled:
                assert torch.equal(masks[i][labels == color].sum(dim=0), seen[i, color].float())
        for label, box, mask in zip(labels, targets.boxes[i], masks[i], strict=True):
            if label >= 0:
                assert box_of(mask.numpy() > 0.5) == (None if box.isnan().all() else tuple(box.tolist()))
    share = masks.sum(dim=(2, 3)) / targets.full.sum(dim=(2, 3)).clamp(min=1)
    torch.testing.assert_close(targets.share, share)
    return int(masks.sum())


def box_of(pixels: np.ndarray) -> tuple[float, ...] | None:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_every_pixel_shows_what_the_targets_say(layers: int, generations: int) -> None:
    collate, behind = collated(generations), 0
    for rows in rows_of(layers, 12):
        batch = collate(rows)
        targets, own = batch.targets, generations * layers
        assert targets.labels.shape == (7, (generations + 1) * layers)
        check_colors(batch.images, targets)
        behind += int(targets.masks[:, :own].sum())
        assert torch.equal(targets.labels[:, own:], collate.objects.labels[rows.layers])
        assert torch.equal(batch.labels, targets.labels[:, own])
        assert same((batch.boxes, batch.visible), (targets.boxes[:, own], targets.visible[:, own]))
        assert torch.equal(batch.masks[:, 0], targets.masks[:, own])
        assert (targets.labels[~batch.chained, :own] == -1).all()
        found = Detections.of(batch)
        assert found.present.shape == targets.labels.shape
        assert found.present[:, :own].any() == batch.chained.any()
    assert behind > 1000


def test_distractors_and_objects_that_are_left_out_have_no_target() -> None:
    """White cards have no class; scenes show up to three of four objects, or none at all, and are used all the same."""
    bank = cards()
    bank = replace(bank, labels=torch.tensor([0, 1, 2, 3, 4, 5, -1]), classes=bank.classes[:6])
    ranges = replace(FLAT, layout=Layout(count=(0, 3), side=(0.2, 0.5), tries=2))
    pairs = PairSampler(bank.labels, CONTEXTS, batch_size=9, samples_per_class=CONTEXTS, objects_per_scene=3,
                        distractors_per_scene=1, seed=2)  # fmt: skip
    collate, bare = collated(1, ranges, objects=bank), 0
    for batch in map(collate, itertools.islice(pairs, 8)):
        check_colors(batch.images, batch.targets, unlabelled=6)
        white = (batch.images > 0.999).all(dim=1)
        assert torch.equal((batch.targets.masks * (batch.targets.labels < 0)[..., None, None]).sum(dim=1) > 0, white)
        assert batch.earlier is not None
        bare += int((batch.chained & (batch.earlier.labels < 0).all(dim=1)).sum())
    assert bare > 0


def alone(collate: CAGCollate[Batch], batch: Batch) -> list[np.ndarray]:
    """The alpha of each layer, by a picture of it alone."""
    found = []
    for layer in batch.scene.layers:
        made = collate.composer.render(replace(batch.scene, layers=(layer,)))
        assert made.targets is not None
        found.append(made.targets.full[:, 0].double().numpy())
    return found


def follow(collate: CAGCollate[Batch], batches: Iterator[Batch], reset: float, generations: int) -> Iterator[int]:
    """Paint all masks by hand, slot by slot; say how many objects behind are seen."""
    slots: dict[int, list[tuple[np.ndarray, int]]] = {}
    for batch in batches:
        layers, behind = alone(collate, batch), 0
        for i in range(len(batch.images)):
            own = [(alpha[i], int(label)) for alpha, label in
                   zip(layers, collate.objects.labels[batch.rows.layers[i]], strict=True)]  # fmt: skip
            before = slots.get(i, [])
            used = 0 < len(before) <= generations * len(own) and float(batch.scene.fresh[i]) >= reset
            assert bool(batch.chained[i]) == used
            slots[i] = [*(before if used else []), *own]
            check_painted(batch.targets, i, slots[i])
            behind += len(slots[i]) - len(own)
        yield behind


def check_painted(targets: Targets, i: int, shown: list[tuple[np.ndarray, int]]) -> None:
    absent = targets.labels.shape[1] - len(shown)
    assert (targets.labels[i, :absent] == -1).all()
    assert targets.boxes[i, :absent].isnan().all()
    assert not targets.visible[i, :absent].any()
    assert not targets.masks[i, :absent].any()
    assert not targets.full[i, :absent].any()
    left = np.ones(SIZE)
    for place in range(targets.labels.shape[1] - 1, absent - 1, -1):
        alpha, label = shown[place - absent]
        mask, left = alpha * left, left * (1 - alpha)
        assert int(targets.labels[i, place]) == label
        assert np.abs(targets.full[i, place].numpy() - alpha).max() == 0
        assert np.abs(targets.masks[i, place].numpy() - mask).max() < 1e-6
        assert abs(float(targets.share[i, place]) - mask.sum() / max(alpha.sum(), 1e-6)) < 1e-5
        box, least = targets.boxes[i, place], min(0.5, THIN * alpha.max(), THIN * mask.max())
        if abs(mask.max() - SEEN) > 1e-6:
            assert bool(targets.visible[i, place]) == (mask.max() >= SEEN)
        if targets.visible[i, place] and np.abs(mask - least).min() > 1e-6:
            assert tuple(box.tolist()) == box_of(mask > least)


@pytest.mark.parametrize("blend", [Over(), Hard(), Feather((0.5, 3.0))])
@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_masks_shares_and_boxes_are_those_painted_by_hand(
    blend: Over | Hard | Feather, layers: int, generations: int
) -> None:
    collate = collated(generations, replace(FLAT, blend=blend))
    batches = map(collate, rows_of(layers, 8))
    assert sum(follow(collate, batches, 0.2, generations)) > 15 * layers


@pytest.mark.parametrize("blend", [Over(), Hard(), Average(0.6), Feather((0.5, 3.0))])
@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_what_is_not_covered_stays_as_it_was_to_the_bit(
    blend: Over | Hard | Average | Feather, layers: int, generations: int
) -> None:
    collate, checked = collated(generations, replace(FLAT, blend=blend, pose=replace(POSE, scale=(0.1, 0.3)))), 0
    before: Targets | None = None
    for batch in map(collate, rows_of(layers, 8)):
        now = batch.targets
        if before is not None:
            new = now.full[:, -layers:].amax(dim=1)
            for i in batch.chained.nonzero()[:, 0].tolist():
                for place in range(generations * layers):
                    old = place + layers
                    if before.labels[i, old] >= 0 and not (before.masks[i, old] * new[i]).any():
                        names = ("labels", "boxes", "visible", "masks", "full", "threshold")
                        assert all(same(getattr(now, name)[i, place], getattr(before, name)[i, old]) for name in names)
                        checked += 1
        before = now
    assert checked >= 5


@pytest.mark.parametrize(("reset", "generations"), [(0.0, 1), (0.3, 1), (0.3, 2), (1.0, 2)])
def test_the_share_of_fresh_contexts(reset: float, generations: int) -> None:
    chain, fresh, b = ContextChain(reset, generations=generations), 0, 3000
    size, labels, drawn = (1, 1), torch.zeros(3000, 1, dtype=torch.int64), torch.Generator().manual_seed(0)
    targets = Targets.absent((b, generations + 1, *size), torch.device("cpu"))
    for step in range(18):
        earlier = chain.slots(b, size=size, device=torch.device("cpu"))
        used = earlier.used(labels, torch.rand(b, generator=drawn))  # all of one class, which does not matter
        shown = earlier.after(used)
        assert shown is not None
        assert 0 <= int(shown.min()) <= int(shown.max()) <= generations
        fresh += int((~used).sum()) if step >= 12 else 0
        chain.keep(torch.zeros(b, 3, 1, 1), labels, targets=targets, generations=shown)
    share = 1 / sum((1 - reset) ** n for n in range(generations + 1))
    if reset == 0:
        assert fresh in (0, 6 * b // 2, 6 * b)  # all slots in step
    else:
        assert abs(fresh / (6 * b) - share) < 0.015


def test_slots_of_smaller_and_larger_batches() -> None:
    collate, rows = collated(1, reset=0.0), rows_of(2, 2, b=9)
    first = collate(rows[0][:5])
    second = collate(rows[0][5:8])  # over slots 0 to 2
    third = collate(rows[1])
    assert second.chained.tolist() == [True] * 3
    assert third.chained.tolist() == [False] * 3 + [True] * 2 + [False] * 4
    assert same(third.earlier.targets.labels[3:5], first.targets.labels[3:, 2:])  # type: ignore[union-attr]
    check_colors(third.images, third.targets)
    assert collate.chain is not None
    collate.chain.clear()
    assert not collate(rows[0]).chained.any()


@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_a_stopped_run_resumes_to_the_bit(tmp_path: Path, layers: int, generations: int) -> None:
    rows, one, other = rows_of(layers, 6), collated(generations), collated(generations)
    torch.save(one.state_dict(), tmp_path / "empty.pt")
    other.load_state_dict(torch.load(tmp_path / "empty.pt", weights_only=True))
    for table in rows[:3]:
        one(table)
    torch.save(one.state_dict(), tmp_path / "full.pt")
    twin = one.twin(None)
    straight = [one(table) for table in rows[3:]]
    other.load_state_dict(torch.load(tmp_path / "full.pt", weights_only=True))
    assert all(same(other(table), made) for table, made in zip(rows[3:], straight, strict=True))
    assert all(same(twin(table), made) for table, made in zip(rows[3:], straight, strict=True))
    assert straight[0].chained.any()


def test_nobody_changes_what_is_kept() -> None:
    rows, one, other = rows_of(2, 2), collated(1, reset=0.0), collated(1, reset=0.0)
    made = one(rows[0])
    for tensor in tensors((made.images, made.clean, made.targets)):
        tensor.zero_()
    other(rows[0])
    assert same(one(rows[1]), other(rows[1]))


def test_a_scene_is_rendered_again_and_sent() -> None:
    collate = collated(2)
    batch = [collate(rows) for rows in rows_of(3, 3)][-1]
    assert batch.chained.any()
    made = collate.composer.render(batch.scene, batch.earlier)
    assert same((made.images, made.targets, made.chained), (batch.clean, batch.targets, batch.chained))
    assert same(pickle.loads(pickle.dumps(batch)), batch)


@pytest.mark.parametrize("layers", [1, 3])
def test_chunks_make_the_same(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    rows = rows_of(layers, 4)
    whole = [*map(collated(1), rows)]
    monkeypatch.setattr(chunks, "PIXELS", SIZE[0] * SIZE[1] * 2)
    assert all(same(made, one) for made, one in zip(map(collated(1), rows), whole, strict=True))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 7))


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Of one label, or of several."""
    return -logits.log_softmax(dim=1).gather(1, labels.view(len(labels), -1).clamp(min=0)).sum(dim=1)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_worst_of_several_scenes(layers: int) -> None:
    """Rivals lie over composites of other slots."""
    stage = WorstOf(k=3, fraction=0.7, loss=losses)
    collate, behind = collated(1, reset=0.0, adversaries=(stage,), model=model()), 0
    for batch in map(collate, rows_of(layers, 6)):
        check_colors(batch.images, batch.targets)
        behind += int(batch.chained.sum())
    assert behind > 10


@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_scenes_that_were_moved(layers: int, generations: int) -> None:
    ranges = replace(FLAT, blend=Over(), color=ColorRange())
    stage = ScenePGD(steps=1, fraction=0.5, loss=losses)
    collate = collated(generations, ranges, adversaries=(stage,), model=model())
    assert sum(follow(collate, map(collate, rows_of(layers, 5)), 0.2, generations)) > 10


def test_composites_that_the_model_mistakes() -> None:
    pairing = HardPairing(7)
    collate, behind = collated(1, reset=0.0, pairing=pairing), 0
    torch.manual_seed(0)
    for batch in map(collate, rows_of(1, 6)):
        check_colors(batch.images, batch.targets)
        pairing.observe(torch.randn(7, 7), batch.labels)
        behind += int(batch.chained.sum())
    assert behind > 10


def test_batches_composed_ahead() -> None:
    one, other = collated(1), collated(1)
    pairs = PairSampler(torch.arange(7), CONTEXTS, batch_size=7, objects_per_scene=2, seed=1)
    plain = [*itertools.islice(DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=one), 4)]
    pairs = PairSampler(torch.arange(7), CONTEXTS, batch_size=7, objects_per_scene=2, seed=1)
    ahead = Prefetcher(DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=other.compose), other)
    assert all(same(made, batch) for made, batch in zip(itertools.islice(ahead, 4), plain, strict=True))


@pytest.mark.compile
@pytest.mark.parametrize(("layers", "generations"), EVERY)
def test_compiled_equals_eager(layers: int, generations: int) -> None:
    """From the first batch on, by the same graphs."""
    torch._dynamo.reset()
    counters.clear()
    quick, plain = collated(generations, compile=True), collated(generations)
    close = count = 0
    for size, rows in zip((7, 5, 6, 7, 4), rows_of(layers, 5), strict=True):
        fast, slow = quick(rows[:size]), plain(rows[:size])
        assert torch.equal(fast.chained, slow.chained)
        assert torch.equal(fast.targets.labels, slow.targets.labels)
        for name in ("masks", "full"):
            apart = (getattr(fast.targets, name) - getattr(slow.targets, name)).abs().flatten(1).amax(dim=1)
            close, count = close + int((apart < 1 / 255).sum()), count + size
        assert (fast.targets.visible == slow.targets.visible).float().mean() > 0.95
        assert plain.chain is not None
        assert quick.chain is not None
        plain.chain.load_state_dict(quick.chain.state_dict())
    assert close > 0.9 * count
    assert counters["stats"]["unique_graphs"] == (1 if layers == 1 else 4)
    assert not counters["graph_break"]


# --- what is refused


def test_a_pair_cannot_tell_it() -> None:
    with pytest.raises(InputError, match=r"^returns: expected 'batch' with a chain of generations=1, got 'pair'"):
        collated(1, returns="pair")


@pytest.mark.parametrize("generations", [-1, 1.5, 101])
def test_a_number_of_generations(untyped: None, generations: int) -> None:
    with pytest.raises(InputError, match=r"^generations: expected an integer"):
        ContextChain(generations=generations)


def test_a_chain_needs_the_targets() -> None:
    images, labels = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^targets: expected Targets, got None"):
        ContextChain(generations=1).keep(images, labels)


def test_states_of_another_chain_are_refused() -> None:
    rows = rows_of(2, 1)[0]
    states = {}
    for generations in (0, 1, 2):
        collate = collated(generations)
        collate(rows)
        states[generations] = collate.state_dict()
    for mine, other, message in (
        (0, 1, r"one with no generation that stays targets, got one with a"),
        (1, 0, r"one with a generation that stays targets, got one with no"),
        (1, 2, r"^state\['targets'\]\.labels: expected int64 \(7, 2\) on cpu, got int64 \(7, 4\)"),
    ):
        with pytest.raises(InputError, match=message):
            collated(mine).load_state_dict(states[other])
    short = {**states[1], "chain": {**states[1]["chain"], "targets": {"labels": None}}}
    with pytest.raises(InputError, match=r"^state\['targets'\]: expected fields boxes, full, .*, got labels"):
        collated(1).load_state_dict(short)


def test_a_composite_without_all_of_its_targets_is_refused(untyped: None) -> None:
    collate = collated(1)
    batch = collate(rows_of(1, 1)[0])
    earlier, render = batch.earlier, collate.composer.render
    assert earlier is not None
    assert earlier.targets is not None
    with pytest.raises(InputError, match=r"^earlier: expected targets and generations together"):
        render(batch.scene, replace(earlier, generations=None))
    wrong = replace(earlier.targets, masks=earlier.targets.masks[..., :3])
    with pytest.raises(InputError, match=r"^earlier\.targets\.masks: expected float32 \(7, 1, 24, 30\)"):
        render(batch.scene, replace(earlier, targets=wrong))


def test_what_a_chain_is_called() -> None:
    assert repr(ContextChain(0.5, generations=2)) == "ContextChain(reset=0.5, generations=2, slots=0)"
