"""Boxes in pictures are where they belong, and the sheet of misses has a row for each kind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag.command.drawing import BLUE, COLUMNS, CROP, draw_found, save_misses
from kornia_cag.command.sheets import YELLOW
from kornia_cag.evaluation.boxes import Boxed
from kornia_cag.evaluation.detection import Found
from kornia_cag.evaluation.misses import matched
from kornia_cag.training.detected import Detected, DetectedObject


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (120, 90), (40, 40, 40)).save("a.png")


def boxed(*rows: tuple[float, ...]) -> Boxed:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    crowd = torch.zeros(len(rows), dtype=torch.bool)
    return Boxed(Path("a.png"), (90, 120), table[:, :4], table[:, 4].long(), crowd)


def found(*rows: tuple[float, ...]) -> Found:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Found(table[:, :4], table[:, 4].long(), table[:, 5])


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def coloured(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((np.asarray(picture) == colour).all(axis=2))


def test_a_frame_lies_around_its_box_and_leaves_what_is_in_it() -> None:
    one = DetectedObject("sign", 0.9, (40.0, 50.0, 60.0, 75.0))
    Path("drawn").mkdir()
    place = draw_found(Detected("a.png", (90, 120), (one,)), Path("drawn"), set())
    picture = np.asarray(opened(place))
    assert (picture[50:75, 40:60] == 40).all()
    assert (picture[51:74, 38:40] == YELLOW).all()
    assert (picture[51:74, 60:62] == YELLOW).all()
    assert (picture[75:77, 40:60] == YELLOW).all()


def test_a_name_stays_in_the_picture_and_is_drawn_in_letters_that_there_are() -> None:
    one = DetectedObject("\u5de5\u4e8b", 0.9, (2.0, 0.0, 30.0, 20.0))
    Path("drawn").mkdir()
    picture = opened(draw_found(Detected("a.png", (90, 120), (one,)), Path("drawn"), set()))
    assert len(coloured(picture, YELLOW)) > 150
    tag = np.asarray(picture)[:13, 3:30]
    assert (tag[..., 0] < 100).any()  # letters


def test_each_kind_of_error_has_a_row() -> None:
    true = boxed((10, 10, 30, 30, 0), (60, 10, 118, 68, 0), (10, 60, 30, 80, 1))
    seen = found((10, 60, 30, 80, 0, 0.9), (90, 70, 110, 88, 0, 0.8))
    rows = 4  # small and medium ones missed, one under another name, false alarms
    assert save_misses("sheet.png", [true], [matched(seen, true, threshold=0.5)])
    picture = opened("sheet.png")
    assert picture.height == rows * (CROP + 2)
    assert len(coloured(picture, BLUE)) > 0
    assert len(coloured(picture, YELLOW)) > 0
    right = boxed((10, 10, 30, 30, 0))
    assert save_misses("sheet.png", [right], [matched(found((10, 10, 30, 30, 0, 0.9)), right, threshold=0.5)])
    assert opened("sheet.png").height == CROP + 2


def test_no_boxes_on_either_side_make_no_sheet() -> None:
    assert not save_misses("sheet.png", [boxed()], [matched(found(), boxed(), threshold=0.5)])
    assert not Path("sheet.png").exists()


def test_many_misses_are_shown_evenly_spaced() -> None:
    true = boxed(*((4 * place, 4 * place, 4 * place + 3, 4 * place + 3, 0) for place in range(2 * COLUMNS)))
    assert save_misses("sheet.png", [true], [matched(found(), true, threshold=0.5)])
    assert opened("sheet.png").width > COLUMNS * CROP
