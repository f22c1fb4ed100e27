import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kornia_cag.export.rle import rle, run_lengths


def decoded(counts):
    """COCO's characters as run lengths, one after the other, as its own C code reads them."""
    runs, place = [], 0
    while place < len(counts):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(counts[place]) - 48
            value |= (bits & 31) << shift
            more, shift, place = bool(bits & 32), shift + 5, place + 1
            if not more and bits & 16:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def masks():
    return st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0, 1)).map(
        lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
    )


@given(masks())
def test_run_lengths_come_back(mask):
    runs = run_lengths(mask)
    assert runs.sum() == mask.size
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    assert np.array_equal(flat.reshape(mask.shape[::-1]).T, mask)
    assert (runs[1:] > 0).all()
    written = rle(mask)
    assert written["size"] == list(mask.shape)
    assert decoded(written["counts"]) == runs.tolist()


@given(masks())
def test_bytes_are_those_of_pycocotools(mask):
    theirs = pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle(mask)["counts"].encode() == theirs["counts"]
    assert rle(mask)["size"] == theirs["size"]


def test_long_runs():
    mask = np.zeros((1500, 1200), np.bool_)
    mask[700:, 900:] = True
    mask[3, 5] = True
    assert decoded(rle(mask)["counts"]) == run_lengths(mask).tolist()
    coco = pytest.importorskip("pycocotools.mask")
    assert rle(mask)["counts"].encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_convention_of_run_lengths():
    """Down the columns; zeros first."""
    mask = np.array([[1, 0, 0], [1, 0, 1]], np.bool_)
    assert run_lengths(mask).tolist() == [0, 2, 3, 1]
    assert rle(mask) == {"size": [2, 3], "counts": "023O"}
    assert run_lengths(np.zeros((2, 3), np.bool_)).tolist() == [6]
    assert run_lengths(np.ones((2, 3), np.bool_)).tolist() == [0, 6]
