"""Targets of objects in the formats of detectors and segmenters: padded tensors, maps of pixels, lists of dicts."""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_choice, check_instance, check_int, check_number, fail
from kornia_cag.loading.batch import Batch
from kornia_cag.scenes.pose import THIN
from kornia_cag.scenes.targets import Targets
from kornia_cag.scenes.warp import SEEN

NOTHING = 0  # of an instance map
Known = Targets | Batch


@dataclass(frozen=True)
class Detections:
    """The objects of ``b`` pictures to be found, padded to ``n`` places: tensors of one size, without waiting.

    Place ``k`` is the object in layer ``k``, from back to front, after objects of earlier composites, if a chain keeps
    them. Places that hold nothing to be found lie among the others, as :attr:`present` says: objects out of sight,
    those that show too little, and layers without a label.

    Attributes:
        boxes: (b, n, 4); around the visible part, half-open xyxy, pixels; zeros where nothing is present.
        labels: (b, n); classes; -1 where nothing is present.
        share: (b, n); uncovered share of the object on the canvas, in [0, 1].
        present: (b, n); whether there is something to be found: a label, at least ``min_visible``, and a pixel in the
            object's :func:`visible_masks`.
    """

    boxes: Float[Tensor, "b n 4"]
    labels: Int[Tensor, "b n"]
    share: Float[Tensor, "b n"]
    present: Bool[Tensor, "b n"]

    @classmethod
    def of(cls, known: Known, *, min_visible: float = 0.0) -> "Detections":
        """What is to be found in a batch.

        Args:
            known: a batch, or its targets.
            min_visible: least uncovered share of an object on the canvas, in [0, 1].
        """
        targets = _targets(known)
        return _detections(targets, _owners(targets), check_number("min_visible", min_visible, 0, 1))


def visible_masks(known: Known) -> Bool[Tensor, "b n h w"]:
    """(b, n, h, w); which pixels show each layer: every pixel at most one of them.

    Where objects cover at least half of a pixel together, it belongs to the one that covers most of it, so that no seam
    of background is left between two that touch. Objects that nowhere cover half of a pixel, such as a bar thinner than
    that, count in relation to their highest cover, as for their box.
    """
    targets = _targets(known)
    return _owners(targets)[:, None] == _layers(targets)[:, None, None]


def full_masks(known: Known) -> Bool[Tensor, "b n h w"]:
    """(b, n, h, w); which pixels each layer would show if nothing covered it."""
    return _scores(_targets(known).full) > 0.5


def instance_map(known: Known, *, min_visible: float = 0.0) -> Int[Tensor, "b h w"]:
    """(b, h, w); 1 + the layer of the object that a pixel shows, 0 where it shows none that is to be found.

    Args:
        known: a batch, or its targets.
        min_visible: least uncovered share of an object on the canvas, in [0, 1].
    """
    targets = _targets(known)
    return _painted(targets, _layers(targets).expand_as(targets.labels) + 1, NOTHING, min_visible)


def semantic_map(known: Known, *, background: int, min_visible: float = 0.0) -> Int[Tensor, "b h w"]:
    """(b, h, w); the class that a pixel shows.

    Args:
        known: a batch, or its targets.
        background: for pixels that show no object to be found, such as the number of classes, or a value that a loss
            ignores.
        min_visible: least uncovered share of an object on the canvas, in [0, 1].
    """
    targets = _targets(known)
    return _painted(targets, targets.labels, check_int("background", background, -(2**63), 2**63 - 1), min_visible)


def detection_targets(
    known: Known, *, first_label: int, min_visible: float = 0.0, masks: Literal["visible", "full"] | None = "visible",
    tv_tensors: bool = False,
) -> list[dict[str, Tensor]]:  # fmt: skip
    """What torchvision's detectors take as targets: a dict for each picture, with tensors on the batch's device.

    This is the one step that waits for the device, once: pictures have different numbers of objects, and the host has
    to know them.

    Args:
        known: a batch, or its targets.
        first_label: label of class 0. Detectors whose label 0 is the background, such as torchvision's Faster and Mask
            R-CNN and SSD, need 1; those without a background, such as its RetinaNet and FCOS, take 0.
        min_visible: least uncovered share of an object on the canvas, in [0, 1].
        masks: which masks to add; None: none.
        tv_tensors: wrap boxes and masks in torchvision's ``tv_tensors``, for its transforms.

    Returns:
        Of each picture with n objects, from back to front: ``boxes`` (n, 4), half-open xyxy in pixels; ``labels``
        (n,), int64; ``masks`` (n, h, w), bool, unless left out; ``share`` (n,), the uncovered share of each object.

    Raises:
        InputError: for ``tv_tensors`` without torchvision.
    """
    check_choice("masks", masks, ("visible", "full", None))
    first = check_int("first_label", first_label, 0, 2**31)
    wrap = _wrapping(tv_tensors)
    targets = _targets(known)
    owners = _owners(targets)
    found = _detections(targets, owners, check_number("min_visible", min_visible, 0, 1))
    order = torch.argsort(found.present.logical_not().to(torch.uint8), dim=1, stable=True)
    dicts = []
    for sample, count in enumerate(found.present.sum(dim=1).tolist()):
        pick = order[sample, :count]
        parts = {"boxes": found.boxes[sample, pick], "labels": found.labels[sample, pick] + first}
        if masks == "visible":
            parts["masks"] = owners[sample] == pick[:, None, None]
        elif masks == "full":
            parts["masks"] = _scores(targets.full[sample : sample + 1, pick])[0] > 0.5
        parts["share"] = found.share[sample, pick]
        dicts.append(wrap(parts, owners.shape[1:]))
    return dicts


def _targets(known: Known) -> Targets:
    check_instance("known", known, (Targets, Batch), 'Pass a batch of CAGCollate(..., returns="batch").')
    return known.targets if isinstance(known, Batch) else known


def _layers(targets: Targets) -> Int[Tensor, " n"]:
    return torch.arange(targets.labels.shape[1], device=targets.labels.device)


def _scores(masks: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n h w"]:
    """How much each pixel shows an object: above 0.5 it belongs to it, by the rule of :func:`outline`."""
    peak = masks.amax(dim=(2, 3), keepdim=True)
    scores = masks * (0.5 / (THIN * peak).clamp(min=THIN * SEEN, max=0.5))
    return torch.where(peak < SEEN, 0, scores)


def _owners(targets: Targets) -> Int[Tensor, "b h w"]:
    """Which layer each pixel belongs to; -1: to none. Of equals it is the upper one."""
    scores = _scores(targets.masks).unbind(1)
    total, best = scores[0], scores[0]
    owner = torch.zeros_like(best, dtype=torch.int64)
    for layer, score in enumerate(scores[1:], 1):
        owner = torch.where(score >= best, layer, owner)
        best, total = torch.maximum(best, score), total + score
    return torch.where(total > 0.5, owner, -1)


def _detections(targets: Targets, owners: Int[Tensor, "b h w"], min_visible: float) -> Detections:
    share, layers = targets.share, _layers(targets)
    shown = torch.stack([(owners == layer).flatten(1).any(dim=1) for layer in range(len(layers))], dim=1)
    present = targets.visible & (targets.labels >= 0) & shown & (share >= min_visible)
    boxes = torch.where(present[:, :, None], targets.boxes, 0)
    return Detections(boxes, torch.where(present, targets.labels, -1), share, present)


def _painted(targets: Targets, values: Int[Tensor, "b n"], background: int, min_visible: float) -> Int[Tensor, "b h w"]:
    """The value of the object that each pixel belongs to, if it is to be found."""
    owners = _owners(targets)
    present = _detections(targets, owners, check_number("min_visible", min_visible, 0, 1)).present
    chosen = torch.where(present, values, background)
    table = torch.cat([torch.full_like(chosen[:, :1], background), chosen], dim=1)  # place 0 is that of no layer
    return table.gather(1, owners.flatten(1) + 1).view(owners.shape)


def _wrapping(tv_tensors: bool) -> Any:
    """What wraps the tensors of a picture, if wanted; torchvision is imported only then."""
    if not tv_tensors:
        return lambda parts, size: parts
    try:
        kinds = importlib.import_module("torchvision.tv_tensors")
    except (ImportError, RuntimeError):  # the latter for one built for another torch
        fail("tv_tensors", "False without torchvision", "True", "Install torchvision, in the version for this torch.")

    def wrapped(parts: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        boxes = kinds.BoundingBoxes(parts["boxes"], format="XYXY", canvas_size=tuple(size))
        masks = {"masks": kinds.Mask(parts["masks"])} if "masks" in parts else {}
        return {**parts, "boxes": boxes, **masks}

    return wrapped
