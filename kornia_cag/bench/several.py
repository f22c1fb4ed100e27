"""A CPU loader of scenes of several objects, one at a time, with OpenCV: what a detector would be trained from.

Makes the scenes of a ``SceneRange`` with a ``Layout``, otherwise limited to ``RIGID_SIGNS``, with boxes and, if asked
for, masks of what is seen of each object. Written to be fast: only the part of the canvas that an object may change is
painted, which the hull of its picture, found at load, says; pictures stay in 8 bits, with four channels, up to the
light, which is that of :class:`kornia_cag.bench.peers.OpenCVCollate`; masks go from front to back, so that each takes
one multiplication; a worker writes into the memory that it shares with the process it works for.
"""

import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.texels import EXTENT
from kornia_cag.bench.draws import Around, Director, Form, fresh
from kornia_cag.bench.opencv import (
    Array,
    Bytes,
    Camera,
    Noise,
    Part,
    cropped,
    generator,
    levels,
    normals,
    opencv,
    warped,
)
from kornia_cag.bench.placing import Box, Spot, check_layout, spots
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.pose import THIN
from kornia_cag.scenes.ranges import SceneRange

Hull = NDArray[np.float64]  # (3, n): points around a picture, texels from its centre, over 1


class Painted(NamedTuple):
    """Scenes of K objects.

    Attributes:
        images: (b, 3, h, w); in [0, 1].
        labels: (b, K); classes, from back to front; -1: none, or not shown.
        boxes: (b, K, 4); around what is seen of each object, half-open xyxy, pixels; NaN if it is out of sight.
        masks: (b, K, h, w); how much each pixel shows the object, 0 to 255; None if not asked for.
    """

    images: Float[Tensor, "b 3 h w"]
    labels: Int[Tensor, "b k"]
    boxes: Float[Tensor, "b k 4"]
    masks: UInt8[Tensor, "b k h w"] | None


class Item(NamedTuple):
    """An object of a scene, before it has a place."""

    id: int
    form: Form
    level: int
    box: Box  # around whatever it may change, pixels from its centre


class OpenCVScenes:
    """A ``collate_fn``: rows of K objects to :class:`Painted` scenes, by OpenCV.

    Args:
        objects: objects to recognise.
        contexts: contexts to put them on.
        size: side of the canvas, pixels.
        ranges: what varies, with a layout.
        masks: whether to make masks, too.

    Raises:
        InputError: without OpenCV, for ranges beyond ``RIGID_SIGNS``, and for a layout that places cannot be tried for.
    """

    def __init__(
        self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange, *, masks: bool
    ) -> None:
        self.layout = check_layout(ranges.layout)
        self.director = Director(objects, contexts, size, replace(ranges, layout=None))
        self.camera, self.size, self.masks = Camera(size, ranges.camera.taps), size, masks
        self.labels, self.opacity = objects.labels.cpu(), (255 * objects.opacity).tolist()
        self.objects, self.contexts = levels(objects.pyramid), levels(contexts.pyramid)
        self.hulls = [[_hull(picture) for picture in level] for level in self.objects]
        self.free = np.empty((size, size), np.uint8)
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Rows) -> Painted:
        """Compose the scenes of the rows one by one."""
        self.rng = rng = self.rng or generator()
        b, k, side = *rows.layers.shape, self.size
        images, masks = _room(b, side, side, 3, dtype=torch.float32), None
        boxes, labels = np.full((b, k, 4), np.nan, np.float32), self.labels[rows.layers].numpy()
        if self.masks:
            masks = _room(b, k, side, side, dtype=torch.uint8).zero_()
        for i, (ids, ctx) in enumerate(zip(rows.layers.tolist(), rows.contexts.tolist(), strict=True)):
            around, draws = self.director.around(fresh(rng)), [fresh(rng, 10 + 2 * self.layout.tries) for _ in ids]
            low, high = (math.log(side) for side in self.layout.side)
            items = [self.item(obj, self.director.form(draw, math.exp(draw("layout.side", (low, high)))), around)
                     for obj, draw in zip(ids, draws, strict=True)]  # fmt: skip
            at = spots(self.layout, side, [item.box for item in items], draws)
            out = None if masks is None else masks[i].numpy()
            seen = self.paint(ctx, items, at, around, normals, images[i].numpy(), out)
            for place, box in enumerate(seen):
                if at[place] is None:
                    labels[i, place] = -1
                elif box is not None:
                    boxes[i, place] = box
        return Painted(images.permute(0, 3, 1, 2), torch.from_numpy(labels), torch.from_numpy(boxes), masks)

    def item(self, obj: int, form: Form, around: Around) -> Item:
        """Object ``obj``, with what it may change of a canvas."""
        level = self.director.level(form, around.coarser)
        return Item(obj, form, level, _box(self.hulls[level][obj], form))

    def paint(
        self, ctx: int, items: Sequence[Item], at: Sequence[Spot | None], around: Around, noise: Noise, image: Array,
        masks: Bytes | None,
    ) -> list[Part | None]:  # fmt: skip
        """Make one finished scene in ``image``, (h, w, 3), and masks in ``masks``, (K, h, w), which are all zero.

        Returns:
            Around what is seen of each object, half-open, pixels; None: it is out of sight.
        """
        cv2 = opencv()
        canvas = cropped(self.contexts[around.context_level][ctx], around, self.size)
        layers = [None if spot is None else self._pasted(canvas, item, spot)
                  for item, spot in zip(items, at, strict=True)]  # fmt: skip
        seen: list[Part | None] = [None] * len(items)
        self.free.fill(255)
        for place in reversed(range(len(items))):
            layer = layers[place]
            if layer is not None:
                mask = None if masks is None else masks[place]
                seen[place] = self._seen(*layer, self.opacity[items[place].id], mask)
        self.camera(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB), around, noise, image)
        return seen

    def _pasted(self, canvas: Bytes, item: Item, spot: Spot) -> tuple[Bytes, Part] | None:
        """Paste an object over the part of the canvas that it may change; return its alpha there, and the part."""
        cv2, size, (x, y), (left, top, right, bottom) = opencv(), self.size, spot, item.box
        part = (max(math.floor(x + left), 0), max(math.floor(y + top), 0),
                min(math.ceil(x + right), size), min(math.ceil(y + bottom), size))  # fmt: skip
        if part[0] >= part[2] or part[1] >= part[3]:
            return None
        layer = warped(self.objects[item.level][item.id], self.director.warp(item.form, item.level, x, y), part)
        alpha: Bytes = cv2.extractChannel(layer, 3)
        behind = canvas[part[1] : part[3], part[0] : part[2]]
        cv2.multiply(behind, cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGBA), dst=behind, scale=1 / 255)
        cv2.add(behind, layer, dst=behind)
        return alpha, part

    def _seen(self, alpha: Bytes, part: Part, opacity: float, mask: Bytes | None) -> Part | None:
        """What is seen of an object below those that took from ``free`` before, and the box around it."""
        cv2, (left, top, right, bottom) = opencv(), part
        free = self.free[top:bottom, left:right]
        shown = cv2.multiply(alpha, free, dst=None if mask is None else mask[top:bottom, left:right], scale=1 / 255)
        cv2.subtract(free, shown, dst=free)
        peak = cv2.minMaxLoc(shown)[1]
        if peak < 1:
            return None
        threshold = math.floor(min(0.5 * opacity, THIN * peak))  # as scenes/warp.py has it
        x, y, width, height = cv2.boundingRect(cv2.threshold(shown, threshold, 255, cv2.THRESH_BINARY)[1])
        return left + x, top + y, left + x + width, top + y + height


def _hull(picture: Bytes) -> Hull:
    """What a bilinear read may find of a picture (s, s, 4): its hull, with a texel to spare, in object units."""
    cv2, side = opencv(), len(picture)
    rows, columns = np.nonzero(picture[..., 3])
    if not len(rows):
        return np.array(((0.0,), (0.0,), (1.0,)))
    points = cv2.convexHull(np.stack((columns, rows), axis=1).astype(np.int32))[:, 0].astype(np.float64) + 0.5
    around = np.concatenate([points + np.array(step) for step in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
    points = cv2.convexHull(around.astype(np.float32))[:, 0].T.astype(np.float64)
    return np.concatenate(((points / (0.5 * side) - 1) / EXTENT, np.ones((1, points.shape[1]))))


def _box(hull: Hull, form: Form) -> Box:
    """Around a hull on the canvas, pixels from the object's centre: the inverse of the form's map."""
    a, b, c, d, g, h = form
    area = a * d - b * c
    p, q, r, s = d / area, -b / area, -c / area, a / area
    matrix = np.array(((p, q, 0.0), (r, s, 0.0), (-(g * p + h * r), -(g * q + h * s), 1.0)))
    mapped = matrix @ hull
    mapped = mapped[:2] / np.maximum(mapped[2], 0.05)
    left, top = mapped.min(axis=1).tolist()
    right, bottom = mapped.max(axis=1).tolist()
    return left, top, right, bottom


def _room(*shape: int, dtype: torch.dtype) -> Tensor:
    """An empty tensor; a worker's is in the memory that its batches are handed over in, so they need no copy."""
    if multiprocessing.parent_process() is None:
        return torch.empty(shape, dtype=dtype)
    shared: torch.UntypedStorage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(shared).view(shape)
