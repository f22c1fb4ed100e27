"""``noise``: a field of random numbers, one a pixel, each a function of its sample's key, the slot and its place."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.compiling import kept
from kornia_cag.core.operations import one_operation
from kornia_cag.core.randomness import MULTIPLIERS, WEYL, counted, hashed

MEAN = 510  # of the sum of four bytes
UNIT = 1 / math.sqrt((2**16 - 1) / 3)  # over the standard deviation of the sum of four bytes
_BLOCK = 2**15  # numbers that NumPy works on at a time: they stay in a core's cache


def noise(keys: Int[Tensor, " b"], slot: str, shape: tuple[int, ...]) -> Float[Tensor, " b *n"]:
    """A field of independent numbers of mean 0 and variance 1 per key, nearly normal, at most 3.5 in size.

    The sum of the four bytes of one hash (Irwin, 1927; Hall, 1927): ten times faster than
    :func:`kornia_cag.core.randomness.normals`, which pays off if every pixel needs one.
    """
    found: Tensor = _noise(keys, slot, list(shape))
    return found


def noise_words(keys: Int[Tensor, " b"], slot: str, shape: tuple[int, int, int]) -> Int[Tensor, "b h w"]:
    """The sums of bytes that :func:`noise` is made of, of up to three channels in one word a pixel, for a GPU to store.

    :func:`word_part` takes them apart.
    """
    shifts = 10 * torch.arange(shape[0], device=keys.device, dtype=torch.int32)[:, None, None]
    return kept((sums_of(keys, slot, shape) << shifts).sum(dim=1, dtype=torch.int32))


def word_part(words: Int[Tensor, "*b"], channel: int) -> Int[Tensor, "*b"]:
    """The sums of one channel of :func:`noise_words`."""
    return (words >> (10 * channel)) & 1023


def _in_numpy(keys: Int[Tensor, " b"], slot: str, shape: Sequence[int]) -> Float[Tensor, " b *n"]:
    """The same to the bit, ten times as fast on a CPU: in place, in blocks."""
    base, n = hashed(keys, slot).numpy().view(np.uint32)[:, None], math.prod(shape)
    place = np.arange(1, n + 1, dtype=np.uint32) * np.uint32(WEYL)
    # The first step of the hash takes both parts of its argument, base ^ place, apart.
    base, place = base ^ (base >> np.uint32(16)), place ^ (place >> np.uint32(16))
    found = torch.empty(len(base), n, dtype=torch.float32, device="cpu")
    columns = max(1, min(n, _BLOCK))
    rows = max(1, _BLOCK // columns)
    blocks = [(slice(row, row + rows), slice(column, column + columns))
              for row in range(0, len(base), rows) for column in range(0, n, columns)]  # fmt: skip
    into = found.numpy()

    def fill(part: int) -> None:
        scratch = np.empty((2, rows * columns), dtype=np.uint32)
        for across, along in blocks[part::workers]:
            _fill(into[across, along], base[across], place[along], scratch)

    workers = min(torch.get_num_threads(), len(blocks))
    if workers > 1:  # NumPy does not hold Python's lock while it computes
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, range(workers)))
    elif blocks:
        fill(0)
    return found.view(len(base), *shape)


def _fill(into: np.ndarray, base: np.ndarray, place: np.ndarray, scratch: np.ndarray) -> None:
    x, y = (part[: into.size].reshape(into.shape) for part in scratch)
    np.bitwise_xor(base, place, out=x)
    for multiplier in MULTIPLIERS:
        x *= np.uint32(multiplier)
        np.right_shift(x, np.uint32(15), out=y)
        x ^= y
    np.bitwise_and(x, np.uint32(0x00FF00FF), out=y)
    x >>= np.uint32(8)
    x &= np.uint32(0x00FF00FF)
    x += y
    x *= np.uint32(0x00010001)  # the upper half is now the sum of both
    x >>= np.uint32(16)
    np.copyto(into, x.view(np.int32), casting="unsafe")
    into -= np.float32(MEAN)
    into *= np.float32(UNIT)


@one_operation("noise(Tensor keys, str slot, int[] shape) -> Tensor", cpu=_in_numpy)
def _noise(keys: Int[Tensor, " b"], slot: str, shape: Sequence[int]) -> Float[Tensor, " b *n"]:
    return _centred(sums_of(keys, slot, shape))


def sums_of(keys: Int[Tensor, " b"], slot: str, shape: Sequence[int]) -> Int[Tensor, " b *n"]:
    """The sums of four bytes, 0 to 1020, that :func:`noise` is made of: less :data:`MEAN`, times :data:`UNIT`."""
    place = torch.arange(math.prod(shape), device=keys.device, dtype=torch.int32).reshape(tuple(shape))
    bits = counted(keys, slot, place + 1)
    pairs = (bits & 0x00FF00FF) + ((bits >> 8) & 0x00FF00FF)
    return (pairs + (pairs >> 16)) & 0xFFFF


def _centred(sums: Int[Tensor, " b *n"]) -> Float[Tensor, " b *n"]:
    """Mean 0 and variance 1."""
    return (sums - MEAN).to(torch.float32) * UNIT
