"""All numbers of one scene, drawn in plain Python, for loaders that make one scene at a time.

Uses the ranges, slots and formulas of :mod:`kornia_cag.scenes.pose` and :mod:`kornia_cag.scenes.light`, limited to
``RIGID_SIGNS`` of :mod:`kornia_cag.training.recipes`. For a single scene, floats are faster than arrays.

Convention: canvas and texel coordinates are ``(x, y)``, pixel centres at +0.5.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.checks import check_int, fail
from kornia_cag.scenes.blends import Over
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.light import LUMA, ColorRange
from kornia_cag.scenes.ranges import SceneRange

Draw = Callable[[str, tuple[float, float]], float]  # (slot, range) to a number
Row = tuple[float, float, float, float]


class Blur(NamedTuple):
    """Blur of one scene, in pixels: ``"gaussian"`` (sigma), ``"box"`` (width, height), ``"motion"`` (radians, half)."""

    kind: str
    first: float
    second: float


class Light(NamedTuple):
    """Light of one scene, in the units of :class:`kornia_cag.scenes.light.ColorRange`."""

    hue: float  # radians
    saturation: float
    contrast: float
    veil: float
    level: float  # of the veil, in [0, 1]
    gains: tuple[float, float, float]  # factor per channel: brightness, exposure and tint
    slope: tuple[float, float]  # illumination, see Tone in scenes/light.py


class Form(NamedTuple):
    """How an object lies, wherever that is: canvas to object units, both from its centre, by a 2×2 map and a depth."""

    a: float
    b: float
    c: float
    d: float
    g: float  # the depth is 1 + g x + h y
    h: float


class Around(NamedTuple):
    """All numbers of one scene but those of its objects."""

    coarser: float  # pyramid levels by which pictures are too coarse for the canvas
    context_level: int
    crop: tuple[float, float, float, float]  # canvas to texels: left, step along x, top, step along y
    light: Light
    blur: Blur | None
    noise: float  # standard deviation


class Shot(NamedTuple):
    """All numbers of a scene of one object."""

    level: int  # of the object
    warp: tuple[float, ...]  # canvas to texels of this level, 3×3 by rows
    around: Around


class Director:
    """Draws everything about a scene except its pictures."""

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        check_int("size", size)
        pose, camera, color = ranges.pose, ranges.camera, ranges.color
        varied = pose.elastic[1] or pose.hole[1] or camera.jpeg or camera.grain[1] or color.invert
        parts = (ranges.framing, ranges.object_color, ranges.context_color, ranges.harmony, ranges.sun, ranges.depth,
                 ranges.layout)  # fmt: skip
        if varied or any(parts) or ranges.blend != Over() or objects.variants != 1:
            fail("ranges", "only what RIGID_SIGNS varies, the limit of the CPU loaders", repr(ranges))
        self.size, self.ranges = size, ranges
        self.texels, self.levels = objects.size, objects.pyramid.levels
        self.context_texels, self.context_levels = contexts.size, contexts.pyramid.levels

    def __call__(self, draw: Draw) -> Shot:
        """Draw a scene of one object."""
        pose, around = self.ranges.pose, self.around(draw)
        form = self.form(draw, draw("pose.scale", pose.scale))
        x, y = (self.size * (0.5 + draw(f"pose.{axis}", pose.translate)) for axis in "xy")
        level = self.level(form, around.coarser)
        return Shot(level, self.warp(form, level, x, y), around)

    def around(self, draw: Draw) -> Around:
        """Draw everything but objects."""
        camera = self.ranges.camera
        coarser = draw("camera.low_resolution", camera.low_resolution)
        context_level, crop = self._crop(draw, coarser)
        light = _light(self.ranges.color, draw)
        blur = _blur(camera, draw) if draw("camera.blur", (0.0, 1.0)) < camera.blur else None
        return Around(coarser, context_level, crop, light, blur, draw("camera.noise", camera.noise))

    def form(self, draw: Draw, scale: float) -> Form:
        """Draw how an object lies whose longest side is ``scale`` of the canvas's."""
        pose, half = self.ranges.pose, 0.5 * self.size * scale
        stretch = math.exp(0.5 * draw("pose.aspect", (math.log(pose.aspect[0]), math.log(pose.aspect[1]))))
        wide, high = half * stretch, half / stretch
        angle, slant = math.radians(draw("pose.angle", pose.angle)), math.radians(draw("pose.shear", pose.shear))
        cos, sin, slant = math.cos(angle), math.sin(angle), -math.tan(slant)
        # rows of the inverse of rotation, shear and stretch; then perspective along the object's own axes
        a, b, c, d = (cos + slant * sin) / wide, (sin - slant * cos) / wide, -sin / high, cos / high
        tilt_x, tilt_y = draw("pose.tilt_x", pose.perspective), draw("pose.tilt_y", pose.perspective)
        return Form(a, b, c, d, -(tilt_x * a + tilt_y * c), -(tilt_x * b + tilt_y * d))

    def level(self, form: Form, coarser: float) -> int:
        """The level that an object is read from."""
        spread = math.sqrt(form.a * form.d - form.b * form.c)
        level = round(math.log2(spread * 0.5 * EXTENT * self.texels) + coarser)
        return min(max(level, 0), self.levels - 1)

    def warp(self, form: Form, level: int, x: float, y: float) -> tuple[float, ...]:
        """Canvas to texels of a level, 3×3 by rows, of an object whose centre is at ``(x, y)``, pixels."""
        a, b, c, d, g, h = form
        m = 0.5 * (self.texels >> level)
        k = EXTENT * m  # object units to texels
        depth = 1 - g * x - h * y
        return (k * a + m * g, k * b + m * h, m * depth - k * (a * x + b * y),
                k * c + m * g, k * d + m * h, m * depth - k * (c * x + d * y), g, h, depth)  # fmt: skip

    def _crop(self, draw: Draw, coarser: float) -> tuple[int, tuple[float, float, float, float]]:
        share = draw("context.crop", self.ranges.crop)
        mirror = -1 if draw("context.mirror", (0.0, 1.0)) < 0.5 else 1
        x, y = (0.5 + (1 - share) * (draw(f"context.{axis}", (0.0, 1.0)) - 0.5) for axis in "xy")
        level = round(math.log2(share / self.size * self.context_texels) + coarser)
        level = min(max(level, 0), self.context_levels - 1)
        side = self.context_texels >> level
        step, half = share * side / self.size, 0.5 * share * side
        return level, (x * side - mirror * half, mirror * step, y * side - half, step)


def fresh(rng: np.random.Generator, count: int = 40) -> Draw:
    """Draws of one scene, ``count`` numbers at once."""
    numbers: Iterator[float] = iter(rng.random(count).tolist())

    def draw(slot: str, bounds: tuple[float, float]) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * next(numbers)

    return draw


def rotation(hue: float) -> tuple[float, float, float]:
    """First row of the rotation around the grey axis by ``hue`` radians; the other rows are shifted copies."""
    third, turn = (1 - math.cos(hue)) / 3, math.sin(hue) / math.sqrt(3)
    return math.cos(hue) + third, third - turn, third + turn


def color_matrix(light: Light) -> tuple[Row, Row, Row]:
    """A light without its slope, as an affine map from RGB in [0, 255] to [0, 1]."""
    same, right, left = rotation(light.hue)
    r, g, b = LUMA
    clear = (1 - light.veil) * light.contrast / 255
    own, rest = clear * light.saturation, clear * (1 - light.saturation)
    grey = r * same + g * left + b * right, r * right + g * same + b * left, r * left + g * right + b * same
    offset = (1 - light.veil) * 0.5 * (1 - light.contrast) + light.veil * light.level

    def row(gain: float, x: float, y: float, z: float) -> Row:
        own_gain, rest_gain = gain * own, gain * rest
        return (own_gain * x + rest_gain * grey[0], own_gain * y + rest_gain * grey[1],
                own_gain * z + rest_gain * grey[2], gain * offset)  # fmt: skip

    red, green, blue = light.gains
    return row(red, same, right, left), row(green, left, same, right), row(blue, right, left, same)


def _light(color: ColorRange, draw: Draw) -> Light:
    hue, saturation = math.radians(draw("color.hue", color.hue)), draw("color.saturation", color.saturation)
    contrast, veil = draw("color.contrast", color.contrast), draw("color.veil", color.veil)
    gain: float = draw("color.brightness", color.brightness) * 2.0 ** draw("color.exposure", color.exposure)
    red, green, blue = (gain * (1 + draw(slot, color.tint)) for slot in ("color.tint0", "color.tint1", "color.tint2"))
    level = draw("color.veil_level", (0.5, 1.0))
    amount, source = draw("color.illumination", color.illumination), draw("color.light_from", (0.0, 2 * math.pi))
    slope = (amount * math.cos(source), amount * math.sin(source))
    return Light(hue, saturation, contrast, veil, level, (red, green, blue), slope)


def _blur(camera: CameraRange, draw: Draw) -> Blur:
    kind = camera.kinds[int(draw("camera.blur_kind", (0.0, float(len(camera.kinds)))))]
    if kind == "gaussian":
        return Blur("gaussian", draw("camera.gaussian", camera.gaussian), 0.0)
    if kind == "box":
        return Blur("box", draw("camera.box_x", camera.box), draw("camera.box_y", camera.box))
    turn = math.pi * draw("camera.motion_angle", (0.0, 1.0))
    return Blur("motion", turn, 0.5 * draw("camera.motion", camera.motion))
