"""Three kinds of point-spread function in one form, and the two passes that blur with them.

Each is a line of taps along one axis, possibly slanted, followed by a column of taps: a Gaussian or a box is a row and
a column, motion is a slanted line without a column.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from kornia.filters import filter2d
from torch import Tensor

from kornia_cag.core.compiling import constant, fusing, kept, once, threads


@dataclass(frozen=True)
class PointSpread:
    """Point-spread functions of ``b`` samples with ``k`` taps per side, ``k`` odd.

    Convention: tap ``i`` stands for ``i - k // 2`` pixels, to the right or down.
    """

    line: Float[Tensor, "b k"]  # weights of the first pass; they sum to 1
    lean: Float[Tensor, " b"]  # shift across the line per step along it, pixels, in [-1, 1]
    steep: Bool[Tensor, " b"]  # whether the line runs down instead of right
    column: Float[
        Tensor, "b k"
    ]  # weights of the second pass, downwards; all in the middle tap if the line is slanted or steep

    def kernels(self) -> Float[Tensor, "b k k"]:
        """The same as dense kernels, rows downwards: a step that ends between two pixels is split between them."""
        step = steps(self.line.shape[1], self.line.device)
        aside = self.lean[:, None] * step
        across = (step[:, None] - step)[:, None] - aside[:, None, :, None]  # row, tap, column's tap
        shares = ((1 - across.abs()).clamp_(min=0) * self.column[:, None, None, :]).sum(dim=-1)
        flat = self.line[:, None, :] * shares
        return torch.where(self.steep[:, None, None], flat.mT, flat)


def steps(taps: int, device: torch.device) -> Float[Tensor, " k"]:
    """Offsets of the taps, pixels: ``-(taps // 2)`` to ``taps // 2``."""
    found: Tensor = constant(tuple(range(-(taps // 2), taps // 2 + 1)), torch.float32, device)
    return found


def sharp(taps: int, device: torch.device) -> Float[Tensor, " k"]:
    """All in the middle tap."""
    found: Tensor = constant(tuple(float(tap == taps // 2) for tap in range(taps)), torch.float32, device)
    return found


def gaussian(sigma: Float[Tensor, " b"], taps: int) -> Float[Tensor, "b k"]:
    """Taps of a Gaussian of standard deviation ``sigma``, pixels."""
    return _shares(torch.exp(-0.5 * (steps(taps, sigma.device) / sigma[:, None]) ** 2))


def box(width: Float[Tensor, "*b"], taps: int) -> Float[Tensor, "*b k"]:
    """Taps of a box of ``width`` pixels, at least 1, possibly fractional: how much of each pixel it covers."""
    return _shares((0.5 * width[..., None] + 0.5 - steps(taps, width.device).abs()).clamp(0, 1))


def motion(
    length: Float[Tensor, " b"], angle: Float[Tensor, " b"], taps: int
) -> tuple[Float[Tensor, "b k"], Float[Tensor, " b"], Bool[Tensor, " b"]]:
    """Line, lean and direction of a straight path of ``length`` pixels: the mean of the picture moved along it.

    ``angle`` is in radians, clockwise on screen. The picture is interpolated linearly along the longer axis; across it,
    each whole step is split between the two pixels that it ends between.
    """
    cos, sin = angle.cos(), angle.sin()
    steep = sin.abs() > cos.abs()
    major, minor = torch.where(steep, sin, cos), torch.where(steep, cos, sin)
    half, step = (0.5 * length * major.abs())[:, None], steps(taps, length.device)
    passed = _tent_below(step + half) - _tent_below(step - half)
    return _shares(torch.where(half > 1e-3, passed, sharp(taps, length.device))), minor / major, steep


def _tent_below(x: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Integral of the tent ``max(1 - |x|, 0)``, the weight in bilinear interpolation, from 0 to ``x``."""
    inside = x.clamp(-1, 1)
    return torch.addcmul(inside, inside, inside.abs(), value=-0.5)


def _shares(weights: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    return weights / weights.sum(dim=-1, keepdim=True)


def blur(picture: Float[Tensor, "b c h w"], spread: PointSpread) -> Float[Tensor, "b c h w"]:
    """Convolve each picture with its own point-spread function; border pixels are repeated outwards."""
    if not fusing():
        return _filter(picture, spread)
    return torch.stack(blurred_planes(picture, spread), dim=1) if threads(picture) else _two_passes(picture, spread)


def _filter(picture: Float[Tensor, "b c h w"], spread: PointSpread) -> Float[Tensor, "b c h w"]:
    blurred: Tensor = filter2d(picture, spread.kernels().to(picture.dtype), border_type="replicate")
    return blurred


def blurred_planes(picture: Float[Tensor, "b c h w"], spread: PointSpread) -> list[Float[Tensor, "b h w"]]:
    """:func:`blur` for a GPU, each channel by itself: two passes, in which a thread computes a pixel of all three.

    It reads its own taps, from no farther than the border. What the taps of a pass read is stored once.
    """
    taps, (height, width), device = spread.line.shape[1], picture.shape[2:], picture.device
    x = torch.arange(width, dtype=torch.int32, device=device)
    # An operation on bits, or inductor (torch 2.12) takes places for symbols, and fails on their minimum in a stack.
    y = torch.arange(height, dtype=torch.int32, device=device)[:, None] ^ 0
    across = spread.lean[:, None] * steps(taps, device)
    whole = torch.minimum(across.floor(), (steps(taps, device).abs() - 1).clamp(min=0))
    part = across - whole
    near, far, aside = map(kept, (spread.line * (1 - part), spread.line * part, whole.int()))
    column = kept(spread.column.clone(memory_format=torch.contiguous_format))  # it may be a part of a larger tensor
    down, places, weights = kept(spread.steep)[:, None, None], [], []
    for tap in range(taps):
        step = tap - taps // 2
        for weight, more in ((near, 0), (far, 1))[: 2 if step else 1]:  # the middle tap falls between no two pixels
            to_side = aside[:, tap, None, None] + more
            row = (y + torch.where(down, step, to_side)).clamp(0, height - 1)
            place = row * width + (x + torch.where(down, to_side, step)).clamp(0, width - 1)
            places.append(place.long().flatten(1))
            weights.append(weight[:, tap, None])
    rows = [(y[:, 0] + (tap - taps // 2)).clamp(0, height - 1).long() for tap in range(taps)]
    blurred = []
    for plane in picture.unbind(1):
        flat = kept(plane.clone(memory_format=torch.contiguous_format)).flatten(1)
        read = [weight * flat.gather(1, place) for weight, place in zip(weights, places, strict=True)]
        line = kept(_total(read)).unflatten(1, (height, width))
        blurred.append(_total([column[:, tap, None, None] * line[:, row] for tap, row in enumerate(rows)]))
    return blurred


def _two_passes(picture: Float[Tensor, "b c h w"], spread: PointSpread) -> Float[Tensor, "b c h w"]:
    """The same as sums of 2k - 1 and k shifted pictures, each of which a compiler turns into one loop."""
    b, channels, height, width = picture.shape
    reach = spread.line.shape[1] // 2
    padded = kept(_pad(picture, reach))
    pitch = width + 2 * reach
    plane = (height + 2 * reach) * pitch
    # Row n starts at number n of the padded pictures: a shift is another row, one and the same for a row of pixels.
    places = torch.arange(b, device=picture.device)[:, None] * (channels * plane)
    places = places + torch.arange(height, device=picture.device) * pitch
    shifts, weights = (once(*values) for values in _taps(spread, pitch))
    count = (b - 1) * channels * plane + plane - width + 1
    lines = []
    for channel in range(channels):  # all in one loop over pixels, so each tap's shift and weight are read once
        rows = padded.flatten()[channel * plane :].as_strided((count, width), (1, 1))
        read = [weight[:, None, None] * F.embedding(places + shift[:, None], rows)
                for shift, weight in zip(shifts, weights, strict=True)]  # fmt: skip
        lines.append(_total(read[::2]) + _total(read[1::2]))
    line, place = kept(torch.stack(lines, dim=1)), torch.arange(height, device=picture.device)
    return _total([weight[:, None, None, None] * line[:, :, (place + (tap - reach)).clamp(0, height - 1)]
                   for tap, weight in enumerate(once(*spread.column.unbind(1)))])  # fmt: skip


def _total(values: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, values)


def _taps(spread: PointSpread, pitch: int) -> tuple[list[Int[Tensor, " b"]], list[Float[Tensor, " b"]]]:
    """Shifts and weights of the pixels read by the line: two per step, since it may end between pixels."""
    reach = spread.line.shape[1] // 2
    ahead = torch.where(spread.steep, pitch, 1)  # one step along, and one across, in numbers of the padded picture
    aside = torch.where(spread.steep, 1, pitch)
    middle = reach * (pitch + 1)
    shifts, weights = [], []
    for tap, weight in enumerate(spread.line.unbind(1)):
        step = tap - reach
        across = spread.lean * step
        whole = across.floor().clamp(max=max(abs(step) - 1, 0))
        shift, part = middle + step * ahead + whole.long() * aside, across - whole
        shifts += [shift, shift + aside] if step else [shift]
        weights += [weight * (1 - part), weight * part] if step else [weight]
    return shifts, weights


def _pad(picture: Float[Tensor, "b c h w"], reach: int) -> Float[Tensor, "b c _ _"]:
    height = picture.shape[-2]
    rows = (torch.arange(height + 2 * reach, device=picture.device) - reach).clamp(0, height - 1)
    picture = picture[:, :, rows]
    left, right = picture[..., :1], picture[..., -1:]
    return torch.cat([left.expand(-1, -1, -1, reach), picture, right.expand(-1, -1, -1, reach)], dim=-1)
