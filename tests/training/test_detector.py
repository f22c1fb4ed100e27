"""A detector of centre points: its formulas by hand, its conventions, and that it learns what it is shown."""

import math
from pathlib import Path

import pytest
import torch
from conftest import make_contexts, make_objects

from kornia_cag import InputError
from kornia_cag.evaluation.boxes import Boxed
from kornia_cag.evaluation.detection import average_precision
from kornia_cag.loading.detections import Detections
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.detector import (
    Detector,
    Maps,
    detector_loss,
    focal_loss,
    giou,
    peaks,
    shares_of,
    spots_of,
)

NAN = math.nan


def cold(b=1, classes=2, height=6, width=8):
    """Maps that show nothing."""
    return Maps(
        torch.full((b, classes, height, width), -20.0),
        torch.zeros(b, 2, height, width),
        torch.zeros(b, 2, height, width),
    )


def there(*boxes):
    """The objects of one picture, padded by one that is not there."""
    corners = torch.tensor([[*boxes, (NAN,) * 4]], dtype=torch.float32)
    return corners, torch.tensor([[True] * len(boxes) + [False]])


def net(classes=2, width=4, seed=0):
    torch.manual_seed(seed)
    made = Detector(classes, width=width)
    for module in made.modules():  # as after training: a fresh norm of a fresh layer hides the differences
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
    return made.eval()


# --- conventions


def test_convention_of_cells_and_boxes():
    """The first cell lies around (2, 2), x comes before y, and a size of e^0 is one cell."""
    maps = cold()
    maps.shift[0, :, 1, 2] = torch.tensor([0.5, -0.25])
    maps.size[0, :, 1, 2] = torch.tensor([math.log(2), math.log(3)])
    boxes = maps.boxes
    assert boxes.shape == (1, 4, 6, 8)
    assert boxes[0, :, 0, 0].tolist() == [0, 0, 4, 4]
    assert boxes[0, :, 5, 7].tolist() == [28, 20, 32, 24]
    x, y = 10 + 2, 6 - 1  # the cell's centre, moved
    torch.testing.assert_close(boxes[0, :, 1, 2], torch.tensor([x - 4.0, y - 6, x + 4, y + 6]))


def test_spots_are_bells_with_their_top_in_the_cell_of_the_centre():
    boxes, present = there((8, 4, 24, 12))  # centre (16, 8): on the corner of cells, of which the later is taken
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    assert spots.shape == (1, 2, 6, 8)
    wide, high = 0.54 / 6 * 16 / 4, 0.54 / 6 * 8 / 4  # deviations, cells
    for row in range(6):
        for column in range(8):
            wanted = math.exp(-((column - 4) ** 2) / (2 * wide**2) - (row - 2) ** 2 / (2 * high**2))
            assert float(spots[0, 0, row, column]) == pytest.approx(wanted, abs=1e-6)
    assert float(spots[0, 0, 2, 4]) == 1
    assert not spots[0, 1].any()


def test_spots_at_the_edge_and_of_objects_without_sides_are_finite():
    boxes, present = there((31.9, 23.9, 32, 24), (4, 4, 4, 4))
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    assert [spots[0, place].flatten().argmax().item() for place in (0, 1)] == [5 * 8 + 7, 8 + 1]
    assert spots[0, :2].sum() == 2


def test_every_object_has_the_same_share_and_every_cell_one_owner():
    boxes, present = there((0, 0, 24, 24), (12, 12, 20, 20))
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    weight, owner = shares_of(spots)
    assert owner[0, 3, 3] == 0  # the centre of the larger one
    assert owner[0, 4, 4] == 1
    for place in (0, 1):
        assert float(weight[owner == place].sum()) == pytest.approx(1, abs=1e-6)
    assert not weight[spots.amax(dim=1) <= 0.3].any()
    assert (owner < 2).all()  # nothing learns from what is not there


# --- losses


def test_focal_loss_by_hand():
    p, heat = torch.tensor([0.8, 0.8, 0.3, 0.5]), torch.tensor([1.0, 0.0, 0.5, 0.999])
    wanted = [
        -(0.2**2) * math.log(0.8),
        -(0.8**2) * math.log(0.2),
        -(0.5**4) * 0.3**2 * math.log(0.7),
        -(0.001**4) * 0.5**2 * math.log(0.5),
    ]
    assert float(focal_loss(p.logit(), heat).sum()) == pytest.approx(sum(wanted), rel=1e-5)


def test_focal_loss_is_finite_where_the_network_is_sure_and_wrong():
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0.0, 1.0])).sum()
    loss.backward()
    assert loss.item() == pytest.approx(400)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1),
        ((0, 0, 4, 4), (2, 0, 6, 4), 8 / 24),  # the hull is the union
        ((0, 0, 4, 4), (2, 2, 6, 6), 4 / 28 - 8 / 36),
        ((0, 0, 2, 2), (4, 0, 6, 2), -4 / 12),  # apart: the gap over the hull
        ((0, 0, 4, 4), (1, 1, 2, 2), 1 / 16),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0),  # without area
    ],
)
def test_giou_by_hand(a, b, wanted):
    first, second = (torch.tensor(box, dtype=torch.float32).view(1, 4, 1, 1) for box in (a, b))
    assert float(giou(first, second)) == pytest.approx(wanted, abs=1e-6)
    assert float(giou(second, first)) == pytest.approx(wanted, abs=1e-6)


def test_the_loss_is_that_of_heat_and_boxes_for_each_object():
    boxes, present = there((8, 4, 24, 12), (0, 12, 8, 20))
    labels = torch.tensor([[1, 0, 1]])
    maps = cold()
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    heat = torch.stack([spots[:, 1], spots[:, 0]], dim=1)
    weight, owner = shares_of(spots)
    wanted = boxes[0, owner[0]].permute(2, 0, 1)[None]
    missed = (weight * (1 - giou(maps.boxes, wanted))).sum()
    loss = detector_loss(maps, boxes, labels, present, box_weight=3.0)
    torch.testing.assert_close(loss, (focal_loss(maps.heat, heat).sum() + 3 * missed) / 2)


def test_objects_of_one_class_share_a_heat_map_of_their_highest_spots():
    boxes, present = there((0, 0, 16, 16), (8, 0, 24, 16))
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    alone = cold(classes=1)
    loss = detector_loss(alone, boxes, torch.zeros(1, 3, dtype=torch.int64), present, box_weight=0)
    torch.testing.assert_close(loss, focal_loss(alone.heat, spots.amax(dim=1, keepdim=True)).sum() / 2)


def test_losses_of_pictures_add_up_to_the_loss_of_a_batch():
    model = net()
    boxes = torch.tensor([[[2.0, 2, 14, 20], [10, 4, 30, 22]], [[0.0, 0, 0, 0]] * 2, [[4.0, 4, 20, 20], [0, 0, 0, 0]]])
    present = torch.tensor([[True, True], [False, False], [True, False]])
    targets = Detections(boxes, torch.where(present, 1, -1), present.float(), present)
    images = torch.rand(3, 3, 32, 32)
    each = model.losses(model(images), targets)
    assert each.shape == (3,)
    together = (each * torch.tensor([2.0, 1.0, 1.0])).sum() / 3
    torch.testing.assert_close(together, model.loss(images, targets))
    for place in range(3):
        alone = Detections(*(part[place : place + 1] for part in vars(targets).values()))
        torch.testing.assert_close(each[place], model.loss(images[place : place + 1], alone))


def test_maps_that_say_what_is_there_cost_nothing_and_are_found_again():
    boxes, present = there((8, 4, 24, 12), (1, 13, 7, 22))
    labels = torch.tensor([[1, 0, 0]])
    maps = cold()
    spots = spots_of(boxes.nan_to_num(), present, (6, 8))
    _, owner = shares_of(spots)
    for place, (label, box) in enumerate(zip([1, 0], boxes[0, :2], strict=True)):
        mine = owner[0] == place
        maps.heat[0, label][spots[0, place] == 1] = 20.0 - place
        rows, columns = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(8) + 0.5, indexing="ij")
        middle = (box[:2] + box[2:]) / 8
        maps.shift[0, :, mine] = torch.stack([middle[0] - columns[mine], middle[1] - rows[mine]])
        maps.size[0, :, mine] = ((box[2:] - box[:2]) / 4).log()[:, None]
    assert float(detector_loss(maps, boxes, labels, present)) < 1e-4
    (found,) = peaks(maps, (24, 32), threshold=0.5, most=10)
    torch.testing.assert_close(found.boxes, boxes[0, :2])
    assert found.labels.tolist() == [1, 0]
    assert found.scores.min() > 0.99


def test_absent_objects_change_nothing_whatever_they_hold():
    boxes, present = there((8, 4, 24, 12))
    labels = torch.tensor([[1, 0]])
    maps = [part.requires_grad_() for part in cold()]
    loss = detector_loss(Maps(*maps), boxes, labels, present)
    loss.backward()
    assert all(part.grad.isfinite().all() for part in maps)
    for other in (boxes.nan_to_num(7.0), boxes.nan_to_num(math.inf)):
        assert detector_loss(Maps(*maps), other, labels, present) == loss
    assert detector_loss(Maps(*maps), boxes.nan_to_num(7.0), torch.tensor([[1, -1]]), present | True) == loss
    assert detector_loss(Maps(*maps), boxes[:, :1], labels[:, :1], present[:, :1]) == loss


def test_a_batch_without_objects_teaches_that_there_are_none():
    maps = cold()
    loss = detector_loss(maps, torch.full((1, 3, 4), NAN), torch.full((1, 3), -1), torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(loss, focal_loss(maps.heat, torch.zeros_like(maps.heat)).sum())


def test_gradients_of_the_loss_of_boxes():
    a = torch.tensor([0.0, 0.5, 4.2, 4.1], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.0, 1.2, 6.3, 5.4], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda box: giou(box.view(1, 4, 1, 1), b.view(1, 4, 1, 1)), a)


# --- peaks


def test_peaks_are_cells_that_no_neighbour_exceeds():
    maps = cold()
    maps.heat[0, 0, 2, 2:5] = torch.tensor([0.0, 1.0, 0.5])  # one hill
    maps.heat[0, 0, 5, 7] = 2.0
    maps.heat[0, 1, 2, 4] = -1.0  # beside the hill, of the other class
    (found,) = peaks(maps, (24, 32), threshold=0.1, most=10)
    assert found.labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0, -1.0]).sigmoid())
    assert found.boxes.tolist() == [[28, 20, 32, 24], [12, 8, 16, 12], [16, 8, 20, 12]]
    maps.heat[0, 0, 2, 3:5] = torch.tensor([40.0, 39.0])  # scores of 1, both
    assert len(peaks(maps, (24, 32), threshold=0.5, most=10)[0].boxes) == 2
    assert peaks(maps, (24, 32), threshold=0.1, most=1)[0].boxes.tolist() == [[12, 8, 16, 12]]


def test_boxes_are_cut_to_their_picture():
    maps = cold()
    maps.heat[0, 0, 0, 7] = 1.0
    maps.size[:] = math.log(4)
    (found,) = peaks(maps, (22, 31), threshold=0.1, most=10)
    assert found.boxes.tolist() == [[22, 0, 31, 10]]


# --- the network


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 33), (17, 16)])
def test_pictures_of_any_size(height, width):
    maps = net()(torch.rand(2, 3, height, width))
    cells = -(-height // 4), -(-width // 4)
    assert [part.shape for part in maps] == [(2, count, *cells) for count in (2, 2, 2)]
    assert all(part.dtype == torch.float32 for part in maps)


def test_a_picture_is_seen_alike_alone_and_among_others(rng):
    model, images = net(), torch.rand(3, 3, 32, 48, generator=rng)
    for whole, alone in zip(model(images), model(images[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone)


def test_what_a_crop_shows_is_what_the_whole_picture_shows_there(rng):
    """No layer knows how large a picture is: a network is trained on crops."""
    model, whole = net(), torch.rand(1, 3, 320, 336, generator=rng)
    crop = whole[:, :, 16:304, 32:320]
    for large, small in zip(model(whole), model(crop), strict=True):
        inside = slice(30, 42)  # cells that see no edge
        torch.testing.assert_close(large[:, :, 34:46, 38:50], small[:, :, inside, inside], rtol=1e-4, atol=1e-5)


def test_channels_last(rng):
    model, images = net(), torch.rand(2, 3, 32, 48, generator=rng)
    plain = model(images)
    last = model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_untrained_network_expects_few_objects_of_a_usual_size(rng):
    with torch.no_grad():
        maps = Detector(3).eval()(torch.rand(1, 3, 64, 64, generator=rng))
    assert float(maps.heat.sigmoid().mean()) == pytest.approx(0.01, rel=0.5)
    assert float(maps.size.exp().mean()) == pytest.approx(8, rel=0.5)


@pytest.mark.parametrize("training", [False, True])
def test_detecting_leaves_the_network_as_it_was(training):
    model = net().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.detect(torch.rand(1, 3, 32, 32))
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_no_picture_and_no_target_is_refused(untyped):
    model = net()
    with pytest.raises(InputError, match=r"images: expected .* \(b, 3, h, w\), got uint8 .* images / 255"):
        model.detect(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"threshold: expected a number in \[0, 1\], got 2"):
        model.detect(torch.zeros(1, 3, 32, 32), threshold=2)
    with pytest.raises(InputError, match="classes: expected an integer of at least 1, got 0"):
        Detector(0)
    boxes, present = there((8, 4, 24, 12))
    labels = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"boxes: expected float32 \(1, n, 4\), got float32 \(2, n, 4\)|boxes: .*"):
        detector_loss(cold(), boxes.expand(2, -1, -1), labels, present)
    with pytest.raises(InputError, match=r"labels: expected int64 \(1, 2\), got int64 \(1, 1\)"):
        detector_loss(cold(), boxes, labels[:, :1], present)
    with pytest.raises(InputError, match=r"present: expected bool \(1, 2\), got int64"):
        detector_loss(cold(), boxes, labels, labels)
    with pytest.raises(InputError, match="boxes: expected room for at least one object, got none"):
        detector_loss(cold(), boxes[:, :0], labels[:, :0], present[:, :0])


def scenes(device):
    """Eight composed scenes of four objects each."""
    objects, contexts = make_objects(device), make_contexts(device)
    pose = PoseRange(scale=(0.2, 0.4), translate=(-0.35, 0.35))
    index = torch.arange(8)
    layers = torch.stack([(index + 2 * layer) % len(objects) for layer in range(4)], dim=1)
    made = Composer(objects, contexts, (96, 96), SceneRange(pose=pose), warn=False)(
        Rows.of(layers, index % len(contexts), index).to(device)
    )
    assert made.targets is not None
    return made.images, made.targets


def test_it_learns_eight_composed_scenes_by_heart(device):
    images, targets = scenes(device)
    present = targets.visible & (targets.share > 0.3)
    torch.manual_seed(0)
    model = Detector(5, width=8).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 10, (150 - step) / 50)
        loss = detector_loss(model.train()(images), targets.boxes, targets.labels, present)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures = []
    for boxes, labels, kept in zip(targets.boxes.cpu(), targets.labels.cpu(), present.cpu(), strict=True):
        crowd = torch.zeros(int(kept.sum()), dtype=torch.bool)
        pictures.append(Boxed(Path("scene.png"), (96, 96), boxes[kept], labels[kept], crowd))
    result = average_precision(model.detect(images), pictures, tuple("abcde")).overall
    assert result.at50 > 0.95
    assert result.mean > 0.6
