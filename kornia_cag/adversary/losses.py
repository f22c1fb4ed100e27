"""Attack losses: one loss per sample, from a model's logits and the classes that the attack aims at.

An untargeted attack raises the loss of the label, a targeted one lowers the loss of its target class. Labels are (b,),
or (b, K) if each sample shows K objects; its loss is then the mean over the objects' losses. An object of label -1, a
distractor or one that is not shown, has no loss, and a sample of such objects only has loss 0.

A detector or a segmenter needs a loss of its own, told boxes and masks: :class:`OfTargets`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS, widen
from kornia_cag.scenes.targets import Targets

Loss = Callable[[Any, Any], Tensor]  # (model output, classes, or for OfTargets the targets) to one loss per sample


@dataclass(frozen=True)
class OfTargets:
    """A loss that is told the targets of scenes, boxes and masks included, instead of classes alone.

    With it, adversaries attack what is no classifier: ``ScenePGD(loss=OfTargets(my_loss))``.

    Attributes:
        loss: (model output, :class:`Targets` of the pictures) to one loss per picture, (b,). It must not wait for the
            device.
    """

    loss: Callable[[Any, Targets], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.loss):
            fail("loss", "a function of the model's output and the targets", describe(self.loss))

    def __call__(self, output: Any, targets: Targets) -> Float[Tensor, " b"]:
        """One loss per picture."""
        return self.loss(output, targets)


def check_logits(logits: Any, count: int, least: int = 2, fix: str = "") -> Float[Tensor, "b classes"]:
    """Require logits ``(count, classes)`` of at least ``least`` classes.

    Raises:
        InputError: for anything else.
    """
    fix = fix or ("Give another kind of output its own loss=..., which maps (output, labels) to (b,), or by OfTargets "
                  "takes boxes and masks.")  # fmt: skip
    check_tensor("model output", logits, (count, "classes"), FLOATS, fix=fix)
    if logits.shape[1] < least:
        fail("model output", f"logits of at least {least} classes", describe(logits), fix)
    checked: Tensor = logits
    return checked


def cross_entropy(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Cross-entropy, the default. Requires logits ``(b, classes)`` of at least two classes."""
    logits = check_logits(logits, len(labels))
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
    losses = [F.cross_entropy(logits, of, reduction="none", ignore_index=-1) for of in labels.unbind(1)]
    return _mean(torch.stack(losses, dim=1), labels)


def margin(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """The largest other logit minus the class's own; above 0 where the model errs.

    Classes that the sample shows do not count as other, or two objects of one sample would cancel each other.

    The gradient does not vanish where the model is confident. Source: Carlini and Wagner, 2017.
    """
    own, other, _ = _compared(logits, labels, 2)
    return _mean(other - own, labels)


def dlr(logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """:func:`margin` divided by the difference of largest and third-largest logit: independent of the logits' scale.

    Requires at least three classes. Source: Croce and Hein, 2020.
    """
    own, other, ordered = _compared(logits, labels, 3)
    return _mean((other - own) / (ordered[:, :1] - ordered[:, 2:] + 1e-12), labels)


def kl(logits: Any, clean: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Divergence of the attacked picture's probabilities from the clean picture's, whose logits are ``clean``.

    Ignores labels. Its gradient is 0 at the clean picture itself, so an attack must start next to it.
    Source: TRADES, Zhang et al., 2019.
    """
    attacked, before = (F.log_softmax(widen(x), dim=1) for x in (check_logits(logits, len(clean)), clean))
    return F.kl_div(attacked, before, log_target=True, reduction="none").sum(dim=1)


def _compared(
    logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"], least: int
) -> tuple[Float[Tensor, "b objects"], Float[Tensor, "b 1"], Float[Tensor, "b n"]]:
    """The objects' logits, the largest logit of a class not shown, and the three largest of all, sorted."""
    shown = _known(labels)
    logits = widen(check_logits(logits, len(labels), max(least, shown.shape[1] + 1)))
    own = logits.gather(1, shown)
    other = logits.scatter(1, shown, -torch.inf).amax(dim=1, keepdim=True)
    return own, other, logits.topk(min(3, logits.shape[1]), dim=1).values


def _mean(losses: Float[Tensor, "b k"], labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """The mean over each sample's objects that have a class."""
    known = (labels >= 0).view(losses.shape)
    return torch.where(known, losses, 0.0).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def _known(labels: Int[Tensor, " b"] | Int[Tensor, "b k"]) -> Int[Tensor, "b k"]:
    """(b, K); the classes shown, with another of the same sample, or class 0, in place of -1."""
    shown = labels[:, None] if labels.ndim == 1 else labels
    return torch.where(shown < 0, shown.amax(dim=1, keepdim=True).clamp(min=0), shown)


def shows(labels: Int[Tensor, " b"] | Int[Tensor, "b k"], classes: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which samples show an object of the given class."""
    shown: Tensor = labels == classes if labels.ndim == 1 else (labels == classes[:, None]).any(dim=1)
    return shown


def class_not_shown(
    logits: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"], drawn: Float[Tensor, " b"] | None
) -> Int[Tensor, " b"]:
    """For each sample a class that it does not show: chosen by a number in [0, 1), or the one with the lowest logit."""
    labels = _known(labels)
    fix = "For another kind of output no wrong class can be drawn: pass targets."
    logits = check_logits(logits, len(labels), labels.shape[1] + 1, fix)
    if drawn is None:
        lowest: Tensor = logits.scatter(1, labels, torch.inf).argmin(dim=1)
        return lowest
    classes = logits.shape[1]
    around = (labels[:, :1] + 1 + torch.arange(classes, device=labels.device)) % classes  # starting after its own
    free = torch.ones_like(around, dtype=torch.bool).scatter(1, labels, False).gather(1, around)
    count = free.sum(dim=1)
    place = torch.minimum((drawn * count).long(), count - 1)
    chosen: Tensor = around.gather(1, (free.cumsum(dim=1) > place[:, None]).int().argmax(dim=1, keepdim=True))[:, 0]
    return chosen
