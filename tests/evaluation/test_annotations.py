"""Boxes are found where people keep them, and never guessed at."""

from pathlib import Path

import pytest
from PIL import Image

from kornia_cag import InputError
from kornia_cag.evaluation.annotations import find_boxes
from kornia_cag.evaluation.boxes import load_boxes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in ``images/val``."""
    place = tmp_path / "images" / "val"
    place.mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(place / f"{name}.png")
    return place


def told(path: Path, text: str = "a.png,1,2,11,22,0\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_table_in_the_folder_comes_before_one_beside_it(folder: Path) -> None:
    beside = told(folder.parent / "val.csv")
    assert find_boxes(folder) == beside
    inside = told(folder / "boxes.csv")
    assert find_boxes(folder) == inside
    real = load_boxes(folder, inside, ("sign",))
    assert [len(picture.boxes) for picture in real.pictures] == [1, 0]


def test_texts_of_yolo_lie_among_the_pictures_or_in_labels(folder: Path) -> None:
    told(folder.parents[1] / "labels" / "val" / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    assert find_boxes(folder) == folder.parents[1] / "labels" / "val"
    told(folder / "classes.txt", "sign\n")
    assert find_boxes(folder) == folder.parents[1] / "labels" / "val"
    told(folder / "README.txt", "Photographs of streets.\n")
    assert find_boxes(folder) == folder.parents[1] / "labels" / "val"
    (folder / "README.txt").unlink()
    told(folder / "b.txt", "0 0.5 0.5 0.5 0.5\n")
    assert find_boxes(folder) == folder
    (first, second) = load_boxes(folder, folder, ("sign",)).pictures
    assert (len(first.boxes), second.boxes.tolist()) == (0, [[10.0, 7.5, 30.0, 22.5]])


def test_two_tables_are_one_too_many(folder: Path) -> None:
    told(folder / "a.csv")
    told(folder / "b.json")
    with pytest.raises(
        InputError, match=r"^real: expected one file with boxes .* got a\.csv and b\.json\. Pass one of them as boxes"
    ):
        find_boxes(folder)


def test_none_is_said_with_what_would_do(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^real: expected boxes for its pictures: a \.csv or \.json in it or beside"):
        find_boxes(folder)
    with pytest.raises(InputError, match=r"^real: expected a folder of pictures, got '.*a\.png', which is none"):
        find_boxes(folder / "a.png")


def test_what_is_neither_picture_nor_box_is_refused_still(folder: Path) -> None:
    table = told(folder / "boxes.csv")
    told(folder / "notes.docx", "x")
    with pytest.raises(InputError, match=r"notes\.docx: expected a picture file"):
        load_boxes(folder, table, ("sign",))
