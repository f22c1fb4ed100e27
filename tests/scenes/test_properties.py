"""What holds for every scene of several objects, whatever its ranges: 2,000 of them, whose ranges are drawn, too."""

from dataclasses import replace

import pytest
import torch
from conftest import make_contexts, make_objects
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_cag import (
    Average,
    Band,
    CAGCollate,
    CameraRange,
    ColorRange,
    Composer,
    Detections,
    Difference,
    Eroded,
    Feather,
    Hard,
    Layout,
    MultiBand,
    ObjectBank,
    OneOf,
    Over,
    PairSampler,
    PoseRange,
    Rows,
    SceneRange,
    Smeared,
)
from kornia_cag.core.records import tensors
from kornia_cag.loading.detections import full_masks, visible_masks
from kornia_cag.scenes.scene import Scene
from kornia_cag.scenes.targets import Composites, Targets

SIZE = (40, 52)
HARD = Hard()
SOFT = (Over(), Average(), Difference(), MultiBand(2), Feather(), Eroded(), Smeared())
EVERY = OneOf((*SOFT, HARD))
WILD = PoseRange(angle=(-180, 180), shear=(-25, 25), perspective=(-0.25, 0.25), aspect=(0.7, 1.4))
WARPED = replace(WILD, elastic=(0.01, 0.05), hole=(0.05, 0.25), holes=2)
PLAIN = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
BANK = make_objects(size=64) + make_objects(size=64).unlabelled()
CONTEXTS = make_contexts()

shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
layouts = st.builds(
    Layout,
    count=st.sampled_from([None, (0, 3), (3, 5)]),
    side=st.sampled_from([(0.15, 0.3), (0.2, 0.6), (0.4, 0.9)]),
    place=st.sampled_from([Layout().place, Band(top=0.3, bottom=0.7)]),
    stacked=st.sampled_from([0.0, 0.5]),
    visible=shares,
    overlap=shares,
    inside=st.sampled_from([0.05, 0.5, 0.75, 1.0]),
    tries=st.sampled_from([1, 4]),
)
poses = st.sampled_from([PoseRange(), WILD, WARPED])


def rows(b: int, start: int = 0, layers: int = 5) -> Rows:
    """Objects with and without a class, in any order."""
    place = torch.arange(start, start + b)
    return Rows.of(torch.stack([(place * 3**k + 2 * k + place // 7) % 10 for k in range(layers)], 1), place % 7, place)


def composer(ranges: SceneRange, size: tuple[int, int] = SIZE, bank: ObjectBank = BANK) -> Composer:
    return Composer(bank, CONTEXTS, size, ranges, warn=False)


def known(made: Composites) -> Targets:
    assert made.targets is not None
    return made.targets


def shown_of(scene: Scene) -> Tensor:
    return torch.stack([torch.ones_like(layer.objects > 0) if layer.shown is None else layer.shown
                        for layer in scene.layers], dim=1)  # fmt: skip


def around(inside: Tensor) -> Tensor:
    """(b, K, 4); boxes around masks (b, K, h, w), xyxy; NaN around none."""
    lines = inside.any(dim=2), inside.any(dim=3)  # columns, rows
    first = [line.int().argmax(dim=2) for line in lines]
    last = [line.shape[2] - line.flip(2).int().argmax(dim=2) for line in lines]
    boxes = torch.stack([*first, *last], dim=2).float()
    return torch.where(inside.flatten(2).any(dim=2)[..., None], boxes, torch.nan)


def covered(boxes: Tensor) -> Tensor:
    """(b,); the largest share of a box that another one covers."""
    boxes = boxes.nan_to_num()
    sides = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    sides = (sides - torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])).clamp(min=0)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2).clamp(min=1)
    part = sides.prod(dim=3) / area[:, :, None]
    return part.masked_fill(torch.eye(boxes.shape[1], dtype=torch.bool), 0).amax(dim=(1, 2))


def check_masks(targets: Targets, hard: bool) -> None:
    """Visible masks share no pixel and lie inside the full ones; soft ones share out each pixel."""
    assert (targets.masks <= targets.full + 1e-6).all()
    assert targets.masks.sum(dim=1).max() <= 1 + 1e-5
    visible, full = visible_masks(targets), full_masks(targets)
    assert visible.sum(dim=1).max() <= 1
    assert not (visible & (targets.masks == 0)).any()
    if hard:
        assert set(targets.masks.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(visible, targets.masks > 0)
        assert torch.equal(full, targets.full > 0)
        assert not (visible & ~full).any()


def check_boxes(targets: Targets) -> None:
    """Around the pixels that are half the object's; of one that is nowhere, around those of 5/8 of its most."""
    peak = targets.masks.amax(dim=(2, 3), keepdim=True)
    boxes = around((targets.masks > (5 / 8 * peak).clamp(max=0.5)) & (peak >= 1 / 255))
    assert torch.equal(boxes.nan_to_num(-1), targets.boxes.nan_to_num(-1))
    assert torch.equal(targets.visible, (peak >= 1 / 255)[..., 0, 0])


def check_labels(scene: Scene, made: Composites, targets: Targets) -> None:
    """Those of the bank where an object is shown; what has none, or is left out, is nothing to be found."""
    shown, ids = shown_of(scene), torch.stack([layer.objects for layer in scene.layers], dim=1)
    assert torch.equal(targets.labels, torch.where(shown & (ids < 5), ids, -1))
    assert torch.equal(made.labels, targets.labels)
    assert scene.wanted is not None
    assert torch.equal(scene.left_out, scene.wanted - shown.sum(dim=1))
    assert not targets.full[~shown].any()
    found = Detections.of(targets)
    assert not (found.present & (targets.labels < 0)).any()
    assert torch.equal(found.labels, torch.where(found.present, targets.labels, -1))
    assert torch.equal(found.boxes[found.present], targets.boxes[found.present])


def check_limits(layout: Layout, made: Composer, scene: Scene, targets: Targets) -> None:
    """By pixels, on the canvas and beside it, where less than one pixel's worth of a soft rim may lie."""
    shown = shown_of(scene)
    assert targets.share[shown].min() >= layout.visible - 1e-3
    assert covered(around(targets.full > 0.5)).max() <= layout.overlap + (0.02 if layout.overlap else 0)
    far = {"scale": 0.5, "x": 0.5, "y": 0.5}  # the same scene on a canvas twice as large, whose middle is ours
    layers = tuple(
        replace(own, pose=replace(own.pose, **{n: getattr(own.pose, n) * f for n, f in far.items()}), blend=None)
        for own in scene.layers
    )
    (height, width), ranges = SIZE, replace(made.ranges, blend=Over())
    wide = composer(ranges, (2 * SIZE[0], 2 * SIZE[1]))
    full = known(wide.compose(replace(scene, layers=layers))).full
    canvas = full[:, :, height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    area, inside = full.sum(dim=(2, 3)), canvas.sum(dim=(2, 3))
    assert (layout.inside * area - inside - torch.clamp(0.005 * area, min=1))[shown].max() <= 0


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(layout=layouts, pose=poses, blend=st.sampled_from([HARD, *SOFT, EVERY]), start=st.integers(0, 10**6))
def test_two_thousand_scenes(layout: Layout, pose: PoseRange, blend: object, start: int) -> None:
    made = composer(SceneRange(pose=pose, layout=layout, blend=blend))
    scene = made.sample(rows(50, start))
    pictures = made.compose(scene)
    targets = known(pictures)
    check_masks(targets, blend is HARD)
    check_boxes(targets)
    check_labels(scene, pictures, targets)
    check_limits(layout, made, scene, targets)
    assert ((pictures.images >= 0) & (pictures.images <= 1)).all()


def test_a_pixel_has_the_colour_of_the_object_that_its_mask_names() -> None:
    """Ten objects of one colour each, five of them without a class, in plain light: labels, masks and picture agree."""
    colors = torch.randint(0, 256, (10, 3, 1, 1), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    discs = make_objects(size=64).pyramid.level(0)[[*range(5), *range(5)], 3:] > 127
    cards = torch.cat([colors * discs, 255 * discs], dim=1).to(torch.uint8)
    bank = ObjectBank.from_tensors(list(cards), size=64, labels=range(10), device="cpu")
    bank = replace(bank, labels=torch.tensor([0, 1, 2, 3, 4, -1, -1, -1, -1, -1]))
    still = CameraRange(blur=0.0, noise=(0.0, 0.0), grain=(0.0, 0.0))
    made = composer(SceneRange(layout=Layout(), pose=WILD, color=PLAIN, camera=still, blend=HARD), bank=bank)
    pictures = made(rows(100))
    assert pictures.scene is not None
    ids = torch.stack([layer.objects for layer in pictures.scene.layers], dim=1)
    owner = known(pictures).masks > 0
    assert (owner.flatten(2).any(dim=2).sum(dim=0) > 50).all()
    for sample in range(100):
        for layer in range(5):
            seen = pictures.images[sample][:, owner[sample, layer]]
            assert ((255 * seen - colors[ids[sample, layer], :, 0]).abs() < 3).all()  # mips are rounded
    labels = known(pictures).labels
    assert torch.equal(labels, torch.where(shown_of(pictures.scene) & (ids < 5), ids, -1))


@pytest.mark.parametrize("blend", [HARD, EVERY], ids=["hard", "every"])
def test_a_scene_is_the_same_to_the_bit_in_any_batch_and_below_any_bound(blend: object) -> None:
    """Pictures, targets and scenes; the bound is on a row's objects with a class, which the layout counts."""
    made = composer(SceneRange(pose=WARPED, layout=Layout(count=(1, 3), stacked=0.3, tries=3), blend=blend))
    table = rows(24)
    whole = made(table)
    for ends in ((0, 1), (1, 3), (3, 10), (10, 24)):
        part = made(table[slice(*ends)])
        for one, other in zip(tensors(part), tensors(whole), strict=True):
            assert same_bits(one, other[slice(*ends)])
    table = Rows.of(table.layers % 5, table.contexts, table.index)
    whole = made(table)
    for bound in (3, 4):
        fewer = made(Rows.of(table.layers[:, :bound], table.contexts, table.index))
        assert same_bits(fewer.images, whole.images)
        for name in ("labels", "boxes", "visible", "masks", "full", "share"):
            assert same_bits(getattr(known(fewer), name), getattr(known(whole), name)[:, :bound])
        assert (whole.labels[:, 3:] == -1).all()
        assert not known(whole).full[:, 3:].any()


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("ranks", [2, 5])
def test_a_scene_is_the_same_to_the_bit_on_any_number_of_ranks(ranks: int) -> None:
    ranges = SceneRange(pose=WARPED, layout=Layout(count=(1, 4)), blend=EVERY)
    collate = CAGCollate(BANK, CONTEXTS, 32, ranges=ranges, returns="batch")

    def epoch(rank: int, count: int) -> dict[int, list[Tensor]]:
        pairs = PairSampler(BANK.labels, 7, batch_size=10, objects_per_scene=3, distractors_per_scene=1,
                            seed=3, rank=rank, world_size=count)  # fmt: skip
        batches = [collate(batch) for batch in pairs]
        return {int(batch.index[n]): [tensor[n] for tensor in (batch.images, *tensors(batch.targets))]
                for batch in batches for n in range(len(batch.images))}  # fmt: skip

    alone, shared = epoch(0, 1), [epoch(rank, ranks) for rank in range(ranks)]
    assert sorted(alone) == sorted(index for part in shared for index in part)
    assert len(alone) >= 6
    for index, found in ((index, found) for part in shared for index, found in part.items()):
        assert all(map(same_bits, found, alone[index]))
