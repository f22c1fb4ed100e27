"""Which true boxes a detector finds, which it misses, and what it finds where nothing is."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_number
from kornia_cag.evaluation.boxes import Boxed
from kornia_cag.evaluation.detection import Found


@dataclass(frozen=True)
class Match:
    """What was found in one picture, held against what is there.

    Attributes:
        found: the n boxes that are sure enough, the surest first.
        owner: (n,); the true box that each is; -1: none.
        excused: (n,); whether each lies in a crowd, and so counts neither way.
        hit: (m,); which true boxes are found, by their class.
        misnamed: (m,); which are not, but by another class.
    """

    found: Found
    owner: Int[Tensor, " n"]
    excused: Bool[Tensor, " n"]
    hit: Bool[Tensor, " m"]
    misnamed: Bool[Tensor, " m"]


def matched(found: Found, true: Boxed, *, threshold: float, overlap: float = 0.5) -> Match:
    """Pair found boxes with true ones, the surest first: each with the one it overlaps most that is not yet taken.

    Args:
        found: in a picture.
        true: what is there.
        threshold: lowest score that counts, in [0, 1].
        overlap: least intersection over union of a pair, in [0, 1].
    """
    check_number("threshold", threshold, 0, 1)
    check_number("overlap", overlap, 0, 1)
    order = found.scores.argsort(descending=True, stable=True)
    order = order[found.scores[order] >= threshold]
    boxes, labels, scores = (part[order].cpu() for part in found)
    shares = iou(boxes, true.boxes)
    same = labels[:, None] == true.labels
    owner = torch.full((len(boxes),), -1, dtype=torch.int64, device="cpu")
    free = ~true.crowd
    for place in range(len(boxes) if len(free) else 0):
        fits = torch.where(free & same[place], shares[place], -1.0)
        best = int(fits.argmax())
        if fits[best] >= overlap:
            owner[place], free[best] = best, False
    hit = ~true.crowd & ~free
    near = shares >= overlap
    inside = covered(boxes, true.boxes) >= overlap  # as COCO has it, where a crowd's box stands for many objects
    crowded = (inside & same & true.crowd).any(dim=1) & (owner < 0)
    misnamed = ~hit & ~true.crowd & (near & ~same).any(dim=0)
    return Match(Found(boxes, labels, scores), owner, crowded, hit, misnamed)


def covered(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """The share of every box of one kind that lies in every one of another, in [0, 1]."""
    return _common(a, b) / (a[:, 2:] - a[:, :2]).prod(dim=1).clamp(min=1e-6)[:, None]


def iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every box of one kind with every one of another, in [0, 1]."""
    common = _common(a, b)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1] - common).clamp(min=1e-6)


def _common(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Areas of intersections."""
    inner = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    return inner.clamp(min=0).prod(dim=2)
