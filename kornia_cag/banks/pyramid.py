"""Mip pyramids of square pictures, laid out in one atlas so that the level is data, not a branch.

A warp does not antialias by itself: shrinking a picture four times by bilinear interpolation reads one texel in
sixteen. A pyramid (Williams, 1983) holds the picture at every power of two, and each sample reads the level that fits.

Atlas layout: level 0 on the left, the others in one column to its right, each with a gutter of one texel on every side,
so that bilinear reads at a border never see a neighbour. The position of a level is computed from ``level``. The four
bytes of a texel are adjacent, so that one 32-bit load fetches it.
"""

import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from kornia_cag.banks.loads import gather
from kornia_cag.core.checks import check_pixels, check_tensor, describe, fail
from kornia_cag.core.compiling import constant, fusing, once

SMALLEST_LEVEL = 4  # texels per side


@dataclass(frozen=True, eq=False)
class Pyramid:
    """``n`` square pictures of ``size`` texels per side with all their levels, on one device."""

    atlas: UInt8[Tensor, "n ah aw 4"]  # unused channels hold 255
    size: int
    channels: int

    @property
    def words(self) -> Int32[Tensor, "n ah aw"]:
        """The atlas as one int32 per texel, the first channel in its lowest byte (a view)."""
        return self.atlas.view(torch.int32)[..., 0]

    @property
    def levels(self) -> int:
        """Number of levels: sides ``size``, ``size / 2`` … 4."""
        return level_count(self.size)

    def __len__(self) -> int:
        return self.atlas.shape[0]

    def to(self, device: torch.device | str) -> "Pyramid":
        """The same pictures on another device."""
        return replace(self, atlas=self.atlas.to(device))

    def checksums(self) -> list[int]:
        """CRC-32 of each picture with all its levels: equal for equal pictures, on any device."""
        return [zlib.crc32(picture.contiguous().cpu().numpy().tobytes()) for picture in self.atlas]

    def checksum(self) -> int:
        """CRC-32 of all pictures: whether two banks hold the same."""
        return zlib.crc32(self.atlas.cpu().numpy().tobytes())

    def level(self, level: int) -> UInt8[Tensor, "n c s s"]:
        """The pictures of one level, without gutter (a view)."""
        side = self.size >> level
        x, y = 1 if level == 0 else self.size + 3, _top(self.size, level)
        return self.atlas[:, y : y + side, x : x + side, : self.channels].permute(0, 3, 1, 2)


Points = Float[Tensor, "b 2 h w"] | Sequence[Float[Tensor, " b #h #w"]]


class Window(NamedTuple):
    """A square part of one level, or all of it: what has to be read if no compiler turns a read into one loop.

    Attributes:
        side: of the largest window of all samples, texels, with the two texels of the gutter.
        corner: (b, 2); its upper left point, as ``points`` of :func:`sample_pyramid`; None: a whole level.
    """

    side: int
    corner: Float[Tensor, "b 2"] | None = None


def window_side(pixels: int) -> int:
    """The side of a window that holds what a row of pixels reads, which begins at the corner of the first.

    A pixel spans at most ``sqrt(2)`` texels, on the level that fits. So the last is ``sqrt(2) * (pixels - 0.5)`` texels
    from the corner at most, and as many further texels begin, rounded up. The first is the one that the corner lies in,
    counted from texel centre to centre; a bilinear read also takes the one after the last.
    """
    return math.ceil(math.sqrt(2) * (pixels - 0.5)) + 2


def level_count(size: int) -> int:
    """Number of levels of a pyramid whose finest side is ``size``."""
    return (size // SMALLEST_LEVEL).bit_length()


def check_texels(argument: str, size: int) -> int:
    """Require a power of two from 8 to 4096."""
    if not isinstance(size, int) or isinstance(size, bool) or size not in [2**k for k in range(3, 13)]:
        fail(argument, "a power of two from 8 to 4096", repr(size), "Twice the canvas is a good choice.")
    return size


def _top(size: int, level: int) -> int:
    return 1 if level == 0 else size - (size >> (level - 1)) + 2 * level - 1


def build_pyramid(pictures: Float[Tensor, "n c s s"] | UInt8[Tensor, "n c s s"], replicate: bool) -> Pyramid:
    """Build every level by 2×2 box means, rounded to uint8.

    Args:
        pictures: square pictures of at most 4 channels, the side a power of two; uint8, or float in [0, 1]. RGBA must
            be premultiplied.
        replicate: fill gutters with the border texels (contexts) instead of zero (objects).
    """
    check_tensor("pictures", pictures, ("n", "c", "s", "s"), (torch.uint8, torch.float32))
    size = check_texels("pictures' side", pictures.shape[-1])
    n, c = pictures.shape[:2]
    if c > 4:
        fail("pictures", "at most 4 channels", describe(pictures))
    check_pixels("pictures", pictures)
    device = pictures.device
    levels = level_count(size)
    height = max(size + 2, _top(size, levels - 1) + SMALLEST_LEVEL + 1)
    atlas = torch.full((n, height, size + 4 + size // 2, 4), 0 if c == 4 else 255, dtype=torch.uint8, device=device)
    for start in range(0, n, 256):  # limits the float copy
        texels = pictures[start : start + 256]
        texels = texels.float() if texels.dtype == torch.uint8 else texels * 255
        for level in range(levels):
            texels = texels if level == 0 else F.avg_pool2d(texels, 2)
            padded = F.pad(texels, (1, 1, 1, 1), mode="replicate" if replicate else "constant")
            x, y, side = 0 if level == 0 else size + 2, _top(size, level) - 1, (size >> level) + 2
            place = atlas[start : start + 256, y : y + side, x : x + side, :c]
            place.copy_(padded.round().clamp(0, 255).permute(0, 2, 3, 1))
    return Pyramid(atlas, size, c)


def sample_pyramid(
    pyramid: Pyramid,
    ids: Int[Tensor, " b"],
    points: Points,
    level: Int[Tensor, " b"],
    *,
    extent: float = 1.0,
    window: Window | None = None,
    channels: slice = slice(None),
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Read one level per sample at the given points, bilinearly, in [0, 1]; outside, the gutter's value.

    Convention: points are ``(x, y)``, from ``-1 / extent`` at the picture's upper and left border to ``1 / extent`` at
    the others, so the centre of the first of ``s`` texels is at ``(1 / s - 1) / extent``. Differentiable in ``points``.

    Args:
        pyramid: the pictures.
        ids: picture per sample.
        points: where to read: (b, 2, h, w), or ``x`` and ``y``: (b, h, w) each, or (b, 1, w) and (b, h, 1) where all
            rows are alike and all columns.
        level: level per sample; for objects, at least that whose side ``window`` holds.
        extent: half of the picture's sides that one unit of ``points`` spans.
        window: the part of the level that ``points`` stay in. Default: any.
        channels: which channels to read. Default: all.

    Returns:
        One plane per channel.
    """
    if not fusing():
        return _grid_sample(pyramid, ids, points, level, extent, window or Window(pyramid.size + 2), channels)
    side = pyramid.size >> level
    left = torch.where(level == 0, 1, pyramid.size + 3)
    above = pyramid.size - (pyramid.size >> (level - 1).clamp(min=0)) + 2 * level - 1
    top = torch.where(level == 0, 1, above)
    x, y = points.unbind(1) if isinstance(points, Tensor) else points
    dtype = torch.promote_types(x.dtype, torch.float32)
    side, left, top = (v[:, None, None] for v in once(side.to(dtype), left.to(dtype), top.to(dtype)))
    half, far = (0.5 * extent) * side, 0.5 * side + 0.5
    # The gutter's centre is half a texel beyond the border: farther out, the value stays the same.
    x, y = (torch.minimum(torch.maximum(v * half, -far), far) + 0.5 * side for v in (x, y))
    return gather(pyramid.words, pyramid.channels, ids, x + left, y + top)[channels]


class _Levels(NamedTuple):
    """Numbers of every level, for windows of one size.

    Attributes:
        numbers: (levels, 7, 2); along x and y: factor and offset from points to a grid over the window; lowest and
            highest point; level's middle and half its side, texels, from which a window's place is computed; highest
            place, texels.
        start: (levels,); place of a window's first texel in a picture's atlas.
    """

    numbers: Float[Tensor, "levels 7 2"]
    start: Int[Tensor, " levels"]


@functools.cache  # none is ever given up: a captured graph goes on reading its memory
def _levels(size: int, atlas: tuple[int, int], reach: int, extent: float, whole: bool, device: torch.device) -> _Levels:
    """Numbers of a window that begins with the level's gutter; unless it is ``whole``, its place in the level is added.

    That is at most ``most`` texels, or the window would begin beyond the gutter, or end beyond the atlas. Where a level
    is smaller than its window, ``most`` may be below 0: the window then begins before the level does.
    """
    height, width = atlas
    numbers, start = [], []
    for level in range(level_count(size)):
        side, first = size >> level, (0 if level == 0 else size + 2, _top(size, level) - 1)
        most = [min(length - reach - begin, side + 1) for length, begin in zip((width, height), first, strict=True)]
        moved = [min(0, room) if whole else 0 for room in most]
        far = (1 + 1 / side) / extent
        shift = [(side + 2 - 2 * step) / reach - 1 for step in moved]
        rows = [side * extent / reach] * 2, shift, [-far] * 2, [far] * 2, [(side + 1) / 2] * 2, [side * extent / 2] * 2
        numbers.append([*rows, most])
        start.append((first[1] + moved[1]) * width + first[0] + moved[0])
    with torch.inference_mode(False):  # kept for other modes
        return _Levels(torch.tensor(numbers, dtype=torch.float32, device=device), torch.tensor(start, device=device))


def _grid_sample(
    pyramid: Pyramid,
    ids: Int[Tensor, " b"],
    points: Points,
    level: Int[Tensor, " b"],
    extent: float,
    window: Window,
    channels: slice,
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Copy each sample's window, rows of whole texels, and read it with torch's own kernel."""
    words, reach = pyramid.words, min(window.side, pyramid.size + 2)
    _, height, width = words.shape
    levels = _levels(pyramid.size, (height, width), reach, extent, window.corner is None, ids.device)
    zoom, shift, low, high, middle, half, most = levels.numbers[level].unbind(1)
    start = levels.start[level] + ids * (height * width)
    if window.corner is not None:  # the texel left of it and above
        step = torch.addcmul(middle, half, window.corner.detach()).floor().clamp(min=0)
        step = torch.minimum(step, most)
        shift = torch.add(shift, step, alpha=-2 / reach)
        column, row = step.long().unbind(1)
        start = start + column + row * width
    places = start[:, None] + torch.arange(0, reach * width, width, device=ids.device)
    rows = words.flatten().as_strided((words.numel() - reach + 1, reach), (1, 1))  # one begins at every texel
    texels = F.embedding(places, rows).view(torch.uint8).unflatten(2, (reach, 4)).permute(0, 3, 1, 2)

    def fit(points: Tensor, *number: Tensor) -> Tensor:
        # The gutter's centre is half a texel beyond the border: farther out, the value stays the same.
        zoom, shift, low, high = (v.to(points.dtype)[..., None, None] for v in number)
        return torch.addcmul(shift, zoom, points.clamp(low, high))

    number = zoom, shift, low, high
    if isinstance(points, Tensor):
        grid = fit(points, *number)
    else:
        along = zip(*(v.unbind(1) for v in number), strict=True)
        lines = [fit(line, *axis) for line, axis in zip(points, along, strict=True)]
        grid = torch.stack(torch.broadcast_tensors(*lines), dim=1)
    # of the points' type: a number of Python's would take the default type
    unit = constant((1 / 255,), grid.dtype, grid.device)[0]
    grid = grid.permute(0, 2, 3, 1)
    asked = range(pyramid.channels)[channels]
    single = len(asked) == 1  # torch is slow on bytes with gaps between several of them
    own = slice(asked.start, asked.stop)
    texels = texels[:, own] * unit if single else (texels * unit)[:, own]
    read = F.grid_sample(texels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read.unbind(1)
