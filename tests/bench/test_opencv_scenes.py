"""The loader of scenes of several objects makes the library's scenes, and keeps the limits of a layout."""

import math
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from torch.utils.data import DataLoader

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.bench.draws import Form
from kornia_cag.bench.placing import spots
from kornia_cag.bench.several import OpenCVScenes
from kornia_cag.core.checks import InputError
from kornia_cag.core.fields import noise as noise_field
from kornia_cag.core.randomness import uniform
from kornia_cag.sampling.passes import PairRows
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.layout import Band, Layout
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.recipes import RIGID_SIGNS

SIZE, K = 64, 3
LAYOUT = Layout(side=(0.2, 0.6), visible=0.5, overlap=0.8, inside=0.6)
RANGES = replace(RIGID_SIGNS, layout=LAYOUT)


def rows_of(count, objects, contexts, layers=K):
    index = torch.arange(count)
    ids = (index[:, None] + torch.arange(layers) * 7) % len(objects)
    return Rows.of(ids, index % len(contexts), index)


@pytest.fixture(scope="module")
def banks():
    objects = ObjectBank.from_glyphs("0123456789ABCDEFGHIJ", size=64).with_ink((220, 60, 40))
    return objects, ContextBank.procedural("mix", count=20, size=64)


@pytest.fixture(scope="module")
def both(banks):
    """The same scenes from the library, and from the loader, which is given their numbers and where objects lie."""
    rows = rows_of(60, *banks)
    composer = Composer(*banks, (SIZE, SIZE), RANGES)
    scene = composer.sample(rows)
    made, collate = composer.compose(scene), OpenCVScenes(*banks, SIZE, RANGES, masks=True)
    fields = noise_field(scene.keys, "camera.noise_field", (3, SIZE, SIZE)).permute(0, 2, 3, 1)
    images, masks = np.empty((60, SIZE, SIZE, 3), np.float32), np.zeros((60, K, SIZE, SIZE), np.uint8)
    boxes = np.full((60, K, 4), np.nan)
    for i, ctx in enumerate(rows.contexts.tolist()):

        def draw(slot, bounds, row=i):
            return float(uniform(scene.keys[row : row + 1], slot, *bounds))

        def noise(field, row=i):
            field[:] = fields[row].reshape(SIZE, -1)

        around, items, at = collate.director.around(draw), [], []
        for layer in scene.layers:
            pose = {name: float(value[i]) for name, value in vars(layer.pose).items() if value.ndim == 1}
            known = {**pose, "aspect": math.log(pose["aspect"])}
            form = collate.director.form(lambda slot, _, k=known: k[slot.removeprefix("pose.")], pose["scale"])
            items.append(collate.item(int(layer.objects[i]), form, around))
            at.append((SIZE * (0.5 + pose["x"]), SIZE * (0.5 + pose["y"])) if layer.shown[i] else None)
        for place, box in enumerate(collate.paint(ctx, items, at, around, noise, images[i], masks[i])):
            boxes[i, place] = np.nan if box is None else box
    return made, images, boxes, masks


def test_paints_the_scenes_of_the_library(both):
    made, images, _, _ = both
    difference = 255 * np.abs(made.images.permute(0, 2, 3, 1).numpy() - images)
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) < 3


def test_boxes_are_those_of_the_library_within_a_pixel(both):
    made, _, boxes, _ = both
    known = made.targets.boxes.numpy()
    assert (np.isnan(known) == np.isnan(boxes)).all()
    assert 0 < np.isnan(known[..., 0]).mean() < 0.2
    assert np.nanmax(np.abs(known - boxes)) <= 1


def test_masks_are_those_of_the_library(both):
    made, _, _, masks = both
    difference = np.abs(255 * made.targets.masks.numpy() - masks)
    assert np.quantile(difference, 0.999) < 4
    assert difference.max() < 20
    assert ((made.targets.masks < made.targets.full - 0.5).flatten(2).any(dim=2)).any(), "nothing covers anything"


@pytest.mark.parametrize("place", [(20.0, 30.0), (2.0, 60.0)])
def test_no_pixel_that_an_object_changes_lies_beside_its_box(banks, place):
    collate = OpenCVScenes(*banks, SIZE, RANGES, masks=False)
    rng = np.random.default_rng(0)
    for obj in range(20):
        form = collate.director.form(lambda _, bounds: rng.uniform(*bounds), rng.uniform(0.1, 1.0))
        around = collate.director.around(lambda _, bounds: rng.uniform(*bounds))
        item = collate.item(obj, form, around)
        alphas = []
        for box in (item.box, (-200.0, -200.0, 200.0, 200.0)):
            alpha, (left, top, right, bottom) = collate._pasted(np.zeros((SIZE, SIZE, 4), np.uint8),
                                                                item._replace(box=box), place)  # fmt: skip
            alphas.append(np.pad(alpha, ((top, SIZE - bottom), (left, SIZE - right))))
        assert alphas[1].any()
        assert np.abs(np.subtract(*alphas, dtype=np.int16)).max() <= 1  # a warp of another part may round otherwise


def test_a_hull_is_tight(banks):
    collate = OpenCVScenes(*banks, SIZE, RANGES, masks=False)
    upright = Form(1 / 20, 0.0, 0.0, 1 / 20, 0.0, 0.0)  # the longest side spans 40 pixels
    for obj in range(20):
        left, top, right, bottom = collate.item(obj, upright, collate.director.around(lambda _, b: b[0])).box
        assert 40 <= max(right - left, bottom - top) <= 45


def test_says_what_is_shown(banks):
    collate = OpenCVScenes(*banks, SIZE, RANGES, masks=True)
    images, labels, boxes, masks = collate(rows_of(200, *banks, layers=6))
    assert images.shape == (200, 3, SIZE, SIZE)
    shown = labels >= 0
    assert 0.5 < shown.float().mean() < 0.98
    assert boxes[~shown].isnan().all()
    assert not masks[~shown].any()
    assert not boxes[shown].isnan().any(), "half of an object is seen, at least by boxes"
    alone = OpenCVScenes(*banks, SIZE, replace(RANGES, layout=replace(LAYOUT, overlap=0.0)), masks=True)
    assert ((alone(rows_of(50, *banks, layers=6)).masks > 0).sum(dim=1) <= 1).all()


def test_without_masks_boxes_are_the_same(banks):
    made = []
    for masks in (True, False):
        collate = OpenCVScenes(*banks, SIZE, RANGES, masks=masks)
        collate.rng = np.random.default_rng(5)
        made.append(collate(rows_of(8, *banks)))
    assert made[1].masks is None
    assert made[0].boxes.nan_to_num(-1).equal(made[1].boxes.nan_to_num(-1))


@pytest.mark.parametrize("limits", [{"visible": 0.5}, {"overlap": 0.3}, {"inside": 0.9}, {}], ids=str)
def test_places_keep_all_limits(limits):
    layout = Layout(**{"visible": 0.0, "overlap": 1.0, "inside": 0.05, "tries": 3, **limits})
    rng, fewest = np.random.default_rng(0), {"visible": 1.0, "overlap": 1.0, "inside": 1.0}
    for _ in range(300):
        sides = rng.uniform(5, 30, size=(5, 4))
        boxes = [(-a, -b, c, d) for a, b, c, d in sides.tolist()]
        found = spots(layout, 100, boxes, 5 * [lambda _, bounds: rng.uniform(*bounds)])
        full = [np.array((x + a, y + b, x + c, y + d)) for (a, b, c, d), (x, y) in
                ((box, at) for box, at in zip(boxes, found, strict=True) if at)]  # fmt: skip
        cut = [box.clip(0, 100) for box in full]
        fewest["inside"] = min([fewest["inside"], *(area(a) / area(b) for a, b in zip(cut, full, strict=True))])
        for i, box in enumerate(cut):
            over = [area(np.concatenate([np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])]))
                    for other in cut[i + 1 :]]  # fmt: skip
            fewest["visible"] = min(fewest["visible"], 1 - sum(over) / area(box))
            least = [part / min(area(box), area(other)) for part, other in zip(over, cut[i + 1 :], strict=True)]
            fewest["overlap"] = min([fewest["overlap"], *(1 - part for part in least)])
    wanted = {"visible": layout.visible, "overlap": 1 - layout.overlap, "inside": layout.inside}
    for name, share in wanted.items():
        assert fewest[name] >= share - 1e-9
        if name in limits:
            assert fewest[name] < share + 0.05, "the limit is not used up"


def area(box):
    return float(np.maximum(box[2:] - box[:2], 0).prod())


def test_workers_hand_over_what_this_process_would_make(banks):
    collate = OpenCVScenes(*banks, SIZE, RANGES, masks=True)
    rows = [rows_of(4, *banks) for _ in range(2)]
    loader = DataLoader(PairRows(samples=8), batch_sampler=rows, collate_fn=collate, num_workers=1)
    for batch in loader:
        assert batch.images.shape == (4, 3, SIZE, SIZE)
        assert batch.images.std() > 0.05
        assert batch.masks.flatten(2).any(dim=2).equal(~batch.boxes[..., 0].isnan())


def test_a_worker_writes_into_shared_memory(banks, monkeypatch):
    collate = OpenCVScenes(*banks, SIZE, RANGES, masks=True)
    assert not collate(rows_of(2, *banks)).images.is_shared()
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    made = collate(rows_of(2, *banks))
    assert made.images.is_shared()
    assert made.masks.is_shared()


@pytest.mark.parametrize(
    "ranges",
    [RIGID_SIGNS, replace(RANGES, camera=CameraRange(jpeg=(50, 90))), SceneRange(layout=replace(LAYOUT, stacked=0.5)),
     SceneRange(layout=replace(LAYOUT, place=Band(top=0.2, bottom=0.8))), SceneRange(layout=Layout(count=(1, 2)))],
    ids=["no layout", "jpeg", "stacked", "band", "count"],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_refuses_what_it_cannot_make(ranges):
    with pytest.raises(InputError, match=r"ranges(\.layout)?: expected"):
        OpenCVScenes(make_objects(), make_contexts(), SIZE, ranges, masks=True)
