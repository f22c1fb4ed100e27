"""What a training step minimises when batches are attacked: the attacked images, clean and attacked ones, or TRADES.

All take a :class:`kornia_cag.Batch`, which holds both (``CAGCollate(..., returns="batch")``), and give one number to
call ``backward()`` on. Clean and attacked images pass the model as one batch, so that BatchNorm sees both alike.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.checks import check_instance, check_number
from kornia_cag.collate import Batch
from kornia_cag.losses import check_logits, kl

_FIX = "Pass returns='batch' to the collate."
_LOGITS = "Wrap a model of another kind of output, so that it gives its logits."


def attacked_loss(model: nn.Module, batch: Batch, *, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Cross-entropy of the attacked images alone: Madry et al. 2018, and Jin and Rinard.

    Args:
        model: maps images to logits.
        batch: of a collate with an attack.
        smoothing: of the labels, in [0, 1].
    """
    check_instance("batch", batch, Batch, _FIX)
    logits = check_logits(model(batch.images), len(batch.labels), fix=_LOGITS)
    return F.cross_entropy(logits, batch.labels, label_smoothing=check_number("smoothing", smoothing, 0, 1))


def mixed_loss(model: nn.Module, batch: Batch, *, weight: float = 0.5, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Cross-entropy of clean and attacked images: ``(1 - weight) * clean + weight * attacked``.

    Source: Goodfellow et al. 2015.

    Args:
        model: maps images to logits.
        batch: of a collate with an attack.
        weight: of the attacked images, in [0, 1].
        smoothing: of the labels, in [0, 1].
    """
    check_number("weight", weight, 0, 1)
    check_number("smoothing", smoothing, 0, 1)
    clean, attacked = (F.cross_entropy(x, batch.labels, label_smoothing=smoothing) for x in _both(model, batch))
    return (1 - weight) * clean + weight * attacked


def trades_loss(model: nn.Module, batch: Batch, *, beta: float = 6.0, smoothing: float = 0.0) -> Float[Tensor, ""]:
    """TRADES: cross-entropy of the clean images, and ``beta`` times how far the attacked ones' probabilities are off.

    Its attack climbs the same divergence: ``PGD(..., loss=kornia_cag.losses.kl)``. Source: Zhang et al. 2019.

    Args:
        model: maps images to logits.
        batch: of a collate with an attack.
        beta: weight of the divergence, at least 0.
        smoothing: of the labels, in [0, 1].
    """
    check_number("beta", beta, 0)
    clean, attacked = _both(model, batch)
    natural = F.cross_entropy(clean, batch.labels, label_smoothing=check_number("smoothing", smoothing, 0, 1))
    return natural + beta * kl(attacked, clean).mean()


def _both(model: nn.Module, batch: Batch) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    check_instance("batch", batch, Batch, _FIX)
    logits = check_logits(model(torch.cat([batch.clean, batch.images])), 2 * len(batch.labels), fix=_LOGITS)
    clean, attacked = logits.chunk(2)
    return clean, attacked
