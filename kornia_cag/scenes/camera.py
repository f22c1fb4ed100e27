"""The camera: ``CameraRange`` → ``Camera`` → blur, noise, grain and JPEG of the finished composite."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_number, check_range, fail
from kornia_cag.core.compiling import kept, threads
from kornia_cag.core.draws import Choice, Draw, Draws, Number, drawn
from kornia_cag.scenes.blur import PointSpread, blur, blurred_planes, box, gaussian, motion, sharp
from kornia_cag.scenes.jpeg import jpeg
from kornia_cag.scenes.light import Picture, whole
from kornia_cag.scenes.sensor import sensed, sensed_planes
from kornia_cag.scenes.strength import full_strength

KINDS = ("gaussian", "box", "motion")


@dataclass(frozen=True)
class Blur:
    """Drawn blur. Fields that a sample's kind does not use are drawn anyway.

    Attributes:
        kind: (b,); index into :data:`KINDS`, -1 for none.
        sigma: (b,); standard deviation of the Gaussian, pixels.
        width: (b,); of the box, pixels.
        height: (b,); of the box, pixels.
        length: (b,); length of the motion path, pixels.
        direction: (b,); direction of the motion, in turns, clockwise on screen: 0 is right, a quarter is down.
        taps: side of the point-spread function, pixels, odd.
    """

    kind: Int[Tensor, " b"]
    sigma: Float[Tensor, " b"]
    width: Float[Tensor, " b"]
    height: Float[Tensor, " b"]
    length: Float[Tensor, " b"]
    direction: Float[Tensor, " b"]
    taps: int

    def spread(self) -> PointSpread:
        """The point-spread function of each sample."""
        flat = box(torch.stack([self.width, self.height], dim=1), self.taps)
        path, lean, steep = motion(self.length, 2 * math.pi * self.direction, self.taps)
        still = sharp(self.taps, path.device)
        moved = torch.stack([path, still.expand_as(path)], dim=1)
        is_bell, is_box, moves = (self.kind == place for place in range(len(KINDS)))
        bell, is_bell = gaussian(self.sigma, self.taps)[:, None], is_bell[:, None, None]
        chosen = torch.where(is_box[:, None, None], flat, torch.where(moves[:, None, None], moved, still))
        line, column = kept(torch.where(is_bell, bell, chosen)).unbind(1)
        return PointSpread(line, kept(lean * moves), kept(steep & moves), column)


@dataclass(frozen=True)
class Grain:
    """Drawn grain, see :class:`CameraRange`.

    Attributes:
        deviation: (b,); standard deviation, in units of [0, 1].
        size: (b,); pixels, at least 1.
        grey: (b,); share of the grain that is the same in all channels.
    """

    deviation: Float[Tensor, " b"]
    size: Float[Tensor, " b"]
    grey: Float[Tensor, " b"]


@dataclass(frozen=True)
class Camera:
    """Drawn camera: low resolution, blur, noise, grain, JPEG quality.

    Attributes:
        coarser: (b,); pyramid levels to add, at least 0.
        blur: in pixels; None: no blur.
        noise: (b,); standard deviation, in units of [0, 1]; None: no noise.
        grain: noise of an enlarged smaller picture; None: none.
        quality: (b,); of JPEG, 1 to 100; None: no JPEG.
    """

    coarser: Float[Tensor, " b"]
    blur: Blur | None
    noise: Float[Tensor, " b"] | None
    grain: Grain | None
    quality: Float[Tensor, " b"] | None


@dataclass(frozen=True, kw_only=True)
class CameraRange:
    """Ranges of camera effects. Each sample gets one kind of blur, or none.

    Attributes:
        low_resolution: pyramid levels to add: 1 halves the resolution.
        blur: probability of any blur.
        kinds: kinds of blur, equally likely: some of ``"gaussian"``, ``"box"``, ``"motion"``.
        gaussian: standard deviation, pixels.
        box: width and height each, pixels.
        motion: length of the motion path, pixels.
        taps: side of the point-spread function, pixels, odd.
        noise: standard deviation of sensor noise, nearly normal, in units of [0, 1].
        grain: standard deviation of noise enlarged with a smaller picture, coloured or grey, in units of [0, 1].
        grain_size: enlargement factor of the grain.
        jpeg: quality, 1 to 100; 100 leaves the picture unchanged; None: no JPEG.
    """

    low_resolution: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.0
    kinds: tuple[str, ...] = ("gaussian", "box", "motion")
    gaussian: tuple[float, float] = (0.3, 1.2)
    box: tuple[float, float] = (1.0, 4.0)
    motion: tuple[float, float] = (1.0, 5.0)
    taps: int = 7
    noise: tuple[float, float] = (0.0, 0.0)
    grain: tuple[float, float] = (0.0, 0.0)
    grain_size: tuple[float, float] = (1.0, 2.5)
    jpeg: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("low_resolution", 0, 8), ("gaussian", 0.05, 50), ("box", 1, 50), ("motion", 0, 50), ("noise", 0, 1),
            ("grain", 0, 1), ("grain_size", 1, 50),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        check_number("blur", self.blur, 0, 1)
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            fail("kinds", f"some of {', '.join(KINDS)}", repr(self.kinds))
        check_int("taps", self.taps, 3, 51)
        if self.taps % 2 == 0:
            fail("taps", "an odd integer", str(self.taps))
        reach = {"gaussian": 2 * self.gaussian[1], "box": self.box[1], "motion": 1 + self.motion[1]}
        needed = max(reach[kind] for kind in self.kinds)
        if self.blur and needed > self.taps:
            fail("taps", f"a side that holds two sigmas of gaussian={self.gaussian}, box={self.box}, and a pixel along "
                 f"motion={self.motion}", str(self.taps),
                 f"Raise taps to {math.ceil(needed) | 1}, or blur less.")  # fmt: skip
        if self.jpeg is not None:
            check_range("jpeg", self.jpeg, 1, 100)

    def sample(self, draws: Draws | Int[Tensor, " b"], strength: Float[Tensor, " b"] | None = None) -> Camera:
        """Draw one camera per key.

        Args:
            draws: keys of the samples, or the numbers to draw from.
            strength: per sample in [0, 1]; scales every effect; 0 is a perfect camera. Default 1.
        """
        numbers = drawn(draws)
        s = full_strength(numbers.keys) if strength is None else strength
        return self.read(numbers.of(self.draws(), s))

    def draws(self) -> tuple[Draw, ...]:
        """What a camera is read from: only effects that are in range."""
        found: list[Draw] = [Number("camera.low_resolution", self.low_resolution, rest=0.0)]
        if self.noise[1]:
            found += [Number("camera.noise", self.noise, rest=0.0)]
        if self.jpeg is not None:
            found += [Number("camera.jpeg", self.jpeg, rest=100.0)]
        if self.grain[1]:
            found += [Number("camera.grain", self.grain, rest=0.0), Number("camera.grain_grey"),
                      Number("camera.grain_size", self.grain_size, log=True)]  # fmt: skip
        if self.blur:
            ranges = {"gaussian": self.gaussian, "box_x": self.box, "box_y": self.box, "motion": self.motion}
            found += [Number(f"camera.{name}", bounds, rest=0.0) for name, bounds in ranges.items()]
            found += [Number("camera.motion_angle", (0.0, 0.5)), Choice("camera.blur", self.blur),
                      Number("camera.blur_kind", (0.0, float(len(self.kinds))))]  # fmt: skip
        return tuple(found)

    def read(self, values: Mapping[str, Tensor]) -> Camera:
        """The camera that values of :meth:`draws` give."""
        grain = None
        if self.grain[1]:
            grain = Grain(values["camera.grain"], values["camera.grain_size"], values["camera.grain_grey"])
        blur = self._blur(values) if self.blur else None
        return Camera(
            values["camera.low_resolution"], blur, values.get("camera.noise"), grain, values.get("camera.jpeg")
        )

    def _blur(self, values: Mapping[str, Tensor]) -> Blur:
        place = values["camera.blur_kind"].long()
        kind = place if self.kinds == KINDS else torch.full_like(place, KINDS.index(self.kinds[0]))
        for number, name in enumerate(self.kinds[1:] if self.kinds != KINDS else (), 1):
            kind = torch.where(place == number, KINDS.index(name), kind)
        return Blur(
            kind=kept(torch.where(values["camera.blur"], kind, -1)),
            sigma=values["camera.gaussian"].clamp(min=0.05),
            width=values["camera.box_x"].clamp(min=1),
            height=values["camera.box_y"].clamp(min=1),
            length=values["camera.motion"],
            direction=values["camera.motion_angle"],
            taps=self.taps,
        )


def photograph(picture: Float[Tensor, "b 3 h w"], camera: Camera, keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
    """Apply blur, noise, grain, clipping to [0, 1] and JPEG, in this order. The resample handles low resolution."""
    return whole(photographed(picture, camera, keys))


def photographed(picture: Float[Tensor, "b 3 h w"], camera: Camera, keys: Int[Tensor, " b"]) -> Picture:
    """:func:`photograph`, but while being compiled for a GPU each channel by itself, unless there is JPEG."""
    grain = camera.grain
    parts = (None,) * 3 if grain is None else (grain.deviation, grain.size, grain.grey)
    sensor = camera.noise is not None or grain is not None
    if camera.blur is not None or sensor:
        picture = picture.clamp(min=0)  # light is never negative
    if threads(picture):
        planes = list(picture.unbind(1))
        planes = planes if camera.blur is None else blurred_planes(planes, camera.blur.spread())
        planes = sensed_planes(planes, keys, camera.noise, *parts)
        if camera.quality is None:
            return tuple(plane[:, None] for plane in planes)
        picture = torch.stack(planes, dim=1)
    else:
        if camera.blur is not None:
            picture = blur(picture, camera.blur.spread())
        picture = sensed(picture, keys, camera.noise, *parts) if sensor else picture.clamp(0, 1)
    return (picture if camera.quality is None else jpeg(picture, camera.quality),)
