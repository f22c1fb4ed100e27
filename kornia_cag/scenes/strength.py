"""Strength: how far what is drawn moves from neutral, always or as training goes on."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_number, fail


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Strength over training: 0 up to epoch ``start``, rising linearly to 1 at ``stop`` (the paper's curriculum).

    A sample's epoch comes from its row, or for items of a data set from the last :meth:`CAGCollate.set_epoch`.

    Attributes:
        start: in epochs; strength 0 up to here.
        stop: in epochs; strength 1 from here on.
    """

    start: float = 0.0
    stop: float = 10.0

    def __post_init__(self) -> None:
        check_number("start", self.start, 0)
        if check_number("stop", self.stop, 0) <= self.start:
            fail("stop", f"an epoch after start={self.start:g}", f"{self.stop:g}")

    def __call__(self, epoch: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Strength in [0, 1] at each sample's epoch."""
        return ((epoch.float() - self.start) / (self.stop - self.start)).clamp(0, 1)


def given_strength(strength: float | Ramp, epoch: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Strength of each sample, in [0, 1], by its epoch."""
    if isinstance(strength, Ramp):
        return strength(epoch)
    return torch.full_like(epoch, strength, dtype=torch.float32)


def full_strength(keys: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """(b,); one for each sample."""
    return torch.ones(len(keys), dtype=torch.float32, device=keys.device)
