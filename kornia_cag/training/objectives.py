"""Training losses for attacked batches: on the attacked images, on clean and attacked ones, or TRADES.

All take a :class:`kornia_cag.Batch`, which holds both (``CAGCollate(..., returns="batch")``), and return a scalar to
call ``backward()`` on. Clean and attacked images pass through the model as one batch, so that BatchNorm treats them
alike. Clean means as composed: with scene adversaries, that includes the scenes they chose.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.adversary.losses import check_logits, kl
from kornia_cag.core.checks import check_number
from kornia_cag.loading.batch import Batch, check_attacked
from kornia_cag.loading.confusion import HardPairing

_LOGITS = "Wrap a model with other outputs so that it returns its logits."


def attacked_loss(
    model: nn.Module, batch: Batch, *, smoothing: float = 0.0, pairing: HardPairing | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of the attacked images only: Madry et al. 2018, and Jin and Rinard.

    Args:
        model: maps images to logits.
        batch: from a collate with an attack.
        smoothing: label smoothing, in [0, 1].
        pairing: hard pairing to update with the logits of the attacked images.
    """
    check_number("smoothing", smoothing, 0, 1)
    check_attacked(batch)
    logits = check_logits(model(batch.images.clone()), len(batch.labels), fix=_LOGITS)  # it may work in place
    _tell(pairing, logits, batch)
    return F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)


def mixed_loss(
    model: nn.Module, batch: Batch, *, weight: float = 0.5, smoothing: float = 0.0, pairing: HardPairing | None = None
) -> Float[Tensor, ""]:
    """Cross-entropy of clean and attacked images: ``(1 - weight) * clean + weight * attacked``.

    Source: Goodfellow et al. 2015.

    Args:
        model: maps images to logits.
        batch: from a collate with an attack.
        weight: weight of the attacked images, in [0, 1].
        smoothing: label smoothing, in [0, 1].
        pairing: hard pairing to update with the logits of the attacked images.
    """
    check_number("weight", weight, 0, 1)
    check_number("smoothing", smoothing, 0, 1)
    both = _both(model, batch, pairing)
    clean, attacked = (F.cross_entropy(x, batch.labels, label_smoothing=smoothing) for x in both)
    return (1 - weight) * clean + weight * attacked


def trades_loss(
    model: nn.Module, batch: Batch, *, beta: float = 6.0, smoothing: float = 0.0, pairing: HardPairing | None = None
) -> Float[Tensor, ""]:
    """TRADES: cross-entropy of the clean images, plus ``beta`` times the divergence of the attacked ones from them.

    Its attack raises the same divergence: ``PGD(..., loss=kornia_cag.adversary.losses.kl)``. Source: Zhang et al. 2019.

    Args:
        model: maps images to logits.
        batch: from a collate with an attack.
        beta: weight of the divergence, at least 0.
        smoothing: label smoothing, in [0, 1].
        pairing: hard pairing to update with the logits of the attacked images.
    """
    check_number("beta", beta, 0)
    check_number("smoothing", smoothing, 0, 1)
    clean, attacked = _both(model, batch, pairing)
    natural = F.cross_entropy(clean, batch.labels, label_smoothing=smoothing)
    return natural + beta * kl(attacked, clean).mean()


def _both(
    model: nn.Module, batch: Batch, pairing: HardPairing | None
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    check_attacked(batch)
    logits = check_logits(model(torch.cat([batch.clean, batch.images])), 2 * len(batch.labels), fix=_LOGITS)
    clean, attacked = logits.chunk(2)
    _tell(pairing, attacked, batch)
    return clean, attacked


def _tell(pairing: HardPairing | None, logits: Float[Tensor, "b c"], batch: Batch) -> None:
    if pairing is not None:
        pairing.observe(logits, batch.labels)
