"""Putting an object over a context: elementwise, for planes or whole pictures that broadcast."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_choice, check_number

BlendMode = Literal["over", "hard", "average", "difference"]
MODES = get_args(BlendMode)


def over(rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"]) -> Float[Tensor, "*#b"]:
    """Composite premultiplied colour over an opaque one: ``rgb + (1 - alpha) * behind``.

    Stays in [0, 1] when ``rgb <= alpha``; nothing is clamped. Differentiable in all arguments.
    Source: Porter and Duff, 1984.
    """
    return rgb + (1 - alpha) * behind


def hard(
    rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"],
    threshold: float | Float[Tensor, "*#b"] = 0.5,
) -> Float[Tensor, "*#b"]:  # fmt: skip
    """Paste: a pixel is the object's where its alpha is above ``threshold``, else the context's (the paper's signs)."""
    return torch.where(alpha > threshold, rgb / alpha.clamp(min=threshold), behind)


def average(rgb: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"], opacity: float) -> Float[Tensor, "*#b"]:
    """Weighted mean of the object over black, and the context: ``opacity * rgb + (1 - opacity) * behind``.

    The paper's digits use ``opacity=2 / 3``: a bright stroke shines through and over the context.
    """
    return opacity * rgb + (1 - opacity) * behind


def difference(rgb: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"]) -> Float[Tensor, "*#b"]:
    """How far premultiplied colour and context are apart: white ink turns what it covers into its negative.

    Stays in [0, 1] where both are. Differentiable but where the two are equal. MNIST-M was made so from digits and
    photographs (Ganin et al., 2016).
    """
    return (behind - rgb).abs()


def blend(
    rgb: Float[Tensor, "*#b"], alpha: Float[Tensor, "*#b"], behind: Float[Tensor, "*#b"], mode: BlendMode,
    opacity: float, threshold: float | Float[Tensor, "*#b"] = 0.5,
) -> Float[Tensor, "*#b"]:  # fmt: skip
    """Composite by the named mode, channel by channel.

    Args:
        rgb: the object's premultiplied colour.
        alpha: its alpha.
        behind: the context.
        mode: how.
        opacity: of the object, in ``"average"`` only.
        threshold: alpha above which a pixel is the object's, in ``"hard"`` only.
    """
    check_choice("blend", mode, MODES)
    check_number("opacity", opacity, 0, 1)
    match mode:
        case "over":
            return over(rgb, alpha, behind)
        case "hard":
            return hard(rgb, alpha, behind, threshold)
        case "average":
            return average(rgb, behind, opacity)
        case "difference":
            return difference(rgb, behind)
