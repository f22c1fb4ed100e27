"""Test-time averaging: a network's prediction over a picture and slightly moved copies of it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.core.checks import check_int, check_number


class Averaged(nn.Module):
    """Log of the mean probabilities over a picture and ``views - 1`` copies, moved in a fixed way.

    The copies are rotated, sheared, stretched and shifted a little, evenly over the ranges, by one bilinear read each.
    Nothing is learned from the pictures; the same picture always gives the same result.

    Args:
        network: maps images ``(b, 3, h, w)`` to logits ``(b, classes)``.
        views: number of views, including the picture itself; 1 leaves the network's decisions unchanged.
        angle: largest rotation, degrees.
        shear: largest shear, degrees.
        stretch: largest relative change of width and height.
        shift: largest shift, as a share of the side.
    """

    def __init__(
        self, network: nn.Module, views: int, *, angle: float = 8.0, shear: float = 8.0, stretch: float = 0.08,
        shift: float = 0.015,
    ) -> None:  # fmt: skip
        super().__init__()
        check_int("views", views)
        for name, value in (("angle", angle), ("shear", shear), ("stretch", stretch), ("shift", shift)):
            check_number(name, value, 0, 45)
        self.network = network
        limits = torch.tensor(
            [math.radians(angle), math.radians(shear), stretch, stretch, 2 * shift, 2 * shift],
            dtype=torch.float32,
            device="cpu",
        )
        unit = (
            torch.quasirandom.SobolEngine(6).draw(views, dtype=torch.float32)[1:] * 2 - 1
        )  # the first point is a corner
        self.register_buffer("moves", _affine(unit * limits), persistent=False)
        self.moves: Tensor

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Average over the views."""
        total = self.network(images).float().softmax(dim=1)
        for move in self.moves:
            grid = F.affine_grid(move.expand(images.shape[0], -1, -1).to(images.dtype), list(images.shape), False)
            moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
            total = total + self.network(moved).float().softmax(dim=1)
        mean: Tensor = total / (1 + len(self.moves))
        return mean.log()


def _affine(moves: Float[Tensor, "v 6"]) -> Float[Tensor, "v 2 3"]:
    angle, shear, wide, high, x, y = moves.unbind(1)
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    turn = torch.stack([cos, cos * slant - sin, sin, sin * slant + cos], dim=1).unflatten(1, (2, 2))
    scaled = turn * torch.stack([wide.exp(), high.exp()], dim=1)[:, None, :]
    return torch.cat([scaled, torch.stack([x, y], dim=1)[..., None]], dim=2)
