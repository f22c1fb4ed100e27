"""Multi-band blending: each band of frequencies is blended over an edge as wide as its own waves."""

import functools

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from kornia_cag.core.compiling import kept
from kornia_cag.core.operations import unfused

Stack = Float[Tensor, "b c h w"]


@unfused("multiband(Tensor rgb, Tensor alpha, Tensor behind, *, int levels) -> Tensor", "behind")
def multiband(
    rgb: Float[Tensor, "b c h w"], alpha: Float[Tensor, "b 1 h w"], behind: Float[Tensor, "b c h w"], *, levels: int
) -> Float[Tensor, "b c h w"]:
    """Splice a pasted picture into what lies behind it, by Laplacian pyramids: any canvas, and no picture clamped.

    Band ``k`` of the result is that of the pasted picture ``rgb + (1 - alpha) * behind``, weighted by level ``k`` of
    alpha's Gaussian pyramid, plus that of ``behind``, weighted by the rest. Everything is linear in the pictures, so
    only the pyramid of their difference is built. No levels: each band alike, the difference times alpha. What is
    translucent in the pasted picture weighs less once more, and fades: this blend is for opaque objects.

    Differentiable in all three. Source: Burt and Adelson, "A multiresolution spline with application to image mosaics",
    ACM Transactions on Graphics 2(4), 1983.

    Args:
        rgb: the object's premultiplied colour.
        alpha: its alpha, in [0, 1].
        behind: what is there already.
        levels: how often the picture is halved: the widest edge is about ``2 ** levels`` pixels.
    """
    stack = [torch.cat([torch.addcmul(rgb, alpha, behind, value=-1), alpha], dim=1)]
    bands: list[Stack] = []
    for _ in range(levels):
        fine, coarse = stack[-1], halved(stack[-1])
        band = fine[:, :-1] - doubled(coarse[:, :-1], (fine.shape[2], fine.shape[3]))
        bands.append(fine[:, -1:] * band)
        stack.append(coarse)
    total = stack[-1][:, -1:] * stack[-1][:, :-1]
    for band in reversed(bands):
        total = doubled(total, (band.shape[2], band.shape[3])) + band
    return behind + total


def halved(picture: Stack) -> Float[Tensor, "b c _ _"]:
    """Every other pixel of a picture, the first among them, after a blur by 1, 4, 6, 4, 1 sixteenths each way.

    Border pixels are repeated outwards. A side of ``n`` becomes ``(n + 1) // 2``.
    """
    down, across = (_halving(n, picture.device) for n in picture.shape[2:])
    return _product(down, picture, across)


def doubled(picture: Stack, size: tuple[int, int]) -> Float[Tensor, "b c _ _"]:
    """A picture of ``size = (height, width)`` from its half: the zeros between its pixels filled by the same blur."""
    down, across = (_doubling(n, picture.device) for n in size)
    return _product(down, picture, across)


def _product(down: Float64[Tensor, "k h"], picture: Stack, across: Float64[Tensor, "l w"]) -> Float[Tensor, "b c k l"]:
    """A picture, multiplied by matrices from both sides, a sample at a time: a larger product rounds otherwise.

    In double precision, which no setting of a caller, such as TF32, makes coarser.
    """
    b, channels, height, width = picture.shape
    flat = kept(picture.double()).reshape(b, channels * height, width)
    half = torch.bmm(flat, across.T.expand(b, -1, -1)).view(b * channels, height, -1)
    whole = torch.bmm(down.expand(b * channels, -1, -1), half).view(b, channels, len(down), len(across))
    return whole.to(picture.dtype)


def _halving(n: int, device: torch.device) -> Float64[Tensor, "m n"]:
    """What :func:`halved` does to a line of ``n`` pixels."""
    place = torch.arange(n, device=device)
    reads = [((place[::2] + step).clamp(0, n - 1)[:, None] == place) * weight
             for step, weight in ((-2, 0.0625), (-1, 0.25), (0, 0.375), (1, 0.25), (2, 0.0625))]  # fmt: skip
    return kept(functools.reduce(torch.add, reads).double())


def _doubling(n: int, device: torch.device) -> Float64[Tensor, "n m"]:
    """What :func:`doubled` does to make a line of ``n`` pixels."""
    half = (n + 1) // 2
    place, known = torch.arange(n, device=device), torch.arange(half, device=device)
    even, middle = place % 2 == 0, place // 2
    reads = [((middle + step).clamp(0, half - 1)[:, None] == known) * torch.where(even, on, between)[:, None]
             for step, on, between in ((-1, 0.125, 0.0), (0, 0.75, 0.5), (1, 0.125, 0.5))]  # fmt: skip
    return kept(functools.reduce(torch.add, reads).double())
