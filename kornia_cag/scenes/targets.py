"""Targets of a composite's objects, made only on request: classes, boxes, masks."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.scenes.scene import Scene
from kornia_cag.scenes.warp import Outline, outline

Pasted = tuple[Float[Tensor, "b h w"], Outline]  # alpha as pasted, and its visible outline


@dataclass(frozen=True)
class Targets:
    """The K objects of ``b`` composites, from back to front.

    Attributes:
        labels: (b, K); classes; -1: no target, since the object is a distractor or not shown.
        boxes: (b, K, 4); around the visible part, half-open xyxy, pixels, see :func:`outline`; NaN if out of sight.
        visible: (b, K); whether any of the object is visible, so that it has a box.
        masks: (b, K, h, w); how much each pixel shows the object, in [0, 1]: its alpha, less what covers it.
        full: (b, K, h, w); its alpha on the canvas, in [0, 1], as if nothing covered it.
    """

    labels: Int[Tensor, "b k"]
    boxes: Float[Tensor, "b k 4"]
    visible: Bool[Tensor, "b k"]
    masks: Float[Tensor, "b k h w"]
    full: Float[Tensor, "b k h w"]

    @property
    def share(self) -> Float[Tensor, "b k"]:
        """(b, K); uncovered share of the object on the canvas, in [0, 1]; 0 if it is out of sight."""
        whole = self.full.sum(dim=(2, 3))
        part: Tensor = self.masks.sum(dim=(2, 3)) / whole.clamp(min=1e-6)
        return part

    @property
    def cover(self) -> Float[Tensor, "b 1 h w"]:
        """(b, 1, h, w); how much each pixel shows any object that has a class, in [0, 1]."""
        known = torch.where((self.labels >= 0)[:, :, None, None], self.masks, 0.0)
        covered: Tensor = known if known.shape[1] == 1 else known.sum(dim=1, keepdim=True).clamp(0, 1)
        return covered


@dataclass(frozen=True)
class Composites:
    """``b`` finished composites.

    Attributes:
        images: (b, 3, h, w); in [0, 1], or uint8.
        labels: (b, K); classes of the objects, from back to front; -1: none, or not shown.
        keys: (b,); keys of the samples.
        chained: (b,); whether the context is an earlier composite.
        targets: targets of the objects; None if not requested.
        scene: what was drawn; None if not requested.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, "b k"]
    keys: Int[Tensor, " b"]
    chained: Bool[Tensor, " b"]
    targets: Targets | None
    scene: Scene | None

    @property
    def classes(self) -> Int[Tensor, " b"] | Int[Tensor, "b k"]:
        """(b,); classes, if each sample shows one object; else (b, K), like ``labels``."""
        return self.labels[:, 0] if self.labels.shape[1] == 1 else self.labels


def targets_of(labels: Int[Tensor, "b k"], seen: list[Pasted]) -> Targets:
    """The targets of the objects; later ones cover earlier ones."""
    if len(seen) == 1:
        alpha, edge = seen[0]
        masks = alpha[:, None]
        return Targets(labels, edge.boxes[:, None], edge.visible[:, None], masks, masks)
    shown, edges, left = [], [], torch.ones_like(seen[0][0])
    for alpha, edge in reversed(seen):
        part = alpha * left
        left = left * (1 - alpha)
        shown.append(part)
        edges.append(outline(part, 2 * edge.threshold.clamp(max=0.5)))
    boxes, visible = torch.stack([e.boxes for e in edges[::-1]], 1), torch.stack([e.visible for e in edges[::-1]], 1)
    masks, full = torch.stack(shown[::-1], dim=1), torch.stack([alpha for alpha, _ in seen], dim=1)
    return Targets(labels, boxes, visible, masks, full)
