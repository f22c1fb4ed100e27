"""Mip pyramids of square pictures, laid out in one atlas so that the level is data and not a branch.

No warp antialiases by itself: shrinking a picture four times by bilinear interpolation reads one texel in sixteen. A
pyramid (Williams, 1983) keeps the picture at every power of two, and each sample reads the level that fits it.

Atlas layout: level 0 on the left, the others in one column to its right, each with a gutter of one texel on every side,
so that bilinear reads at a border never see a neighbour. The place of a level is arithmetic in ``level``.
"""

import zlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from kornia_cag.checks import check_tensor, fail

SMALLEST_LEVEL = 4  # texels a side


@dataclass(frozen=True, eq=False)
class Pyramid:
    """``n`` square pictures of ``size`` texels a side with all their levels, on one device."""

    atlas: UInt8[Tensor, "n c ah aw"]
    size: int

    @property
    def levels(self) -> int:
        """Number of levels: sides ``size``, ``size / 2`` … 4."""
        return level_count(self.size)

    def __len__(self) -> int:
        return self.atlas.shape[0]

    def to(self, device: torch.device | str) -> "Pyramid":
        """The same pictures on another device."""
        return replace(self, atlas=self.atlas.to(device))

    def checksum(self) -> int:
        """CRC-32 of all pictures: whether two banks hold the same."""
        return zlib.crc32(self.atlas.cpu().numpy().tobytes())

    def level(self, level: int) -> UInt8[Tensor, "n c s s"]:
        """The pictures of one level, without gutter (a view)."""
        side = self.size >> level
        x, y = 1 if level == 0 else self.size + 3, _top(self.size, level)
        return self.atlas[:, :, y : y + side, x : x + side]


def level_count(size: int) -> int:
    """Levels of a pyramid whose finest side is ``size``."""
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
        pictures: square pictures, a power of two a side; uint8, or float in [0, 1]. RGBA must be premultiplied.
        replicate: fill gutters with the border texels (contexts) instead of zero (objects).
    """
    check_tensor("pictures", pictures, ("n", "c", "s", "s"), (torch.uint8, torch.float32))
    size = check_texels("pictures' side", pictures.shape[-1])
    n, c = pictures.shape[:2]
    levels = level_count(size)
    height = max(size + 2, _top(size, levels - 1) + SMALLEST_LEVEL + 1)
    atlas = torch.zeros(n, c, height, size + 4 + size // 2, dtype=torch.uint8, device=pictures.device)
    for start in range(0, n, 256):  # bounds the float copy
        texels = pictures[start : start + 256]
        texels = texels.float() if texels.dtype == torch.uint8 else texels * 255
        for level in range(levels):
            texels = texels if level == 0 else F.avg_pool2d(texels, 2)
            padded = F.pad(texels, (1, 1, 1, 1), mode="replicate" if replicate else "constant")
            x, y, side = 0 if level == 0 else size + 2, _top(size, level) - 1, (size >> level) + 2
            atlas[start : start + 256, :, y : y + side, x : x + side] = padded.round().clamp(0, 255).to(torch.uint8)
    return Pyramid(atlas, size)


def sample_pyramid(
    pyramid: Pyramid, ids: Int[Tensor, " b"], points: Float[Tensor, "b h w 2"], level: Int[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Read one level per sample at the given points, bilinearly, in [0, 1]; outside, the gutter's value.

    Convention: points are ``(x, y)`` in [0, 1] from the picture's left upper corner to its right lower corner, so the
    centre of the first of ``s`` texels is at ``0.5 / s``. Differentiable in ``points``.
    """
    level = level[:, None, None]
    side = pyramid.size >> level
    left = torch.where(level == 0, 1, pyramid.size + 3)
    above = pyramid.size - (pyramid.size >> (level - 1).clamp(min=0)) + 2 * level - 1
    top = torch.where(level == 0, 1, above)
    height, width = pyramid.atlas.shape[-2:]
    # Half a texel beyond the border lies the gutter's centre: farther out, the value stays the same.
    x = torch.minimum((points[..., 0] * side).clamp(min=-0.5), side + 0.5) + left
    y = torch.minimum((points[..., 1] * side).clamp(min=-0.5), side + 0.5) + top
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    texels = pyramid.atlas[ids].to(points.dtype)
    return F.grid_sample(texels, grid, mode="bilinear", padding_mode="border", align_corners=False) / 255
