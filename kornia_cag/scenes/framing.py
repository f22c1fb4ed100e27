"""Canonical framing: how much of the canvas an object takes, and the similarity that brings it to size and place."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kornia_cag.core.checks import check_number
from kornia_cag.core.compiling import constant
from kornia_cag.scenes.pose import HORIZON, THIN, Axes, Pose, depths, to_canvas


class Extent(NamedTuple):
    """What a picture of each object takes of its canvas, which it may reach beyond."""

    longest: Float[Tensor, " b"]  # the longer side of the box around it, pixels
    mass: Float[Tensor, "b 2"]  # its centre of mass, pixels
    visible: Bool[Tensor, " b"]  # whether there is any of it; if not, the others mean nothing


def extent(
    pose: Pose, own: Axes, lines: Float[Tensor, " n"], alpha: Float[Tensor, "b n n"], opacity: Float[Tensor, " b"],
    cell: Float[Tensor, " b"],
) -> Extent:  # fmt: skip
    """Measure objects by their alpha on a grid in their own plane.

    Points above half of the opacity, or above :data:`THIN` of the highest alpha if that is less, bound the object; all
    of them count towards the mass.

    Args:
        pose: where objects lie.
        own: its :func:`axes`.
        lines: coordinates of the grid's columns, and of its rows, ascending, object units.
        alpha: the objects there.
        opacity: highest alpha of each object in the bank.
        cell: distance between neighbouring points, pixels.
    """
    column, row = lines[None, None], lines[None, :, None]
    depth = depths(pose, column, row)
    alpha = torch.where(depth > HORIZON, alpha, 0.0)
    peak = alpha.amax(dim=(1, 2))
    inside = alpha > torch.minimum(0.5 * opacity, THIN * peak)[:, None, None]
    # The canvas's area at a point goes by depth ** -3. A point of mass on the canvas is divided by depth once more, so
    # the centre of mass is where the centre in the object's own plane, weighted by depth ** -4, lands.
    heavy = alpha * depth.clamp(min=HORIZON) ** -4
    sums = torch.stack([heavy.sum(dim=1), heavy.sum(dim=2)], dim=1)
    mass = (sums * lines).sum(dim=2) / sums.sum(dim=2).clamp(min=1e-6)
    # Along a row of the grid, places on the canvas are in order: its outermost points bound it.
    first = torch.where(inside, column, lines[-1:]).amin(dim=2)
    last = torch.where(inside, column, lines[:1]).amax(dim=2)
    rows = lines.expand_as(first)
    x, y = torch.cat([mass[:, :1], first, last], dim=1), torch.cat([mass[:, 1:], rows, rows], dim=1)
    places, end = to_canvas(pose, x, y, own)[0], constant((math.inf,), alpha.dtype, alpha.device)
    bounds, seen = places[:, :, 1:].unflatten(2, (2, -1)), inside.any(dim=2)[:, None, None]
    low, high = torch.where(seen, bounds, end).amin(dim=(2, 3)), torch.where(seen, bounds, -end).amax(dim=(2, 3))
    # Centres of cells span one cell less than the cells.
    return Extent((high - low).amax(dim=1) + cell, places[:, :, 0], peak > 0)


@dataclass(frozen=True)
class Framing:
    """Canonical framing: scale the object's longest side to a given size, centre its mass on the canvas.

    MNIST was made this way: digits fitted into 20×20, centred by mass in 28×28 (LeCun et al., 1998): ``side=20 / 28``.

    Attributes:
        side: the object's longest side, as a share of the canvas's short side.
    """

    side: float = 20 / 28

    def __post_init__(self) -> None:
        check_number("side", self.side, 1e-3, 10)

    def apply(
        self, homography: Float[Tensor, "b 3 3"], extent: Extent, size: tuple[int, int]
    ) -> Float[Tensor, "b 3 3"]:
        """Append the similarity transform that frames the object on a canvas of ``(height, width)`` pixels."""
        dtype, device, visible = homography.dtype, homography.device, extent.visible[:, None]
        zoom = (self.side * min(size)) / extent.longest[:, None]
        zoom = torch.where(visible, zoom, constant((1.0,), dtype, device))
        middle = constant((0.5 * size[1], 0.5 * size[0]), dtype, device)
        moved = torch.where(visible, extent.mass, middle) - middle / zoom
        left, right = homography[..., :2], homography[..., 2:]
        right = right + (left * moved[:, None]).sum(dim=2, keepdim=True)
        return torch.cat([left / zoom[..., None], right], dim=2)
