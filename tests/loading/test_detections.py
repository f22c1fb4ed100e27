"""Targets as detectors and segmenters take them."""

import sys
from types import ModuleType

import devicewait
import pytest
import torch
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting, Waited
from torch.overrides import TorchFunctionMode

from kornia_cag import (
    CAGCollate,
    Detections,
    InputError,
    PoseRange,
    Rows,
    SceneRange,
    Targets,
    detection_targets,
    full_masks,
    instance_map,
    semantic_map,
    visible_masks,
)
from kornia_cag.scenes.composer import targets_of
from kornia_cag.scenes.warp import outline


def painted(*alphas, labels):
    """Targets of one picture whose layers have these alphas."""
    planes = [torch.as_tensor(alpha, dtype=torch.float32)[None] for alpha in alphas]
    return targets_of(torch.tensor([labels]), [(plane, outline(plane, torch.ones(1))) for plane in planes])


def box(x1, y1, x2, y2, height=6, width=8, value=1.0):
    alpha = torch.zeros(height, width)
    alpha[y1:y2, x1:x2] = value
    return alpha


def batch_of(count=12, layers=3, device="cpu"):
    objects = make_objects(device)
    ranges = SceneRange(pose=PoseRange(scale=(0.3, 0.9), translate=(-1, 1)))
    collate = CAGCollate(objects, make_contexts(device), (24, 30), ranges=ranges, returns="batch")
    index = torch.arange(count)
    ids = (index[:, None] * 2 + torch.arange(layers)) % 5
    return collate(Rows.of(ids, contexts=index % 7, index=index))


def test_one_over_another():
    """The lower one keeps what is left of it, its box shrinks, and its share tells."""
    targets = painted(box(0, 0, 4, 4), box(2, 0, 8, 6), labels=[3, 1])
    found = Detections.of(targets)
    assert found.boxes.tolist() == [[[0, 0, 2, 4], [2, 0, 8, 6]]]
    assert found.labels.tolist() == [[3, 1]]
    assert found.share.tolist() == [[0.5, 1]]
    assert found.present.tolist() == [[True, True]]
    assert torch.equal(visible_masks(targets)[0], torch.stack([box(0, 0, 2, 4), box(2, 0, 8, 6)]).bool())
    assert torch.equal(full_masks(targets)[0], torch.stack([box(0, 0, 4, 4), box(2, 0, 8, 6)]).bool())
    assert torch.equal(instance_map(targets)[0], (box(0, 0, 2, 4) + 2 * box(2, 0, 8, 6)).long())
    want = torch.where(box(2, 0, 8, 6) > 0, 1, torch.where(box(0, 0, 2, 4) > 0, 3, 9))
    assert torch.equal(semantic_map(targets, background=9)[0], want)


def test_what_shows_too_little_is_left_out():
    targets = painted(box(0, 0, 4, 4), box(2, 0, 8, 6), labels=[3, 1])
    for least, present in ((0.5, [True, True]), (0.51, [False, True])):
        found = Detections.of(targets, min_visible=least)
        assert found.present.tolist() == [present]
    assert found.boxes.tolist() == [[[0, 0, 0, 0], [2, 0, 8, 6]]]
    assert found.labels.tolist() == [[-1, 1]]
    assert instance_map(targets, min_visible=0.51).unique().tolist() == [0, 2]
    assert semantic_map(targets, background=-7, min_visible=0.51).unique().tolist() == [-7, 1]
    (only,) = detection_targets(targets, first_label=0, min_visible=0.51)
    assert only["labels"].tolist() == [1]


def test_a_layer_without_a_label_covers_and_is_never_a_target():
    targets = painted(box(0, 0, 8, 3), box(0, 0, 4, 6), labels=[2, -1])
    found = Detections.of(targets)
    assert found.present.tolist() == [[True, False]]
    assert found.boxes[0].tolist() == [[4, 0, 8, 3], [0, 0, 0, 0]]
    assert torch.equal(semantic_map(targets, background=5)[0], torch.where(box(4, 0, 8, 3) > 0, 2, 5))
    assert torch.equal(instance_map(targets)[0], box(4, 0, 8, 3).long())
    (only,) = detection_targets(targets, first_label=1)
    assert only["labels"].tolist() == [3]
    assert only["masks"].shape == (1, 6, 8)


def test_no_seam_is_left_between_objects_that_touch():
    """Side by side, with half a pixel each in the column between them: neither covers more than half of it."""
    left, right = box(0, 0, 4, 6), box(5, 0, 8, 6)
    left[:, 4], right[:, 4] = 0.45, 0.5
    targets = painted(left, right, labels=[0, 1])
    assert (targets.masks[0, :, :, 4] <= 0.5).all()
    shown = visible_masks(targets)[0]
    assert shown.any(0).all()
    assert (shown.sum(0) == 1).all()
    assert shown[1, :, 4].all()
    assert semantic_map(targets, background=2).amax() == 1
    alone = painted(left, labels=[0])  # with nothing beside it, less than half is background
    assert not visible_masks(alone)[0, 0, :, 4].any()


def test_bars_thinner_than_half_a_pixel_have_masks():
    targets = painted(box(2, 1, 3, 5, value=0.3), labels=[0])
    assert torch.equal(visible_masks(targets)[0, 0], box(2, 1, 3, 5).bool())
    assert Detections.of(targets).boxes.tolist() == [[[2, 1, 3, 5]]]
    assert not full_masks(painted(box(2, 1, 3, 5, value=0.003), labels=[0])).any()


def test_objects_of_a_batch(device):
    batch = batch_of(device=device)
    found, shown, full = Detections.of(batch), visible_masks(batch), full_masks(batch)
    assert found.present.float().mean() > 0.5
    assert not found.present.all()
    assert (shown.sum(1) <= 1).all()
    assert (shown.sum((2, 3)) > 0)[found.present].all()
    assert (shown & ~full).sum() <= 0.02 * full.sum()
    assert found.boxes.isfinite().all()
    for sample, layer in found.present.nonzero().tolist():
        y, x = shown[sample, layer].nonzero().unbind(1)
        want = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (found.boxes[sample, layer] - want).abs().max() <= 2, (sample, layer)  # but for pixels on a seam
    same = Detections.of(batch.targets)
    assert torch.equal(same.boxes, found.boxes)


@pytest.mark.parametrize("masks", ["visible", "full", None])
def test_the_format_of_torchvision(masks, device):
    batch = batch_of(device=device)
    found, dicts = Detections.of(batch), detection_targets(batch, first_label=1, masks=masks)
    assert len(dicts) == 12
    assert min(len(one["labels"]) for one in dicts) < max(len(one["labels"]) for one in dicts)
    planes = {"visible": visible_masks, "full": full_masks}
    for sample, one in enumerate(dicts):
        chosen = found.present[sample]
        assert list(one) == ["boxes", "labels", "masks", "share"] if masks else ["boxes", "labels", "share"]
        assert torch.equal(one["boxes"], found.boxes[sample][chosen])
        assert torch.equal(one["labels"], found.labels[sample][chosen] + 1)
        assert torch.equal(one["share"], found.share[sample][chosen])
        if masks:
            assert torch.equal(one["masks"], planes[masks](batch)[sample][chosen])
        assert {value.device.type for value in one.values()} == {device.type}
        assert (one["boxes"][:, 2:] > one["boxes"][:, :2]).all()
        assert one["labels"].dtype == torch.int64


def test_a_picture_without_objects_has_empty_tensors():
    (none,) = detection_targets(painted(box(0, 0, 0, 0), labels=[0]), first_label=1)
    assert {name: tuple(value.shape) for name, value in none.items()} == {
        "boxes": (0, 4), "labels": (0,), "masks": (0, 6, 8), "share": (0,)
    }  # fmt: skip
    assert none["labels"].dtype == torch.int64


def test_only_the_lists_wait_for_the_device():
    batch = batch_of()
    with RefuseWaiting():
        Detections.of(batch, min_visible=0.3)
        semantic_map(batch, background=0)
        instance_map(batch)
        visible_masks(batch)
        full_masks(batch)
    with RefuseWaiting(), pytest.raises(Waited, match="tolist"):
        detection_targets(batch, first_label=1)


class Reads(TorchFunctionMode):
    """Counts what reads a list from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.Tensor.tolist
        return func(*args, **(kwargs or {}))


def test_lists_wait_once(monkeypatch):
    batch = batch_of()
    monkeypatch.setattr(devicewait, "_READS", {torch.Tensor.numpy, torch.Tensor.cpu})
    with Reads() as reads, RefuseWaiting():
        dicts = detection_targets(batch, first_label=1)
    assert reads.count == 1
    assert len(dicts) == 12


def test_wrapped_for_torchvision(monkeypatch):
    """The names and arguments that torchvision has, whether it is installed or not."""
    kinds, made = ModuleType("torchvision.tv_tensors"), []
    kinds.BoundingBoxes = lambda data, *, format, canvas_size: made.append((format, canvas_size)) or data
    kinds.Mask = lambda data: made.append(data.shape) or data
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.tv_tensors", kinds)
    targets = painted(box(0, 0, 4, 4), labels=[3])
    detection_targets(targets, first_label=1, tv_tensors=True)
    detection_targets(targets, first_label=1, tv_tensors=True, masks=None)
    assert made == [("XYXY", (6, 8)), (1, 6, 8), ("XYXY", (6, 8))]


def test_wrapped_by_torchvision():
    kinds = pytest.importorskip("torchvision.tv_tensors")
    (one,) = detection_targets(painted(box(0, 0, 4, 4), labels=[3]), first_label=1, tv_tensors=True)
    assert isinstance(one["boxes"], kinds.BoundingBoxes)
    assert isinstance(one["masks"], kinds.Mask)


@pytest.mark.usefixtures("untyped")
def test_bad_input(monkeypatch):
    targets = painted(box(0, 0, 4, 4), labels=[3])
    known = 'known: expected Targets or Batch, got 3. Pass a batch of CAGCollate(..., returns="batch").'
    for call in (Detections.of, visible_masks, full_masks, instance_map):
        with pytest.raises(InputError) as error:
            call(3)
        assert str(error.value) == known
    with pytest.raises(InputError, match=r"^min_visible: expected a number in \[0, 1\], got 30"):
        Detections.of(targets, min_visible=30)
    with pytest.raises(InputError, match=r"^first_label: expected an integer of at least 0"):
        detection_targets(targets, first_label=-1)
    with pytest.raises(InputError, match=r"^masks: expected one of 'visible', 'full', None, got 'soft'"):
        detection_targets(targets, first_label=0, masks="soft")
    monkeypatch.setitem(sys.modules, "torchvision.tv_tensors", None)
    with pytest.raises(InputError) as error:
        detection_targets(targets, first_label=0, tv_tensors=True)
    assert str(error.value) == (
        "tv_tensors: expected False without torchvision, got True. Install torchvision, in the version for this torch."
    )
    assert isinstance(targets, Targets)
