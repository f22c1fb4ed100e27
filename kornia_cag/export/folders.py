"""Formats of one small file a picture: YOLO's boxes, and a folder for each class."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kornia_cag.core.checks import fail
from kornia_cag.export.pictures import Entries, FilesApart, Picture, encoded


@dataclass(frozen=True)
class Yolo(FilesApart):
    """YOLO's format for detection: ``images/``, ``labels/`` with a text file for each picture, and ``data.yaml``.

    A line has the class, counted from 0, and the middle and sides of its box as shares of the picture's. A picture
    without objects has an empty file. Masks are left out: the format's polygons can hold neither holes nor parts.
    ``data.yaml`` names this data set as ``train``; ``val`` is for you to add, real pictures if you can.

    Attributes:
        image: format of the pictures.
        quality: of JPEG, units of 1 to 100.
    """

    def files(self, picture: Picture, classes: Sequence[str]) -> tuple[list[tuple[str, bytes]], Any]:
        """The picture and its boxes."""
        name, data = encoded(picture, self.image, self.quality)
        height, width = picture.image.shape[:2]
        lines = []
        for (x1, y1, x2, y2), label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True):
            numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            lines.append(" ".join([str(label), *(f"{number:.7f}" for number in numbers)]) + "\n")
        return [(f"images/{name}", data), (f"labels/{picture.name}.txt", "".join(lines).encode())], None

    def finish(self, entries: Entries, classes: Sequence[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The names of the classes: YAML, whose strings may be those of JSON."""
        names = "".join(f"  {label}: {json.dumps(name)}\n" for label, name in enumerate(classes))
        yield "data.yaml", [f"train: images\nnames:\n{names}".encode()]


@dataclass(frozen=True)
class ClassFolders(FilesApart):
    """A folder of pictures for each class, as ``ImageFolder`` of torchvision and others read it; one object a picture.

    Such readers number classes by the order of their names.

    Attributes:
        image: format of the pictures.
        quality: of JPEG, units of 1 to 100.
    """

    def check(self, classes: Sequence[str]) -> None:
        """Names must be names of folders, and different ones even where case does not count."""
        for name in classes:
            if not name or name.startswith(".") or set(name) & set('/\\\0:*?"<>|') or name != name.strip():
                fail("classes", "names that folders can have", repr(name), "Rename it, or write another format.")
        if len({name.casefold() for name in classes}) < len(classes):
            fail("classes", "names that differ by more than upper and lower case", repr(list(classes)), "Rename one.")

    def files(self, picture: Picture, classes: Sequence[str]) -> tuple[list[tuple[str, bytes]], Any]:
        """The picture in its class's folder."""
        if len(picture.classes) != 1 or picture.classes[0] < 0:
            fail("pairs", "one object with a label per sample for folders of classes",
                 f"classes {picture.classes.tolist()}", "Write Coco() or Yolo().")  # fmt: skip
        name, data = encoded(picture, self.image, self.quality)
        return [(f"{classes[picture.classes[0]]}/{name}", data)], None

    def finish(self, entries: Entries, classes: Sequence[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Nothing is said about the whole."""
        return iter(())
