"""Bilinear reads of whole texels for a compiler: four loads of a word, from which it takes all channels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32
from torch import Tensor

from kornia_cag.core.compiling import kept, natural, threads


def gather(
    words: Int32[Tensor, "n ah aw"],
    channels: int,
    ids: Int[Tensor, " b"],
    x: Float[Tensor, "#b #h #w"],
    y: Float[Tensor, "#b #h #w"],
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Four whole-texel loads per point, which a compiler fuses with their surroundings; slow in eager mode.

    Args:
        words: an atlas, one word a texel.
        channels: how many bytes of a word are used.
        ids: picture per sample.
        x: where to read, texels from the atlas's left border; an integer lies between two texels.
        y: texels from its upper border.

    Returns:
        One plane per channel, in [0, 1].
    """
    _, height, width = words.shape
    flat = words.flatten()[:, None]
    x, y = x - 0.5, y - 0.5
    if x.shape == y.shape or not threads(x):  # on a GPU a row and a column are sooner computed than read
        x, y = kept(x), kept(y)
    index = torch.int32 if words.numel() < 2**31 else torch.int64
    start = (ids * (height * width)).to(index)
    # At the far gutter's centre, the next texel has weight 0 and may lie beyond the atlas.
    if threads(x):  # one conversion takes a GPU as long as eight sums, and so does rounding down
        cell = [v.to(index).clamp(max=side - 2) for v, side in ((x, width), (y, height))]
        column, row = (v.to(x.dtype) for v in cell)
        place = natural(kept(start)[:, None, None] + cell[1] * width + cell[0])
    else:
        column, row = x.floor().clamp(max=width - 2), y.floor().clamp(max=height - 2)
        place = (row * width + column).to(index) + start[:, None, None]
    # An embedding takes an int32 place, where other ways to index would need an int64.
    texels = [F.embedding(place, flat[step:])[..., 0] for step in (0, 1, width, width + 1)]
    across, down = (x - column) * (1 / 255), y - row
    left = 1 / 255 - across
    c, d = left * down, across * down
    a, b = left - c, across - d
    p, q, r, s = texels

    def plane(shift: int) -> Float[Tensor, "b h w"]:
        first, second, third, fourth = (_byte(t, shift).to(x.dtype) for t in (p, q, r, s))
        return a * first + b * second + c * third + d * fourth

    return tuple(plane(8 * channel) for channel in range(channels))


def _byte(word: Int32[Tensor, "*b"], shift: int) -> Int[Tensor, "*b"] | Float[Tensor, "*b"]:
    """One byte of each word. A GPU gets it sooner as the last digits of ``2 ** 23 + byte`` than by a conversion."""
    byte = (word >> shift) & 255
    return (byte | 0x4B000000).view(torch.float32) - 2.0**23 if threads(word) else byte
