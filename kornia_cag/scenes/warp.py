"""The one resample: canvas pixels read from the bank's pyramid, and outlines of the result."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.banks.pyramid import Pyramid, sample_pyramid
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.compiling import kept
from kornia_cag.scenes.pose import THIN

SEEN = 1 / 255  # smallest alpha that changes an 8-bit picture: an object below it everywhere is out of sight
REACH = 1.75  # half a side of the draft, object units: an object of half-side 1, elastically displaced
CELL = 0.0625  # distance of its points, object units


def canvas_points(size: tuple[int, int], device: torch.device) -> tuple[Float[Tensor, "1 w"], Float[Tensor, "h 1"]]:
    """Centres of the canvas pixels: ``x`` of every column and ``y`` of every row."""
    y = torch.arange(size[0], device=device, dtype=torch.float32) + 0.5
    x = torch.arange(size[1], device=device, dtype=torch.float32) + 0.5
    return x[None, :], y[:, None]


def project(
    homography: Float[Tensor, "b 3 3"], x: Float[Tensor, "*#p"], y: Float[Tensor, "*#p"]
) -> tuple[Float[Tensor, " b *p"], Float[Tensor, " b *p"]]:
    """Map points by homographies. Points on or behind the horizon land far outside the object.

    Elementwise on purpose: a batched matrix product may round differently for another batch size.
    """
    room = [1] * max(x.ndim, y.ndim)
    m = [v.reshape(-1, *room) for v in homography.flatten(1).unbind(1)]
    depth = m[6] * x + m[7] * y + m[8]
    inverse = 1 / depth.clamp(min=1e-3)
    return (m[0] * x + m[1] * y + m[2]) * inverse, (m[3] * x + m[4] * y + m[5]) * inverse


def displace(
    x: Float[Tensor, " b *p"], y: Float[Tensor, " b *p"], waves: Float[Tensor, "b k 5"]
) -> tuple[Float[Tensor, " b *p"], Float[Tensor, " b *p"]]:
    """Add the smooth elastic displacement: a sum of plane waves (frequency x, y; amplitude x, y; phase)."""
    room = [1] * (x.ndim - 1)
    moved_x, moved_y = x, y
    for wave in waves.unbind(1):
        fx, fy, ax, ay, phase = (v.reshape(-1, *room) for v in wave.unbind(1))
        value = torch.sin(2 * math.pi * (fx * x + fy * y) + phase)
        moved_x, moved_y = moved_x + ax * value, moved_y + ay * value
    return moved_x, moved_y


def fit_level(homography: Float[Tensor, "b 3 3"], pyramid: Pyramid, coarser: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The level whose texels are about as large as canvas pixels at the object's centre, plus ``coarser`` levels."""
    m = homography.flatten(1).unbind(1)
    # Where depth is 1, the determinant is that of the Jacobian.
    area = m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6])
    texels = 0.5 * torch.log2(area.abs().clamp(min=1e-12)) + math.log2(0.5 * EXTENT * pyramid.size)
    return (texels + coarser).round().clamp(0, pyramid.levels - 1).long()


def warp(
    pyramid: Pyramid,
    ids: Int[Tensor, " b"],
    homography: Float[Tensor, "b 3 3"],
    waves: Float[Tensor, "b k 5"],
    holes: Float[Tensor, "b m 3"],
    coarser: Float[Tensor, " b"],
    size: tuple[int, int],
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

    Returns:
        Four planes: premultiplied red, green, blue, and alpha, in [0, 1] up to rounding.
    """
    homography, waves, holes = kept(homography), kept(waves), kept(holes)
    x, y = project(homography, *canvas_points(size, ids.device))
    level = fit_level(homography, pyramid, coarser)
    layer = sample_pyramid(pyramid, ids, *_texels(*displace(x, y, waves)), level)
    if holes.shape[1]:
        shown = _outside(x, y, holes)
        layer = tuple(plane * shown for plane in layer)
    return layer


def _texels(
    x: Float[Tensor, " b *p"], y: Float[Tensor, " b *p"]
) -> tuple[Float[Tensor, " b *p"], Float[Tensor, " b *p"]]:
    """From object units to a bank picture's [0, 1]."""
    return 0.5 + 0.5 * EXTENT * x, 0.5 + 0.5 * EXTENT * y


def draft(
    pyramid: Pyramid, ids: Int[Tensor, " b"], waves: Float[Tensor, "b k 5"], holes: Float[Tensor, "b m 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "b n"]]:
    """The alpha of each displaced object on a coarse grid in its own plane, where no canvas cuts it off.

    Returns:
        The grid's points in object coordinates, :data:`CELL` apart, and the alpha there.
    """
    side = torch.arange(2 * round(REACH / CELL), dtype=torch.float32, device=ids.device) * CELL + (0.5 * CELL - REACH)
    points = torch.stack(torch.broadcast_tensors(side[None, :], side[:, None]), dim=-1)
    x, y = (v.expand(len(ids), -1, -1) for v in points.unbind(-1))
    level = min(max(round(math.log2(0.5 * EXTENT * pyramid.size * CELL)), 0), pyramid.levels - 1)
    waves, holes = kept(waves), kept(holes)
    planes = sample_pyramid(pyramid, ids, *_texels(*displace(x, y, waves)), torch.full_like(ids, level))
    return points.flatten(0, 1), (planes[3] * _outside(x, y, holes)).flatten(1)


def _outside(
    x: Float[Tensor, "b h w"], y: Float[Tensor, "b h w"], holes: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b h w"]:
    """1 outside all discs, 0 inside one, with a soft rim of a tenth of an object unit."""
    shown = torch.ones_like(x)
    for hole in holes.unbind(1):
        middle_x, middle_y, radius = (v[:, None, None] for v in hole.unbind(1))
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
    columns, rows = alpha.amax(dim=1), alpha.amax(dim=2)
    peak = columns.amax(dim=1)
    visible = peak >= SEEN
    threshold = torch.where(visible, torch.minimum(0.5 * opacity, THIN * peak), torch.inf)
    x1, x2 = _span(columns > threshold[:, None])
    y1, y2 = _span(rows > threshold[:, None])
    boxes = torch.stack([x1, y1, x2, y2], dim=1)
    return Outline(threshold, torch.where(visible[:, None], boxes, torch.nan), visible)


def _span(seen: Bool[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    # Floats: when AVX2 is requested on a machine with AVX-512, GCC 12 miscompiles a minimum of int64.
    place = torch.arange(seen.shape[1], dtype=torch.float32, device=seen.device)
    first = torch.where(seen, place, seen.shape[1]).amin(dim=1)
    last = torch.where(seen, place + 1, 0).amax(dim=1)
    return torch.minimum(first, last), last
