"""A model's results on real pictures: accuracy, recall per class, most frequent confusions, calibration."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from kornia_cag.core.progress import Log
from kornia_cag.evaluation.calibration import calibration_error
from kornia_cag.evaluation.prepared import at_once, check_finite, combined, decisive
from kornia_cag.evaluation.real import RealSet


@dataclass(frozen=True)
class Accuracy:
    """What a model got right on real pictures."""

    share: float  # of all pictures, in [0, 1]
    per_class: dict[str, float | None]  # recall; None for a class without pictures
    confusions: tuple[tuple[str, str, int], ...]  # (true, predicted, count), most frequent first
    calibration_error: float  # expected, in [0, 1]
    predicted: Int[Tensor, " n"] = field(repr=False, compare=False)  # class of every picture
    seen_in: Int[Tensor, " n"] = field(repr=False, compare=False)  # the view of it that shows its true class best

    @property
    def mean_per_class(self) -> float:
        """Mean of the recalls of all classes that have pictures, in [0, 1]."""
        recalls = [recall for recall in self.per_class.values() if recall is not None]
        return sum(recalls) / len(recalls)

    def report(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        recall = {name: None if share is None else round(share, 4) for name, share in self.per_class.items()}
        return {
            "accuracy": round(self.share, 5),
            "mean_per_class": round(self.mean_per_class, 5),
            "calibration_error": round(self.calibration_error, 5),
            "per_class": recall,
            "confusions": [list(r) for r in self.confusions],
        }


@torch.no_grad()
def evaluate(
    model: nn.Module, real: RealSet, classes: tuple[str, ...], device: torch.device, *, log: Log | None = None
) -> Accuracy:
    """Accuracy of a model on real pictures, in float32; reports progress to ``log``.

    Several views of a picture give one answer: :func:`~kornia_cag.evaluation.prepared.combined`.

    Raises:
        InputError: for a model whose logits are not finite.
    """
    model.eval()
    found: list[Tensor] = []
    most = at_once(512, real.images.shape[-1])
    for part in real.images.split(most):
        found.append(model(part.to(device)).cpu())
        if log is not None:
            log(min(1.0, most * len(found) / len(real.images)), "")
    logits = torch.cat(found)
    answers = combined(logits, real.views)
    check_finite("model", answers)
    predicted = answers.argmax(dim=1)
    table = torch.zeros(len(classes), len(classes), dtype=torch.int64, device="cpu")
    table.index_put_((real.labels, predicted), torch.ones_like(predicted), accumulate=True)
    right = table.diagonal()
    recalls = (right / table.sum(dim=1)).tolist()
    per_class = {name: None if recall != recall else recall for name, recall in zip(classes, recalls, strict=True)}
    wrong = table - torch.diag(right)
    count, place = wrong.flatten().sort(descending=True, stable=True)
    rows = [(classes[p // len(classes)], classes[p % len(classes)], c)
            for c, p in zip(count[:10].tolist(), place[:10].tolist(), strict=True) if c]  # fmt: skip
    return Accuracy(
        float(right.sum() / table.sum()), per_class, tuple(rows),
        calibration_error(answers.double().softmax(dim=1), real.labels),
        predicted, decisive(logits, real.views, real.labels),
    )  # fmt: skip
