"""Whether a classifier is right as often as it says."""

from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_tensor, fail

BINS = 15


def calibration_error(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, on average over all pictures.

    A picture's confidence is the highest of its probabilities. Pictures go into 15 equal-width bins of it,
    ``((m - 1) / 15, m / 15]``, and the error is ``sum over bins (n_m / n) |accuracy_m - confidence_m|``. It is biased
    upwards where a bin holds few pictures. Sums are in float64. Waits for the device.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        probabilities: of each class; every row sums to 1.
        labels: the true classes.

    Returns:
        A share in [0, 1]; 0.05 is 5 percentage points.

    Raises:
        InputError: for no pictures, labels of another number, and rows that are no probabilities, such as logits.
    """
    check_tensor("probabilities", probabilities, ("n", "c"))
    check_tensor("labels", labels, (len(probabilities),))
    if not probabilities.numel():
        fail("probabilities", "at least one picture and class", str(tuple(probabilities.shape)))
    shares = probabilities.double()
    if not (bool((shares >= 0).all()) and bool(((shares.sum(dim=1) - 1).abs() < 0.01).all())):
        fail("probabilities", "rows of numbers from 0 that sum to 1", "others", "Of logits: logits.softmax(dim=1).")
    confidence, predicted = shares.max(dim=1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = (predicted == labels).double() - confidence
    return float(gaps.new_zeros(BINS).index_add(0, bins, gaps).abs().sum() / len(gaps))
