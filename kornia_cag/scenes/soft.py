"""Softer edges: an object's alpha made smaller near its edge, never larger, with an amount for each sample.

What is taken away comes from inside the edge, where the object's own colour is known: its premultiplied colour shrinks
in proportion, and nothing has to be made up outside.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.compiling import kept
from kornia_cag.core.operations import unfused
from kornia_cag.scenes.blur import PointSpread, blur, box, gaussian, isotropic, motion, sharp

Falloff = Literal["gaussian", "box"]

Mask = Float[Tensor, "b h w"]


@unfused("eroded(Tensor alpha, Tensor pixels, *, float most) -> Tensor", "alpha")
def eroded(alpha: Mask, pixels: Float[Tensor, " b"], *, most: float) -> Mask:
    """Move every edge inwards by so many pixels, possibly a fraction of one.

    The structuring element is an octagon. Where the canvas cuts an object off, there is no edge. 0 changes nothing.

    Args:
        alpha: in [0, 1].
        pixels: at least 0; what exceeds ``most`` counts as ``most``, rounded up.
        most: the largest of ``pixels`` that may come.
    """
    alpha = alpha.clone()  # an operation's result is a tensor of its own, also where no step follows
    for step in range(math.ceil(most)):
        alpha = _worn(kept(alpha), kept((pixels - step).clamp(0, 1)))
    return alpha


def _worn(alpha: Mask, part: Float[Tensor, " b"]) -> Mask:
    """Erode by part of a pixel: each pixel is interpolated towards its lowest neighbour, as if that came nearer."""
    part = part[:, None, None]
    up, left = _neighbours(alpha, 1), _neighbours(alpha, 2)
    straight = torch.minimum(alpha, torch.minimum(up, left))
    slanted = torch.minimum(alpha, _neighbours(up, 2))
    return torch.minimum(torch.lerp(alpha, straight, part), torch.lerp(alpha, slanted, part / math.sqrt(2)))


def _neighbours(plane: Mask, axis: int) -> Mask:
    """The lower one of the two neighbours along an axis; border pixels are repeated outwards."""
    last = plane.shape[axis] - 1
    before = torch.cat([plane.narrow(axis, 0, 1), plane.narrow(axis, 0, last)], dim=axis)
    after = torch.cat([plane.narrow(axis, 1, last), plane.narrow(axis, last, 1)], dim=axis)
    return torch.minimum(before, after)


@unfused("feathered(Tensor alpha, Tensor width, str kind, *, float most) -> Tensor", "alpha")
def feathered(alpha: Mask, width: Float[Tensor, " b"], kind: Falloff, *, most: float) -> Mask:
    """Let every edge fade inwards over ``width`` pixels: linearly (a box), or as the integral of a Gaussian.

    The Gaussian's standard deviation is a quarter of the width, so 95 % of the change lies within it. Parts thinner
    than the width do not become fully opaque, and those of less than half of it vanish. 0 changes nothing.

    Args:
        alpha: in [0, 1].
        width: at least 0, pixels; what exceeds ``most`` counts as about as much.
        kind: ``"gaussian"`` or ``"box"``.
        most: the largest of ``width`` that may come, pixels.
    """
    inner, width = eroded(alpha, 0.5 * width, most=0.5 * most), width.clamp(max=most)
    if kind == "gaussian":
        line = gaussian((0.25 * width).clamp(min=0.05), _taps(0.75 * most))
    else:
        line = box(width.clamp(min=1), _taps(0.5 * most - 0.5))
    return _spread(alpha, inner, isotropic(line), width)


@unfused("smeared(Tensor alpha, Tensor length, Tensor angle, *, float most) -> Tensor", "alpha")
def smeared(alpha: Mask, length: Float[Tensor, " b"], angle: Float[Tensor, " b"], *, most: float) -> Mask:
    """Let edges fade inwards as if the object moved: over ``length`` pixels across its path, not at all along it.

    Parts shorter than ``length`` along the path do not become fully opaque. 0 changes nothing.

    Args:
        alpha: in [0, 1].
        length: at least 0, pixels; what exceeds ``most`` counts as ``most``.
        angle: of the path, radians, clockwise on screen.
        most: the largest of ``length`` that may come, pixels.
    """
    length, reach = length.clamp(max=most), math.ceil(0.5 * most)
    half = 0.5 * length[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    size, plane, inner = (alpha.shape[1], alpha.shape[2]), kept(alpha)[:, None], alpha
    row, column = (torch.arange(1 - n, n, 2, dtype=torch.float32, device=alpha.device) / n for n in size)
    for step in range(1, reach + 1):
        for sign in (-1, 1):
            x, y = (2 * sign * step / reach * half).unbind(1)
            across, down = column + x[:, None] / size[1], row + y[:, None] / size[0]
            grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
            moved = F.grid_sample(plane, grid.to(alpha.dtype), padding_mode="border", align_corners=False)
            inner = torch.minimum(inner, moved[:, 0])
    line, lean, steep = motion(length, angle, _taps(0.5 * most))
    column = sharp(line.shape[1], alpha.device).expand_as(line)
    return _spread(alpha, inner, PointSpread(line, lean, steep, column), length)


def _taps(reach: float) -> int:
    """Taps of a point-spread function that reaches so many pixels each way.

    At least 5: three by three are convolved by a faster way, which rounds by the size of the batch.
    """
    return 2 * max(math.ceil(reach), 2) + 1


def _spread(alpha: Mask, inner: Mask, spread: PointSpread, amount: Float[Tensor, " b"]) -> Mask:
    """A blurred smaller mask, no larger than the mask itself; the mask to the bit where the amount is 0."""
    soft = torch.minimum(alpha, blur(kept(inner)[:, None], spread)[:, 0])
    return torch.where(amount[:, None, None] > 0, soft, alpha)
