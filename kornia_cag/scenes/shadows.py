"""One light for all objects of a scene: ``SunRange`` → ``Sun`` → shaded objects, and the shadows that they cast."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_range
from kornia_cag.core.compiling import kept
from kornia_cag.core.draws import Draw, Number
from kornia_cag.core.operations import unfused
from kornia_cag.scenes.blur import blur, gaussian, isotropic
from kornia_cag.scenes.light import Picture
from kornia_cag.scenes.spots import Spot

NUMBERS = "direction", "elevation", "lift", "softness", "darkness", "shading"
WIDEST = 3.0  # standard deviation of a blur, in cells of the grid that shadows are computed on


@dataclass(frozen=True)
class Sun:
    """The drawn light of ``b`` scenes, which all of their objects share, in the units of :class:`SunRange`.

    Attributes:
        direction: (b,); where the light comes from on the canvas, in turns: 0 is right, a quarter is below.
        elevation: (b,); degrees above what is behind the objects: 90 is from the viewer.
        lift: (b,); distance of objects from what is behind them, in their sizes.
        softness: (b,); standard deviation of a shadow's edge, in sizes of its object.
        darkness: (b,); share of the light that is missing in a shadow.
        shading: (b,); relative gain at the object's rim on the side of the light, at an elevation of 0.
    """

    direction: Float[Tensor, " b"]
    elevation: Float[Tensor, " b"]
    lift: Float[Tensor, " b"]
    softness: Float[Tensor, " b"]
    darkness: Float[Tensor, " b"]
    shading: Float[Tensor, " b"]

    def towards(self) -> Float[Tensor, "b 2"]:
        """(b, 2); where the light comes from, ``(x, y)`` on the canvas; its length is the cosine of the elevation."""
        angle, flat = 2 * math.pi * self.direction, torch.deg2rad(self.elevation).cos()
        return flat[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)

    def shaded(self, gain: Float[Tensor, "b h w"] | None, spot: Spot, size: tuple[int, int]) -> Float[Tensor, "b h w"]:
        """A plane of gains for an object: it is brighter on the side of the light, unchanged at its centre.

        Args:
            gain: another one, to multiply with; None: 1.
            spot: where the object is.
            size: canvas ``(height, width)``, pixels.
        """
        y, x = (torch.arange(0.5, n, dtype=torch.float32, device=self.shading.device) for n in size)
        across, down = kept(self.towards() * (2 * self.shading / spot.size)[:, None]).unbind(1)
        level = kept(1 - across * spot.x - down * spot.y)
        across, down, level = (number[:, None, None] for number in (across, down, level))
        found = (level + across * x + down * y[:, None]).clamp(min=0)
        return found if gain is None else gain * found

    def shadowed(self, behind: Picture, alpha: Float[Tensor, "b h w"], spot: Spot, *, most: float) -> Picture:
        """What is behind an object in its shadow: never brighter, and the same to the bit where darkness is 0.

        The shadow falls on a plane behind the object that is parallel to it, so it has the object's form.

        Args:
            behind: what is there already.
            alpha: of the object.
            spot: where the object is.
            most: the widest edge that may come, as a standard deviation in pixels; wider ones count as this.
        """
        size, flat = spot.size, self.towards()
        steep = torch.deg2rad(self.elevation).sin()[:, None]
        shift = -flat / steep * (self.lift * size)[:, None]
        cast = shadow(alpha, shift, self.softness * size, most=most)
        lost = kept(self.darkness[:, None, None] * cast)[:, None]
        # Contrast may have made darkness negative, which a product would brighten.
        return tuple(torch.addcmul(part, part.clamp(min=0), lost, value=-1) for part in behind)


@dataclass(frozen=True, kw_only=True)
class SunRange:
    """One light for each scene, from which its objects are shaded and cast shadows on what is behind them.

    A shadow darkens contexts and objects that lie behind, never its own object or those in front of it, and belongs to
    no mask. With it ``illumination`` of a scene's :class:`ColorRange` brightens the side that this light comes from.

    Attributes:
        direction: where the light comes from on the canvas, a number of turns: 0 is right, 0.25 below, 0.5 left, 0.75
            above.
        elevation: degrees above what is behind the objects: 90 is from the viewer, lower ones cast longer shadows.
        lift: distance of objects from what is behind them, as a factor of their sizes.
        softness: standard deviation of a shadow's edge, in sizes of its object.
        darkness: share of the light that is missing in a shadow.
        shading: relative gain from an object's centre to its rim on the side of the light, at an elevation of 0.
    """

    direction: tuple[float, float] = (0.5, 1.0)
    elevation: tuple[float, float] = (35.0, 75.0)
    lift: tuple[float, float] = (0.05, 0.3)
    softness: tuple[float, float] = (0.02, 0.1)
    darkness: tuple[float, float] = (0.1, 0.6)
    shading: tuple[float, float] = (0.0, 0.4)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("direction", -1, 2), ("elevation", 5, 90), ("lift", 0, 2), ("softness", 0, 0.5), ("darkness", 0, 1),
            ("shading", 0, 1),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)

    def widest(self, longest: float) -> float:
        """Standard deviation of the widest edge that a shadow has, pixels, if no object is longer than ``longest``."""
        return 1.2 * self.softness[1] * longest  # a square spreads as far as a disc that is 1.155 times as long

    def draws(self) -> tuple[Draw, ...]:
        """What the light is read from."""
        rests = {"darkness": 0.0, "shading": 0.0}
        return tuple(Number(f"sun.{name}", getattr(self, name), rest=rests.get(name)) for name in NUMBERS)

    def read(self, values: Mapping[str, Tensor]) -> Sun:
        """The light that values of :meth:`draws` give."""
        return Sun(**{name: values[f"sun.{name}"] for name in NUMBERS})


@unfused("shadow(Tensor alpha, Tensor shift, Tensor sigma, *, float most) -> Tensor", "alpha")
def shadow(
    alpha: Float[Tensor, "b h w"], shift: Float[Tensor, "b 2"], sigma: Float[Tensor, " b"], *, most: float
) -> Float[Tensor, "b h w"]:
    """The alpha of objects, moved and blurred, in [0, 1].

    It is computed on a grid whose cells are as large as the widest edge allows, and read from it bilinearly. Beyond the
    canvas an object goes on as it is on the canvas's edge.

    Args:
        alpha: in [0, 1].
        shift: ``(x, y)``, pixels.
        sigma: standard deviation of the blur, pixels, at most ``most``.
        most: the widest edge that may come.
    """
    cell = 2 ** max(0, math.ceil(math.log2(max(most, WIDEST) / WIDEST)))
    plane, (height, width) = alpha[:, None], alpha.shape[1:]
    if cell > 1:
        plane = F.avg_pool2d(plane, cell, ceil_mode=True)
    # At least 5 taps: three by three are convolved by a faster way, which rounds by the size of the batch.
    taps = 2 * max(math.ceil(2 * most / cell), 2) + 1
    line = gaussian((sigma.clamp(max=most) / cell).clamp(min=0.05), taps)
    soft = kept(blur(kept(plane), isotropic(line)).clamp(0, 1))
    rows, columns = plane.shape[2:]
    x, y = (at[:, None] for at in kept(shift).unbind(1))
    across = 2 / (cell * columns) * (torch.arange(0.5, width, device=alpha.device) - x) - 1
    down = 2 / (cell * rows) * (torch.arange(0.5, height, device=alpha.device) - y) - 1
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
    found = F.grid_sample(soft, grid.to(alpha.dtype), padding_mode="border", align_corners=False)
    return found[:, 0]
