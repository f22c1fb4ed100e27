"""Targets of a composite's objects, made only on request: classes, boxes, masks."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_tensor, fail
from kornia_cag.core.compiling import kept
from kornia_cag.core.records import mapped
from kornia_cag.scenes.scene import Scene
from kornia_cag.scenes.tiles import Tiles, sides
from kornia_cag.scenes.warp import Outline, outline, outlined

UPPER = 0.5  # highest share of a pixel that an object may have to cover to own it
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
        threshold: (b, K); how much of a pixel the uncovered object has to cover to own it, in (0, 0.5]: what boxes are
            made with, should another composite cover it. None unless a chain keeps targets.
    """

    labels: Int[Tensor, "b k"]
    boxes: Float[Tensor, "b k 4"]
    visible: Bool[Tensor, "b k"]
    masks: Float[Tensor, "b k h w"]
    full: Float[Tensor, "b k h w"]
    threshold: Float[Tensor, "b k"] | None = None

    @classmethod
    def absent(cls, shape: tuple[int, int, int, int], device: torch.device) -> "Targets":
        """The targets of objects that are not shown, with empty masks of a shape ``(b, n, h, w)``."""
        empty = torch.zeros(shape, dtype=torch.float32, device=device)
        labels = torch.full(shape[:2], -1, dtype=torch.int64, device=device)
        boxes = torch.full((*shape[:2], 4), torch.nan, dtype=torch.float32, device=device)
        threshold = torch.full(shape[:2], UPPER, dtype=torch.float32, device=device)
        return cls(labels, boxes, labels >= 0, empty, empty.clone(), threshold)

    def last(self, n: int) -> "Targets":
        """Copies of the targets of the last ``n`` objects."""
        return mapped(lambda tensor: tensor[:, -n:].detach().clone(memory_format=torch.contiguous_format), self)

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
        targets: targets of the objects, after those of the objects behind, if a chain keeps them; None if not
            requested.
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


def targets_of(
    labels: Int[Tensor, "b k"],
    seen: list[Pasted],
    behind: Targets | None = None,
    used: Bool[Tensor, " b"] | None = None,
) -> Targets:
    """The targets of the objects; later ones cover earlier ones.

    Args:
        labels: (b, K); classes of the objects that were pasted.
        seen: what was pasted, from back to front.
        behind: n objects of an earlier composite, which come first; None: they have no targets.
        used: (b,); which samples show what is behind.
    """
    if len(seen) == 1 and behind is None:
        alpha, edge = seen[0]
        masks = alpha[:, None]
        return Targets(labels, edge.boxes[:, None], edge.visible[:, None], masks, masks)
    shown, left = [], torch.ones_like(seen[0][0])
    for alpha, _ in reversed(seen):
        shown.append(alpha * left)
        left = left * (1 - alpha)
    masks, full = kept(torch.stack(shown[::-1], dim=1)), torch.stack([alpha for alpha, _ in seen], dim=1)
    threshold = torch.stack([edge.threshold for _, edge in seen], dim=1).clamp(max=UPPER)
    boxes, visible = _outlined(masks, threshold)
    return _with(behind, used, Targets(labels, boxes, visible, masks, full, threshold), left)


def targets_in_tiles(
    labels: Int[Tensor, "b k"], tiles: Tiles, layers: list[slice], alpha: Float[Tensor, "n u v"],
    threshold: Float[Tensor, " m"], size: tuple[int, int], behind: Targets | None, used: Bool[Tensor, " b"],
    room: tuple[Float[Tensor, "b places h w"], Float[Tensor, "b places h w"]] | None = None,
) -> Targets:  # fmt: skip
    """:func:`targets_of`, of objects that were pasted in tiles.

    Args:
        labels: (b, K); classes of the objects.
        tiles: where they lie.
        layers: the tiles of each layer, from back to front.
        alpha: of each tile, as pasted.
        threshold: alpha above which a pixel belongs to each object; infinite if it is out of sight.
        size: canvas ``(height, width)``, pixels.
        behind: n objects of an earlier composite, which come first; None: they have no targets.
        used: (b,); which samples show what is behind.
        room: where to write masks, visible and full, if nothing is behind; None: allocate them.
    """
    b, k = labels.shape
    left, shown = alpha.new_ones(b, 1, *size), torch.empty_like(alpha)
    for part in reversed(layers):
        own, free = tiles[part], tiles[part].read(left)[:, 0]
        torch.mul(alpha[part], free, out=shown[part])
        own.write(left, (free * (1 - alpha[part]))[:, None])
    rows = tiles.samples * k + tiles.objects // b
    each = replace(tiles, samples=rows)
    if room is None or behind is not None:
        room = alpha.new_empty(b, k, *size), alpha.new_empty(b, k, *size)
    for out, values in zip(room, (shown, alpha), strict=True):
        each.write(out.zero_().view(b * k, 1, *size), values[:, None])
    limit = threshold.view(k, b).mT.clamp(max=UPPER)
    edge = outlined(sides(shown, tiles, rows, b * k, size), 2 * limit.flatten())
    boxes, visible = edge.boxes.view(b, k, 4), edge.visible.view(b, k)
    return _with(behind, used, Targets(labels, boxes, visible, *room, limit), left[:, 0])


def _with(
    behind: Targets | None, used: Bool[Tensor, " b"] | None, own: Targets, left: Float[Tensor, "b h w"]
) -> Targets:
    """Targets of objects, after those of the objects behind, if these have any."""
    if behind is None or used is None:
        return replace(own, threshold=None)
    return mapped(lambda *parts: torch.cat(parts, dim=1), _covered(behind, used, left), own)


def _covered(known: Targets, used: Bool[Tensor, " b"], left: Float[Tensor, "b h w"]) -> Targets:
    """The targets of objects behind, less what covers them; absent where they are not used.

    Uncovered ones stay as they are, to the bit: their boxes are made anew by the same function of the same mask.
    """
    here = used[:, None]
    masks = kept(known.masks * torch.where(here[..., None], left, 0)[:, None])
    full = torch.where(here[..., None, None], known.full, 0)
    threshold = torch.where(here, cast(Tensor, known.threshold), UPPER)
    return Targets(torch.where(here, known.labels, -1), *_outlined(masks, threshold), masks, full, threshold)


def _outlined(
    masks: Float[Tensor, "b n h w"], threshold: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "b n 4"], Bool[Tensor, "b n"]]:
    """Boxes of what is seen of the objects, and which are seen at all."""
    edge = outline(masks.flatten(0, 1), 2 * threshold.flatten())
    return edge.boxes.unflatten(0, threshold.shape), edge.visible.unflatten(0, threshold.shape)


def check_targets(name: str, found: Mapping[str, Any], shape: tuple[int, int, int, int], device: torch.device) -> None:
    """Require the fields of targets with masks of a shape ``(b, n, h, w)``, and with thresholds.

    Raises:
        InputError: naming the field.
    """
    wanted = {field.name for field in fields(Targets)}
    if set(found) != wanted:
        fail(name, f"fields {', '.join(sorted(wanted))}", ", ".join(sorted(map(str, found))) or "none")
    b, n = shape[:2]
    for field, dims, dtype in (
        ("labels", (b, n), torch.int64), ("boxes", (b, n, 4), torch.float32), ("visible", (b, n), torch.bool),
        ("masks", shape, torch.float32), ("full", shape, torch.float32), ("threshold", (b, n), torch.float32),
    ):  # fmt: skip
        check_tensor(f"{name}.{field}", found[field], dims, dtype, device)
