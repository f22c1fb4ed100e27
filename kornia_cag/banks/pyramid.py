"""Mip pyramids of square pictures, laid out in one atlas so that the level is data, not a branch.

A warp does not antialias by itself: shrinking a picture four times by bilinear interpolation reads one texel in
sixteen. A pyramid (Williams, 1983) holds the picture at every power of two, and each sample reads the level that fits.

Atlas layout: level 0 on the left, the others in one column to its right, each with a gutter of one texel on every side,
so that bilinear reads at a border never see a neighbour. The position of a level is computed from ``level``. The four
bytes of a texel are adjacent, so that one 32-bit load fetches it.
"""

import zlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32, UInt8
from torch import Tensor

from kornia_cag.core.checks import check_pixels, check_tensor, describe, fail
from kornia_cag.core.compiling import fusing, kept, once, threads

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

    @property
    def fits(self) -> bool:
        """Whether an int32 can index all texels."""
        return self.atlas.numel() // 4 < 2**31

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
    x: Float[Tensor, "#b #h #w"],
    y: Float[Tensor, "#b #h #w"],
    level: Int[Tensor, " b"],
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Read one level per sample at the given points, bilinearly, in [0, 1]; outside, the gutter's value.

    Convention: points are in [0, 1] from the picture's upper left to its lower right corner, so the centre of the first
    of ``s`` texels is at ``0.5 / s``. Differentiable in ``x`` and ``y``.

    Returns:
        One plane per channel.
    """
    side = pyramid.size >> level
    left = torch.where(level == 0, 1, pyramid.size + 3)
    above = pyramid.size - (pyramid.size >> (level - 1).clamp(min=0)) + 2 * level - 1
    top = torch.where(level == 0, 1, above)
    dtype = torch.promote_types(x.dtype, torch.float32)
    side, left, top = (v[:, None, None] for v in once(side.to(dtype), left.to(dtype), top.to(dtype)))
    # The gutter's centre is half a texel beyond the border: farther out, the value stays the same.
    x = torch.minimum((x * side).clamp(min=-0.5), side + 0.5) + left
    y = torch.minimum((y * side).clamp(min=-0.5), side + 0.5) + top
    return _gather(pyramid, ids, x, y) if fusing() else _grid_sample(pyramid, ids, x, y)


def _grid_sample(
    pyramid: Pyramid, ids: Int[Tensor, " b"], x: Float[Tensor, "#b #h #w"], y: Float[Tensor, "#b #h #w"]
) -> tuple[Float[Tensor, "b h w"], ...]:
    height, width = pyramid.atlas.shape[1:3]
    grid = torch.stack(torch.broadcast_tensors(2 * x / width - 1, 2 * y / height - 1), dim=-1)
    texels = pyramid.atlas[ids].permute(0, 3, 1, 2)[:, : pyramid.channels].to(x.dtype)
    read = F.grid_sample(texels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (read / 255).unbind(1)


def _gather(
    pyramid: Pyramid, ids: Int[Tensor, " b"], x: Float[Tensor, "#b #h #w"], y: Float[Tensor, "#b #h #w"]
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Four whole-texel loads per point, which a compiler fuses with their surroundings; slow in eager mode."""
    words = pyramid.words
    _, height, width = words.shape
    flat = words.flatten()[:, None]
    x, y = x - 0.5, y - 0.5
    if x.shape == y.shape or not threads(x):  # on a GPU a row and a column are sooner computed than read
        x, y = kept(x), kept(y)
    # At the far gutter's centre, the next texel has weight 0 and may lie beyond the atlas.
    column, row = x.floor().clamp(max=width - 2), y.floor().clamp(max=height - 2)
    index = torch.int32 if pyramid.fits else torch.int64
    place = (row * width + column).to(index) + (ids * (height * width)).to(index)[:, None, None]
    # An embedding neither wraps negative indices nor needs int64.
    texels = [F.embedding(place, flat[step:])[..., 0] for step in (0, 1, width, width + 1)]
    across, down = (x - column) * (1 / 255), y - row
    left = 1 / 255 - across
    c, d = left * down, across * down
    a, b = left - c, across - d
    p, q, r, s = texels

    def plane(shift: int) -> Float[Tensor, "b h w"]:
        first, second, third, fourth = (((t >> shift) & 255).to(x.dtype) for t in (p, q, r, s))
        return a * first + b * second + c * third + d * fourth

    return tuple(plane(8 * channel) for channel in range(pyramid.channels))
