"""Run lengths of masks, as COCO writes them."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

_GROUPS = 7  # of five bits: more than a difference of 32-bit numbers takes


def rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, to the byte what pycocotools writes: ``size`` and ``counts``.

    Convention: columns from left to right, each from top to bottom; the first run is one of zeros, of length 0 if need
    be. From the third on, a length is written as its difference from the one two before it, in groups of five bits,
    lowest first, with one more bit that says whether others follow; each group is a character from ``0`` on.
    """
    runs = run_lengths(mask)
    left = runs.copy()
    left[3:] -= runs[1:-2]
    characters = np.zeros((len(runs), _GROUPS), np.uint8)
    used = np.zeros((len(runs), _GROUPS), np.bool_)
    open_ = np.ones(len(runs), np.bool_)
    for group in range(_GROUPS):
        bits = left & 31
        left = left >> 5
        more = np.where(bits & 16, left != -1, left != 0)  # the highest bit of the last group is the sign
        characters[:, group], used[:, group] = bits + 32 * more + 48, open_
        open_ = open_ & more
    return {"size": list(mask.shape), "counts": characters[used].tobytes().decode("ascii")}


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, " n"]:
    """Lengths of runs of zeros and ones by turns, column by column; zeros first."""
    flat: NDArray[np.bool_] = mask.T.ravel()
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    places = np.concatenate([[0], ends, [flat.size]]) if flat.size else np.zeros(1, np.int64)
    runs: NDArray[np.int64] = np.diff(places).astype(np.int64)
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs
