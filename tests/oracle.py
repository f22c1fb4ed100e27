"""One scene at a time in float64 NumPy and OpenCV: slow, plain, and what every batched stage must equal.

Draws are read from the library (they are the scene's data); everything made of them is written here a second time, in
another way: matrices built forward and inverted numerically, colours adjusted one operation after the other on straight
(not premultiplied) RGB, reads by four texels, blur by loops over taps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from kornia_cag.core.fields import noise
from kornia_cag.core.randomness import fold_in, uniform
from kornia_cag.scenes.blends import Average, Blend, Difference, Hard, MultiBand, Over, Poisson
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.choices import Chosen
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.edges import Edge
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Pose
from kornia_cag.scenes.scene import Layer

Array = NDArray[np.float64]
EXTENT = 7 / 8  # share of a bank picture's side that the object fills
TIE = 1e-4  # closer to a rounding tie or a threshold, float32 may fall on the other side


@dataclass
class Object:
    mask: Array  # h w, what is seen of it
    full: Array  # h w, as if nothing covered it
    box: tuple[int, int, int, int] | None  # of an object out of sight, none


@dataclass
class Expected:
    image: Array  # h w 3
    objects: list[Object]  # from back to front
    sure: bool  # false: a discrete choice (pyramid level, bound of the framing) is a tie within TIE


def scene(
    composer: Composer,
    objects: list[int],
    ctx: int,
    key: Tensor,
    strength: float = 1.0,
    earlier: Array | None = None,
    drawn: Sequence[Layer] | None = None,
) -> Expected:
    """The scene of one row, of one object or of several from back to front.

    ``drawn``: layers of this row alone, from which pose, blend and whether an object is shown are taken. Default: poses
    are drawn, all objects are shown, and the blend draws nothing.
    """
    ranges, key = composer.ranges, key.reshape(1).cpu()
    sure: list[bool] = []
    coarser = strength * draw(key, "camera.low_resolution", ranges.camera.low_resolution)
    behind = _crop(composer, ctx, key, coarser, sure)
    if ranges.context_color is not None:
        behind = recolor(behind, ranges.context_color, key, strength, "context_color")
    image = light(behind, ranges.color, key, strength, "color") if earlier is None else earlier
    dark = light(np.zeros_like(behind), ranges.color, key, strength, "color")  # what "average" takes for no object
    layers = []
    for number, obj in enumerate(objects):
        own, of = fold_in(key, number) if number else key, None if drawn is None else drawn[number]
        if of is not None and of.shown is not None and not bool(of.shown):
            layers.append((np.zeros(composer.size), edge(np.zeros(1), 1.0)))
            continue
        blend = ranges.blend if of is None else _blend_of(of, ranges.blend)
        pose = pose_row(ranges.pose.sample(own, torch.tensor([strength])) if of is None else of.pose, 0)
        layer, opacity = _place(composer, obj, pose, coarser, sure)
        alpha = layer[..., 3]
        color = layer[..., :3] / np.maximum(alpha, 1e-9)[..., None]
        if ranges.object_color is not None:
            color = recolor(color, ranges.object_color, own, strength, "object_color")
        alpha = soften(alpha, blend) if isinstance(blend, Edge) else alpha
        bound = edge(alpha, opacity)
        sure.append(_apart(alpha, bound) and not (isinstance(blend, Poisson) and np.abs(alpha - 1 / 255).min() < TIE))
        lit = light(color, ranges.color, key, strength, "color")
        image = _blend(lit, alpha[..., None], image, blend, dark, bound)
        layers.append(((alpha > bound).astype(np.float64) if isinstance(blend, Hard) else alpha, bound))
    image = np.maximum(image, 0)
    if ranges.camera.blur:
        image = blur(image, psf(ranges.camera, key, strength))
    height, width = composer.size
    field = noise(key, "camera.noise_field", (3, height, width))[0].double()
    sigma = strength * draw(key, "camera.noise", ranges.camera.noise)
    image = np.clip(image + sigma * field.permute(1, 2, 0).numpy() + grain(ranges.camera, key, strength, image), 0, 1)
    return Expected(image, _seen(layers, sure), all(sure))


def _seen(layers: list[tuple[Array, float]], sure: list[bool]) -> list[Object]:
    """What is left of each object in front of which others lie."""
    found = []
    for number, (alpha, bound) in enumerate(layers):
        mask = alpha
        for above, _ in layers[number + 1 :]:
            mask = mask * (1 - above)
        if len(layers) > 1:  # the bound of an object half hidden is that of what is seen
            bound = edge(mask, min(2 * bound, 1.0))
            sure.append(_apart(mask, bound))
        found.append(Object(mask, alpha, box(mask > bound)))
    return found


def _apart(alpha: Array, bound: float) -> bool:
    """Whether no pixel is near the bound of the object, nor the brightest one near that of sight."""
    return bool(np.abs(alpha - bound).min() > TIE and abs(alpha.max() - 1 / 255) > TIE)


def edge(alpha: Array, opacity: float) -> float:
    """Alpha above which a pixel is the object's: half its opacity, or 5/8 of what there is; of nothing, no alpha is."""
    return min(opacity / 2, 5 / 8 * alpha.max()) if alpha.max() >= 1 / 255 else 2.0


def grain(camera: CameraRange, key: Tensor, strength: float, image: Array) -> Array:
    """Noise of a smaller picture, grey in part, enlarged from the left upper corner by linear interpolation."""
    height, width = image.shape[:2]
    field = noise(key, "camera.grain_field", (3, height, width))[0].double().permute(1, 2, 0).numpy()
    grey = draw(key, "camera.grain_grey")
    field = (1 - grey) * field + grey * np.sqrt(3) * field.mean(axis=2, keepdims=True)
    low, high = np.log(camera.grain_size)
    factor = np.exp(low + (high - low) * draw(key, "camera.grain_size"))
    for axis, side in enumerate((height, width)):
        places = (np.arange(side) + 0.5) / factor - 0.5
        field = np.apply_along_axis(lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, field)
    return strength * draw(key, "camera.grain", camera.grain) * field


def draw(key: Tensor, slot: str, bounds: tuple[float, float] = (0.0, 1.0)) -> float:
    return float(uniform(key, slot, *bounds))


# ---- geometry


def object_to_canvas(pose: dict[str, float], size: tuple[int, int]) -> Array:
    """Depth in the object's own axes, then stretch, shear, rotation, shift."""
    height, width = size
    half = 0.5 * min(size) * pose["scale"]
    turn = math.radians(pose["angle"])
    depth = np.array([[1, 0, 0], [0, 1, 0], [pose["tilt_x"], pose["tilt_y"], 1]])
    stretch = np.diag([half * math.sqrt(pose["aspect"]), half / math.sqrt(pose["aspect"]), 1])
    shear = np.array([[1, -math.tan(math.radians(pose["shear"])), 0], [0, 1, 0], [0, 0, 1]])
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    shift = np.eye(3)
    shift[:2, 2] = width / 2 + min(size) * pose["x"], height / 2 + min(size) * pose["y"]
    return shift @ rotation @ shear @ stretch @ depth


def pose_row(pose: Pose, row: int) -> dict[str, Any]:
    return {name: value[row].double().cpu().numpy() for name, value in vars(pose).items()}


def mips(picture: NDArray[np.uint8]) -> list[Array]:
    """Box means of a ``(s, s, c)`` picture at every power of two down to 4 texels, rounded to whole numbers."""
    levels, side = [], picture.shape[0]
    while side >= 4:
        small = cv2.resize(picture.astype(np.float64), (side, side), interpolation=cv2.INTER_AREA)
        levels.append(np.rint(small) / 255)
        side //= 2
    return levels


def read(picture: Array, x: Array, y: Array, outside: str) -> Array:
    """Bilinear read at texel coordinates (centres at +0.5); beyond the border ``"empty"`` or the ``"border"`` texel."""
    rows, columns, channels = picture.shape
    total = np.zeros((*x.shape, channels))
    left, top = np.floor(x - 0.5), np.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - np.abs(x - 0.5 - column)) * (1 - np.abs(y - 0.5 - row))
            if outside == "empty":
                weight = weight * ((row >= 0) & (row < rows) & (column >= 0) & (column < columns))
            i, j = np.clip(row, 0, rows - 1).astype(int), np.clip(column, 0, columns - 1).astype(int)
            total += weight[..., None] * picture[i, j]
    return total


def _level(texels_per_pixel: float, coarser: float, levels: int, sure: list[bool]) -> int:
    exact = math.log2(texels_per_pixel) + coarser
    sure.append(abs(exact - math.floor(exact) - 0.5) > TIE)
    return min(max(round(exact), 0), levels - 1)


def _pixels(size: tuple[int, int]) -> tuple[Array, Array]:
    y, x = np.mgrid[: size[0], : size[1]]
    return x + 0.5, y + 0.5


def warp(
    levels: list[Array], forward: Array, pose: dict[str, Any], coarser: float, size: tuple[int, int], sure: list[bool]
) -> Array:
    """An object on an empty canvas, ``(h, w, 4)`` premultiplied."""
    back = np.linalg.inv(forward)
    back /= back[2] @ forward[:, 2] / forward[2, 2]  # depth 1 at the object's centre

    def to_object(x: Array, y: Array) -> tuple[Array, Array, Array]:
        u, v, depth = (back[i, 0] * x + back[i, 1] * y + back[i, 2] for i in range(3))
        seen = depth > 1e-3
        return (
            np.where(seen, u / np.where(seen, depth, 1), 1e6),
            np.where(seen, v / np.where(seen, depth, 1), 1e6),
            seen,
        )

    cx, cy = forward[:2, 2] / forward[2, 2]
    step = 1e-4
    u, v, _ = to_object(cx + step * np.array([1, -1, 0, 0]), cy + step * np.array([0, 0, 1, -1]))
    jacobian = np.array([[u[0] - u[1], u[2] - u[3]], [v[0] - v[1], v[2] - v[3]]]) / (2 * step)
    side = levels[0].shape[0]
    rate = math.sqrt(abs(np.linalg.det(jacobian))) * EXTENT * side / 2
    level = levels[_level(rate, coarser, len(levels), sure)]

    u, v, seen = to_object(*_pixels(size))
    moved_u, moved_v = u.copy(), v.copy()
    for fx, fy, ax, ay, phase in pose["waves"]:
        value = np.sin(2 * math.pi * (fx * u + fy * v) + phase)
        moved_u, moved_v = moved_u + ax * value, moved_v + ay * value
    place = [(EXTENT * m + 1) / 2 * level.shape[0] for m in (moved_u, moved_v)]
    layer = read(level, *np.clip(place, -9, side + 9), "empty") * seen[..., None]
    for x, y, radius in pose["holes"]:
        if radius > 0:
            layer *= np.clip(10 * (np.hypot(u - x, v - y) - radius) + 0.5, 0, 1)[..., None]
    return layer


def _place(composer: Composer, obj: int, pose: dict[str, Any], coarser: float, sure: list[bool]) -> tuple[Array, float]:
    ranges, bank, size = composer.ranges, composer.objects, composer.size
    variant = min(int(pose["variant"] * bank.variants), bank.variants - 1)
    levels = mips(bank.pyramid.level(0)[obj * bank.variants + variant].permute(1, 2, 0).cpu().numpy())
    if ranges.framing is not None:
        pose |= {"x": 0.0, "y": 0.0}
    forward = object_to_canvas(pose, size)
    if ranges.framing is not None:
        forward = _frame(levels, forward, pose, ranges.framing.side, size, sure) @ forward
    return warp(levels, forward, pose, coarser, size, sure), levels[0][..., 3].max()


def _frame(
    levels: list[Array], forward: Array, pose: dict[str, Any], side: float, size: tuple[int, int], sure: list[bool]
) -> Array:
    """The similarity that brings an object to ``side`` and its centre of mass to the canvas's.

    Measured on a grid of cells of 1/16 in the object's own plane, 3.5 a side, each carried to the canvas.
    """
    v, u = np.mgrid[-1.75 + 1 / 32 : 1.75 : 1 / 16, -1.75 + 1 / 32 : 1.75 : 1 / 16]
    moved_u, moved_v = u.copy(), v.copy()
    for fx, fy, ax, ay, phase in pose["waves"]:
        value = np.sin(2 * math.pi * (fx * u + fy * v) + phase)
        moved_u, moved_v = moved_u + ax * value, moved_v + ay * value
    level = levels[min(max(round(math.log2(levels[0].shape[0] * EXTENT / 32)), 0), len(levels) - 1)]
    place = [(EXTENT * m + 1) / 2 * level.shape[0] for m in (moved_u, moved_v)]
    alpha = read(level, *place, "empty")[..., 3]
    for x, y, radius in pose["holes"]:
        if radius > 0:
            alpha = alpha * np.clip(10 * (np.hypot(u - x, v - y) - radius) + 0.5, 0, 1)
    flat = np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    x, y, depth = forward @ flat
    alpha = np.where(depth > 0.05, alpha.reshape(-1), 0)
    x, y = x / np.maximum(depth, 0.05), y / np.maximum(depth, 0.05)
    bound = min(levels[0][..., 3].max() / 2, 5 / 8 * alpha.max())
    sure.append(bool(np.abs(alpha - bound).min() > TIE))
    inside = alpha > bound
    if not inside.any():
        return np.eye(3)
    longest = max(np.ptp(x[inside]), np.ptp(y[inside])) + min(size) * pose["scale"] / 32
    zoom = side * min(size) / longest
    weight = alpha / np.maximum(depth, 0.05) ** 3
    mass = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    return np.array([[zoom, 0, size[1] / 2 - zoom * mass[0]], [0, zoom, size[0] / 2 - zoom * mass[1]], [0, 0, 1]])


def box(inside: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _crop(composer: Composer, ctx: int, key: Tensor, coarser: float, sure: list[bool]) -> Array:
    height, width = composer.size
    picture = composer.contexts.pyramid.level(0)[ctx].permute(1, 2, 0).cpu().numpy()
    levels = mips(picture)
    step = draw(key, "context.crop", composer.ranges.crop) / max(height, width)  # share of the side per pixel
    x, y = _pixels(composer.size)
    if draw(key, "context.mirror") < 0.5:
        x = width - x
    x = draw(key, "context.x") * (1 - step * width) + step * x
    y = draw(key, "context.y") * (1 - step * height) + step * y
    level = levels[_level(step * picture.shape[0], coarser, len(levels), sure)]
    return read(level, x * level.shape[0], y * level.shape[0], "border")


# ---- light and camera


def recolor(color: Array, ranges: ColorRange, key: Tensor, strength: float, layer: str) -> Array:
    """A picture's own colours, which end at black and white."""
    return np.clip(light(color, ranges, key, strength, layer), 0, 1)


def light(color: Array, ranges: ColorRange, key: Tensor, strength: float, layer: str) -> Array:
    """Straight RGB ``(h, w, 3)`` through one operation after the other."""

    def drawn(slot: str, bounds: tuple[float, float], neutral: float) -> float:
        return neutral + strength * (draw(key, f"{layer}.{slot}", bounds) - neutral)

    grey_axis = np.ones(3) / math.sqrt(3)
    rotation, _ = cv2.Rodrigues(grey_axis * math.radians(drawn("hue", ranges.hue, 0)))
    color = color @ rotation.T
    grey = (color @ np.array([0.299, 0.587, 0.114]))[..., None]
    color = grey + drawn("saturation", ranges.saturation, 1) * (color - grey)
    if draw(key, f"{layer}.invert") < ranges.invert:
        color = 1 - color
    color = 0.5 + drawn("contrast", ranges.contrast, 1) * (color - 0.5)
    veil = drawn("veil", ranges.veil, 0)
    color = (1 - veil) * color + veil * draw(key, f"{layer}.veil_level", (0.5, 1.0))
    color = color * drawn("brightness", ranges.brightness, 1) * 2 ** drawn("exposure", ranges.exposure, 0)
    color = color * np.array([1 + drawn(f"tint{c}", ranges.tint, 0) for c in range(3)])
    amount, angle = drawn("illumination", ranges.illumination, 0), 2 * math.pi * draw(key, f"{layer}.light_from")
    height, width = color.shape[:2]
    x, y = _pixels((height, width))
    gain = 1 + amount * (math.cos(angle) * (2 * x / width - 1) + math.sin(angle) * (2 * y / height - 1))
    return color * np.maximum(gain, 0)[..., None]


def psf(ranges: CameraRange, key: Tensor, strength: float = 1.0) -> Array:
    """The drawn point-spread function, tap by tap."""
    middle = ranges.taps // 2
    kernel = np.zeros((ranges.taps, ranges.taps))
    if draw(key, "camera.blur") >= ranges.blur:
        kernel[middle, middle] = 1
        return kernel
    kind = ranges.kinds[int(draw(key, "camera.blur_kind", (0.0, len(ranges.kinds))))]
    sigma = max(strength * draw(key, "camera.gaussian", ranges.gaussian), 0.05)
    wide, high = (max(strength * draw(key, f"camera.box_{axis}", ranges.box), 1) for axis in "xy")
    length = strength * draw(key, "camera.motion", ranges.motion)
    angle = math.pi * draw(key, "camera.motion_angle")
    if kind == "gaussian":
        return gaussian(sigma, ranges.taps)
    return box_kernel(wide, high, ranges.taps) if kind == "box" else motion(length, angle, ranges.taps)


def _taps(count: int) -> tuple[Array, Array]:
    y, x = np.mgrid[:count, :count].astype(np.float64) - count // 2
    return x, y


def gaussian(sigma: float, taps: int) -> Array:
    x, y = _taps(taps)
    kernel = np.exp(-(x * x + y * y) / (2 * sigma**2))
    return kernel / kernel.sum()


def box_kernel(wide: float, high: float, taps: int) -> Array:
    """How much of each tap's own square the box covers, along each axis."""
    line = [[_overlap(place - taps // 2, width) for place in range(taps)] for width in (high, wide)]
    return np.outer(*line) / np.outer(*line).sum()


def motion(length: float, angle: float, taps: int) -> Array:
    """The mean over the path, linear along its longer axis; across, steps are shared."""
    kernel = np.zeros((taps, taps))
    for row in range(taps):
        for column in range(taps):
            x, y = column - taps // 2, row - taps // 2
            if abs(math.sin(angle)) > abs(math.cos(angle)):
                step, across, major, minor = y, x, math.sin(angle), math.cos(angle)
            else:
                step, across, major, minor = x, y, math.cos(angle), math.sin(angle)
            half = max(length * abs(major) / 2, 1e-9)
            way = half * (2 * np.arange(10_000) + 1 - 10_000) / 10_000
            passed = np.maximum(1 - np.abs(step - way), 0).mean()
            kernel[row, column] = passed * max(1 - abs(across - step * minor / major), 0)
    return kernel / kernel.sum()


def _overlap(place: float, width: float) -> float:
    return max(min(place + 0.5, width / 2) - max(place - 0.5, -width / 2), 0.0)


def blur(image: Array, kernel: Array) -> Array:
    reach = kernel.shape[0] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(image)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            total += kernel[row, column] * padded[row : row + image.shape[0], column : column + image.shape[1]]
    return total


# ---- blends


def _blend_of(layer: Layer, blend: Blend) -> Blend:
    """How this layer of one sample is blended."""
    if isinstance(layer.blend, Chosen):
        return layer.blend.parts[0 if layer.blend.which is None else int(layer.blend.which)]
    return blend if layer.blend is None else layer.blend


def _blend(color: Array, alpha: Array, behind: Array, blend: Blend, dark: Array, bound: float) -> Array:
    match blend:
        case Hard():
            return np.where(alpha > bound, color, behind)
        case Average(opacity):
            return opacity * (alpha * color + (1 - alpha) * dark) + (1 - opacity) * behind
        case Difference():
            return np.abs(behind - alpha * color)
        case Over():
            return alpha * color + (1 - alpha) * behind
        case MultiBand(levels):
            return multiband(alpha * color + (1 - alpha) * behind, alpha, behind, levels)
        case Poisson(mixed):
            return np.dstack([poisson(color[..., c], alpha[..., 0], behind[..., c], mixed) for c in range(3)])
    raise AssertionError(blend)


def soften(alpha: Array, drawn: Edge) -> Array:
    """The mask ``(h, w)`` with its edge moved, faded or smeared inwards; where the canvas cuts it, there is no edge."""
    if drawn.pixels is not None:
        alpha = erode(alpha, float(drawn.pixels))
    if drawn.width is not None and (width := float(drawn.width)) > 0:
        taps = 2 * math.ceil(width) + 5
        kernel = gaussian(max(width / 4, 0.05), taps) if drawn.kind == "gaussian" else box_kernel(
            *2 * [max(width, 1.0)], taps)  # fmt: skip
        alpha = np.minimum(alpha, _blurred(erode(alpha, width / 2), kernel))
    if drawn.length is not None and drawn.direction is not None and (length := float(drawn.length)) > 0:
        angle, inner, reach = 2 * math.pi * float(drawn.direction), alpha, math.ceil(drawn.most / 2)
        for step in range(-reach, reach + 1):
            way = step / reach * length / 2
            inner = np.minimum(inner, _shifted(alpha, way * math.cos(angle), way * math.sin(angle)))
        alpha = np.minimum(alpha, _blurred(inner, motion(length, angle, 2 * math.ceil(length) + 5)))
    return alpha


def erode(alpha: Array, pixels: float) -> Array:
    """Step by step, the last one a part of a pixel: towards the lowest neighbour, diagonal ones being farther away."""
    while pixels > 0:
        part, pixels = min(pixels, 1.0), pixels - 1
        near = np.pad(alpha, 1, mode="edge")
        h, w = alpha.shape
        spots = {(i, j): near[1 + i : 1 + i + h, 1 + j : 1 + j + w] for i in (-1, 0, 1) for j in (-1, 0, 1)}
        straight = np.min([spot for (i, j), spot in spots.items() if not i or not j], axis=0)
        slanted = np.min([spot for (i, j), spot in spots.items() if (i and j) or (i, j) == (0, 0)], axis=0)
        share = part / math.sqrt(2)
        alpha = np.minimum((1 - part) * alpha + part * straight, (1 - share) * alpha + share * slanted)
    return alpha


def _blurred(mask: Array, kernel: Array) -> Array:
    return blur(mask[..., None], kernel)[..., 0]


def _shifted(mask: Array, x: float, y: float) -> Array:
    across, down = _pixels(mask.shape)
    h, w = mask.shape
    return read(mask[..., None], np.clip(across + x, 0.5, w - 0.5), np.clip(down + y, 0.5, h - 0.5), "border")[..., 0]


def multiband(pasted: Array, alpha: Array, behind: Array, levels: int) -> Array:
    """Laplacian pyramids of both pictures, band by band mixed by the mask's Gaussian pyramid (Burt and Adelson)."""
    masks = _smaller(alpha, levels)
    pairs = zip(masks, _bands(pasted, levels), _bands(behind, levels), strict=True)
    mixed = [weight * own + (1 - weight) * back for weight, own, back in pairs]
    total = mixed.pop()
    while mixed:
        band = mixed.pop()
        total = band + _larger(total, band.shape)
    return total


def _smaller(picture: Array, levels: int) -> list[Array]:
    """Gaussian pyramid: blurred by 1 4 6 4 1, then every other pixel."""
    line = np.array([1, 4, 6, 4, 1]) / 16
    found = [picture]
    for _ in range(levels):
        found.append(blur(found[-1], np.outer(line, line))[::2, ::2])
    return found


def _bands(picture: Array, levels: int) -> list[Array]:
    stack = _smaller(picture, levels)
    return [fine - _larger(coarse, fine.shape) for fine, coarse in pairwise(stack)] + stack[-1:]


def _larger(picture: Array, shape: tuple[int, ...]) -> Array:
    """Zeros between the pixels of one whose border is repeated, then the same blur, four times as strong."""
    line = np.array([1, 4, 6, 4, 1]) / 8
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    spread = np.zeros((2 * padded.shape[0], 2 * padded.shape[1], padded.shape[2]))
    spread[::2, ::2] = padded
    return blur(spread, np.outer(line, line))[2 : 2 + shape[0], 2 : 2 + shape[1]]


def poisson(color: Array, alpha: Array, behind: Array, mixed: bool) -> Array:
    """One channel ``(h, w)``: the equations of the object's bounding box pixel by pixel, by SciPy's sparse solver."""
    seen = np.argwhere(alpha > 1 / 255)
    if not len(seen):
        return behind
    (top, left), (bottom, right) = seen.min(axis=0).tolist(), seen.max(axis=0).tolist()
    number = {(y, x): n for n, (y, x) in enumerate(np.ndindex(bottom - top + 1, right - left + 1))}
    matrix, known = lil_matrix((len(number), len(number))), np.zeros(len(number))
    for (y, x), n in number.items():
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            here, there = (top + y, left + x), (top + y + dy, left + x + dx)
            inside = 0 <= there[0] < alpha.shape[0] and 0 <= there[1] < alpha.shape[1]
            back = behind[here] - behind[there] if inside else 0.0
            own, weight = (color[here] - color[there], min(alpha[here], alpha[there])) if inside else (0.0, 0.0)
            own = back if mixed and abs(back) >= abs(own) else own
            matrix[n, n] += 1
            known[n] += weight * own + (1 - weight) * back
            if (y + dy, x + dx) in number:
                matrix[n, number[y + dy, x + dx]] -= 1
            else:  # around the canvas, what is behind goes on as it is
                known[n] += behind[there] if inside else behind[here]
    result = behind.copy()
    result[top : bottom + 1, left : right + 1] = spsolve(matrix.tocsr(), known).reshape(bottom - top + 1, -1)
    return result
