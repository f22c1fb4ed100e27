"""Points that stand for an object's shape, so that its share on a canvas can be judged without drawing a pixel."""

import functools
import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from kornia_cag.banks.pyramid import Pyramid
from kornia_cag.banks.texels import EXTENT

AREA = 64  # points spread over a picture's alpha: each stands for 1/64 of it
RIM = 32  # points on its convex hull, the outermost in as many directions
_SIDE = 64  # texels per side of the level that is looked at, or the bank's finest if that has fewer
_CHUNK = 256  # pictures at a time


def shape_points(pyramid: Pyramid) -> Float[Tensor, "m 2 96"]:
    """:data:`AREA` points spread over each picture's alpha, then :data:`RIM` points around it.

    The first are quantiles of alpha along a Hilbert curve, so that each stands for the same share of it, and those of
    neighbouring shares are neighbours. They are the same on every device: alpha is added up in integers.

    Args:
        pyramid: premultiplied RGBA.

    Returns:
        Object coordinates ``(x, y)``: the longest side spans [-1, 1].
    """
    level = max(0, (pyramid.size // _SIDE).bit_length() - 1)
    alpha = pyramid.level(level)[:, 3]
    parts = [_points(alpha[start : start + _CHUNK]) for start in range(0, len(alpha), _CHUNK)]
    return torch.cat(parts) / EXTENT


def hulls(pyramid: Pyramid) -> Float[Tensor, "m 8"]:
    """An octagon around all that each picture shows, of its finest level: what a read beyond it finds is empty.

    Returns:
        Highest ``x, -x, y, -y, x + y, -x - y, x - y, y - x``, in object coordinates; 0 for an empty picture.
    """
    size, side = pyramid.size, slice(1, pyramid.size + 1)
    parts = [_hulls(pyramid.words[start : start + _CHUNK, side, side] != 0) for start in range(0, len(pyramid), _CHUNK)]
    return torch.cat(parts).float() * (2 / (size * EXTENT))


def _hulls(shown: Bool[Tensor, "m s s"]) -> Float[Tensor, "m 8"]:
    """The same in texels from the middle."""
    size, row = shown.shape[-1], torch.arange(shown.shape[-1], device=shown.device, dtype=torch.float64)
    shown, anything = shown.byte(), shown.any(dim=2)
    left = shown.argmax(dim=2) - 0.5 * size  # of the first texel of each row
    right = 0.5 * size - shown.flip(2).argmax(dim=2)  # of the last one
    top, bottom = row - 0.5 * size, row + 1 - 0.5 * size
    ends = (right, -left, bottom.expand_as(left), -top.expand_as(left), right + bottom, -left - top, right - top,
            bottom - left)  # fmt: skip
    highest = torch.where(anything[:, None], torch.stack(ends, dim=1).double(), -torch.inf).amax(dim=2)
    return torch.where(anything.any(dim=1)[:, None], highest, 0)


def _points(alpha: UInt8[Tensor, "m s s"]) -> Float[Tensor, "m 2 96"]:
    side = alpha.shape[-1]
    return torch.cat([_area(alpha, side), _rim(alpha, side)], dim=2)


def _area(alpha: UInt8[Tensor, "m s s"], side: int) -> Float[Tensor, "m 2 64"]:
    order = torch.tensor(_hilbert(side), device=alpha.device)
    summed = alpha.flatten(1)[:, order].long().cumsum(dim=1)
    middles = (2 * torch.arange(AREA, device=alpha.device) + 1) * summed[:, -1:] // (2 * AREA)
    texel = order[torch.searchsorted(summed, middles, right=True).clamp(max=side * side - 1)]
    return torch.stack([_place(texel % side, side), _place(texel // side, side)], dim=1)


def _rim(alpha: UInt8[Tensor, "m s s"], side: int) -> Float[Tensor, "m 2 32"]:
    """The outermost of each row's two ends, in every direction."""
    solid = 4 * alpha.int() > alpha.flatten(1).amax(dim=1)[:, None, None].int()
    column = torch.arange(side, device=alpha.device)
    first = torch.where(solid, column, side).amin(dim=2)
    last = torch.where(solid, column, -1).amax(dim=2)
    x = torch.cat([_place(first, side), _place(last, side)], dim=1)
    y = _place(column, side).repeat(2)
    angle = torch.arange(RIM, device=alpha.device, dtype=torch.float32) * (2 * math.pi / RIM)
    far = x[..., None] * angle.cos() + y[:, None] * angle.sin()
    end = torch.where((last >= 0).repeat(1, 2)[..., None], far, -torch.inf).argmax(dim=1)
    return torch.stack([x.gather(1, end), y[end]], dim=1)


def _place(texel: Int[Tensor, "*n"], side: int) -> Float[Tensor, "*n"]:
    """Centres of texels, from -1 to 1 across the picture."""
    return (2 * texel.float() + 1) / side - 1


@functools.cache
def _hilbert(side: int) -> list[int]:
    """All texels of a square whose side is a power of two, ``y * side + x``, in the order of a Hilbert curve."""
    found = []
    for step in range(side * side):
        x, y, rest, width = 0, 0, step, 1
        while width < side:
            right, down = rest // 2 & 1, (rest ^ (rest // 2)) & 1
            if not down:
                x, y = (width - 1 - y, width - 1 - x) if right else (y, x)
            x, y, rest, width = x + width * right, y + width * down, rest // 4, 2 * width
        found.append(y * side + x)
    return found
