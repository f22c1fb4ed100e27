"""Tar files of pictures and their targets, as webdataset and its like stream them."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from kornia_cag.core.checks import check_int
from kornia_cag.export.pictures import Encoding, Entries, Picture, check_encoding, encoded
from kornia_cag.export.rle import rle


@dataclass(frozen=True)
class Shards:
    """Tar files ``shard-000000.tar``, …: of each picture its file, and a JSON file of the same name.

    The JSON has ``classes`` of all layers, from back to front, and of the objects to be found ``labels``, ``boxes``
    (half-open xyxy, pixels), ``share`` and ``masks`` (COCO's compressed run lengths).

    Attributes:
        image: format of the pictures.
        quality: of JPEG, units of 1 to 100.
        batches: number of batches in a shard, which is held in memory until it is written.
    """

    image: Encoding = "jpeg"
    _: KW_ONLY
    quality: int = 95
    batches: int = 16

    def __post_init__(self) -> None:
        check_encoding(self.image, self.quality)
        check_int("batches", self.batches)

    def check(self, classes: Sequence[str]) -> None:
        """Any names will do."""

    def files(self, picture: Picture, classes: Sequence[str]) -> tuple[list[tuple[str, bytes]], Any]:
        """The picture and its targets."""
        known = {
            "classes": picture.classes.tolist(), "labels": picture.labels.tolist(), "boxes": picture.boxes.tolist(),
            "share": [round(share, 4) for share in picture.share.tolist()], "masks": [rle(m) for m in picture.masks],
        }  # fmt: skip
        return [encoded(picture, self.image, self.quality), (f"{picture.name}.json", json.dumps(known).encode())], None

    def gathered(self, part: int, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """All of a part in one tar file, whose headers hold no time and no owner."""
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in files:
                about = tarfile.TarInfo(name)
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
        return [(f"shard-{part:06d}.tar", written.getvalue())]

    def finish(self, entries: Entries, classes: Sequence[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The names of the classes."""
        yield "classes.json", [json.dumps(list(classes), ensure_ascii=False).encode() + b"\n"]
