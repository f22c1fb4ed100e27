"""What a trained detector finds in photographs, one after another at their full size."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kornia_cag.banks.items import item_pixels
from kornia_cag.banks.pictures import read_rgb
from kornia_cag.core.checks import InputError, first_few
from kornia_cag.core.memory import check_memory
from kornia_cag.evaluation.detection import SEEN, SMALLER, Found
from kornia_cag.training.prediction import Refused

ALL = 2**15  # pixels of a side that is not to be reduced
Box = tuple[float, float, float, float]


@runtime_checkable
class Detects(Protocol):
    """What finds objects: a trained detector, or one whose boxes another network names."""

    def detect(self, images: Float[Tensor, "b 3 h w"], *, threshold: float) -> list[Found]:
        """The objects in pictures in [0, 1], of each the best first."""
        ...


@dataclass(frozen=True)
class DetectedObject:
    """An object that a detector finds.

    Attributes:
        name: its class.
        probability: how sure the detector is, in [0, 1].
        box: left, top, right, bottom; half-open, pixels of the picture as a viewer shows it.
    """

    name: str
    probability: float
    box: Box


@dataclass(frozen=True)
class Detected:
    """What a detector finds in one picture.

    Attributes:
        path: the file; ``photos[3]`` for the fourth picture in memory.
        size: ``(height, width)``, pixels.
        objects: the surest first.
    """

    path: str
    size: tuple[int, int]
    objects: tuple[DetectedObject, ...]


def detected(
    detector: Detects,
    names: tuple[str, ...],
    photos: Iterable[tuple[str, Any] | Refused],
    *,
    threshold: float,
    device: torch.device,
) -> Iterator[Detected | Refused]:
    """Find objects in what :func:`~kornia_cag.training.prediction.located` found, in this order.

    Args:
        detector: finds objects.
        names: of its classes.
        photos: named pictures.
        threshold: lowest probability that counts, in [0, 1].
        device: of the detector.
    """
    notes: list[str] = []
    for photo in photos:
        yield photo if isinstance(photo, Refused) else _found(detector, names, *photo, threshold, device, notes)
    if notes:
        warnings.warn(f"read {len(notes)} file(s) as sRGB, whose colour profile cannot be used: "
                      f"{first_few(notes, ';')}", stacklevel=3)  # fmt: skip


def _found(
    detector: Detects, names: tuple[str, ...], name: str, photo: Any, threshold: float, device: torch.device,
    notes: list[str],
) -> Detected | Refused:  # fmt: skip
    said: list[str] = []
    try:
        planes = _read(name, photo, said)
        height, width = planes.shape[1:]
        if device.type == "cpu":
            check_memory(name, 1, (height, width), SEEN, SMALLER)
    except InputError as error:
        return Refused.of(name, error)
    notes.extend(f"{name} ({note})" for note in said)
    images = planes[None].to(device)
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    (one,) = detector.detect(images, threshold=threshold)
    if not (bool(one.boxes.isfinite().all()) and bool(one.scores.isfinite().all())):
        return Refused(name, "expected finite boxes and scores of the network, got others. Train it again.")
    rows = zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
    objects = [DetectedObject(names[label], score, (box[0], box[1], box[2], box[3])) for box, label, score in rows]
    return Detected(name, (height, width), tuple(sorted(objects, key=lambda found: -found.probability)))


def _read(name: str, photo: Any, notes: list[str]) -> Shaped[Tensor, "3 h w"]:
    if isinstance(photo, Path):
        return torch.from_numpy(read_rgb(photo, notes=notes, on_white=True)).permute(2, 0, 1)
    return item_pixels(name, photo, ALL).detach().cpu()
