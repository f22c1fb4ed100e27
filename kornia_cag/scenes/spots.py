"""``Spot``: where on its canvas each object is seen, and how large it is, measured from its alpha alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.operations import one_operation

TINY = 1e-6  # pixels of an object that is out of sight


class Spot(NamedTuple):
    """The seen part of each object; what is out of sight is a tiny spot in a corner."""

    x: Float[Tensor, " b"]  # of its centre of mass, pixels
    y: Float[Tensor, " b"]
    wide: Float[Tensor, " b"]  # standard deviation of its mass along x, pixels, above 0
    high: Float[Tensor, " b"]  # along y

    @property
    def size(self) -> Float[Tensor, " b"]:
        """(b,); diameter of a disc whose mass spreads as far, pixels."""
        return 2 * (2 * (self.wide**2 + self.high**2)).sqrt()


def spots(alpha: Float[Tensor, "b h w"]) -> Spot:
    """The :class:`Spot` of each object."""
    return Spot(*_moments(alpha).unbind(1))


@one_operation("moments(Tensor alpha) -> Tensor")
def _moments(alpha: Float[Tensor, "b h w"]) -> Float[Tensor, "b 4"]:
    """Centre and standard deviation along x and y."""
    middles, spreads = [], []
    for mass in (alpha.sum(dim=1), alpha.sum(dim=2)):
        total = mass.sum(dim=1, keepdim=True).clamp(min=TINY)
        place = torch.arange(0.5, mass.shape[1], dtype=mass.dtype, device=mass.device)
        middle = (mass * place).sum(dim=1, keepdim=True) / total
        variance = (mass * (place - middle) ** 2).sum(dim=1, keepdim=True) / total
        middles.append(middle)
        spreads.append((variance + 1 / 12).sqrt())  # a pixel has a width, too
    return torch.cat([*middles, *spreads], dim=1)
