"""What an attack raises: one loss per sample, of a model's logits and the classes it aims at.

An attack away from the labels raises the loss of the label, one towards a class lowers the loss of that class.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS, widen

Loss = Callable[[Any, Tensor], Tensor]  # (model output, classes) to one loss per sample


def check_logits(logits: Any, count: int, least: int = 2, fix: str = "") -> Float[Tensor, "b classes"]:
    """Require logits ``(count, classes)`` of at least so many classes.

    Raises:
        InputError: for anything else.
    """
    fix = fix or "Give another kind of output its own loss=..., which maps (output, labels) to (b,)."
    check_tensor("model output", logits, (count, "classes"), FLOATS, fix=fix)
    if logits.shape[1] < least:
        fail("model output", f"logits of at least {least} classes", describe(logits), fix)
    checked: Tensor = logits
    return checked


def cross_entropy(logits: Any, labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Cross-entropy, the default. Requires logits ``(b, classes)`` of at least two classes."""
    return F.cross_entropy(check_logits(logits, len(labels)), labels, reduction="none")


def margin(logits: Any, labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The largest other logit less that of the class; above 0 where the model errs.

    Its gradient does not fade where the model is sure. Source: Carlini and Wagner, 2017.
    """
    own, other, _ = _compared(logits, labels, 2)
    return other - own


def dlr(logits: Any, labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """:func:`margin` over the distance of the largest logit from the third: no matter how the logits are scaled.

    Requires at least three classes. Source: Croce and Hein, 2020.
    """
    own, other, ordered = _compared(logits, labels, 3)
    return (other - own) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def kl(logits: Any, clean: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Divergence of the attacked picture's probabilities from those of the clean one, whose logits ``clean`` are.

    Knows no labels. At the clean picture itself its gradient is 0, so an attack has to start beside it.
    Source: TRADES, Zhang et al., 2019.
    """
    attacked, before = (F.log_softmax(widen(x), dim=1) for x in (check_logits(logits, len(clean)), clean))
    return F.kl_div(attacked, before, log_target=True, reduction="none").sum(dim=1)


def _compared(
    logits: Any, labels: Int[Tensor, " b"], least: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, "b k"]]:
    """The logit of the class, the largest other one, and the largest three in their order."""
    logits = widen(check_logits(logits, len(labels), least))
    own = logits.gather(1, labels[:, None])
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return own[:, 0], other, logits.topk(min(3, logits.shape[1]), dim=1).values
