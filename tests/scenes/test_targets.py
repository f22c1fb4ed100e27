"""Several objects on one canvas, the later ones before the earlier ones."""

from dataclasses import replace

import pytest
import torch
from composing import LENS, RANGES, WILD_COLOR, WILD_POSE, compare, make_composer, rows, same, scene_of
from conftest import make_contexts

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.records import tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Average, Difference, Hard, Over
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.targets import Composites, Targets

PLAIN = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
FLAT = PoseRange(scale=(0.5, 0.5), aspect=(1, 1), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0))
BLENDS = [Over(), Hard(), Average(0.6), Difference()]


def known(made):
    assert made.targets is not None
    return made.targets


def alone(composer, scene, layer, behind=None):
    """One layer of a scene on its context, or on a picture."""
    earlier = None if behind is None else Earlier(behind, torch.full((len(behind), 1), 9))
    return composer.render(replace(scene, layers=(scene.layers[layer],)), earlier)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize(
    "name", ["default", "hard", "difference", "average", "framing", "own colors", "all", "all, hard"]
)
def test_several_objects_equal_the_oracle(device, name, layers):
    composer, table = make_composer(RANGES[name], (24, 30), device), rows(12, device, layers)
    assert compare(composer, table, composer(table)) >= 9


@pytest.mark.parametrize("blend", BLENDS)
def test_layers_are_pasted_one_after_the_other(blend):
    """Layer 0 on the context, and layer 1 on the picture of that; and the masks of each, less what covers it."""
    composer, table = make_composer(SceneRange(pose=WILD_POSE, color=PLAIN, blend=blend), (24, 30)), rows(16, layers=2)
    made = composer(table)
    scene, found = scene_of(made), known(made)
    first = alone(composer, scene, 0)
    second = alone(composer, scene, 1, first.images)
    assert second.chained.all()
    torch.testing.assert_close(made.images, second.images, rtol=0, atol=1e-6)
    below, above = known(first).masks[:, 0], known(second).masks[:, 0]
    assert torch.equal(found.full, torch.stack([below, above], dim=1))
    torch.testing.assert_close(found.masks, torch.stack([below * (1 - above), above], dim=1))
    torch.testing.assert_close(found.cover[:, 0], 1 - (1 - below) * (1 - above))
    torch.testing.assert_close(found.share[:, 0], (below * (1 - above)).sum((1, 2)) / below.sum((1, 2)))
    torch.testing.assert_close(found.share[:, 1], torch.ones(16))
    assert torch.equal(found.visible[:, 1], known(second).visible[:, 0])
    assert torch.equal(found.boxes[:, 1].nan_to_num(), known(second).boxes[:, 0].nan_to_num())
    assert (found.share[:, 0] < 0.9).sum() > 6  # there is something to cover


@pytest.mark.parametrize("name", RANGES)
def test_the_lowest_layer_draws_as_if_it_were_alone(name):
    ranges, both, three = RANGES[name], rows(9, layers=2), rows(9, layers=3)
    scene, more = ranges.sample(both), ranges.sample(three)
    single = ranges.sample(Rows.of(both.objects, both.contexts, both.index, epoch=2))
    assert same(replace(scene, layers=scene.layers[:1]), single, layout=False)
    assert same(more.layers[:2], scene.layers, layout=False)  # whatever lies before it
    for one, other in ((0, 1), (0, 2), (1, 2)):
        a, b = more.layers[one].pose, more.layers[other].pose
        assert all((getattr(a, name) != getattr(b, name)).all() for name in ("scale", "angle", "x", "tilt_y"))
        a, b = more.layers[one].color, more.layers[other].color
        assert a is None or (a.hue != b.hue).all()


def test_the_same_object_twice_lies_in_two_places():
    table = rows(9)
    twice = Rows.of(table.layers.expand(-1, 2), table.contexts, table.index, epoch=2)
    found = known(make_composer(RANGES["default"], (24, 24))(twice))
    assert (found.labels[:, 0] == found.labels[:, 1]).all()
    assert ((found.full[:, 0] - found.full[:, 1]).abs().amax((1, 2)) > 0.1).all()


def shown(layers, blend, **pose):
    """Grey opaque squares one upon the other in given places."""
    card = torch.zeros(4, 48, 48, dtype=torch.uint8)
    card[:3, 4:44, 4:44], card[3, 4:44, 4:44] = 200, 255
    bank = ObjectBank.from_tensors([card], size=32, device="cpu")
    composer = Composer(bank, make_contexts(), (40, 40), SceneRange(pose=FLAT, color=PLAIN, blend=blend))
    zero = torch.zeros(1, dtype=torch.int64)
    scene = composer.ranges.sample(Rows.of(torch.zeros(1, layers, dtype=torch.int64), zero, zero))
    for name, values in pose.items():
        for layer, value in enumerate(values):
            scene = scene.posed(layer=layer, **{name: torch.tensor([float(value)])})
    return known(composer.render(scene))


@pytest.mark.parametrize("blend", [Over(), Hard()])
def test_half_covered(blend):
    """A card 20 pixels wide; the one before it is half a card to the right."""
    found = shown(2, blend, x=(0, 0.25))
    assert found.boxes[0].tolist() == [[10, 10, 20, 30], [20, 10, 40, 30]]
    assert found.visible.all()
    assert found.share[0].tolist() == pytest.approx([0.5, 1], abs=0.03)


@pytest.mark.parametrize("blend", [Over(), Hard()])
def test_wholly_covered(blend):
    """It is out of sight, has no box and no share, and keeps its label and its full mask."""
    found = shown(2, blend, scale=(0.3, 0.6))
    assert found.visible[0].tolist() == [False, True]
    assert found.boxes[0, 0].isnan().all()
    assert found.boxes[0, 1].tolist() == [8, 8, 32, 32]
    assert found.share[0].tolist() == pytest.approx([0, 1], abs=1e-3)
    assert found.labels.tolist() == [[0, 0]]
    assert found.full[0, 0].sum() == pytest.approx(144, rel=0.05)
    torch.testing.assert_close(found.cover[0, 0], found.full[0, 1])


def test_covered_by_two():
    """Left half by one, right half by the other: neither hides it alone."""
    found = shown(3, Hard(), scale=(0.4, 0.5, 0.5), x=(0, -0.25, 0.25))
    assert found.visible[0].tolist() == [False, True, True]
    assert found.boxes[0, 1:].tolist() == [[0, 10, 20, 30], [20, 10, 40, 30]]
    assert found.share[0].tolist() == pytest.approx([0, 1, 1], abs=1e-3)


def test_out_of_sight_besides_another():
    found = shown(2, Over(), x=(3, 0))
    assert found.visible[0].tolist() == [False, True]
    assert found.boxes[0, 0].isnan().all()
    assert found.share[0].tolist() == [0, 1]  # of nothing, nothing is seen
    assert not found.full[0, 0].any()


@pytest.mark.parametrize("name", ["all", "all, hard", "all, average"])
def test_masks_add_up(name):
    found = known(make_composer(RANGES[name], (24, 30))(rows(24, layers=3)))
    assert (found.masks <= found.full + 1e-6).all()
    assert found.masks.sum(dim=1).max() <= 1 + 1e-5
    assert ((found.share >= 0) & (found.share <= 1 + 1e-5)).all()
    assert (found.visible == found.boxes.isfinite().all(-1)).all()
    assert torch.equal(found.full[:, -1], found.masks[:, -1])  # nothing covers the last
    if name == "all, hard":
        assert set(found.masks.unique().tolist()) == {0.0, 1.0}


def test_targets_need_not_be_made():
    """Pictures are the same with them and without; with one object, what is seen of it is the whole of it."""
    for name in ("all", "all, hard"):
        composer, table = make_composer(RANGES[name], (20, 24)), rows(6, layers=2)
        bare, full = composer(table, targets=False), composer(table)
        assert bare.targets is None
        assert torch.equal(bare.images, full.images)
        assert torch.equal(bare.labels, known(full).labels)
        single = known(composer(rows(6)))
        assert single.masks is single.full
        assert torch.equal(single.cover, single.masks)
        seen = single.visible[:, 0]
        assert (single.share[seen] == 1).all()
        assert (single.share[~seen] == 0).all()


@pytest.mark.parametrize("taken", [True, False])
def test_several_objects_over_an_earlier_composite(taken):
    """It is taken if it shows none of their classes."""
    composer, table = make_composer(replace(RANGES["all"], camera=LENS, color=WILD_COLOR), (20, 24)), rows(8, layers=2)
    images = torch.rand(8, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    labels = torch.full((8, 2), 9)
    if not taken:
        labels[:, 1] = table.layers[:, 0]
    made = composer(table, earlier=Earlier(images, labels))
    assert (made.chained == taken).all()
    assert compare(composer, table, made, earlier=images if taken else None) >= 5


def test_shapes_say_how_many_objects_there_are():
    masks = torch.zeros(2, 3, 4, 5)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    found = Targets(ids, torch.zeros(2, 3, 4), ids > 0, masks, masks)
    assert found.share.shape == (2, 3)
    assert found.cover.shape == (2, 1, 4, 5)
    made = Composites(torch.zeros(2, 3, 4, 5), ids, ids[:, 0], ids[:, 0] > 0, found, None)
    assert made.classes is ids
    assert len(list(tensors(made))) == 9
