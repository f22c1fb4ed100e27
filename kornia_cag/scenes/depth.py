"""How far away objects are: ``DepthRange`` → ``Depth`` → haze in their colours, and defocus."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_range
from kornia_cag.core.compiling import kept
from kornia_cag.core.draws import Draw, Number
from kornia_cag.core.operations import unfused
from kornia_cag.scenes.blur import blur, gaussian, isotropic
from kornia_cag.scenes.light import Tone

FARTHEST = 1e3  # distance of what is not there


@dataclass(frozen=True)
class Depth:
    """What the air and the lens of ``b`` scenes do to distant objects, in the units of :class:`DepthRange`.

    Attributes:
        haze: (b,); extinction coefficient: the share ``exp(-haze * d)`` is left after ``d`` units of distance.
        defocus: (b,); standard deviation of the blur of what is infinitely far away, pixels.
    """

    haze: Float[Tensor, " b"]
    defocus: Float[Tensor, " b"]

    def hazed(self, tone: Tone, air: Float[Tensor, "b 3"], distance: Float[Tensor, " b"]) -> Tone:
        """The tone of a light that has come through haze: ``air`` is the colour of endless haze.

        Source: Koschmieder, 1924.
        """
        clear = torch.exp(-self.haze * (distance - 1).clamp(min=0))[:, None]
        return replace(tone, matrix=clear[..., None] * tone.matrix, offset=clear * tone.offset + (1 - clear) * air)

    def defocused(
        self, planes: tuple[Float[Tensor, "b h w"], ...], distance: Float[Tensor, " b"], *, most: float
    ) -> tuple[Float[Tensor, "b h w"], ...]:
        """Premultiplied colour and alpha out of focus; the same to the bit at a distance of 1 or less.

        The lens is focused on a distance of 1. ``most``: the largest ``defocus`` that may come, pixels.
        """
        sigma = kept(self.defocus * (1 - 1 / distance).clamp(min=0))
        sharp = kept(torch.stack(planes, dim=1))
        soft, blurs = blurred(sharp, sigma, most=most), sigma[:, None, None] > 0
        return tuple(torch.where(blurs, *pair) for pair in zip(soft.unbind(1), sharp.unbind(1), strict=True))


@dataclass(frozen=True, kw_only=True)
class DepthRange:
    """Haze and defocus by how far away each object is: the farther, the paler and the less sharp.

    An object's distance is 1 where its longest side is the largest in range and it is of usual size, 2 at half of this
    side. No object is farther away than those that it may cover: those before it in painting order.

    Attributes:
        size: true size of an object, as a factor of the usual one; log-uniform.
        haze: extinction coefficient: the share ``exp(-haze * d)`` of the light is left after ``d`` units of distance.
        defocus: standard deviation of the blur of what is infinitely far away, pixels.
    """

    size: tuple[float, float] = (0.7, 1.4)
    haze: tuple[float, float] = (0.0, 0.15)
    defocus: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name, low, high in (("size", 0.01, 100), ("haze", 0, 10), ("defocus", 0, 20)):
            check_range(name, getattr(self, name), low, high)

    def draws(self) -> tuple[Draw, ...]:
        """What the air and the lens of a scene are read from."""
        return Number("depth.haze", self.haze, rest=0.0), Number("depth.defocus", self.defocus, rest=0.0)

    def sizes(self) -> tuple[Draw, ...]:
        """What an object's true size is read from."""
        return (Number("depth.size", self.size, rest=min(max(1.0, self.size[0]), self.size[1]), log=True),)

    def read(self, values: Mapping[str, Tensor]) -> Depth:
        """The air and the lens that values of :meth:`draws` give."""
        return Depth(values["depth.haze"], values["depth.defocus"])


@unfused("blurred(Tensor layer, Tensor sigma, *, float most) -> Tensor", "layer")
def blurred(layer: Float[Tensor, "b 4 h w"], sigma: Float[Tensor, " b"], *, most: float) -> Float[Tensor, "b 4 h w"]:
    """Blur premultiplied colour and alpha by a Gaussian of ``sigma`` pixels, of which ``most`` may come."""
    line = gaussian(sigma.clamp(0.05, max(most, 0.05)), 2 * max(math.ceil(2 * most), 2) + 1)
    return blur(layer, isotropic(line))
