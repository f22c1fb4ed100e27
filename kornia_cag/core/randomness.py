"""Counter-based randomness: every draw is a pure function of ``(seed, epoch, sample index, slot)``.

There is no generator and no state: the same sample draws the same numbers on any device, in any batch, on any rank,
compiled or not, and the global random state is never touched. A *key* stands for ``(seed, epoch, sample index)``; a
*slot* names the draw (``"pose.angle"``), so that draws of one sample are independent and adding one does not change the
others.

The mix is a 32-bit integer finaliser of two multiplications (form: Wellons, "Hash function prospector", 2018; constants
of bias 0.107), computed on int32 lanes, whose products wrap around.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from kornia_cag.core.compiling import kept, threads
from kornia_cag.core.operations import one_operation

WEYL = 0x9E3779B9  # 2^32 over the golden ratio: neighbouring counters land far apart
MULTIPLIERS = 0x21F0AAAD, 0x735A2D97


def mix(x: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Scramble 32-bit integers, one to one: int32, or the lower halves of int64, which come back as [0, 2^32)."""
    if x.dtype == torch.int64:
        return _low(mix(x.to(torch.int32)))
    x = (x ^ _right(x, 16)) * MULTIPLIERS[0]
    x = (x ^ _right(x, 15)) * MULTIPLIERS[1]
    return x ^ _right(x, 15)


def _right(x: Int[Tensor, "*b"], bits: int) -> Int[Tensor, "*b"]:
    """Shift int32 right as if it were unsigned."""
    return (x >> bits) & (0xFFFFFFFF >> bits)


def _low(x: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """int32 as int64 in [0, 2^32)."""
    return x.to(torch.int64) & 0xFFFFFFFF


def sample_keys(seed: Int[Tensor, "*b"], epoch: Int[Tensor, "*b"], index: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """The keys of samples: 63 bits from ``(seed, epoch, index)``, each of which may use 62 bits.

    Within one seed and epoch, different indices below 2^32 always give different keys.
    """
    salt = 0 * index
    for part in (seed, epoch):
        salt = _kept(_kept(salt + WEYL + part) + (part >> 32))
    low = mix(_kept(index ^ salt) + (index >> 32))
    high = mix(_kept(index + salt) ^ _kept(salt + WEYL))
    return ((high >> 1) << 32) | low


def host_keys(seed: NDArray[np.int64], epoch: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """:func:`sample_keys` of int64 arrays (b,), or (1,) for all: a batch of rows costs the host some 60 calls of numpy.

    A tensor's operation costs it several times as much as an array's, however few numbers there are.
    """
    salt = np.zeros(len(seed), dtype=np.uint32)
    for part in (seed, epoch):
        low, high = _halves(part)
        salt = _host_mix(_host_mix(salt + low + np.uint32(WEYL)) + high)
    low, high = _halves(index)
    first = _host_mix(_host_mix(low ^ salt) + high)
    second = _host_mix(_host_mix(low + salt) ^ _host_mix(salt + np.uint32(WEYL)))
    keys: NDArray[np.int64] = ((second >> np.uint32(1)).astype(np.int64) << 32) | first
    return keys


def _halves(x: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """int64 as its lower and its upper 32 bits, uint32."""
    return x.astype(np.uint32), (x >> 32).astype(np.uint32)


def _host_mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """:func:`mix` of uint32."""
    x = (x ^ x >> np.uint32(16)) * np.uint32(MULTIPLIERS[0])
    x = (x ^ x >> np.uint32(15)) * np.uint32(MULTIPLIERS[1])
    mixed: NDArray[np.uint32] = x ^ x >> np.uint32(15)
    return mixed


def fold_in(keys: Int[Tensor, "*b"], number: int | Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """New keys, or seeds, for another draw of the same samples: 62 bits, different for each ``number``."""
    other = number if isinstance(number, Tensor) else torch.full_like(keys, number)
    return sample_keys(keys & (2**62 - 1), other, keys >> 62) >> 1


def _kept(x: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """A mix that feeds another: kept, since every step would double the code that the compiler repeats."""
    return kept(mix(x))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _slot_number(slot: str) -> int:
    return zlib.crc32(slot.encode())


def hashed(keys: Int[Tensor, "*b"], slot: str) -> Int[Tensor, "*b"]:
    """One 32-bit number per key and slot, of all 63 bits of the key, as int32."""
    return mix(_kept((keys ^ _slot_number(slot)).to(torch.int32)) + (keys >> 32).to(torch.int32))


def _unit(bits: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    return _right(bits, 8).to(torch.float32) * 2.0**-24


def unit(keys: Int[Tensor, " b"], slot: str) -> Float[Tensor, " b"]:
    """One float32 per key, uniform in ``[0, 1)``, on a grid of 2^-24, for a range to be laid over."""
    return _unit(hashed(keys, slot))


def uniform(keys: Int[Tensor, " b"], slot: str, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " b"]:
    """One float32 per key, uniform in ``[low, high)``, on a grid of 2^-24 of the width."""
    return kept(low + (high - low) * unit(keys, slot))


def uniforms(keys: Int[Tensor, " b"], slot: str, count: int) -> Float[Tensor, "b n"]:
    """``count`` independent float32 per key, uniform in ``[0, 1)``."""
    counter = torch.arange(1, count + 1, device=keys.device, dtype=torch.int32)
    # kept: inductor's vector loops over a few columns of a few rows (torch 2.13) mix up counters
    return kept(_unit(counted(keys, slot, counter)))


@dataclass(frozen=True, eq=False)
class Slots:
    """What :func:`units` hashes, as constants on a device: see :func:`slots`.

    Attributes:
        layers: (m,); which of a sample's keys each slot is hashed with; None: there is only one.
        numbers: (m, 1); CRC-32 of the slots' names, int32: first those of one number.
        singles: how many slots have one number.
        sources: (n,); which slot each number of the others belongs to.
        counters: (n, 1); which of its slot's numbers each is, times :data:`WEYL`, int32.
    """

    layers: Int[Tensor, " m"] | None
    numbers: Int[Tensor, "m 1"]
    singles: int
    sources: Int[Tensor, " n"]
    counters: Int[Tensor, "n 1"]


def slots(singles: Sequence[tuple[int, str]], several: Sequence[tuple[int, str, int]], device: torch.device) -> Slots:
    """Slots to be hashed together.

    Args:
        singles: slots of one number: which of a sample's keys, and the slot.
        several: slots of several: which of a sample's keys, the slot, and how many numbers.
        device: where they are hashed.
    """
    layers = [layer for layer, *_ in [*singles, *several]]
    numbers = [_signed(_slot_number(slot)) for _, slot, *_ in [*singles, *several]]
    sources = [len(singles) + n for n, (*_, count) in enumerate(several) for _ in range(count)]
    counters = [_signed(number * WEYL) for *_, count in several for number in range(1, count + 1)]
    return Slots(
        torch.tensor(layers, dtype=torch.int64, device=device) if any(layers) else None,
        torch.tensor(numbers, dtype=torch.int32, device=device)[:, None],
        len(singles),
        torch.tensor(sources, dtype=torch.int64, device=device),
        torch.tensor(counters, dtype=torch.int32, device=device)[:, None],
    )


def units(keys: Int[Tensor, "k b"], what: Slots) -> tuple[Float[Tensor, "n b"], Float[Tensor, "m b"]]:
    """What :func:`unit` and :func:`uniforms` give for many slots, hashed as one matrix.

    A row for each number, so that what is read from it is contiguous: elsewhere torch may round differently.

    Args:
        keys: (k, b); the keys of each sample in k layers.
        what: the slots.

    Returns:
        The numbers of the slots with one, and those of the slots with several.
    """
    found: tuple[Tensor, Tensor] = _units(keys, what.layers, what.numbers, what.singles, what.sources, what.counters)
    return found


@one_operation(
    "units(Tensor keys, Tensor? layers, Tensor numbers, int singles, Tensor sources, Tensor counters)"
    " -> (Tensor, Tensor)"
)
def _units(
    keys: Int[Tensor, "k b"], layers: Int[Tensor, " m"] | None, numbers: Int[Tensor, "m 1"], singles: int,
    sources: Int[Tensor, " n"], counters: Int[Tensor, "n 1"],
) -> tuple[Float[Tensor, "_ b"], Float[Tensor, "n b"]]:  # fmt: skip
    low, high = keys.to(torch.int32), (keys >> 32).to(torch.int32)
    if layers is not None:
        low, high = low[layers], high[layers]
    bits = mix(_kept(low ^ numbers) + high)
    if not len(sources):
        return _unit(bits), low.new_empty(0, keys.shape[1], dtype=torch.float32)
    bits = kept(bits)
    return _unit(bits[:singles]), kept(_unit(mix(bits[sources] ^ counters)))


def _signed(number: int) -> int:
    """The int32 of the same 32 bits."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def counted(keys: Int[Tensor, " b"], slot: str, counter: Int[Tensor, "*n"]) -> Int[Tensor, " b *n"]:
    """One 32-bit number per key and counter, as int32."""
    base = kept(hashed(keys, slot))
    if threads(counter):
        counter = counter ^ 0  # or inductor (torch 2.12) multiplies places as integers that do not wrap around
    return mix(base.reshape(-1, *[1] * counter.ndim) ^ (counter * (WEYL - (1 << 32))))


def normals(keys: Int[Tensor, " b"], slot: str, count: int) -> Float[Tensor, "b n"]:
    """``count`` independent standard normal float32 per key, at most 5.8 in size (Box and Muller, 1958)."""
    return box_muller(uniforms(keys, slot, count + count % 2))[:, :count]


def box_muller(units: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """As many standard normal numbers as there are uniform ones (Box and Muller, 1958)."""
    first, second = units.chunk(2, dim=1)
    radius = (-2.0 * torch.log1p(-first)).sqrt()
    angle = 2.0 * math.pi * second
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)


def chance(keys: Int[Tensor, " b"], slot: str, p: float) -> Tensor:
    """One bool per key, true with probability ``p``."""
    return uniform(keys, slot) < p
