"""Training losses for attacked batches: on the attacked images, on clean and attacked ones, or TRADES.

All take a :class:`kornia_cag.Batch`, which holds both (``CAGCollate(..., returns="batch")``), and return a scalar to
call ``backward()`` on. Clean and attacked images pass through the model as one batch, so that BatchNorm treats them
alike. Clean means as composed: with scene adversaries, that includes the scenes they chose. Cross-entropies are means
over the samples whose label is a class; those of label -1 have nothing to be right about.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.adversary.losses import check_logits, kl
from kornia_cag.core.checks import check_number
from kornia_cag.loading.batch import Batch, check_attacked
from kornia_cag.loading.confusion import HardPairing

_LOGITS = "Wrap a model with other outputs so that it returns its logits."


def mean_cross_entropy(
    logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"], *, smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the samples that have a class; 0 if none has one, and without waiting to know.

    Args:
        logits: of all samples.
        labels: their classes; -1: none.
        smoothing: label smoothing, in [0, 1].
    """
    if not len(labels):  # a rank's share of a small batch
        return logits.float().sum()
    some = (labels >= 0).any()  # or the mean of nothing would be NaN
    return F.cross_entropy(logits, torch.where(some, labels, 0), ignore_index=-1, label_smoothing=smoothing) * some


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
    return mean_cross_entropy(logits, batch.labels, smoothing=smoothing)


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
    clean, attacked = (mean_cross_entropy(x, batch.labels, smoothing=smoothing) for x in both)
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
    natural = mean_cross_entropy(clean, batch.labels, smoothing=smoothing)
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
