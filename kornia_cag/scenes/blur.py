"""Three kinds of point-spread function in one form, and the two passes that blur with them.

Each is a line of taps along one axis, possibly slanted, followed by a column of taps: a Gaussian or a box is a row and
a column, motion is a slanted line without a column.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from kornia.filters import filter2d
from torch import Tensor

from kornia_cag.core.compiling import columns, constant, fusing, kept, natural, once

MOST = 2.0**16  # the highest number to be stored in words,
SMALL = 2.0**-112  # and what they are multiplied by


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


def isotropic(line: Float[Tensor, "b k"]) -> PointSpread:
    """The point-spread function that is the same line across and down: a Gaussian, or a square box."""
    still = torch.zeros_like(line[:, 0])
    return PointSpread(line, still, still > 0, line)


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
    return _two_passes(picture, spread)


def _filter(picture: Float[Tensor, "b c h w"], spread: PointSpread) -> Float[Tensor, "b c h w"]:
    blurred: Tensor = filter2d(picture, spread.kernels().to(picture.dtype), border_type="replicate")
    return blurred


def blurred_planes(planes: Sequence[Float[Tensor, "b h w"]], spread: PointSpread) -> list[Float[Tensor, "b h w"]]:
    """:func:`blur` for a GPU, of up to three channels: the same two passes, whose threads compute all of a pixel.

    A thread reads its own taps, from no farther than the border. What the taps of a pass read is stored once, from 0 to
    :data:`MOST`.
    """
    (b, height, width), taps, device = planes[0].shape, spread.line.shape[1], planes[0].device
    # An operation on bits, or inductor (torch 2.12) takes places for symbols, and fails on their minimum in a stack.
    y, x = (torch.arange(side, dtype=torch.int32, device=device) ^ 0 for side in (height, width))
    y, start = y[:, None], torch.arange(b, dtype=torch.int32, device=device)[:, None, None] * (height * width)
    places, weights = _along(spread, start, y, x)
    words = _in_words([plane.clamp(0, MOST) for plane in planes]).flatten()[:, None]
    # Rows of one number: an embedding takes places of 32 bits.
    line = _in_words(_sums([F.embedding(natural(place), words)[..., 0] for place in places], weights))
    rows = [(y[:, 0] + (tap - taps // 2)).clamp(0, height - 1) for tap in range(taps)]
    return _sums([line[:, row] for row in rows], columns(spread.column / SMALL))[: len(planes)]


def _along(
    spread: PointSpread, start: Int[Tensor, "b 1 1"], y: Int[Tensor, "h 1"], x: Int[Tensor, " w"]
) -> tuple[list[Int[Tensor, "b h w"]], list[Float[Tensor, " b"]]]:
    """Places and weights of the pixels read by the line: two per step, since it may end between pixels."""
    taps, height, width = spread.line.shape[1], len(y), len(x)
    across = spread.lean[:, None] * steps(taps, y.device)
    whole = torch.minimum(across.floor(), (steps(taps, y.device).abs() - 1).clamp(min=0))
    part = across - whole
    *aside, steep = (v[:, None, None] for v in columns(torch.cat([whole.int(), spread.steep.int()[:, None]], dim=1)))
    down = steep != 0
    ahead, side = torch.where(down, y, x), torch.where(down, x, y)  # along the line, and across it
    last = [torch.where(down, a - 1, b - 1).int() for a, b in ((height, width), (width, height))]
    pitch = [torch.where(down, a, b).int() for a, b in ((width, 1), (1, width))]
    shares = columns(torch.cat([spread.line * (1 - part), spread.line * part], dim=1) / SMALL)
    places, weights = [], []
    for tap in range(taps):
        step = tap - taps // 2
        passed = start + torch.minimum((ahead + step).clamp(min=0), last[0]) * pitch[0]
        for more in range(2 if step else 1):  # the middle tap falls between no two pixels
            beside = torch.minimum((side + (aside[tap] + more)).clamp(min=0), last[1])
            places.append(passed + beside * pitch[1])
            weights.append(shares[tap + more * taps])
    return places, weights


def _in_words(planes: Sequence[Float[Tensor, "b h w"]]) -> Int[Tensor, "b h w"]:
    """Up to three channels, from 0 to :data:`MOST`, as one word a pixel that takes 17 binary digits of each number.

    Numbers times :data:`SMALL` have three zeros in front of the last five bits of their exponents: 21 of the 28 bits
    that follow are stored.
    """
    word = torch.zeros_like(planes[0], dtype=torch.int64)
    for place, plane in enumerate(planes):
        bits = (plane * SMALL).view(torch.int32)
        word = word | ((bits + 64).long() >> 7) << (21 * place)
    return kept(word)


def _sums(
    words: Sequence[Int[Tensor, "b h w"]], weights: Sequence[Float[Tensor, " b"]]
) -> list[Float[Tensor, "b h w"]]:
    """Weighted sums of the channels in words, where weights are multiples of ``1 / SMALL``."""
    found = []
    for place in range(3):
        bits = [(word >> (21 * place - 7) if place else word << 7).int() & 0x0FFFFF80 for word in words]
        read = [weight[:, None, None] * part.view(torch.float32) for weight, part in zip(weights, bits, strict=True)]
        found.append(_total(read))
    return found


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
