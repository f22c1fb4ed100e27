"""Gradient-domain blending: an object's gradients, on the colours of what lies behind it, solved directly."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from kornia_cag.core.compiling import kept
from kornia_cag.core.operations import unfused

Planes = Float[Tensor, "b c h w"]
Spans = tuple[Float[Tensor, " b"], Float[Tensor, " b"]]  # first place, and how many

SHOWN = 1 / 255  # lowest alpha that counts as the object's


@unfused("poisson(Tensor rgb, Tensor alpha, Tensor behind, *, bool mixed=False) -> Tensor", "behind")
def poisson(rgb: Planes, alpha: Float[Tensor, "b 1 h w"], behind: Planes, *, mixed: bool = False) -> Planes:
    """Blend an object seamlessly: the picture whose gradients are the object's inside it, and the context's elsewhere.

    What is solved, for each sample and channel: inside the object's bounding box, which is that of alpha above
    :data:`SHOWN`, find ``f`` with ``laplace f = div v`` that equals ``behind`` all around the box. Between two
    neighbouring pixels, ``v`` is the object's difference of straight colours ``rgb / alpha``, weighted by the lower
    alpha of the two, plus that of ``behind``, weighted by the rest. So no gradient is taken across the object's edge,
    where a cut-out has no neighbour. ``mixed`` takes whichever of the two differences is larger.

    OpenCV's ``seamlessClone`` solves the same box, after it has eroded the object by three pixels. Where gradients are
    mixed it chooses otherwise than the paper: at each pixel, by how much the differences along x and y differ. What of
    the box is not the object's is shifted a little, too, unlike in the paper. The object's own mean colour is lost.
    Nothing is clamped.

    The work grows with the third power of the canvas's side.

    Differentiable in all three. Source: Pérez, Gangnet and Blake, "Poisson image editing", SIGGRAPH 2003, equations 7
    and 13; solved by sine transforms, here as products with a matrix for each sample's box.

    Args:
        rgb: the object's premultiplied colour.
        alpha: its alpha, in [0, 1].
        behind: what is there already.
        mixed: whether stronger gradients of the context show through the object.
    """
    color, weight, change = kept(rgb / alpha.clamp(min=SHOWN)), kept(alpha), []
    for axis in (2, 3):
        last = alpha.shape[axis] - 1
        inside = torch.minimum(weight.narrow(axis, 0, last), weight.narrow(axis, 1, last))
        flow = kept(inside * _excess(color, behind, axis, mixed))
        nothing = torch.zeros_like(flow.narrow(axis, 0, 1))
        change.append(torch.diff(torch.cat([nothing, flow, nothing], dim=axis), dim=axis))
    seen = alpha.detach()[:, 0] > SHOWN
    return behind + solved(kept(change[0] + change[1]), _span(seen.any(dim=2)), _span(seen.any(dim=1)))


def _excess(color: Planes, behind: Planes, axis: int, mixed: bool) -> Float[Tensor, "b c _ _"]:
    """By how much the difference from each pixel to the next along an axis exceeds that of what lies behind."""
    if not mixed:
        return torch.diff(color - behind, dim=axis)
    own, there = torch.diff(color, dim=axis), torch.diff(behind, dim=axis)
    return torch.where(own.abs() > there.abs(), own - there, 0)


def _span(seen: Bool[Tensor, "b n"]) -> Spans:
    """Where the seen part of a line begins, and how long it is."""
    # Floats: see outline.
    n = seen.shape[1]
    place = torch.arange(n, dtype=torch.float32, device=seen.device)
    first = n - (seen * (n - place)).amax(dim=1)
    return kept(first), kept(((seen * (place + 1)).amax(dim=1) - first).clamp(min=0))


def solved(source: Planes, rows: Spans, columns: Spans) -> Planes:
    """The ``u`` whose Laplacian by five points is ``source`` inside a box, and which is 0 all around it.

    In double precision, which no setting of a caller, such as TF32, makes coarser; and the inverse magnifies errors.

    Args:
        source: read inside the box only.
        rows: top of each box, and its height; 0: there is none.
        columns: its left side, and its width.
    """
    if source.device.type == "cpu":
        return _solved_one_by_one(source, rows, columns)
    (down, slow), (across, fast) = (_sines(n, span) for n, span in zip(source.shape[2:], (rows, columns), strict=True))
    waves = _product(down, source.double(), across) / (slow[:, None, :, None] + fast[:, None, None, :])
    return _product(down.mT, kept(waves), across.mT).to(source.dtype)


def _solved_one_by_one(source: Planes, rows: Spans, columns: Spans) -> Planes:
    """The same where reading numbers waits for nothing: boxes are as large as they are, and seldom the canvas."""
    numbers = (np.asarray(value.detach()).astype(int).tolist() for value in (*rows, *columns))
    (height, width), solutions = source.shape[2:], []
    for planes, top, high, left, wide in zip(source.unbind(0), *numbers, strict=True):
        box = planes[:, top : top + high, left : left + wide].double()
        (down, slow), (across, fast) = (_sines_of(n, source.device) for n in box.shape[1:])
        waves = torch.matmul(down, box @ across) / (slow[:, None] + fast)
        margins = left, width - left - wide, top, height - top - high
        solutions.append(F.pad(torch.matmul(down, waves @ across), margins))
    return torch.stack(solutions).to(source.dtype) if solutions else source.clone()


def _sines_of(n: int, device: torch.device) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, " n"]]:
    """As :func:`_sines`, of a span that is the whole line: a symmetric matrix."""
    place = torch.arange(1, n + 1, dtype=torch.float64, device=device)
    step = math.pi / (n + 1)
    half = torch.sin(0.5 * step * place)
    return torch.sin(step * place * place[:, None]) * math.sqrt(2 / (n + 1)), -4 * half * half


def _product(
    down: Float64[Tensor, "b k h"], planes: Float64[Tensor, "b c h w"], across: Float64[Tensor, "b l w"]
) -> Float64[Tensor, "b c k l"]:
    """The planes of each sample, multiplied by its own matrices from both sides."""
    b, channels, height, width = planes.shape
    half = torch.bmm(planes.reshape(b, channels * height, width), across.mT).view(b, channels, height, -1)
    return torch.stack([torch.bmm(down, plane) for plane in half.unbind(1)], dim=1)


def _sines(n: int, span: Spans) -> tuple[Float64[Tensor, "b n n"], Float64[Tensor, "b n"]]:
    """Sine waves along a span of ``n`` places, a wave a row, 0 outside the span; and what their Laplacian multiplies.

    The waves are orthonormal: as many as the span has places, the other rows are 0.
    """
    first, count = (value.double()[:, None] for value in span)
    place = torch.arange(1, n + 1, dtype=torch.float64, device=first.device)
    inside, step = place - first, math.pi / (count + 1)
    known = (inside > 0) & (inside <= count)
    waves = torch.sin((step * place)[..., None] * inside[:, None, :]) * (2 / (count + 1)).sqrt()[..., None]
    half = torch.where(place <= count, torch.sin(0.5 * step * place), 1)
    waves = torch.where(known[:, None, :] & (place <= count)[..., None], waves, 0)
    return kept(waves), kept(-4 * half * half)  # 2 cos - 2, without its cancellation
