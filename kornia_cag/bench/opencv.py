"""What loaders need that make one scene at a time by OpenCV: warps, a camera, the levels of a bank."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_cag.banks.pyramid import Pyramid
from kornia_cag.bench.draws import Around, Blur, color_matrix
from kornia_cag.core.checks import fail

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Part = tuple[int, int, int, int]  # of a canvas: left, top, right, bottom, half-open
Noise = Callable[[Array], object]  # fills an array (h, 3 w) with standard normals


@cache
def opencv() -> Any:
    """OpenCV's module.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import cv2
    except ImportError:
        fail("opencv", "OpenCV, for the faster CPU loader", "no module cv2", "pip install opencv-python-headless")
    return cv2


def generator() -> np.random.Generator:
    """A generator of this process's own, from which OpenCV's is seeded."""
    rng, cv2 = np.random.Generator(np.random.SFC64()), opencv()
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.setNumThreads(1)  # more does not help on pictures this small
    return rng


def normals(field: Array) -> None:
    """Fill an array with standard normals."""
    opencv().randn(field, 0, 1)


def warped(picture: Bytes, warp: tuple[float, ...], part: Part) -> Bytes:
    """A premultiplied picture (s, s, 4) on a part of an empty canvas.

    Args:
        picture: one level of a bank.
        warp: canvas to texels of this level, 3×3 by rows.
        part: what of the canvas is asked for.
    """
    cv2, (left, top, right, bottom) = opencv(), part
    a, b, c, d, e, f, g, h, i = warp
    # the same map from pixel indices to texel indices, both half a pixel less than their coordinates
    x, y = left + 0.5, top + 0.5
    c, f, i = c + a * x + b * y, f + d * x + e * y, i + g * x + h * y
    a, b, c, d, e, f = a - 0.5 * g, b - 0.5 * h, c - 0.5 * i, d - 0.5 * g, e - 0.5 * h, f - 0.5 * i
    matrix, reading = np.array(((a, b, c), (d, e, f), (g, h, i))), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    layer: Bytes = cv2.warpPerspective(picture, matrix, (right - left, bottom - top), flags=reading)
    return layer


def cropped(context: Bytes, around: Around, size: int) -> Bytes:
    """The crop of a context, (size, size, 4)."""
    cv2, (left, dx, top, dy) = opencv(), around.crop
    crop = np.array(((dx, 0, left + 0.5 * dx - 0.5), (0, dy, top + 0.5 * dy - 0.5)))
    reading = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    behind: Bytes = cv2.warpAffine(context, crop, (size, size), flags=reading, borderMode=cv2.BORDER_REPLICATE)
    return behind


class Camera:
    """Lights and photographs pictures of ``size`` pixels a side, one at a time, with point spreads of ``width`` taps.

    Raises:
        InputError: without OpenCV.
    """

    def __init__(self, size: int, width: int) -> None:
        opencv()
        self.width = width
        self.x, self.y = places(size)
        self.tap_x, self.tap_y = taps(width)
        self.picture, self.light = np.empty((2, size, size, 3), np.float32)
        self.plane = np.empty((size, size), np.float32)

    def __call__(self, composite: Bytes, around: Around, noise: Noise, out: Array) -> None:
        """Photograph a composite (h, w, 3) into ``out``, of the same shape, in [0, 1]."""
        cv2, picture, light = opencv(), self.picture, around.light
        np.copyto(picture, composite)
        cv2.transform(picture, np.array(color_matrix(light), np.float32), dst=picture)
        cv2.addWeighted(self.x, light.slope[0], self.y, light.slope[1], 1, dst=self.plane)
        cv2.max(self.plane, 0, dst=self.plane)
        cv2.cvtColor(self.plane, cv2.COLOR_GRAY2RGB, dst=self.light)
        cv2.multiply(picture, self.light, dst=picture)
        cv2.max(picture, 0, dst=picture)
        self._blur(picture, around.blur)
        # OpenCV takes a scalar for the first channel only: a row of pixels is a row of numbers
        flat, sharp = out.reshape(len(out), -1), picture.reshape(len(out), -1)
        noise(flat)
        cv2.scaleAdd(flat, around.noise, sharp, dst=flat)
        np.clip(flat, np.float32(0), np.float32(1), out=flat)  # twice as fast as ``minimum`` and ``maximum``

    def _blur(self, picture: Array, blur: Blur | None) -> None:
        cv2, width = opencv(), self.width
        if blur is None:
            return
        if blur.kind == "gaussian":
            cv2.GaussianBlur(picture, (width, width), blur.first, dst=picture, borderType=cv2.BORDER_REPLICATE)
        elif blur.kind == "box":
            wide, high = _box(blur.first, width), _box(blur.second, width)
            cv2.sepFilter2D(picture, -1, wide, high, dst=picture, borderType=cv2.BORDER_REPLICATE)
        else:
            kernel = motion(blur, self.tap_x, self.tap_y)
            cv2.filter2D(picture, -1, kernel, dst=picture, borderType=cv2.BORDER_REPLICATE)


def places(size: int) -> tuple[Array, Array]:
    """Pixel positions on the canvas, from -1 to 1: x and y, (h, w) each."""
    place = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(place, place)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def taps(count: int) -> tuple[Array, Array]:
    """Places of ``count`` taps along x, (1, count), and along y, (count, 1), pixels."""
    tap = np.arange(count, dtype=np.float32) - (count - 1) / 2
    return tap[None, :], tap[:, None]


def motion(blur: Blur, x: Array, y: Array) -> Array:
    """Taps of a straight path through the middle: along the longer axis, split between the two nearest across."""
    cos, sin, half = math.cos(blur.first), math.sin(blur.first), max(blur.second, 1e-3)
    step, across, major, minor = (y, x, sin, cos) if abs(sin) > abs(cos) else (x, y, cos, sin)
    ends = np.clip(np.stack((step + half * abs(major), step - half * abs(major))), -1, 1)
    ends -= 0.5 * ends * np.abs(ends)
    kernel: Array = (ends[0] - ends[1]) * np.maximum(1 - np.abs(across - step * (minor / major)), 0)
    kernel /= kernel.sum()
    return kernel


def levels(pyramid: Pyramid) -> list[Bytes]:
    """Every level of a bank, (n, s, s, 4) uint8; contexts get an unused alpha."""
    found = [pyramid.level(i).permute(0, 2, 3, 1).cpu().numpy() for i in range(pyramid.levels)]
    return [np.pad(level, ((0, 0), (0, 0), (0, 0), (0, 4 - level.shape[-1]))) for level in found]


def _box(width: float, count: int) -> Array:
    """Taps of a box of possibly fractional width."""
    middle = (count - 1) / 2
    weights = [min(max(0.5 * width + 0.5 - abs(i - middle), 0.0), 1.0) for i in range(count)]
    return np.array(weights, np.float32) / np.float32(sum(weights))
