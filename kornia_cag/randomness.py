"""Counter-based randomness: every draw is a pure function of ``(seed, epoch, sample index, slot)``.

No generator and no state: the same sample draws the same numbers on any device, in any batch, on any rank, compiled or
not, and the global random state is never touched. A *key* stands for ``(seed, epoch, sample index)``; a *slot* names
what is drawn (``"pose.angle"``), so that draws of one sample are independent of each other and adding a new one changes
none of the others.

The mix is a 32-bit integer finaliser of two multiplications (form: Wellons, "Hash function prospector", 2018; constants
of bias 0.107), computed on int64 lanes. Both constants are below 2^31, so no product overflows.
"""

import math
import zlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = 0xFFFFFFFF
_WEYL = 0x9E3779B9  # 2^32 over the golden ratio: neighbouring counters land far apart


def mix(x: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Scramble 32-bit integers held in int64 lanes, one to one."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


def sample_keys(seed: Int[Tensor, "*b"], epoch: Int[Tensor, "*b"], index: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """The keys of samples: 63 bits from ``(seed, epoch, index)``, each of which may use 62 bits.

    Within one seed and epoch, different indices below 2^32 always give different keys.
    """
    salt = 0 * index
    for part in (seed, epoch):
        salt = mix(mix(salt + _WEYL + part) + (part >> 32))
    low = mix(mix(index ^ salt) + (index >> 32))
    high = mix(mix(index + salt) ^ mix(salt + _WEYL))
    return ((high >> 1) << 32) | low


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _slot_number(slot: str) -> int:
    return zlib.crc32(slot.encode())


def _base(keys: Int[Tensor, "*b"], slot: str) -> Int[Tensor, "*b"]:
    """One 32-bit number per key and slot, of all 63 bits of the key."""
    return mix(mix(keys ^ _slot_number(slot)) + (keys >> 32))


def _unit(bits: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    return (bits >> 8).to(torch.float32) * 2.0**-24


def uniform(keys: Int[Tensor, " b"], slot: str, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " b"]:
    """One float32 per key, uniform in ``[low, high)``, on a grid of 2^-24 of the width."""
    return low + (high - low) * _unit(_base(keys, slot))


def uniforms(keys: Int[Tensor, " b"], slot: str, count: int) -> Float[Tensor, "b n"]:
    """``count`` independent float32 per key, uniform in ``[0, 1)``."""
    counter = torch.arange(1, count + 1, device=keys.device) * _WEYL
    return _unit(mix(_base(keys, slot)[:, None] ^ (counter & _MASK)))


def normals(keys: Int[Tensor, " b"], slot: str, count: int) -> Float[Tensor, "b n"]:
    """``count`` independent standard normal float32 per key, at most 5.8 in size (Box and Muller, 1958)."""
    half = (count + 1) // 2
    u = uniforms(keys, slot, 2 * half)
    radius = (-2.0 * torch.log1p(-u[:, :half])).sqrt()
    angle = 2.0 * math.pi * u[:, half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]


def chance(keys: Int[Tensor, " b"], slot: str, p: float) -> Tensor:
    """One bool per key, true with probability ``p``."""
    return uniform(keys, slot) < p
