"""CPU loaders that make one scene at a time, with OpenCV or Pillow, for comparison with composing on the device.

Both are a ``collate_fn`` for the rows of a :class:`kornia_cag.PairSampler`, run in any number of workers, and make the
scenes of a ``SceneRange``, limited to ``RIGID_SIGNS``: one perspective warp of a mip level over a crop of a context,
colour matrix and illumination, blur, noise. Neither makes masks or boxes.

OpenCV is written to be fast: scalars in plain Python, 8-bit pictures up to the light, all colour in one matrix, applied
once to the composite, separable filters where possible, none if no blur was drawn, reused buffers, contexts with four
channels (which it warps faster than three), noise from its own generator. Pillow follows typical torchvision loaders,
call by call: ``transform``, ``resize``, ``paste``, enhancements, ``filter``, then NumPy.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.pyramid import Pyramid
from kornia_cag.bench.draws import Blur, Director, Draw, Light, Shot, color_matrix, fresh, rotation
from kornia_cag.core.checks import fail
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.ranges import SceneRange

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Noise = Callable[[Array], object]  # fills an array (h, 3 w) with standard normals


class OpenCVCollate:
    """A ``collate_fn``: rows to images (b, 3, h, w) in [0, 1], and labels, by OpenCV.

    Raises:
        InputError: without OpenCV, and for ranges beyond ``RIGID_SIGNS``.
    """

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        _opencv()
        self.shot, self.labels = Director(objects, contexts, size, ranges), objects.labels.cpu()
        self.objects, self.contexts = _levels(objects.pyramid), _levels(contexts.pyramid)
        self.taps = ranges.camera.taps
        self.x, self.y = _places(size)
        self.tap_x, self.tap_y = _taps(self.taps)
        self.picture, self.light = np.empty((2, size, size, 3), np.float32)
        self.plane = np.empty((size, size), np.float32)
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Rows) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """Compose the scenes of the rows one by one."""
        cv2 = _opencv()
        if self.rng is None:
            self.rng = np.random.Generator(np.random.SFC64())
            cv2.setRNGSeed(int(self.rng.integers(2**31)))
            cv2.setNumThreads(1)  # more does not help on pictures this small
        images = np.empty((len(rows), self.shot.size, self.shot.size, 3), np.float32)
        for image, obj, ctx in zip(images, rows.objects.tolist(), rows.contexts.tolist(), strict=True):
            self.scene(obj, ctx, fresh(self.rng), _opencv_noise, image)
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[rows.objects]

    def scene(self, obj: int, ctx: int, draw: Draw, noise: Noise, out: Array) -> None:
        """Make one finished scene in ``out``, (h, w, 3)."""
        cv2, shot = _opencv(), self.shot(draw)
        picture = self._over(obj, ctx, shot)
        cv2.transform(picture, np.array(color_matrix(shot.light), np.float32), dst=picture)
        cv2.addWeighted(self.x, shot.light.slope[0], self.y, shot.light.slope[1], 1, dst=self.plane)
        cv2.max(self.plane, 0, dst=self.plane)
        cv2.cvtColor(self.plane, cv2.COLOR_GRAY2RGB, dst=self.light)
        cv2.multiply(picture, self.light, dst=picture)
        cv2.max(picture, 0, dst=picture)
        self._blur(picture, shot.blur)
        # OpenCV takes a scalar for the first channel only: a row of pixels is a row of numbers
        flat, sharp = out.reshape(len(out), -1), picture.reshape(len(out), -1)
        noise(flat)
        cv2.scaleAdd(flat, shot.noise, sharp, dst=flat)
        _clamp(flat)

    def _over(self, obj: int, ctx: int, shot: Shot) -> Array:
        """The warped object over the crop of its context, in [0, 255]."""
        cv2, size = _opencv(), (self.shot.size, self.shot.size)
        reading = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        a, b, c, d, e, f, g, h, i = shot.warp
        # the same map from pixel indices to texel indices, both half a pixel less than their coordinates
        c, f, i = c + 0.5 * (a + b), f + 0.5 * (d + e), i + 0.5 * (g + h)
        a, b, c, d, e, f = a - 0.5 * g, b - 0.5 * h, c - 0.5 * i, d - 0.5 * g, e - 0.5 * h, f - 0.5 * i
        warp = np.array(((a, b, c), (d, e, f), (g, h, i)))
        layer = cv2.warpPerspective(self.objects[shot.level][obj], warp, size, flags=reading)
        left, dx, top, dy = shot.crop
        crop = np.array(((dx, 0, left + 0.5 * dx - 0.5), (0, dy, top + 0.5 * dy - 0.5)))
        context = self.contexts[shot.context_level][ctx]
        behind = cv2.warpAffine(context, crop, size, flags=reading, borderMode=cv2.BORDER_REPLICATE)
        clear = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(layer, 3)), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(cv2.cvtColor(behind, cv2.COLOR_RGBA2RGB), clear, scale=1 / 255)
        np.copyto(self.picture, cv2.add(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), behind))
        return self.picture

    def _blur(self, picture: Array, blur: Blur | None) -> None:
        cv2, taps = _opencv(), self.taps
        if blur is None:
            return
        if blur.kind == "gaussian":
            cv2.GaussianBlur(picture, (taps, taps), blur.first, dst=picture, borderType=cv2.BORDER_REPLICATE)
        elif blur.kind == "box":
            wide, high = _box(blur.first, taps), _box(blur.second, taps)
            cv2.sepFilter2D(picture, -1, wide, high, dst=picture, borderType=cv2.BORDER_REPLICATE)
        else:
            kernel = _motion(blur, self.tap_x, self.tap_y)
            cv2.filter2D(picture, -1, kernel, dst=picture, borderType=cv2.BORDER_REPLICATE)


class PillowCollate:
    """A ``collate_fn``: rows to images (b, 3, h, w) in [0, 1], and labels, by Pillow and NumPy.

    Pillow's own filters replace the point-spread functions: its Gaussian is three boxes, its kernels are at most 5×5.

    Raises:
        InputError: for ranges beyond ``RIGID_SIGNS``.
    """

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        self.shot, self.labels = Director(objects, contexts, size, ranges), objects.labels.cpu()
        self.objects = [[_straight(p) for p in level] for level in _levels(objects.pyramid)]
        self.contexts = [[Image.fromarray(p[..., :3]) for p in level] for level in _levels(contexts.pyramid)]
        self.x, self.y = _places(size)
        self.tap_x, self.tap_y = _taps(5)
        self.grey = Image.new("RGB", (size, size), (128, 128, 128))
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Rows) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """Compose the scenes of the rows one by one."""
        self.rng = rng = self.rng or np.random.default_rng()
        images = np.empty((len(rows), self.shot.size, self.shot.size, 3), np.float32)
        for image, obj, ctx in zip(images, rows.objects.tolist(), rows.contexts.tolist(), strict=True):
            self.scene(obj, ctx, fresh(rng), lambda field: rng.standard_normal(dtype=np.float32, out=field), image)
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[rows.objects]

    def scene(self, obj: int, ctx: int, draw: Draw, noise: Noise, out: Array) -> None:
        """Make one finished scene in ``out``, (h, w, 3)."""
        shot = self.shot(draw)
        picture = self._colors(self._over(obj, ctx, shot), shot.light)
        if shot.blur is not None:
            picture = picture.filter(self._filter(shot.blur))
        (slope_x, slope_y), gains = shot.light.slope, np.array(shot.light.gains, np.float32) / 255
        plane = np.maximum(1 + slope_x * self.x + slope_y * self.y, 0)
        lit = np.asarray(picture, np.float32) * (plane[..., None] * gains)
        noise(out.reshape(len(out), -1))
        out *= np.float32(shot.noise)
        out += np.clip(lit, 0, 1, out=lit)
        np.clip(out, 0, 1, out=out)

    def _over(self, obj: int, ctx: int, shot: Shot) -> Image.Image:
        """The warped object over the crop of its context."""
        size, side = (self.shot.size, self.shot.size), self.shot.size
        warp = tuple(m / shot.warp[8] for m in shot.warp[:8])
        layer = self.objects[shot.level][obj].transform(
            size, Image.Transform.PERSPECTIVE, warp, Image.Resampling.BILINEAR
        )
        left, dx, top, dy = shot.crop
        context = self.contexts[shot.context_level][ctx]
        first, last, bottom = (min(max(v, 0), context.width) for v in (left, left + side * dx, top + side * dy))
        box = (min(first, last), top, max(first, last), bottom)
        behind = context.resize(size, Image.Resampling.BILINEAR, box)
        if dx < 0:
            behind = behind.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        behind.paste(layer, (0, 0), layer)
        return behind

    def _colors(self, picture: Image.Image, light: Light) -> Image.Image:
        """Hue, saturation, contrast around mid-grey and veil; gains do not fit into 8 bits."""
        same, right, left = rotation(light.hue)
        picture = picture.convert("RGB", (same, right, left, 0, left, same, right, 0, right, left, same, 0))
        picture = ImageEnhance.Color(picture).enhance(light.saturation)
        picture = Image.blend(self.grey, picture, light.contrast)
        return Image.blend(picture, Image.new("RGB", picture.size, 3 * (round(255 * light.level),)), light.veil)

    def _filter(self, blur: Blur) -> ImageFilter.Filter:
        if blur.kind == "gaussian":
            return ImageFilter.GaussianBlur(blur.first)
        if blur.kind == "box":
            return ImageFilter.BoxBlur((0.5 * blur.first - 0.5, 0.5 * blur.second - 0.5))
        return ImageFilter.Kernel((5, 5), _motion(blur, self.tap_x, self.tap_y).ravel().tolist())


@cache
def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        fail("opencv", "OpenCV, for the faster CPU loader", "no module cv2", "pip install opencv-python-headless")
    return cv2


def _opencv_noise(field: Array) -> None:
    _opencv().randn(field, 0, 1)


def _clamp(picture: Array) -> None:
    """Clip to [0, 1] in place; twice as fast as ``minimum`` and ``maximum``."""
    np.clip(picture, np.float32(0), np.float32(1), out=picture)


def _places(size: int) -> tuple[Array, Array]:
    """Pixel positions on the canvas, from -1 to 1: x and y, (h, w) each."""
    place = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(place, place)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _taps(count: int) -> tuple[Array, Array]:
    tap = np.arange(count, dtype=np.float32) - (count - 1) / 2
    return tap[None, :], tap[:, None]


def _box(width: float, taps: int) -> Array:
    """Taps of a box of possibly fractional width."""
    middle = (taps - 1) / 2
    weights = [min(max(0.5 * width + 0.5 - abs(i - middle), 0.0), 1.0) for i in range(taps)]
    return np.array(weights, np.float32) / np.float32(sum(weights))


def _motion(blur: Blur, x: Array, y: Array) -> Array:
    """Taps of a straight path through the middle: along the longer axis, split between the two nearest across."""
    cos, sin, half = math.cos(blur.first), math.sin(blur.first), max(blur.second, 1e-3)
    step, across, major, minor = (y, x, sin, cos) if abs(sin) > abs(cos) else (x, y, cos, sin)
    ends = np.clip(np.stack((step + half * abs(major), step - half * abs(major))), -1, 1)
    ends -= 0.5 * ends * np.abs(ends)
    kernel: Array = (ends[0] - ends[1]) * np.maximum(1 - np.abs(across - step * (minor / major)), 0)
    kernel /= kernel.sum()
    return kernel


def _levels(pyramid: Pyramid) -> list[Bytes]:
    """Every level of a bank, (n, s, s, 4) uint8; contexts get an unused alpha."""
    levels = [pyramid.level(i).permute(0, 2, 3, 1).cpu().numpy() for i in range(pyramid.levels)]
    return [np.pad(level, ((0, 0), (0, 0), (0, 0), (0, 4 - level.shape[-1]))) for level in levels]


def _straight(picture: Bytes) -> Image.Image:
    """Convert a premultiplied picture, (s, s, 4), to a Pillow image with straight alpha."""
    return Image.frombytes("RGBa", picture.shape[:2], picture.tobytes()).convert("RGBA")
