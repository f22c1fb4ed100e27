import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.evaluation.boxes import load_boxes

CLASSES = ("stop", "give way", "no entry")
NUMBERED = ("00000", "00010", "00011")
PICTURES = ("a.png", "b.png", "c/d.jpg")  # 40 wide, 20 high


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    for name in PICTURES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(place / name)
    return place


def table(tmp_path, text, name="boxes.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def coco(tmp_path, **changes):
    told = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "c/d.jpg"}],
        "categories": [{"id": 1, "name": "give way"}, {"id": 5, "name": "stop"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 5, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [10, 2, 20, 15], "iscrowd": 1},
        ],
    }
    return table(tmp_path, json.dumps(told | changes), "boxes.json")


def yolo(tmp_path, **files):
    (tmp_path / "labels" / "c").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "labels" / name.replace("_", "/")).with_suffix(".txt").write_text(text)
    return tmp_path / "labels"


def told(real):
    """All that was read, in plain numbers."""
    return [(one.path.name, one.boxes.tolist(), one.labels.tolist(), one.crowd.tolist()) for one in real.pictures]


TABLE = "a.png,1,2,4.5,6,0\na.png,10,2,30,17,give way\nc/d.jpg,0,0,40,20,2\n"
WANTED = [
    ("a.png", [[1, 2, 4.5, 6], [10, 2, 30, 17]], [0, 1], [False, False]),
    ("b.png", [], [], []),
    ("d.jpg", [[0, 0, 40, 20]], [2], [False]),
]


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "file,x1,y1,x2,y2,label\n" + TABLE,
        TABLE.replace(",", ";"),
        "label, note, x1, y1, x2, y2, file\n"
        "stop,,1,2,4.5,6,a.png\n\ngive way,n/a,10,2,30,17,a.png\nno entry,,0,0,40,20,c/d.jpg",
    ],
)
def test_a_table(folder, tmp_path, text):
    real = load_boxes(folder, table(tmp_path, text), CLASSES)
    assert told(real) == WANTED
    assert (real.name, real.classes, len(real)) == ("photos", CLASSES, 3)
    assert {one.size for one in real.pictures} == {(20, 40)}
    first = real.pictures[1]  # of a picture that shows nothing
    assert (first.boxes.shape, first.boxes.dtype, first.labels.dtype) == ((0, 4), torch.float32, torch.int64)


def test_coco(folder, tmp_path):
    """Its pictures are those that it lists; categories go by name, whatever their ids."""
    real = load_boxes(str(folder), str(coco(tmp_path)), CLASSES)
    assert told(real) == [
        ("a.png", [], [], []),
        ("d.jpg", [[1, 2, 4.5, 6], [10, 2, 30, 17]], [0, 1], [False, True]),
    ]


def test_yolo(folder, tmp_path):
    source = yolo(tmp_path, a="0 0.06875 0.2 0.0875 0.2\n1 .5 .475 .5 .75\n", c_d="2 0.5 0.5 1 1\n", b="")
    real = load_boxes(folder, source, CLASSES)
    assert [one.path.name for one in real.pictures] == ["a.png", "b.png", "d.jpg"]
    for one, (_, boxes, labels, _) in zip(real.pictures, WANTED, strict=True):
        torch.testing.assert_close(one.boxes, torch.tensor(boxes, dtype=torch.float32).view(-1, 4))
        assert one.labels.tolist() == labels


def test_a_text_about_something_else_lies_beside_yolo_s(folder, tmp_path):
    source = yolo(tmp_path, a="0 .5 .5 .5 .5", README="Five words in a line\nof a text.", notes="")
    assert sum(len(picture.boxes) for picture in load_boxes(folder, source, CLASSES).pictures) == 1


def test_names_of_yolo_s_numbers(folder, tmp_path):
    source = yolo(tmp_path, a="1 .5 .5 .5 .5", classes="no entry\nstop\n")
    assert load_boxes(folder, source, CLASSES).pictures[0].labels.tolist() == [0]


@pytest.mark.parametrize(("label", "wanted"), [("11", 2), ("00011", 2), ("10", 1), ("0", 0)])
def test_numbered_classes_go_by_their_number(folder, tmp_path, label, wanted):
    real = load_boxes(folder, table(tmp_path, f"a.png,1,2,4,6,{label}"), NUMBERED)
    assert real.pictures[0].labels.tolist() == [wanted]


def test_other_names(folder, tmp_path):
    source = table(tmp_path, "a.png,1,2,4,6,octagon\na.png,1,2,4,6,14")
    real = load_boxes(folder, source, CLASSES, names={"octagon": "stop", "14": "no entry"})
    assert real.pictures[0].labels.tolist() == [0, 2]
    with pytest.raises(InputError, match="names: expected labels, each with the name of a class, got '14' with 'halt'"):
        load_boxes(folder, source, CLASSES, names={"14": "halt"})


def test_all_as_one_class(folder, tmp_path):
    real = load_boxes(folder, table(tmp_path, TABLE), CLASSES)
    one = real.as_one("sign")
    assert one.classes == ("sign",)
    assert [part.labels.tolist() for part in one.pictures] == [[0, 0], [], [0]]
    assert torch.equal(one.pictures[0].boxes, real.pictures[0].boxes)
    assert replace(real, pictures=real.pictures[:1]).as_one("sign").pictures[0].path == folder / "a.png"


def test_a_turned_picture_has_the_sides_that_a_viewer_shows(folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "c" / "d.jpg", exif=exif)
    assert load_boxes(folder, table(tmp_path, "c/d.jpg,0,0,20,40,0"), CLASSES).pictures[2].size == (40, 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"boxes\.csv: expected at least one box, got none\. Check that it belongs to these pictures"),
        (
            "a.png,1,2,4,6",
            r"boxes\.csv, line 1: expected the columns file, x1, y1, x2, y2, label, got 'a\.png,1",
        ),
        (
            TABLE + "\na.png,1,2,x,6,0",
            r"line 5: expected four numbers for a box, got \['1', '2', 'x', '6'\]",
        ),
        ("a.png,1,2,nan,6,0", "line 1: expected four numbers"),
        (
            "z.png,1,2,4,6,0",
            r"line 1: expected a picture in the folder, got 'z\.png', .* There are a\.png, b",
        ),
        (
            "a.png,4,2,1,6,0",
            "line 1: expected a box whose right and bottom come .*, got 4, 2, 1, 6",
        ),
        ("a.png,1,2,1,6,0", "line 1: expected a box whose right"),
        (
            "a.png,1,2,80,6,0",
            "line 1: expected a box inside its picture of 40 x 20, got 1, 2, 80, 6. Check",
        ),
        ("a.png,1,2,4,6,3", "line 1: expected a class, or its number, got '3'. Classes are stop, give way, no entry"),
        ("a.png,1,2,4,6,halt", "line 1: expected a class, or its number, got 'halt'"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(folder, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_boxes(folder, table(tmp_path, text), CLASSES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 9, "file_name": "z.png"}]}, r"boxes\.json: expected pictures in the folder, got 'z\.png'"),
        ({"images": []}, r"boxes\.json, annotation 1: expected one of an image that is listed, got image 9"),
        ({"categories": []}, r"boxes\.json, annotation 1: expected one of a category that is listed, got category 5"),
        ({"annotations": {}}, r"boxes\.json: expected at least one box"),
        ({"annotations": [{"id": 3, "image_id": 9}]}, r"boxes\.json: expected COCO's JSON, .* \(KeyError: 'bbox'\)"),
        ({"annotations": [{"id": 3, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3]}]},
         r"annotation 3: expected four numbers for a box, got \[1, 2, 3\]"),
        ({"categories": [{"id": 1, "name": "halt"}, {"id": 5, "name": "stop"}]},
         r"annotation 2: expected a class, or its number, got 'halt'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_coco_s_json_is_named(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_boxes(folder, coco(tmp_path, **changes), CLASSES)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": 3}'])
def test_other_json(folder, tmp_path, text):
    with pytest.raises(InputError, match=r"boxes\.json: expected COCO's JSON, with images, categories and annotations"):
        load_boxes(folder, table(tmp_path, text, "boxes.json"), CLASSES)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"z": "0 .5 .5 .5 .5"}, r"z\.txt, line 1: expected a picture in the folder, got 'z'"),
        ({"a": "0 .5 .5 .5"}, r"a\.txt, line 1: expected four numbers for a box"),
        ({"a": "0 .5 .5 .5 .5 .9"}, r"a\.txt, line 1: expected four numbers for a box"),
        ({"a": "0 20 10 8 8"}, r"a\.txt, line 1: expected a box inside its picture of 40 x 20, got 640, 120, 960, 280"),
        ({"a": ""}, "labels: expected at least one box, got none"),
    ],
)
def test_what_is_wrong_with_yolo_s_files_is_named(folder, tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        load_boxes(folder, yolo(tmp_path, **files), CLASSES)


def test_pictures_that_differ_only_in_suffix_share_no_file_of_boxes(folder, tmp_path):
    Image.new("RGB", (40, 20)).save(folder / "a.jpg")
    with pytest.raises(InputError, match=r"a\.txt: expected boxes of one picture, got those of a\.jpg and a\.png"):
        load_boxes(folder, yolo(tmp_path, a="0 .5 .5 .5 .5"), CLASSES)


def test_files_that_are_none(folder, tmp_path):
    with pytest.raises(InputError, match=r"boxes: expected a table, COCO's JSON, or a folder .*nothing.csv"):
        load_boxes(folder, tmp_path / "nothing.csv", CLASSES)
    (tmp_path / "boxes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"boxes\.csv: expected text in UTF-8, got the byte 0xff"):
        load_boxes(folder, tmp_path / "boxes.csv", CLASSES)
    (folder / "b.png").write_text("no picture")
    with pytest.raises(InputError, match=r"b\.png: expected a picture"):
        load_boxes(folder, table(tmp_path, TABLE), CLASSES)


def test_the_german_traffic_sign_detection_benchmark(data):
    classes = tuple(f"{number:05}" for number in range(43))
    real = load_boxes(data / "real" / "gtsdb_dev", data / "real" / "gtsdb_dev.csv", classes)
    assert len(real) == 600
    assert {one.size for one in real.pictures} == {(800, 1360)}
    assert sum(len(one.boxes) for one in real.pictures) == 852
    assert sum(not len(one.boxes) for one in real.pictures) == 94
    assert real.pictures[0].boxes.tolist() == [[774, 411, 815, 446]]
    assert real.pictures[0].labels.tolist() == [11]
