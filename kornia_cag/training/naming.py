"""Detect first, then name: every box that a detector finds is shown to a network that names close crops."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.core.checks import fail
from kornia_cag.evaluation.detection import Found
from kornia_cag.evaluation.prepared import Fit, combined, prepared
from kornia_cag.training.network import Trained

BORDER = 0.12  # around a box, as a share of its longer side: crops of signs are made so


class Namer(nn.Module):
    """A detector whose boxes another network names.

    Args:
        detector: with a method ``detect``, as :class:`~kornia_cag.training.detector.Detector` has it.
        classifier: maps pictures of its size to logits, in evaluation mode, on the detector's device.
        size: side of its pictures, pixels.
        fit: how a crop becomes a square.
    """

    def __init__(self, detector: nn.Module, classifier: nn.Module, size: int, fit: Fit) -> None:
        super().__init__()
        self.detector, self.classifier, self.size, self.fit = detector, classifier, size, fit

    @torch.no_grad()
    def detect(self, images: Float[Tensor, "b 3 h w"], *, threshold: float) -> list[Found]:
        """The objects in pictures; their scores are those of the detector times the probability of the name."""
        detector: Any = self.detector
        found = detector.detect(images, threshold=threshold)
        named = [self._named(image, one) for image, one in zip(images, found, strict=True)]
        return [Found(*(part[one.scores >= threshold] for part in one)) for one in named]

    def _named(self, image: Float[Tensor, "3 h w"], found: Found) -> Found:
        if not len(found.boxes):
            return found
        views = [prepared(_crop(image, box)[None], self.size, self.fit) for box in found.boxes.tolist()]
        logits = self.classifier(torch.cat(views)).float()
        shares, labels = combined(logits, [len(view) for view in views]).softmax(dim=1).max(dim=1)
        scores = found.scores * shares
        order = scores.argsort(descending=True, stable=True)
        return Found(found.boxes[order], labels[order], scores[order])


def named_by(detector: Trained, classifier: Trained) -> Trained:
    """A trained detector whose boxes a trained network names; done is what both have done of their training.

    Raises:
        InputError: if they are not these.
    """
    if detector.recipe.detection is None:
        fail("detector", "a network that finds objects", "one that names pictures")
    if classifier.recipe.detection is not None:
        fail("classifier", "a network that names pictures", "one that finds objects")
    network = Namer(detector.network, classifier.network, classifier.recipe.size, classifier.recipe.fit).eval()
    task = replace(detector.recipe.detection, classes="all")
    share = min(detector.share, classifier.share)
    return Trained(network, replace(detector.recipe, detection=task), classifier.classes, share)


def _crop(image: Float[Tensor, "3 h w"], box: list[float]) -> Float[Tensor, "3 y x"]:
    """A box with a border, cut to the picture; at least one pixel."""
    height, width = image.shape[1:]
    border = BORDER * max(box[2] - box[0], box[3] - box[1])
    left, top = (min(max(0, int(box[axis] - border)), side - 1) for axis, side in ((0, width), (1, height)))
    right, bottom = (min(side, max(1, round(box[axis] + border))) for axis, side in ((2, width), (3, height)))
    return image[:, top : max(bottom, top + 1), left : max(right, left + 1)]
