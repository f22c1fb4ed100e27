"""What an attack raises: one loss per sample, of a model's logits and the classes it aims at.

An attack away from the labels raises the loss of the label, one towards a class lowers the loss of that class. Labels
are (b,), or (b, K) where each sample shows K objects; its loss is then the mean over the objects' losses.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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


def cross_entropy(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Cross-entropy, the default. Requires logits ``(b, classes)`` of at least two classes."""
    logits = check_logits(logits, len(labels))
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([F.cross_entropy(logits, of, reduction="none") for of in labels.unbind(1)]).mean(dim=0)


def margin(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """The largest other logit less that of the class; above 0 where the model errs.

    Other are the classes that a sample does not show, or two objects of one sample would cancel each other.

    Its gradient does not fade where the model is sure. Source: Carlini and Wagner, 2017.
    """
    own, other, _ = _compared(logits, labels, 2)
    return (other - own).mean(dim=1)


def dlr(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """:func:`margin` over the distance of the largest logit from the third: no matter how the logits are scaled.

    Requires at least three classes. Source: Croce and Hein, 2020.
    """
    own, other, ordered = _compared(logits, labels, 3)
    return ((other - own) / (ordered[:, :1] - ordered[:, 2:] + 1e-12)).mean(dim=1)


def kl(logits: Any, clean: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Divergence of the attacked picture's probabilities from those of the clean one, whose logits ``clean`` are.

    Knows no labels. At the clean picture itself its gradient is 0, so an attack has to start beside it.
    Source: TRADES, Zhang et al., 2019.
    """
    attacked, before = (F.log_softmax(widen(x), dim=1) for x in (check_logits(logits, len(clean)), clean))
    return F.kl_div(attacked, before, log_target=True, reduction="none").sum(dim=1)


def _compared(
    logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"], least: int
) -> tuple[Float[Tensor, "b objects"], Float[Tensor, "b 1"], Float[Tensor, "b n"]]:
    """The logits of the objects, the largest of what is not shown, and the largest three of all in their order."""
    shown = labels[:, None] if labels.ndim == 1 else labels
    logits = widen(check_logits(logits, len(labels), max(least, shown.shape[1] + 1)))
    own = logits.gather(1, shown)
    other = logits.scatter(1, shown, -torch.inf).amax(dim=1, keepdim=True)
    return own, other, logits.topk(min(3, logits.shape[1]), dim=1).values


def shows(labels: Int[Tensor, " b"] | Int[Tensor, "b k"], classes: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which samples show an object of their class here."""
    shown: Tensor = labels == classes if labels.ndim == 1 else (labels == classes[:, None]).any(dim=1)
    return shown


def class_not_shown(
    logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"], drawn: Float[Tensor, " b"] | None
) -> Int[Tensor, " b"]:
    """For each sample a class that it does not show: by a number in [0, 1), or the one of the lowest logit."""
    labels = labels[:, None] if labels.ndim == 1 else labels
    fix = "Of another kind of output no wrong class can be drawn: give targets."
    logits = check_logits(logits, len(labels), labels.shape[1] + 1, fix)
    if drawn is None:
        lowest: Tensor = logits.scatter(1, labels, torch.inf).argmin(dim=1)
        return lowest
    classes = logits.shape[1]
    around = (labels[:, :1] + 1 + torch.arange(classes, device=labels.device)) % classes  # from the one behind its own
    free = torch.ones_like(around, dtype=torch.bool).scatter(1, labels, False).gather(1, around)
    count = free.sum(dim=1)
    place = torch.minimum((drawn * count).long(), count - 1)
    chosen: Tensor = around.gather(1, (free.cumsum(dim=1) > place[:, None]).int().argmax(dim=1, keepdim=True))[:, 0]
    return chosen
