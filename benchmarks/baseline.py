"""What people do today: one scene at a time with OpenCV and NumPy, in a ``collate_fn``, in as many workers as wanted.

It makes the scenes of ``SceneRange`` as far as the ``signs`` recipe goes: a mip level read through one perspective warp
with premultiplied alpha, put over a crop of a context, colour matrix and illumination, point-spread function, noise. It
is written to be fast: uint8 warps, scalars in plain Python, colour once on the composite instead of once per layer, no
filter where no blur was drawn, no mask, no box. ``test_compose.py`` checks that it makes the same pictures.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_cag import ContextBank, ObjectBank, SceneRange
from kornia_cag.photometric import LUMA, CameraRange, ColorRange
from kornia_cag.pyramid import Pyramid
from kornia_cag.warp import EXTENT

Array = NDArray[np.float32]
Draw = Callable[[str, tuple[float, float]], float]  # (slot, range) to a number
Noise = Callable[[tuple[int, int, int]], Array]  # shape (h, w, 3) to standard normals

CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / math.sqrt(3)
EYE, GREY = np.eye(3, dtype=np.float32), np.array(LUMA, np.float32)


class OpenCVCollate:
    """A ``collate_fn`` for the rows of a :class:`kornia_cag.PairSampler`: images (b, 3, h, w) in [0, 1], labels."""

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        pose, camera = ranges.pose, ranges.camera
        handled = pose.elastic[1] == 0 and pose.hole[1] == 0 and camera.jpeg is None and ranges.blend == "over"
        plain = ranges.framing is None and ranges.object_color is None and ranges.context_color is None
        if not (handled and plain and objects.variants == 1):
            raise NotImplementedError("The baseline makes what the signs recipe varies, nothing else.")
        self.objects, self.contexts = _levels(objects.pyramid), _levels(contexts.pyramid)
        self.labels, self.size, self.ranges = objects.labels.cpu(), size, ranges
        place = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = place[None, :], place[:, None]
        tap = np.arange(camera.taps, dtype=np.float32) - (camera.taps - 1) / 2
        self.tap_x, self.tap_y = tap[None, :], tap[:, None]
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Compose the scenes of the rows, one after the other."""
        if self.rng is None:
            self.rng = np.random.Generator(np.random.SFC64())
            cv2.setNumThreads(1)  # pictures this small gain nothing from more
        images = np.empty((len(rows), self.size, self.size, 3), np.float32)
        for image, (obj, ctx) in zip(images, rows[:, :2].tolist(), strict=True):
            image[:] = self.scene(obj, ctx, *fresh(self.rng))
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[rows[:, 0]]

    def scene(self, obj: int, ctx: int, draw: Draw, noise: Noise) -> Array:
        """One finished scene, (h, w, 3)."""
        coarser = draw("camera.low_resolution", self.ranges.camera.low_resolution)
        layer = self._place(obj, draw, coarser)
        alpha = layer[..., 3]
        clear = 1 - cv2.merge((alpha, alpha, alpha)) * np.float32(1 / 255)
        image = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB).astype(np.float32)
        image += clear * self._crop(ctx, draw, coarser)
        image = self._light(image, self.ranges.color, draw)
        if draw("camera.blur", (0.0, 1.0)) < self.ranges.camera.blur:
            image = cv2.filter2D(image, -1, self._psf(self.ranges.camera, draw), borderType=cv2.BORDER_REPLICATE)
        field = noise((self.size, self.size, 3))
        field *= np.float32(draw("camera.noise", self.ranges.camera.noise))
        field += image
        return _clamp(field)

    def _place(self, obj: int, draw: Draw, coarser: float) -> NDArray[np.uint8]:
        """The warped object, premultiplied RGBA (h, w, 4) in uint8."""
        pose, size = self.ranges.pose, self.size
        half = 0.5 * size * draw("pose.scale", pose.scale)
        stretch = math.exp(0.5 * draw("pose.aspect", (math.log(pose.aspect[0]), math.log(pose.aspect[1]))))
        wide, high = half * stretch, half / stretch
        angle, slant = math.radians(draw("pose.angle", pose.angle)), math.radians(draw("pose.shear", pose.shear))
        cos, sin, slant = math.cos(angle), math.sin(angle), math.tan(slant)
        # rows of the inverse of rotation, shear and stretch; then perspective along the object's own axes
        a, b, c, d = (cos + slant * sin) / wide, (sin - slant * cos) / wide, -sin / high, cos / high
        x, y = size * (0.5 + draw("pose.x", pose.translate)), size * (0.5 + draw("pose.y", pose.translate))
        tilt_x, tilt_y = draw("pose.tilt_x", pose.perspective), draw("pose.tilt_y", pose.perspective)
        g, h = -(tilt_x * a + tilt_y * c), -(tilt_x * b + tilt_y * d)
        side = self.objects[0].shape[1]
        level = round(math.log2(math.sqrt(a * d - b * c) * 0.5 * EXTENT * side) + coarser)
        level = min(max(level, 0), len(self.objects) - 1)
        k, m = 0.5 * EXTENT * (side >> level), 0.5 * (side >> level) - 0.5  # object units to texel indices
        x, y = x - 0.5, y - 0.5  # canvas points to pixel indices
        depth = 1 - g * x - h * y
        u, v = -(a * x + b * y), -(c * x + d * y)
        matrix = np.array([[k * a + m * g, k * b + m * h, k * u + m * depth],
                           [k * c + m * g, k * d + m * h, k * v + m * depth], [g, h, depth]])  # fmt: skip
        return cv2.warpPerspective(self.objects[level][obj], matrix, (size, size),
                                   flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)  # fmt: skip

    def _crop(self, ctx: int, draw: Draw, coarser: float) -> NDArray[np.uint8]:
        """A random crop of a context, (h, w, 3) in uint8."""
        share = draw("context.crop", self.ranges.crop)
        mirror = -1 if draw("context.mirror", (0.0, 1.0)) < 0.5 else 1
        x, y = (0.5 + (1 - share) * (draw(f"context.{axis}", (0.0, 1.0)) - 0.5) for axis in "xy")
        side = self.contexts[0].shape[1]
        level = min(max(round(math.log2(share / self.size * side) + coarser), 0), len(self.contexts) - 1)
        side >>= level
        step, middle = share * side / self.size, 0.5 * (self.size - 1)
        matrix = np.array([[mirror * step, 0, x * side - 0.5 - mirror * step * middle],
                           [0, step, y * side - 0.5 - step * middle]])  # fmt: skip
        reading = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        return cv2.warpAffine(self.contexts[level][ctx], matrix, (self.size, self.size), **reading)

    def _light(self, image: Array, color: ColorRange, draw: Draw) -> Array:
        """Colour matrix and illumination of an image in [0, 255], to [0, 1]."""
        angle, saturation = math.radians(draw("color.hue", color.hue)), draw("color.saturation", color.saturation)
        rotation = math.cos(angle) * EYE + math.sin(angle) * CROSS + (1 - math.cos(angle)) / 3
        matrix = saturation * rotation + (1 - saturation) * (GREY @ rotation)
        contrast, veil = draw("color.contrast", color.contrast), draw("color.veil", color.veil)
        gain = draw("color.brightness", color.brightness) * 2 ** draw("color.exposure", color.exposure)
        gains = np.array([[gain * (1 + draw(f"color.tint{c}", color.tint))] for c in range(3)], np.float32)
        offset = (1 - veil) * 0.5 * (1 - contrast) + veil * draw("color.veil_level", (0.5, 1.0))
        affine = gains * np.column_stack([matrix * ((1 - veil) * contrast / 255), np.full(3, offset)])
        amount, source = draw("color.illumination", color.illumination), draw("color.light_from", (0.0, 2 * math.pi))
        plane = (1 + amount * math.cos(source) * self.x) + np.float32(amount * math.sin(source)) * self.y
        plane = np.maximum(plane, 0, dtype=np.float32)
        lit = cv2.multiply(cv2.transform(image, affine), cv2.merge((plane, plane, plane)))
        return _clamp(lit)

    def _psf(self, camera: CameraRange, draw: Draw) -> Array:
        """One point-spread function, (taps, taps)."""
        kind, x, y = int(draw("camera.blur_kind", (0.0, 3.0))), self.tap_x, self.tap_y
        if kind == 0:
            psf = np.exp(-0.5 / draw("camera.gaussian", camera.gaussian) ** 2 * (x**2 + y**2))
        elif kind == 1:
            wide, high = draw("camera.box_x", camera.box), draw("camera.box_y", camera.box)
            psf = np.clip(0.5 * wide + 0.5 - abs(x), 0, 1) * np.clip(0.5 * high + 0.5 - abs(y), 0, 1)
        else:
            turn, half = math.pi * draw("camera.motion_angle", (0.0, 1.0)), 0.5 * draw("camera.motion", camera.motion)
            along = np.clip(x * math.cos(turn) + y * math.sin(turn), -half, half)
            psf = np.maximum(1 - np.hypot(x - along * math.cos(turn), y - along * math.sin(turn)), 0)
        return psf / psf.sum()


def fresh(rng: np.random.Generator) -> tuple[Draw, Noise]:
    """Draws of one scene, all numbers at once."""
    numbers = iter(rng.random(40).tolist())

    def draw(slot: str, bounds: tuple[float, float]) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * next(numbers)

    return draw, lambda shape: rng.standard_normal(shape, np.float32)


def _clamp(image: Array) -> Array:
    """To [0, 1], in place; faster than ``np.clip``."""
    return np.minimum(np.maximum(image, 0, out=image), 1, out=image)


def _levels(pyramid: Pyramid) -> list[NDArray[Any]]:
    """Every level of a bank, (n, s, s, c) uint8."""
    return [pyramid.level(i).permute(0, 2, 3, 1).contiguous().cpu().numpy() for i in range(pyramid.levels)]
