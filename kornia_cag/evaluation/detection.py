"""How good a detector is: COCO's average precision, of all boxes, by size and by class.

The numbers are those of `faster-coco-eval <https://pypi.org/project/faster-coco-eval>`_, which computes what
pycocotools does: a found box is right if it overlaps a true one of its class, not yet taken, by enough of their union;
precision is averaged over 101 levels of recall.

Convention: boxes are half-open ``xyxy``, pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from kornia_cag.banks.folders import read_rgb
from kornia_cag.core.checks import check_tensor, fail
from kornia_cag.core.memory import check_memory
from kornia_cag.core.progress import Log
from kornia_cag.evaluation.boxes import Boxed, BoxedSet

MOST = 100  # found boxes of a class in a picture that count, the best first
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 10**10)}  # area of a true box, square pixels

SEEN = 12 + 80  # bytes per pixel of a picture while a detector sees it, at least: as floats, and in the network
SMALLER = "Make the picture smaller."


class Found(NamedTuple):
    """The objects that a detector finds in one picture."""

    boxes: Float[Tensor, "n 4"]  # pixels
    labels: Int[Tensor, " n"]  # classes
    scores: Float[Tensor, " n"]  # the higher, the surer


class Precision(NamedTuple):
    """Average precision, in [0, 1]; None where there is no true box."""

    mean: float | None  # over overlaps of 0.5, 0.55 … 0.95
    at50: float | None  # at an overlap of 0.5


@dataclass(frozen=True)
class DetectionAccuracy:
    """How good found boxes are: means over the classes that have a true box.

    Attributes:
        overall: of all boxes.
        by_size: of true boxes that are small (up to 32² pixels), medium (up to 96²), large.
        by_class: of the boxes of each class.
        found: what was found in each picture.
    """

    overall: Precision
    by_size: dict[str, Precision]
    by_class: dict[str, Precision]
    found: tuple[Found, ...] = field(repr=False, compare=False)

    def report(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {
            **_rounded(self.overall),
            "by_size": {name: _rounded(one) for name, one in self.by_size.items()},
            "by_class": {name: _rounded(one) for name, one in self.by_class.items()},
        }


def _rounded(one: Precision) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 5) for name, value in one._asdict().items()}


def evaluate_detector(
    detect: Callable[[Float[Tensor, "b 3 h w"]], Sequence[Found]],
    real: BoxedSet,
    device: torch.device,
    *,
    log: Log | None = None,
) -> DetectionAccuracy:
    """Run a detector over real pictures, one after another at their full size, and compare what it finds.

    Args:
        detect: from pictures in [0, 1] to what is in each, such as
            :meth:`~kornia_cag.training.detector.Detector.detect` with a low threshold: boxes that nobody trusts
            lower no precision, and those left out lower the recall.
        real: pictures with their boxes.
        device: device to run on.
        log: is told the share that is done.

    Raises:
        InputError: naming a picture that cannot be read or fits no memory, and if faster-coco-eval is missing.
    """
    coco_package()
    found = []
    for picture in real.pictures:
        if device.type == "cpu":
            check_memory(str(picture.path), 1, picture.size, SEEN, SMALLER)
        pixels = torch.from_numpy(read_rgb(picture.path, on_white=True)).to(device)
        found.append(detect(pixels.permute(2, 0, 1)[None].float() / 255)[0])
        if log is not None:
            log(len(found) / len(real.pictures), "")
    return average_precision(found, real.pictures, real.classes)


def average_precision(found: Sequence[Found], true: Sequence[Boxed], classes: tuple[str, ...]) -> DetectionAccuracy:
    """COCO's average precision of what was found in pictures.

    Only the :data:`MOST` best boxes of each class in a picture count. Crowds, see
    :class:`~kornia_cag.evaluation.boxes.Boxed`, need not be found, and what is found in them counts neither way.

    Args:
        found: of each picture.
        true: the pictures with their boxes, in the same order.
        classes: class names, in order.

    Raises:
        InputError: for different numbers of pictures, for boxes that are none, and if faster-coco-eval is missing.
    """
    package = coco_package()
    if len(found) != len(true):
        fail("found", f"one entry for each of {len(true):,} pictures", f"{len(found):,}")
    for place, one in enumerate(found):
        _check(f"found[{place}]", one, len(classes))
    truth = package.COCO(_truth(true, len(classes)))
    judge = package.COCOeval_faster(
        truth,
        truth.loadRes([row for place, one in enumerate(found) for row in _rows(place, one)]),
        "bbox",
        ranges={name: list(area) for name, area in SIZES.items()},
    )
    judge.params.maxDets = [MOST]
    judge.evaluate()
    judge.accumulate()
    return _summary(
        judge.eval["precision"][..., 0], classes, tuple(Found(*(part.cpu() for part in one)) for one in found)
    )


def coco_package() -> Any:
    """The package that computes COCO's metrics.

    Raises:
        InputError: if it is missing.
    """
    try:
        import faster_coco_eval
    except ImportError:
        fail("detection", "the package that computes COCO's metrics", "none", 'pip install "kornia_cag[detection]"')
    return faster_coco_eval


def _check(name: str, one: Found, classes: int) -> None:
    check_tensor(f"{name}.boxes", one.boxes, ("n", 4), torch.float32)
    check_tensor(f"{name}.labels", one.labels, one.boxes.shape[:1], torch.int64)
    check_tensor(f"{name}.scores", one.scores, one.boxes.shape[:1], torch.float32)
    if not len(one.boxes):
        return
    if not (bool(one.boxes.isfinite().all()) and bool(one.scores.isfinite().all())):
        fail(name, "finite boxes and scores", "others", "Train the detector again.")
    if int(one.labels.min()) < 0 or int(one.labels.max()) >= classes:
        fail(f"{name}.labels", f"class ids 0 to {classes - 1}", f"{int(one.labels.min())} to {int(one.labels.max())}")
    if not bool((one.boxes[:, 2:] >= one.boxes[:, :2]).all()):
        fail(f"{name}.boxes", "left, top, right, bottom", "some whose right or bottom comes first",
             "Boxes are corners, not a corner and sides.")  # fmt: skip


def _sides(boxes: Float[Tensor, "n 4"]) -> list[list[float]]:
    """COCO's way: left, top, width, height."""
    wide = boxes.double().cpu()
    sides: list[list[float]] = torch.cat([wide[:, :2], wide[:, 2:] - wide[:, :2]], dim=1).tolist()
    return sides


def _truth(true: Sequence[Boxed], classes: int) -> dict[str, Any]:
    """COCO's annotations; classes are numbered from 1, like everything there."""
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(true):
        columns = zip(_sides(one.boxes), one.labels.tolist(), one.crowd.tolist(), strict=True)
        for box, label, crowd in columns:
            rows.append({"id": len(rows) + 1, "image_id": place + 1, "category_id": label + 1, "bbox": box,
                         "area": box[2] * box[3], "iscrowd": int(crowd)})  # fmt: skip
    pictures = [{"id": place + 1, "height": one.size[0], "width": one.size[1]} for place, one in enumerate(true)]
    return {"images": pictures, "categories": [{"id": label + 1} for label in range(classes)], "annotations": rows}


def _rows(place: int, one: Found) -> list[dict[str, Any]]:
    """COCO's results of one picture."""
    columns = zip(_sides(one.boxes), one.labels.tolist(), one.scores.tolist(), strict=True)
    return [{"image_id": place + 1, "category_id": label + 1, "bbox": box, "score": score}
            for box, label, score in columns]  # fmt: skip


def _summary(precision: NDArray[np.float64], classes: tuple[str, ...], found: tuple[Found, ...]) -> DetectionAccuracy:
    """From precisions by overlap, recall, class and size (all, then those of :data:`SIZES`); -1 where there is none."""
    by_size = {name: _mean(precision[..., 1 + place]) for place, name in enumerate(SIZES)}
    by_class = {name: _mean(precision[:, :, label, 0]) for label, name in enumerate(classes)}
    return DetectionAccuracy(_mean(precision[..., 0]), by_size, by_class, found)


def _mean(precision: NDArray[np.float64]) -> Precision:
    known = [part[part > -1] for part in (precision, precision[0])]
    return Precision(*(float(part.mean()) if part.size else None for part in known))
