"""Average precision, by hand: of 101 levels of recall, and of ten overlaps from 0.5 to 0.95."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.core import memory
from kornia_cag.evaluation.boxes import Boxed, BoxedSet
from kornia_cag.evaluation.detection import Found, Precision, average_precision, evaluate_detector

A, B = (0, 0, 10, 10), (50, 50, 60, 60)
CLASSES = ("a", "b")


def true(*boxes, labels=None, crowd=None):
    n = len(boxes)
    labels, crowd = labels or [0] * n, crowd or [False] * n
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Boxed(
        Path("x.png"), (200, 200), corners, torch.tensor(labels, dtype=torch.int64), torch.tensor(crowd).bool()
    )


def found(*boxes, scores=None, labels=None):
    n = len(boxes)
    scores = [1 - place / 10 for place in range(n)] if scores is None else scores
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Found(corners, torch.tensor(labels or [0] * n, dtype=torch.int64), torch.tensor(scores, dtype=torch.float32))


def measured(seen, there, classes=("a",)):
    return average_precision([seen], [there], classes)


@pytest.mark.parametrize(
    ("seen", "there", "at50"),
    [
        (found(A), true(A), 1),
        (found(), true(A), 0),
        (found(B), true(A), 0),
        (found(A), true(A, B), 51 / 101),  # a recall of one half: levels 0 to 0.5
        (found(B, A), true(A), 1 / 2),  # the surer one is wrong
        (found(A, B), true(A), 1),  # the wrong one comes after all is found
        (found(A, A, B), true(A, B), (51 + 50 * 2 / 3) / 101),  # found twice counts once
        (found(A, B, scores=[0.3, 0.4]), true(A), 1 / 2),  # not in the order of scores
        (found((0, 0, 10, 4.9)), true(A), 0),
        (found((0, 0, 10, 5.1)), true(A), 1),
        (found((-2, -2, 12, 12)), true(A), 1),  # 100 of 196 square pixels
        (found(), true(), None),
        (found(A), true(), None),
        (found(A, B), true(A, B, crowd=[False, True]), 1),
        (found(B, A), true(A, B, crowd=[False, True]), 1),  # what is found in a crowd counts neither way
        (found(A), true(A, B, crowd=[False, True]), 1),  # and a crowd need not be found
    ],
)
def test_precision_by_hand(seen, there, at50):
    assert measured(seen, there).overall.at50 == pytest.approx(at50)


def test_overlaps_from_a_half_to_nearly_all():
    assert measured(found((0, 0, 10, 6.2)), true(A)).overall == pytest.approx((0.3, 1.0))  # 0.5, 0.55 and 0.6
    assert measured(found(A), true(A)).overall == (1, 1)


def test_each_class_is_judged_by_itself():
    result = measured(found(A, B, labels=[0, 0]), true(A, B, labels=[0, 1]), CLASSES)
    assert result.by_class == {"a": Precision(1, 1), "b": Precision(0, 0)}
    assert result.overall == (0.5, 0.5)
    assert measured(found(A), true(A), CLASSES).by_class["b"] == (None, None)
    assert measured(found(A), true(A), CLASSES).overall == (1, 1)  # without the class that has no box


def test_sizes_are_those_of_true_boxes():
    sides = {"small": 31, "medium": 33, "large": 97}
    for name, side in sides.items():
        result = measured(found((0, 0, side, side)), true((0, 0, side, side)))
        assert result.by_size == {other: (1, 1) if other == name else (None, None) for other in sides}


def test_pictures_are_kept_apart():
    pictures = [true(A), true(B), true()]
    assert average_precision([found(A), found(B), found()], pictures, ("a",)).overall == (1, 1)
    assert average_precision([found(B), found(A), found()], pictures, ("a",)).overall == (0, 0)
    worse = average_precision([found(A), found(B), found(A, scores=[2.0])], pictures, ("a",)).overall.at50
    assert worse == pytest.approx(2 / 3)  # a find in an empty picture, surer than all, is wrong


def test_a_report_is_plain():
    report = measured(found(A), true(A, B), CLASSES).report()
    assert report["at50"] == 0.50495
    assert report["by_class"] == {"a": {"mean": 0.50495, "at50": 0.50495}, "b": {"mean": None, "at50": None}}
    assert list(report["by_size"]) == ["small", "medium", "large"]


def test_a_detector_sees_whole_pictures_in_the_range_from_0_to_1(tmp_path):
    pictures = []
    for place, (width, height) in enumerate([(30, 20), (16, 40)]):
        Image.fromarray(np.full((height, width, 3), 51, np.uint8)).save(tmp_path / f"{place}.png")
        whole = true((0, 0, width, height))
        pictures.append(replace(whole, path=tmp_path / f"{place}.png", size=(height, width)))
    seen, said = [], []

    def detect(images):
        seen.append(images)
        return [found((0, 0, images.shape[3], images.shape[2]))]

    real = BoxedSet(tuple(pictures), ("a",), "real")
    result = evaluate_detector(detect, real, torch.device("cpu"), log=lambda share, text: said.append(share))
    assert result.overall == (1, 1)
    assert [tuple(images.shape) for images in seen] == [(1, 3, 20, 30), (1, 3, 40, 16)]
    assert all(((images - 0.2).abs() < 1e-6).all() for images in seen)
    assert said == [0.5, 1]


def test_a_picture_that_fits_no_memory_is_named(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 200 * 100 * 92 - 1)
    real = BoxedSet((replace(true(), size=(100, 200)),), ("a",), "real")
    with pytest.raises(InputError, match=r"^x\.png: expected .*, got 1 image of 200 x 100 pixels, which takes"):
        evaluate_detector(lambda images: [found()], real, torch.device("cpu"))


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            found((50, 50, 10, 10)),
            r"found\[0\]\.boxes: expected left, top, right, bottom, got some whose",
        ),
        (found(A, labels=[2]), r"found\[0\]\.labels: expected class ids 0 to 1, got 2 to 2"),
        (found(A, scores=[float("nan")]), r"found\[0\]: expected finite boxes and scores"),
        (found(A)._replace(boxes=torch.zeros(1, 5)), r"found\[0\]\.boxes: expected float32 \(n, 4\), got"),
        (found(A)._replace(scores=torch.zeros(2)), r"found\[0\]\.scores: expected float32 \(1\), got"),
    ],
)
def test_what_is_no_find_is_refused(untyped, seen, message):
    with pytest.raises(InputError, match=message):
        measured(seen, true(A), CLASSES)


def test_one_entry_for_each_picture():
    with pytest.raises(InputError, match="found: expected one entry for each of 2 pictures, got 1"):
        average_precision([found(A)], [true(A), true(B)], ("a",))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match=r'detection: expected .*, got none\. pip install "kornia_cag\[detection\]"'):
        measured(found(A), true(A))
