"""How fine a bank is: what ``size="auto"`` means, and a word where a canvas asks for more than a bank has."""

import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from kornia_cag.banks.pictures import FORMATS
from kornia_cag.banks.pyramid import check_texels

Size = int | Literal["auto"]
Sides = tuple[int, int]  # of a picture, pixels

SMALLEST, LARGEST = 64, 512  # that "auto" chooses, texels a side
GLYPHS, MADE = 256, 128  # "auto" for what has no pixels of its own; made contexts are soft, many, and slow to make
MEMORY = 2**30  # bytes that a bank with "auto" takes at most, as long as it is not at its smallest
SOFT = 1.25  # enlarged beyond this, a picture looks blurred


def chosen_texels(size: Size, wanted: float, count: int) -> int:
    """``size`` itself, or for ``"auto"`` what holds ``wanted`` texels a side for a bank of ``count`` pictures.

    Raises:
        InputError: for anything else than a power of two from 8 to 4096.
    """
    if size != "auto":
        return check_texels("size", size)
    side = SMALLEST
    while side < min(wanted, LARGEST):
        side *= 2
    while side > SMALLEST and count * _bytes(side) > MEMORY:
        side //= 2
    return side


def for_objects(longest: Sequence[float]) -> float:
    """Texels a side that keep the pixels of every object, from their longest sides in pixels."""
    return max(longest, default=SMALLEST) / EXTENT


def for_contexts(sides: Sequence[Sides]) -> float:
    """Texels a side that keep the pixels of half of the contexts: one huge photograph does not decide."""
    return statistics.median_high([min(pair) for pair in sides]) if sides else SMALLEST


def file_sides(paths: Sequence[Path]) -> list[Sides]:
    """Sides of picture files by their headers; which of the two is the width is left open, since EXIF may turn it.

    What cannot be opened is passed over here: reading it will say why.
    """
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    found: list[Sides] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of sizes that the reader refuses
        for path in paths:
            try:
                if path.is_file():  # a pipe would keep the reader waiting
                    with Image.open(path, formats=formats) as picture:
                        found.append(picture.size)
            except Exception:  # damaged headers make decoders raise nearly anything
                continue
    return found


def warn_if_soft(kind: str, size: int, seen: float, texels: float, stacklevel: int) -> None:
    """Warn of a bank whose pictures the canvas enlarges so much that they look blurred.

    Args:
        kind: the bank, as the user calls it.
        size: of the bank, texels a side.
        seen: pixels of the canvas that its pictures may cover.
        texels: that they have for it.
        stacklevel: of the user's line, this function being 1.
    """
    if seen <= SOFT * texels:
        return
    better = size
    while better * texels / size < seen and better < 4096:
        better *= 2
    warnings.warn(
        f"{kind}: the bank holds {size} x {size} pixels a picture, {texels:.0f} of which this canvas enlarges to up to "
        f"{seen:.0f}: they will look soft. Build it with size={better}; from files, with pictures of about that size.",
        stacklevel=stacklevel,
    )


def _bytes(size: int) -> int:
    return 4 * (size + 2) * (size + 4 + size // 2)  # of an atlas, nearly: see pyramid.py


EXTENT = (
    0.875  # share of a bank picture's side that the object's longest side fills: the rest is room for thicker strokes
)
