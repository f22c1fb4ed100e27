"""Layouts keep their limits, for the pixels too, and a scene is the same whatever surrounds it."""

from dataclasses import replace

import pytest
import torch
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting
from torch._dynamo.utils import counters

from kornia_cag import (
    Anywhere,
    Band,
    CAGCollate,
    Composer,
    ContextBank,
    ContextChain,
    InputError,
    Layout,
    Maps,
    ObjectBank,
    PairSampler,
    PoseRange,
    Rows,
    SceneRange,
)
from kornia_cag.core.records import tensors
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.cropping import cropped

WILD = PoseRange(angle=(-180, 180), shear=(-30, 30), perspective=(-0.3, 0.3), aspect=(0.6, 1.6))
WARPED = replace(WILD, elastic=(0.02, 0.05), hole=(0.05, 0.3), holes=2)
CASES = {
    "default": SceneRange(layout=Layout()),
    "wild": SceneRange(pose=WILD, layout=Layout(side=(0.15, 0.5))),
    "warped": SceneRange(pose=WARPED, layout=Layout(side=(0.2, 0.5), visible=0.7, inside=0.6)),
    "crowded": SceneRange(layout=Layout(side=(0.3, 0.7), visible=0.3, inside=0.4)),
    "apart": SceneRange(pose=WILD, layout=Layout(side=(0.1, 0.3), overlap=0, stacked=0.4)),
    "whole": SceneRange(pose=WILD, layout=Layout(side=(0.1, 0.3), visible=1, inside=1)),
    "some overlap": SceneRange(pose=WILD, layout=Layout(side=(0.15, 0.4), overlap=0.3)),
}
SIZE = (64, 80)


def rows(b, layers=5, start=0, objects=5):
    place = torch.arange(start, start + b)
    ids = torch.stack([place // objects**layer + layer for layer in range(layers)], dim=1) % objects
    return Rows.of(ids, place % 7, place)


def composer(ranges, size=SIZE, objects=None, contexts=None):
    return Composer(objects or make_objects(size=64), contexts or make_contexts(), size, ranges, warn=False)


def spans(masks):
    """Boxes around masks, xyxy; empty ones of no area."""
    on = masks > 0.5
    found = []
    for side in (2, 3):
        line, place = on.any(dim=side), torch.arange(masks.shape[5 - side])
        found += [torch.where(line, place, 10**6).amin(2), torch.where(line, place + 1, 0).amax(2)]
    top_down = dict(zip(("x1", "x2", "y1", "y2"), found, strict=True))
    return torch.stack([top_down[name] for name in ("x1", "y1", "x2", "y2")], dim=2).float()


def shared(boxes):
    """(b, K, K); share of each box that another covers."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=2)
    part = (high - low).clamp(min=0).prod(dim=3) / area.clamp(min=1)[:, :, None]
    return part * (1 - torch.eye(boxes.shape[1]))


@pytest.mark.parametrize("name", CASES)
def test_limits_hold_for_the_pixels(name, untyped):
    layout, made = CASES[name].layout, composer(CASES[name])
    scene = made.sample(rows(150))
    targets = made.compose(scene).targets
    shown = targets.labels >= 0
    assert shown.sum() > 450
    assert targets.visible[shown].all()
    assert targets.share[shown].min() >= layout.visible - 1e-3
    far = {"scale": 0.5, "x": 0.5, "y": 0.5}  # the same scene on a canvas twice as large, whose middle is ours
    layers = tuple(
        replace(own, pose=replace(own.pose, **{n: getattr(own.pose, n) * f for n, f in far.items()}))
        for own in scene.layers
    )
    full = composer(CASES[name], size=(128, 160)).compose(replace(scene, layers=layers)).targets.full
    inside = full[:, :, 32:96, 40:120].sum((2, 3)) / full.sum((2, 3)).clamp(min=1e-6)
    assert inside[shown].min() >= layout.inside - 5e-3
    assert shared(spans(targets.full)).max() <= layout.overlap + (0.02 if layout.overlap else 0)


@pytest.mark.parametrize("name", ["warped", "apart"])
def test_masks_and_boxes_agree(name, untyped):
    made = composer(CASES[name])
    scene = made.sample(rows(60))
    targets = made.compose(scene).targets
    shown = targets.labels >= 0
    assert not shown.all()
    assert (targets.masks.sum(dim=1) <= 1 + 1e-5).all()
    assert (targets.masks <= targets.full + 1e-6).all()
    assert not targets.masks[~shown].any()
    assert not targets.full[~shown].any()
    assert targets.boxes[~shown].isnan().all()
    assert not targets.visible[~shown].any()
    inner = spans(targets.masks)[shown]
    assert ((targets.boxes[shown] - inner)[:, :2] <= 0).all()
    assert ((targets.boxes[shown] - inner)[:, 2:] >= 0).all()
    assert torch.equal(scene.left_out, (~shown).sum(dim=1))


def test_a_scene_is_the_same_whatever_surrounds_it(untyped):
    for name in ("default", "warped", "apart"):
        made = composer(CASES[name])
        all_of_them, few = made.sample(rows(24)), made.sample(rows(5, start=11))
        for one, other in zip(tensors(few), tensors(all_of_them), strict=True):
            assert torch.equal(one, other[11:16]), name
        fewer = made.sample(Rows.of(rows(24).layers[:, :3], rows(24).contexts, rows(24).index))
        for one, other in zip(fewer.layers, all_of_them.layers, strict=False):
            assert all(map(torch.equal, tensors(one), tensors(other))), name
        alone = made.sample(Rows.of(rows(24).objects, rows(24).contexts, rows(24).index))
        assert all(map(torch.equal, tensors(alone.layers[0]), tensors(all_of_them.layers[0])))


def test_without_a_layout_nothing_changes_and_sizes_replace_the_pose():
    plain, laid = composer(SceneRange()).sample(rows(9)), composer(SceneRange(layout=Layout())).sample(rows(9))
    assert plain.wanted is None
    assert not plain.left_out.any()
    assert torch.equal(plain.layers[2].pose.angle, laid.layers[2].pose.angle)
    assert torch.equal(plain.camera.coarser, laid.camera.coarser)
    assert (laid.layers[2].pose.scale <= 0.5).all()
    assert laid.wanted.tolist() == [5] * 9


def test_counts_are_uniform_and_sizes_log_uniform(untyped):
    layout = Layout(count=(1, 4), side=(0.05, 0.2), overlap=0)
    scene = composer(SceneRange(layout=layout), size=(96, 96)).sample(rows(2000, layers=4))
    assert (torch.bincount(scene.wanted, minlength=5)[1:] - 500).abs().max() < 80
    assert scene.left_out.float().mean() < 0.02
    logs = (torch.stack([own.pose.scale for own in scene.layers]) / 0.05).log2()
    assert (logs.mean() - 1).abs() < 0.02
    shown = torch.stack([own.shown for own in scene.layers]).sum(dim=0)
    assert torch.equal(shown + scene.left_out, scene.wanted)


def test_distractors_do_not_count(untyped):
    plain, layout = make_objects(size=64), Layout(count=(0, 3), side=(0.05, 0.15), overlap=0, tries=32)
    bank = plain + plain.unlabelled()
    alone, beside = torch.tensor([0, 1, 2]), torch.tensor([9, 0, 8, 1, 2])  # the same objects, with two distractors
    place = torch.arange(300)
    tables = [Rows.of(ids.expand(300, -1), place % 7, place) for ids in (alone, beside)]
    few, more = (composer(SceneRange(layout=layout), (96, 96), bank).sample(table) for table in tables)
    assert torch.equal(more.wanted, few.wanted + 2)
    assert (torch.bincount(few.wanted, minlength=4) - 75).abs().max() < 30
    assert more.left_out.float().mean() < 0.01
    shown = [(scene.labels(bank.labels) >= 0).sum(dim=1) for scene in (few, more)]
    assert (shown[0] == shown[1]).float().mean() > 0.99
    assert torch.equal(more.layers[0].shown & more.layers[2].shown, more.left_out == 0)


def middles(scene, size):
    short = min(size)
    x, y = (torch.stack([getattr(own.pose, axis) for own in scene.layers], dim=1) for axis in "xy")
    return x * short + size[1] / 2, y * short + size[0] / 2


def test_a_band_holds_the_middles(untyped):
    layout = Layout(place=Band(top=0.4, bottom=0.6), side=(0.05, 0.1))
    scene = composer(SceneRange(layout=layout)).sample(rows(200))
    _, y = middles(scene, SIZE)
    assert y.min() >= 0.4 * 64
    assert y.max() <= 0.6 * 64
    assert y.std() > 2


def test_maps_follow_the_context_through_crop_and_mirror(untyped):
    """Objects lie where their context is bright: the map is the context itself."""
    generator = torch.Generator().manual_seed(3)
    bright = torch.zeros(7, 32, 32)
    for one in bright:
        x, y = torch.randint(2, 24, (2,), generator=generator)
        one[y : y + 8, x : x + 8] = 1
    contexts = ContextBank.from_tensors(bright[:, None].expand(-1, 3, -1, -1).contiguous(), size=32)
    layout = Layout(place=Maps(bright), side=(0.03, 0.05), inside=0.05, visible=0)
    ranges = SceneRange(layout=layout, crop=(0.4, 1.0))
    made = composer(ranges, contexts=contexts)
    scene = made.sample(rows(300))
    x, y = middles(scene, SIZE)
    neutral = scene.tones()[0]
    canvas = made.backdrop(scene, neutral, None, None, None, torch.zeros(300, dtype=torch.bool))
    camera, bank = scene.camera, made.contexts
    level = torch.stack(cropped(bank.pyramid, scene.contexts, scene.crop, camera.coarser, made.size), dim=1)[:, 0]
    assert canvas is not None
    shown = torch.stack([own.shown for own in scene.layers], dim=1)
    there = level.flatten(1).gather(1, (y.long().clamp(0, 63) * 80 + x.long().clamp(0, 79)))
    assert shown.float().mean() > 0.3
    assert there[shown].float().mean() > 0.9
    hidden = level.amax(dim=(1, 2)) < 0.01
    assert hidden.any()
    assert not shown[hidden].any()


def test_stacked_objects_hang_below_the_one_before(untyped):
    layout = Layout(stacked=1.0, side=(0.1, 0.2), overlap=0, inside=1)
    made = composer(SceneRange(pose=PoseRange(angle=(0, 0), shear=(0, 0), perspective=(0, 0)), layout=layout))
    scene = made.sample(rows(100, layers=2))
    x, y = middles(scene, SIZE)
    both = scene.layers[0].shown & scene.layers[1].shown
    below = both & (x[:, 0] == x[:, 1]) & (y[:, 1] > y[:, 0])
    assert below.sum() > 0.6 * both.sum()
    assert torch.equal(scene.layers[0].pose.scale[below], scene.layers[1].pose.scale[below])
    boxes = made.compose(scene).targets.boxes[below]
    gap = boxes[:, 1, 1] - boxes[:, 0, 3]
    assert gap.min() >= 0
    assert gap.max() <= 6


def test_distractors_are_painted_and_no_target(untyped):
    plain = make_objects()
    bank = plain + plain.unlabelled()
    assert bank.labels.tolist() == [0, 1, 2, 3, 4, -1, -1, -1, -1, -1]
    pairs = PairSampler(bank.labels, 7, batch_size=12, objects_per_scene=2, distractors_per_scene=2, seed=1)
    ranges = SceneRange(layout=Layout(count=(1, 4)))
    collate = CAGCollate(bank, make_contexts(), 48, ranges=ranges, chain=ContextChain(0.3), returns="batch")
    chained = 0
    for batch in (collate(rows) for _ in range(4) for rows in pairs):
        labels, shown = batch.targets.labels, torch.stack([own.shown for own in batch.scene.layers], dim=1)
        assert ((labels >= 0) == (shown & (batch.rows.layers < 5))).all()
        silent = shown & (batch.rows.layers >= 5)
        assert (batch.targets.full.flatten(2).amax(dim=2)[silent] > 0.5).all()
        assert not (batch.chained & (batch.earlier.labels < 0).all(dim=1)).any()
        chained += int(batch.chained.sum())
    assert chained


def test_nothing_waits_for_the_device(untyped):
    made = composer(CASES["warped"])
    table = rows(6)
    made(table)
    with RefuseWaiting():
        made(table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Layout(count=(3, 2)), "count: expected an integer of at least 3"),
        (lambda: Layout(count=2), "count: expected a pair"),
        (lambda: Layout(inside=0.0), "inside: expected a number in \\[0.05, 1\\]"),
        (lambda: Layout(place=Anywhere), "place: expected a Place"),
        (lambda: Band(top=0.6, bottom=0.4), "bottom: expected a number in \\[0.6, 1\\]"),
        (lambda: Maps(torch.full((2, 3, 3), -1.0)), "weights: expected finite weights"),
        (lambda: SceneRange(layout=Layout()).sample(rows(2)), "layout: expected None"),
        (lambda: composer(SceneRange(layout=Layout(count=(1, 6)))).sample(rows(2)), "layout.count: expected at most"),
        (lambda: CAGCollate(make_objects(), make_contexts(), 32, ranges=CASES["wild"]), "returns: expected 'batch'"),
        (lambda: CAGCollate(make_objects().unlabelled(), make_contexts(), 32), "returns: expected 'batch'"),
        (lambda: make_objects() + make_objects(size=64), "objects: expected a bank of size 32"),
    ],
)
def test_errors_say_what_to_change(call, message, untyped):
    with pytest.raises(InputError, match=message):
        call()


def test_banks_add_up_by_the_names_of_classes():
    one = ObjectBank.from_glyphs("ab", size=32)
    both = one + ObjectBank.from_glyphs("bc", size=32) + one.unlabelled()
    assert both.classes == ("a", "b", "c")
    assert both.labels.tolist() == [0, 1, 1, 2, -1, -1]
    assert torch.equal(both.pyramid.level(0)[4:], one.pyramid.level(0))
    assert torch.equal(both.points[4:], one.points)


@pytest.mark.compile
def test_compiled_scenes_are_those_of_eager_mode_by_one_program_for_any_number_up_to_eight():
    torch._dynamo.reset()
    counters.clear()
    made, fast = composer(CASES["apart"], size=(32, 40)), Renderer()
    fast.compile()
    for layers in (3, 5, 2):
        table = rows(6, layers=layers)
        one, other = (each(made, table, 1.0, None, targets=True, scene=True) for each in (fast, Renderer()))
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.scene.left_out, other.scene.left_out)
        assert (one.images - other.images).abs().max() < 1 / 255
        assert (one.targets.masks - other.targets.masks).abs().max() < 1 / 255
    assert counters["stats"]["unique_graphs"] == 4 + 3  # place, backdrop, layer, camera; draws for each number
