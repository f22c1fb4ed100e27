"""One composite with its targets on the host, and the interface of formats that write it."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image

from kornia_cag.core.checks import check_choice, check_int
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.detections import detection_targets

Encoding = Literal["png", "jpeg"]
Entries = Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Picture:
    """One composite, as formats write it.

    Attributes:
        number: its number in the data set, from 0.
        image: (h, w, 3); sRGB.
        classes: (K,); classes of all layers, from back to front, whether to be found or not.
        boxes: (n, 4); of the objects to be found, half-open xyxy, pixels.
        labels: (n,); their classes.
        share: (n,); the uncovered share of each, in [0, 1].
        masks: (n, h, w); which pixels show each of them.
    """

    number: int
    image: UInt8[np.ndarray, "h w 3"]
    classes: Int64[np.ndarray, " k"]
    boxes: Float[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    share: Float[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]

    @property
    def name(self) -> str:
        """The name of its files, without what follows the dot."""
        return f"{self.number:08d}"


@runtime_checkable
class Format(Protocol):
    """A format of files: a frozen dataclass, so that its ``repr`` says all that it depends on.

    A data set is written part by part, and a part is one batch or several. Whatever is written is a function of the
    part, so that a data set that was stopped and resumed has the same bytes.

    Attributes:
        batches: how many batches are one part.
    """

    @property
    def batches(self) -> int:
        """How many batches are one part."""
        ...

    def check(self, classes: Sequence[str]) -> None:
        """Refuse names of classes that the format cannot hold, before anything is written."""
        ...

    def files(self, picture: Picture, classes: Sequence[str]) -> tuple[list[tuple[str, bytes]], Any]:
        """The files of one picture, by their paths in the folder, and its entry: plain data for :meth:`finish`."""
        ...

    def gathered(self, part: int, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """The files of one part, of those of its pictures."""
        ...

    def finish(self, entries: Entries, classes: Sequence[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Files about the whole data set, each in pieces; ``entries()`` gives the entries of all pictures in order."""
        ...


def pictures_of(batch: Batch, first: int, count: int, min_visible: float) -> list[Picture]:
    """The first ``count`` composites of a batch, the first of them with number ``first``; waits for the device."""
    images = batch.images[:count]
    pixels = images if not images.is_floating_point() else (images.float() * 255).round().clamp(0, 255).byte()
    host = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    layers = batch.targets.labels[:count].cpu().numpy()
    dicts = detection_targets(batch, first_label=0, min_visible=min_visible)[:count]
    found = [{name: value.cpu().numpy() for name, value in one.items()} for one in dicts]
    return [Picture(first + place, host[place], layers[place], one["boxes"], one["labels"], one["share"], one["masks"])
            for place, one in enumerate(found)]  # fmt: skip


def check_encoding(image: Any, quality: Any) -> None:
    """Require an image format that can be written, and a JPEG quality."""
    check_choice("image", image, ("png", "jpeg"))
    check_int("quality", quality, 1, 100)


def encoded(picture: Picture, image: Encoding, quality: int) -> tuple[str, bytes]:
    """The file name of a picture and its bytes."""
    file, ending = io.BytesIO(), {"png": "png", "jpeg": "jpg"}[image]
    options: dict[str, Any] = {"quality": quality, "subsampling": 0} if image == "jpeg" else {"compress_level": 6}
    Image.fromarray(picture.image).save(file, image.upper(), **options)
    return f"{picture.name}.{ending}", file.getvalue()


@dataclass(frozen=True)
class FilesApart:
    """What formats have in common that keep a file for each picture: a part is one batch, and any class has a name.

    Attributes:
        image: format of the pictures.
        quality: of JPEG, units of 1 to 100.
    """

    image: Encoding = "png"
    _: KW_ONLY
    quality: int = 95

    def __post_init__(self) -> None:
        check_encoding(self.image, self.quality)

    @property
    def batches(self) -> int:
        """How many batches are one part."""
        return 1

    def check(self, classes: Sequence[str]) -> None:
        """Any names will do."""

    def gathered(self, part: int, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """The files of the pictures, whichever part they are of."""
        return files
