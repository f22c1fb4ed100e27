"""Real pictures with boxes around their objects: a table as of GTSDB, COCO's JSON, or YOLO's text files.

Used only for measuring, like everything in :mod:`~kornia_cag.evaluation.real`. Pictures are not read here, but for the
headers that tell their sizes.

Convention: boxes are half-open ``xyxy``, pixels, of the picture as a viewer shows it.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from PIL import ExifTags, Image
from torch import Tensor

from kornia_cag.banks.folders import find_pictures
from kornia_cag.banks.pictures import FORMATS, check_path, kind_of, refusing, system_reason, way_in
from kornia_cag.core.checks import InputError, check_instance, describe, fail, first_few

KINDS = "a table, COCO's JSON, or a folder of YOLO's text files"
COLUMNS = ("file", "x1", "y1", "x2", "y2", "label")
_BOX = re.compile(r"\S+(\s+[-+.\de]+){4}", re.IGNORECASE)  # a line of YOLO's
TOLD = (".csv", ".json", ".txt")  # endings of what may lie among the pictures
SLACK = 1.0  # pixels that a box may reach beyond its picture: tools round


@dataclass(frozen=True)
class Boxed:
    """A picture and the boxes of its objects.

    Attributes:
        path: the file.
        size: ``(height, width)``, pixels.
        boxes: (n, 4); pixels.
        labels: (n,); classes.
        crowd: (n,); boxes around many objects, which need not be found one by one.
    """

    path: Path
    size: tuple[int, int]
    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    crowd: Bool[Tensor, " n"]


@dataclass(frozen=True)
class BoxedSet:
    """Pictures with boxes, some without any, and the names of the classes."""

    pictures: tuple[Boxed, ...]
    classes: tuple[str, ...]
    name: str

    @property
    def to_find(self) -> int:
        """Number of boxes of single objects; crowds need not be found."""
        return sum(int((~picture.crowd).sum()) for picture in self.pictures)

    def as_one(self, name: str) -> "BoxedSet":
        """The same boxes, all of one class: to measure whether objects are found, whatever they are called."""
        pictures = tuple(replace(one, labels=torch.zeros_like(one.labels)) for one in self.pictures)
        return BoxedSet(pictures, (name,), self.name)

    def __len__(self) -> int:
        return len(self.pictures)


class _Row(NamedTuple):
    """A box as a file has it."""

    where: str  # file and place in it, for errors
    file: str
    box: tuple[float, ...]  # left, top, right, bottom
    label: str
    whole: bool = True  # of one object, not of a crowd
    shares: bool = False  # of the picture's sides, instead of pixels


def load_boxes(
    folder: str | Path, boxes: str | Path, classes: tuple[str, ...], *, names: Mapping[str, str] | None = None
) -> BoxedSet:
    """Read which pictures a folder holds, and the boxes that a file, or another folder, tells of them.

    A label is a class's name or its number; for classes that are named by numbers, that number, however it is written
    (``11`` is ``00011``), for others their place from 0.

    Args:
        folder: the pictures, in it and below.
        boxes: one of three. A table with the columns ``file, x1, y1, x2, y2, label``, with these names above them or
            without, separated by commas or semicolons, as GTSDB has it; pictures that it does not name show nothing.
            COCO's JSON; its ``images`` are the pictures, its categories go by their names. A folder with a text file
            for each picture, as of YOLO, whose lines are ``label x y width height``, centre and sides as shares of the
            picture; pictures without one show nothing, and ``classes.txt`` there may hold a name for each label.
            Other texts without boxes, such as a ``README.txt``, are left alone.
        classes: class names, in order, such as those of an :class:`~kornia_cag.ObjectBank`.
        names: classes of labels that are none: ``{"stop sign": "00014"}``.

    Raises:
        InputError: naming file and line, for what is none of these, for labels that are no classes, for boxes that are
            empty or lie beside their picture, and for pictures that are not there.
    """
    folder, source = check_path("folder", folder), check_path("boxes", boxes)
    check_instance("names", names, (Mapping, type(None)))
    paths = {path.relative_to(folder).as_posix(): path for path in _pictures(folder)}
    kind = kind_of(source)
    if kind == "folder":
        rows = list(_yolo(source, paths))
    elif kind == "file" and source.suffix.lower() == ".json":
        paths, rows = _coco(source, paths)
    elif kind == "file":
        rows = list(_table(source))
    else:
        fail("boxes", KINDS, f"{str(source)!r}, which is neither file nor folder", "Check the path.")
    if not rows:
        fail(str(source), "at least one box", "none", "Check that it belongs to these pictures.")
    return BoxedSet(_gathered(paths, rows, _ids(classes, names or {})), classes, folder.name)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, among which files with boxes may lie."""
    pictures, others = find_pictures(folder)
    for path, reason in others:
        if path.suffix.lower() not in TOLD:
            raise InputError(f"{path}: {reason}", str(path))
    return pictures


def _ids(classes: Sequence[str], names: Mapping[str, str]) -> dict[str, int]:
    """Class of every label; numbers as they are written without zeros before them."""
    numbered = all(name.isdecimal() for name in classes)
    ids = {str(int(name) if numbered else place): place for place, name in enumerate(classes)}
    ids |= {name: place for place, name in enumerate(classes)}
    for label, name in names.items():
        if name not in classes:
            fail("names", "labels, each with the name of a class", f"{label!r} with {name!r}",
                 f"Classes are {first_few(list(classes))}.")  # fmt: skip
    return ids | {label: ids[name] for label, name in names.items()}


def _gathered(paths: Mapping[str, Path], rows: Sequence[_Row], ids: Mapping[str, int]) -> tuple[Boxed, ...]:
    """The boxes of every picture, checked against its size."""
    found: dict[str, list[_Row]] = {name: [] for name in paths}
    for row in rows:
        if row.file not in found:
            fail(row.where, "a picture in the folder", f"{row.file!r}, which is not there",
                 f"There are {first_few(list(paths))}.")  # fmt: skip
        found[row.file].append(row)
    return tuple(_boxed(paths[name], own, ids) for name, own in found.items())


def _boxed(path: Path, rows: Sequence[_Row], ids: Mapping[str, int]) -> Boxed:
    height, width = size = _size(path)
    boxes, labels = [], []
    for row in rows:
        left, top, right, bottom = box = [
            place * (side if row.shares else 1) for place, side in zip(row.box, (width, height) * 2, strict=True)
        ]
        if not (left < right and top < bottom):
            fail(row.where, "a box whose right and bottom come after its left and top", _text(box))
        if not (left > -SLACK and top > -SLACK and right < width + SLACK and bottom < height + SLACK):
            fail(row.where, f"a box inside its picture of {width} x {height}", _text(box),
                 "Check that boxes and pictures have the same scale.")  # fmt: skip
        label = str(int(row.label)) if row.label.isdecimal() and row.label not in ids else row.label
        if label not in ids:
            fail(row.where, "a class, or its number", repr(row.label),
                 f"Classes are {first_few([name for name in ids if not name.isdecimal()] or list(ids))}; "
                 "names={label: class} says what other labels are.")  # fmt: skip
        boxes.append(box)
        labels.append(ids[label])
    return Boxed(
        path,
        size,
        torch.tensor(boxes, dtype=torch.float32, device="cpu").view(-1, 4),
        torch.tensor(labels, dtype=torch.int64, device="cpu"),
        torch.tensor([not row.whole for row in rows], dtype=torch.bool, device="cpu"),
    )


def _text(box: Sequence[float]) -> str:
    return ", ".join(f"{place:g}" for place in box)


def _size(path: Path) -> tuple[int, int]:
    """Height and width of a picture as it is shown, from its header."""
    Image.init()
    with refusing(str(path)), Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]


def _numbers(where: str, texts: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(text) for text in texts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        fail(where, "four numbers for a box", describe(texts))
    return numbers


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not empty, and where they stand."""
    for number, line in enumerate(_content(path).splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        fail(str(path), "a file that can be read", system_reason(error), way_in(error))
    except UnicodeDecodeError as error:
        fail(str(path), "text in UTF-8", f"the byte 0x{error.object[error.start]:02x}")


def _table(path: Path) -> Iterator[_Row]:
    order = list(range(len(COLUMNS)))
    for number, (where, line) in enumerate(_lines(path)):
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=";" if ";" in line else ","))]
        if number == 0 and set(COLUMNS) <= set(cells):
            order = [cells.index(name) for name in COLUMNS]
            continue
        if len(cells) <= max(order):
            fail(where, "the columns " + ", ".join(COLUMNS), describe(line))
        file, *box, label = (cells[column] for column in order)
        yield _Row(where, file, _numbers(where, box), label)


def _yolo(folder: Path, paths: Mapping[str, Path]) -> Iterator[_Row]:
    pictures: dict[str, list[str]] = {}
    for name in paths:
        pictures.setdefault(PurePosixPath(name).with_suffix("").as_posix(), []).append(name)
    listed = folder / "classes.txt"
    names = [line.strip() for _, line in _lines(listed)] if kind_of(listed) == "file" else []
    for path in sorted(folder.rglob("*.txt")):
        if path == listed:
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem not in pictures and not any(_BOX.fullmatch(line.strip()) for _, line in _lines(path)):
            continue  # README.txt and the like
        file, *others = pictures.get(stem, [stem])
        if others:
            fail(str(path), "boxes of one picture", f"those of {file} and {others[0]}", "Rename one of them.")
        for where, line in _lines(path):
            label, *cells = line.split()
            x, y, width, height = _numbers(where, cells)
            if label.isdecimal() and int(label) < len(names):
                label = names[int(label)]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            yield _Row(where, file, box, label, shares=True)


def _coco(path: Path, paths: Mapping[str, Path]) -> tuple[dict[str, Path], list[_Row]]:
    """The pictures that COCO's JSON names, and their boxes."""
    content = _content(path)
    try:
        told = json.loads(content)
        files = {image["id"]: str(image["file_name"]) for image in told["images"]}
        categories = {category["id"]: str(category["name"]) for category in told["categories"]}
        entries = [(f"{path}, annotation {one.get('id', place)}", one["bbox"], one["image_id"], one["category_id"],
                    not one.get("iscrowd", 0)) for place, one in enumerate(told["annotations"])]  # fmt: skip
    except Exception as error:  # whatever other shapes of JSON make of it
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        fail(str(path), "COCO's JSON, with images, categories and annotations", f"another file ({reason})")
    for name in files.values():
        if name not in paths:
            fail(str(path), "pictures in the folder", f"{name!r}, which is not there",
                 f"There are {first_few(list(paths))}.")  # fmt: skip
    rows = []
    for where, sides, image, category, whole in entries:
        for kind, one, known in (("image", image, files), ("category", category, categories)):
            if one not in known:
                fail(where, f"one of {'an' if kind == 'image' else 'a'} {kind} that is listed", f"{kind} {one}")
        x, y, width, height = _numbers(where, sides)
        rows.append(_Row(where, files[image], (x, y, x + width, y + height), categories[category], whole))
    return {name: paths[name] for name in files.values()}, rows
