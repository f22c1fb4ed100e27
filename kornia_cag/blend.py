"""Putting an object over a context: elementwise, for planes or whole pictures that broadcast."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.checks import check_choice, check_number

BlendMode = Literal["over", "hard", "average"]


def over(rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"]) -> Float[Tensor, "*#b"]:
    """Composite premultiplied colour over an opaque one: ``rgb + (1 - alpha) * behind``.

    Stays in [0, 1] when ``rgb <= alpha``; nothing is clamped. Differentiable in all arguments.
    Source: Porter and Duff, 1984.
    """
    return rgb + (1 - alpha) * behind


def hard(rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"]) -> Float[Tensor, "*#b"]:
    """Paste: a pixel is the object's where its alpha is above one half, else the context's (the paper's signs)."""
    return torch.where(alpha > 0.5, rgb / alpha.clamp(min=0.5), behind)


def average(rgb: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"], opacity: float) -> Float[Tensor, "*#b"]:
    """Weighted mean of the object over black, and the context: ``opacity * rgb + (1 - opacity) * behind``.

    The paper's digits use ``opacity=2 / 3``: a bright stroke shines through and over the context.
    """
    return opacity * rgb + (1 - opacity) * behind


def blend(
    rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"], mode: BlendMode,
    opacity: float,
) -> Float[Tensor, "*#b"]:  # fmt: skip
    """Composite by the named mode, channel by channel; ``opacity`` weighs in ``"average"`` only."""
    check_choice("blend", mode, ("over", "hard", "average"))
    check_number("opacity", opacity, 0, 1)
    if mode == "over":
        return over(rgb, alpha, behind)
    return hard(rgb, alpha, behind) if mode == "hard" else average(rgb, behind, opacity)
