"""The one resample: canvas pixels read from the bank's pyramid, and outlines of the result."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.banks.pyramid import Points, Pyramid, Window, sample_pyramid
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.compiling import columns, fusing, kept, once, reused
from kornia_cag.core.operations import one_operation
from kornia_cag.scenes.pose import THIN
from kornia_cag.scenes.tiles import Tiles

# Factors of the odd powers of turns, from the highest down, that make their sine within a millionth, up to half a turn.
SINE = (-12.271259, 41.205393, -76.5801, 81.596184, -41.341421, 6.2831828)
SEEN = 1 / 255  # smallest alpha that changes an 8-bit picture: an object below it everywhere is out of sight
REACH = 1.75  # half a side of the draft, object units: an object of half-side 1, elastically displaced
CELL = 0.0625  # distance of its points, object units


_Moved = tuple[Points, Points]


def canvas_points(
    size: tuple[int, int], device: torch.device, at: Tiles | None = None
) -> tuple[Float[Tensor, "*#n 1 w"], Float[Tensor, "*#n h 1"]]:
    """Centres of the canvas pixels, or of those of some tiles: ``x`` of every column and ``y`` of every row."""
    y, x = (torch.arange(0.5, side, device=device, dtype=torch.float32) for side in size)
    return (x[None, :], y[:, None]) if at is None else at.along(x, y)


def project(
    homography: Float[Tensor, "b 3 3"], x: Float[Tensor, "*#p"], y: Float[Tensor, "*#p"]
) -> Float[Tensor, "b 2 ..."]:
    """Map points by homographies. Points on or behind the horizon land far outside the object.

    Elementwise on purpose: a batched matrix product may round differently for another batch size.
    """
    x, y = (v[:, None] if v.ndim == 3 else v for v in (x, y))  # tiles have points of their own
    room = [1] * min(max(x.ndim, y.ndim), 2)
    across, down, shift = (v.reshape(-1, 3, *room) for v in kept(homography).unbind(2))
    mapped = across * x + (down * y + shift)
    return mapped[:, :2] / mapped[:, 2:].clamp(min=1e-3)


def displace(points: Float[Tensor, "b 2 *p"], waves: Float[Tensor, "b k 5"]) -> Float[Tensor, "b 2 *p"]:
    """Add the smooth elastic displacement: a sum of plane waves (frequency x, y; amplitude x, y; phase)."""
    return _displaced(points, waves) if waves.shape[1] else points


@one_operation("displaced(Tensor points, Tensor waves) -> Tensor")
def _displaced(points: Float[Tensor, "b 2 *p"], waves: Float[Tensor, "b k 5"]) -> Float[Tensor, "b 2 *p"]:
    room, moved = [1] * (points.ndim - 2), points
    x, y = points.unbind(1)
    for wave in waves.unbind(1):
        turn = 2 * math.pi * wave[:, :2]
        fx, fy, ax, ay, phase = (v.reshape(-1, *room) for v in once(*turn.unbind(1), *wave[:, 2:].unbind(1)))
        value = torch.sin(torch.addcmul(fx * x, fy, y) + phase)
        moved = torch.addcmul(moved, torch.stack([ax, ay], dim=1), value[:, None])
    return moved


def _moved(
    homography: Float[Tensor, "b 3 3"], size: tuple[int, int], waves: Float[Tensor, "b k 5"], at: Tiles | None
) -> _Moved:
    """Every pixel's projected point, and the displaced one."""
    points = project(homography, *canvas_points(size, homography.device, at))
    return points, displace(points, waves)


def _planes_moved(
    numbers: tuple[Float[Tensor, " b"], ...], size: tuple[int, int], waves: Float[Tensor, "b k 5"], at: Tiles | None
) -> _Moved:
    """The same for a compiler, ``x`` and ``y`` apart, from the nine numbers of the homography."""
    x, y = canvas_points(size, waves.device, at)
    n = [number[:, None, None] for number in numbers]
    near = 1 / (n[6] * x + (n[7] * y + n[8])).clamp(min=1e-3)
    points = kept((n[0] * x + (n[1] * y + n[2])) * near), kept((n[3] * x + (n[4] * y + n[5])) * near)
    return points, _planes_displaced(points, waves)


def _planes_displaced(points: Points, waves: Float[Tensor, "b k 5"]) -> Points:
    """:func:`displace` for a compiler, which would compute every sine twice for ``x`` and ``y`` together.

    A GPU's own sine takes five times as long: it is right to the last digit for any angle.
    """
    (x, y), n = points, [number[:, None, None] for number in columns(waves.flatten(1))]
    moved_x, moved_y = x, y
    for fx, fy, ax, ay, phase in (n[start : start + 5] for start in range(0, len(n), 5)):
        turns = torch.addcmul(torch.addcmul(phase * (0.5 / math.pi), fy, y), fx, x)
        turns = turns - turns.round()
        square, value = turns * turns, torch.full_like(turns, SINE[0])
        for factor in SINE[1:]:
            value = value * square + factor
        value = value * turns
        moved_x, moved_y = torch.addcmul(moved_x, ax, value), torch.addcmul(moved_y, ay, value)
    return reused(moved_x), reused(moved_y)


def fit_level(
    homography: Float[Tensor, "b 3 3"], pyramid: Pyramid, coarser: Float[Tensor, " b"], finest: int = 0
) -> Int[Tensor, " b"]:
    """The level whose texels are about as large as canvas pixels at the object's centre, plus ``coarser`` levels.

    Never finer than ``finest``.
    """
    first, second, third = homography.unbind(1)
    # Where depth is 1, the determinant is that of the Jacobian. For none, the level is the finest.
    area = (first * torch.linalg.cross(second, third)).sum(dim=1)
    texels = torch.add(coarser, torch.log2(area.abs()), alpha=0.5) + math.log2(0.5 * EXTENT * pyramid.size)
    return texels.round().clamp(finest, pyramid.levels - 1).long()


def finest_level(pyramid: Pyramid, largest: float) -> int:
    """The finest level that :func:`fit_level` gives for objects whose longest side is at most ``largest`` pixels."""
    level = math.floor(math.log2(EXTENT * pyramid.size / largest) + 0.5 - 1e-3)  # rounding may favour a finer one
    return min(max(level, 0), pyramid.levels - 1)


def warp(
    pyramid: Pyramid,
    ids: Int[Tensor, " b"],
    homography: Float[Tensor, "b 3 3"],
    waves: Float[Tensor, "b k 5"],
    holes: Float[Tensor, "b m 3"],
    coarser: Float[Tensor, " b"],
    size: tuple[int, int],
    finest: int = 0,
    at: Tiles | None = None,
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Draw objects on empty canvases by one bilinear read per pixel.

    Args:
        pyramid: premultiplied RGBA pictures, the object filling :data:`EXTENT` of the side.
        ids: picture per sample.
        homography: canvas to object, see :mod:`kornia_cag.scenes.pose`.
        waves: elastic displacement, added in object coordinates.
        holes: discs ``(x, y, radius)`` in object coordinates that hide the object.
        coarser: pyramid levels to add to the fitting one: low resolution.
        size: canvas ``(height, width)``.
        finest: finest level to read, see :func:`finest_level`.
        at: parts of the canvases, to which samples then correspond; None: all of each.

    Returns:
        Four planes: premultiplied red, green, blue, and alpha, in [0, 1] up to rounding.
    """
    waves, holes = kept(waves), kept(holes)
    if fusing():
        numbers = columns(homography.flatten(1))
        rows = [torch.stack(numbers[start : start + 3], dim=1) for start in (0, 3, 6)]
        homography = torch.stack(rows, dim=1)  # as stored: the level does not compute it again
        points, moved = _planes_moved(numbers, size, waves, at)
    else:
        homography = kept(homography)
        points, moved = _moved(homography, size, waves, at)
    level = fit_level(homography, pyramid, coarser, finest)
    if at is not None and isinstance(moved, Tensor):
        layer = _by_level(pyramid, ids, moved, level, at)
    else:
        window = Window((pyramid.size >> finest) + 2)
        layer = sample_pyramid(pyramid, ids, moved, level, extent=EXTENT, window=window)
    if holes.shape[1]:
        x, y = points.unbind(1) if isinstance(points, Tensor) else points
        shown = outside(x, y, holes)
        layer = tuple(plane * shown for plane in layer)
    return layer


def _by_level(
    pyramid: Pyramid, ids: Int[Tensor, " n"], points: Float[Tensor, "n 2 u v"], level: Int[Tensor, " n"], at: Tiles
) -> tuple[Float[Tensor, "n u v"], ...]:
    """Read pictures at the points of tiles: the objects of a level together, each with all of its tiles at once.

    So only that level is copied to be read, once for each object.
    """
    found = points.new_empty(len(at), 4, *points.shape[2:])
    for own, place in at.alike(level):
        one, count = place[:, 0], place.shape[1]
        grid = points[place].transpose(1, 2).flatten(2, 3)
        read = sample_pyramid(
            pyramid, ids[one], grid, level[one], extent=EXTENT, window=Window((pyramid.size >> own) + 2)
        )
        parts = torch.stack([plane.unflatten(1, (count, -1)) for plane in read], dim=2)
        found.index_copy_(0, place.flatten(), parts.flatten(0, 1))
    return found.unbind(1)


def draft(
    pyramid: Pyramid, ids: Int[Tensor, " b"], waves: Float[Tensor, "b k 5"], holes: Float[Tensor, "b m 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "b n n"]]:
    """The alpha of each displaced object on a coarse grid in its own plane, where no canvas cuts it off.

    Returns:
        Object coordinates of the grid's columns, and of its rows, :data:`CELL` apart, and the alpha there.
    """
    lines = torch.arange(2 * round(REACH / CELL), dtype=torch.float32, device=ids.device) * CELL + (0.5 * CELL - REACH)
    x, y = lines[None, None, :], lines[None, :, None]
    level = min(max(round(math.log2(0.5 * EXTENT * pyramid.size * CELL)), 0), pyramid.levels - 1)
    window, waves, holes = Window((pyramid.size >> level) + 2), kept(waves), kept(holes)
    moved: Points
    if fusing():
        moved = [plane.expand(len(ids), len(lines), -1) for plane in _planes_displaced((x, y), waves)]
    else:
        moved = displace(torch.stack(torch.broadcast_tensors(x, y), dim=1).expand(len(ids), -1, -1, -1), waves)
    levels = torch.full_like(ids, level)
    (alpha,) = sample_pyramid(pyramid, ids, moved, levels, extent=EXTENT, window=window, channels=slice(3, 4))
    return lines, alpha * outside(x, y, holes) if holes.shape[1] else alpha


@one_operation("outside(Tensor x, Tensor y, Tensor holes) -> Tensor")
def outside(
    x: Float[Tensor, "#b #h #w"], y: Float[Tensor, "#b #h #w"], holes: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b h w"]:
    """1 outside all discs, 0 inside one, with a soft rim of a tenth of an object unit."""
    shown = torch.ones_like(x)
    for hole in holes.unbind(1):
        middle_x, middle_y, radius = (v[:, None, None] for v in once(*hole.unbind(1)))
        distance = ((x - middle_x) ** 2 + (y - middle_y) ** 2 + 1e-12).sqrt()
        shown = shown * torch.where(radius > 0, ((distance - radius) * 10 + 0.5).clamp(0, 1), 1.0)
    return shown


class Outline(NamedTuple):
    """The visible part of each object on its canvas."""

    threshold: Float[Tensor, " b"]  # alpha above which a pixel belongs to the object; infinite if it is out of sight
    boxes: Float[Tensor, "b 4"]  # around these pixels, half-open xyxy; NaN if it is out of sight
    visible: Bool[Tensor, " b"]  # whether it changes any pixel of the canvas by a level of 255


def outline(alpha: Float[Tensor, "b h w"], opacity: Float[Tensor, " b"]) -> Outline:
    """Find the object's pixels, relative to its own opacity, and the smallest box around them.

    A pixel belongs to the object if its alpha is above half of the opacity. An object that never reaches that, such as
    a bar thinner than a pixel or just a soft edge, has the pixels above :data:`THIN` of its highest alpha.

    Convention: half-open ``(x1, y1, x2, y2)`` in pixels, so one pixel at column 3, row 5 gives ``(3, 5, 4, 6)``. An
    object out of sight, below :data:`SEEN` everywhere, has no box: four times NaN.

    Args:
        alpha: the warped alpha, in [0, 1].
        opacity: highest alpha of the object in the bank, in (0, 1].
    """
    return outlined((alpha.amax(dim=1), alpha.amax(dim=2)), opacity)


def outlined(sides: tuple[Float[Tensor, "b w"], Float[Tensor, "b h"]], opacity: Float[Tensor, " b"]) -> Outline:
    """The same from the highest alpha of each column and of each row."""
    peak = sides[0].amax(dim=1)
    visible = peak >= SEEN
    hidden = ~visible
    threshold = edge_of(peak, opacity, hidden)
    longest = max(side.shape[1] for side in sides)
    # columns and rows as one tensor, the shorter one filled up with empty ones
    both = [side if side.shape[1] == longest else F.pad(side, (0, longest - side.shape[1])) for side in sides]
    seen = torch.stack(both, dim=1) > threshold[:, None, None]
    # Floats: when AVX2 is requested on a machine with AVX-512, GCC 12 miscompiles a minimum of int64.
    place = torch.arange(longest, dtype=torch.float32, device=opacity.device)
    first = longest - (seen * (longest - place)).amax(dim=2)
    last = (seen * (place + 1)).amax(dim=2)
    boxes = torch.cat([first, last], dim=1).masked_fill_(hidden[:, None], torch.nan)
    return Outline(threshold, boxes, visible)


def edge_of(peak: Float[Tensor, " b"], opacity: Float[Tensor, " b"], hidden: Bool[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The threshold of an :class:`Outline`, from the highest alpha on the canvas and that in the bank."""
    return torch.minimum(0.5 * opacity, THIN * peak).masked_fill_(hidden, torch.inf)
