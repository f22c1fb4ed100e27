"""What a measurement on real pictures found, ready for JSON."""

from typing import Any

from kornia_cag.evaluation.accuracy import Accuracy
from kornia_cag.evaluation.boxes import BoxedSet
from kornia_cag.evaluation.detection import DetectionAccuracy
from kornia_cag.evaluation.real import RealSet

NUMBERS = ("accuracy", "mean_per_class", "calibration_error", "per_class", "confusions")  # of Accuracy.report


def measurement(
    accuracy: Accuracy | DetectionAccuracy | None, real: RealSet | BoxedSet | None, *, detection: bool
) -> dict[str, Any]:
    """Result and pictures of a measurement; None without one.

    Args:
        accuracy: the result.
        real: what it was measured on.
        detection: whether objects are found, or pictures named.
    """
    about = None if real is None else {"name": real.name, "pictures": len(real)}
    told = None if accuracy is None else accuracy.report()
    if detection:
        return {"real": about, "detection": told}
    return {"real": about, **(told or dict.fromkeys(NUMBERS))}
