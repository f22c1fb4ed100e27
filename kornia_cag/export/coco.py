"""COCO: a folder of pictures and one JSON file, with masks as run lengths."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from kornia_cag.export.pictures import Entries, FilesApart, Picture, encoded
from kornia_cag.export.rle import rle


@dataclass(frozen=True)
class Coco(FilesApart):
    """COCO's format for detection and segmentation: ``images/`` and ``annotations.json``.

    Categories count from 1 in the order of the classes, images and annotations from 1 in theirs. A mask is that of the
    visible part, as compressed run lengths, which lose nothing; ``area`` is its number of pixels. Every annotation also
    has ``visible_share``, the uncovered share of the object on the canvas.

    Attributes:
        image: format of the pictures.
        quality: of JPEG, units of 1 to 100.
        masks: whether annotations have masks, beside boxes.
    """

    _: KW_ONLY
    masks: bool = True

    def files(self, picture: Picture, classes: Sequence[str]) -> tuple[list[tuple[str, bytes]], Any]:
        """The picture, and what is known about it."""
        name, data = encoded(picture, self.image, self.quality)
        height, width = picture.image.shape[:2]
        about = {"id": picture.number + 1, "file_name": name, "width": width, "height": height}
        found = []
        for box, label, share, mask in zip(picture.boxes, picture.labels, picture.share, picture.masks, strict=True):
            x1, y1, x2, y2 = (float(side) for side in box)
            one: dict[str, Any] = {"image_id": picture.number + 1, "category_id": int(label) + 1,
                                   "bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(mask.sum()),
                                   "iscrowd": 0, "visible_share": round(float(share), 4)}  # fmt: skip
            found.append({**one, "segmentation": rle(mask)} if self.masks else one)
        return [(f"images/{name}", data)], {"image": about, "annotations": found}

    def finish(self, entries: Entries, classes: Sequence[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The annotations of all pictures."""
        yield "annotations.json", _annotations(entries, classes)


def _annotations(entries: Entries, classes: Sequence[str]) -> Iterator[bytes]:
    """The file in pieces: a million annotations are never in memory together."""
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    yield b'{"categories": ' + json.dumps(categories, ensure_ascii=False).encode() + b',\n"images": ['
    yield from _listed(entry["image"] for entry in entries())
    yield b'],\n"annotations": ['
    found = (one for entry in entries() for one in entry["annotations"])
    yield from _listed({"id": number, **one} for number, one in enumerate(found, 1))
    yield b"]}\n"


def _listed(values: Iterable[Any]) -> Iterator[bytes]:
    for place, value in enumerate(values):
        yield (b",\n" if place else b"\n") + json.dumps(value).encode()
