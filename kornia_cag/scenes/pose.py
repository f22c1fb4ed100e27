"""Where and how an object lies on the canvas: ``PoseRange`` → ``Pose`` → one homography per object.

Convention: object coordinates are ``(x, y)`` in units of half the object's longest side, from its centre, so the
longest side spans [-1, 1]. Canvas coordinates are pixels, ``(x, y)``, centres at +0.5. Homographies map canvas to
object, the direction in which a resample reads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_range
from kornia_cag.core.compiling import kept
from kornia_cag.core.draws import Draw, Draws, Normals, Number, Numbers, drawn
from kornia_cag.scenes.strength import full_strength

THIN = 0.625  # share of the highest alpha that bounds an object which never reaches its opacity; else half the opacity


@dataclass(frozen=True)
class Pose:
    """Drawn poses of ``b`` objects; every field is a tensor over the batch, in the units of :class:`PoseRange`.

    Attributes:
        scale: (b,); object's longest side over the canvas's short side.
        aspect: (b,); stretch, width over height.
        angle: (b,); degrees, clockwise on screen.
        shear: (b,); degrees, along x.
        x: (b,); shift right, as a share of the canvas's short side.
        y: (b,); shift down, as a share of the canvas's short side.
        tilt_x: (b,); change of depth from the centre to an edge, along x.
        tilt_y: (b,); change of depth from the centre to an edge, along y.
        waves: (b, k, 5); elastic displacement: frequency x, y; amplitude x, y; phase.
        holes: (b, m, 3); occluding discs: centre x, y; radius.
        variant: (b,); stroke thickness, from 0 (as drawn) to 1 (farthest from it).
    """

    scale: Float[Tensor, " b"]
    aspect: Float[Tensor, " b"]
    angle: Float[Tensor, " b"]
    shear: Float[Tensor, " b"]
    x: Float[Tensor, " b"]
    y: Float[Tensor, " b"]
    tilt_x: Float[Tensor, " b"]
    tilt_y: Float[Tensor, " b"]
    waves: Float[Tensor, "b k 5"]
    holes: Float[Tensor, "b m 3"]
    variant: Float[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class PoseRange:
    """Uniform ranges of a :class:`Pose`; the defaults are mild and suit signs, logos and parts.

    Sources: rotation, scale, shear and perspective follow torchvision's ``RandomAffine`` and ``RandomPerspective``, as
    in Jin and Rinard; elastic displacement follows Simard et al., 2003, here as a sum of plane waves, which is smooth,
    differentiable, and can be evaluated at any point.

    Attributes:
        scale: object's longest side over the canvas's short side.
        aspect: stretch, width over height.
        angle: degrees, clockwise on screen.
        shear: degrees, along x: positive leans the top to the right.
        translate: shift along x and along y, as a share of the canvas's short side.
        perspective: change of depth from the centre to an edge, along x and along y.
        elastic: root mean square displacement along each axis, object units (half of the object's longest side).
        wavelength: of the elastic waves, object units.
        waves: number of elastic waves.
        hole: radius of occluding discs, object units.
        holes: number of occluding discs.
    """

    scale: tuple[float, float] = (0.6, 0.95)
    aspect: tuple[float, float] = (0.9, 1.1)
    angle: tuple[float, float] = (-10.0, 10.0)
    shear: tuple[float, float] = (-5.0, 5.0)
    translate: tuple[float, float] = (-0.1, 0.1)
    perspective: tuple[float, float] = (-0.15, 0.15)
    elastic: tuple[float, float] = (0.0, 0.0)
    wavelength: tuple[float, float] = (0.7, 2.5)
    waves: int = 8
    hole: tuple[float, float] = (0.0, 0.0)
    holes: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("scale", 1e-3, 10), ("aspect", 0.1, 10), ("angle", -360, 360), ("shear", -80, 80), ("translate", -2, 2),
            ("perspective", -0.45, 0.45), ("elastic", 0, 1), ("wavelength", 1e-2, 100), ("hole", 0, 2),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        check_int("waves", self.waves, 1, 64)
        check_int("holes", self.holes, 1, 64)

    def sample(self, draws: Draws | Int[Tensor, " b"], strength: Float[Tensor, " b"] | None = None) -> Pose:
        """Draw one pose per key: the same key always gives the same pose.

        Args:
            draws: keys of the samples, see :func:`kornia_cag.core.randomness.sample_keys`, or the numbers to draw from.
            strength: per sample in [0, 1]; how far each value moves from neutral (no rotation, no shift …; the middle
                of the range for ``scale``) to the drawn value. Default 1.
        """
        numbers = drawn(draws)
        s = full_strength(numbers.keys) if strength is None else strength
        return self.read(numbers.of(self.draws(), s), s)

    def draws(self) -> tuple[Draw, ...]:
        """What a pose is read from."""
        rests = {"scale": sum(self.scale) / 2, "aspect": 1.0}
        ranges = {"scale": self.scale, "aspect": self.aspect, "angle": self.angle, "shear": self.shear,
                  "x": self.translate, "y": self.translate, "tilt_x": self.perspective, "tilt_y": self.perspective,
                  "elastic": self.elastic, "variant": (0.0, 1.0)}  # fmt: skip
        found: list[Draw] = [
            Number(f"pose.{name}", (low, high), rest=min(max(rests.get(name, 0.0), low), high), log=name == "aspect")
            for name, (low, high) in ranges.items()
        ]
        if self.elastic[1]:
            found += [Numbers("pose.waves", 3 * self.waves), Normals("pose.wave_size", 2 * self.waves)]
        if self.hole[1]:
            found += [Numbers("pose.holes", 3 * self.holes)]
        return tuple(found)

    def read(self, values: Mapping[str, Tensor], strength: Float[Tensor, " b"]) -> Pose:
        """The pose that values of :meth:`draws` give."""
        names = ("scale", "aspect", "angle", "shear", "x", "y", "tilt_x", "tilt_y", "variant")
        fields = {name: values[f"pose.{name}"] for name in names}
        return Pose(**fields, waves=self._waves(values), holes=self._holes(values, strength))

    def _waves(self, values: Mapping[str, Tensor]) -> Float[Tensor, "b k 5"]:
        amplitude = values["pose.elastic"]
        if self.elastic[1] == 0:  # no wave to add
            return torch.zeros(len(amplitude), 0, 5, dtype=torch.float32, device=amplitude.device)
        u = values["pose.waves"].unflatten(1, (3, self.waves))
        span = math.log(self.wavelength[1] / self.wavelength[0])
        wavelength = self.wavelength[0] * torch.exp(span * u[:, 0])
        direction = 2 * math.pi * u[:, 1]
        # The sum of k waves with independent amplitudes of variance 2 / k has variance 1.
        size = (amplitude * math.sqrt(2 / self.waves))[:, None, None]
        size = size * values["pose.wave_size"].unflatten(1, (2, self.waves))
        columns = [direction.cos() / wavelength, direction.sin() / wavelength, *size.unbind(1), 2 * math.pi * u[:, 2]]
        return torch.stack(columns, dim=-1)

    def _holes(self, values: Mapping[str, Tensor], strength: Float[Tensor, " b"]) -> Float[Tensor, "b m 3"]:
        if self.hole[1] == 0:
            return torch.zeros(len(strength), 0, 3, dtype=torch.float32, device=strength.device)
        u = values["pose.holes"].unflatten(1, (self.holes, 3))
        radius = self.hole[0] + (self.hole[1] - self.hole[0]) * u[..., 2]
        return torch.cat([2 * u[..., :2] - 1, (strength[:, None] * radius)[..., None]], dim=-1)


HORIZON = 0.05  # lowest depth at which anything is seen


class Axes(NamedTuple):
    """How an object lies on the canvas, tilt aside."""

    turn: Float[Tensor, "b 2"]  # direction of its x axis
    across: Float[Tensor, "b 2"]  # direction at a right angle to it
    sides: Float[Tensor, "b 2"]  # length of a unit along each, pixels
    lean: Float[Tensor, "b 1"]  # tangent of the shear
    middle: Float[Tensor, "b 2"]  # where its centre lies, pixels


def homographies(pose: Pose, size: tuple[int, int], own: Axes | None = None) -> Float[Tensor, "b 3 3"]:
    """Homographies from a canvas of ``(height, width)`` pixels to the objects.

    Perspective along the object's own axes first, then stretch, shear, rotation, shift: the depth at ``(x, y)`` on the
    object is ``1 + tilt_x * x + tilt_y * y``. The third row is scaled so that the object's centre has depth 1. ``own``
    are its :func:`axes`, if they were computed before.
    """
    turn, across, sides, lean, middle = axes(pose, size) if own is None else own
    # The inverse of rotation · shear · stretch in closed form: no linear solver, no waiting for the device.
    flat = torch.stack([torch.addcmul(turn, lean, across), across], dim=1)
    flat = kept(flat / sides[..., None])
    tilt = torch.stack([pose.tilt_x, pose.tilt_y], dim=1)
    left = torch.cat([flat, -(tilt[..., None] * flat).sum(dim=1, keepdim=True)], dim=1)
    right = -(left * middle[:, None]).sum(dim=2, keepdim=True)
    homography = torch.cat([left, right], dim=2)
    homography[:, 2, 2] += 1
    return homography


def axes(pose: Pose, size: tuple[int, int]) -> Axes:
    """The :class:`Axes` of objects on a canvas of ``(height, width)`` pixels."""
    (height, width), short = size, min(size)
    angle, root = torch.deg2rad(pose.angle), pose.aspect.sqrt()
    cos, sin, half = angle.cos(), angle.sin(), (0.5 * short) * pose.scale
    return Axes(
        torch.stack([cos, sin], dim=1),
        torch.stack([-sin, cos], dim=1),
        torch.stack([half * root, half / root], dim=1),
        torch.deg2rad(pose.shear).tan()[:, None],
        short * torch.stack([pose.x + 0.5 * width / short, pose.y + 0.5 * height / short], dim=1),
    )


def to_canvas(
    pose: Pose, x: Float[Tensor, "#b n"], y: Float[Tensor, "#b n"], own: Axes
) -> tuple[Float[Tensor, "b 2 n"], Float[Tensor, "b n"]]:
    """Where points of the object land on the canvas, without elastic displacement, and their depth.

    The inverse of :func:`homographies`. Points at or behind the :data:`HORIZON` land anywhere.
    """
    turn, across, sides, lean, middle = own
    # The columns of rotation · shear · stretch.
    right, down = sides[:, :1] * turn, sides[:, 1:] * torch.addcmul(across, lean, turn, value=-1)
    depth = depths(pose, x, y)
    mapped = torch.addcmul(right[..., None] * x[:, None], down[..., None], y[:, None])
    return mapped / depth[:, None].clamp(min=HORIZON) + middle[..., None], depth


def depths(pose: Pose, x: Float[Tensor, "*#n"], y: Float[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    """Depth at points of the objects, the first dimension over the batch: 1 at their centres."""
    tilt_x, tilt_y = (tilt.reshape(-1, *[1] * (x.ndim - 1)) for tilt in (pose.tilt_x, pose.tilt_y))
    return torch.addcmul(1 + tilt_x * x, tilt_y, y)
