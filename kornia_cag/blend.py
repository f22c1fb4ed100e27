"""Putting an object over a context."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.checks import check_choice, check_number

BlendMode = Literal["over", "hard", "average"]


def over(fg: Float[Tensor, "*b 4 h w"], bg: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Composite premultiplied ``fg`` over opaque ``bg``: ``rgb + (1 - a) * bg``.

    Stays in [0, 1] when ``rgb <= a``; nothing is clamped. Differentiable in both arguments.
    Source: Porter and Duff, 1984.
    """
    rgb, alpha = fg[..., :3, :, :], fg[..., 3:, :, :]
    return rgb + (1 - alpha) * bg


def hard(fg: Float[Tensor, "*b 4 h w"], bg: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Paste: a pixel is the object's where its alpha is above one half, else the context's (the paper's signs)."""
    rgb, alpha = fg[..., :3, :, :], fg[..., 3:, :, :]
    return torch.where(alpha > 0.5, rgb / alpha.clamp(min=0.5), bg)


def average(fg: Float[Tensor, "*b 4 h w"], bg: Float[Tensor, "*b 3 h w"], opacity: float) -> Float[Tensor, "*b 3 h w"]:
    """Weighted mean of the object over black, and the context: ``opacity * rgb + (1 - opacity) * bg``.

    The paper's digits use ``opacity=2 / 3``: a bright stroke shines through and over the context.
    """
    return opacity * fg[..., :3, :, :] + (1 - opacity) * bg


def blend(
    fg: Float[Tensor, "*b 4 h w"], bg: Float[Tensor, "*b 3 h w"], mode: BlendMode, opacity: float
) -> Float[Tensor, "*b 3 h w"]:
    """Composite by the named mode; ``opacity`` weighs in ``"average"`` only."""
    check_choice("blend", mode, ("over", "hard", "average"))
    check_number("opacity", opacity, 0, 1)
    if mode == "over":
        return over(fg, bg)
    return hard(fg, bg) if mode == "hard" else average(fg, bg, opacity)
