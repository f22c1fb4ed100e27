"""The resolution of a bank: what ``size="auto"`` means, and a warning if the canvas needs more than the bank has."""

import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from kornia_cag.banks.pictures import FORMATS
from kornia_cag.banks.pyramid import check_texels
from kornia_cag.core.checks import Hint

Size = int | Literal["auto"]
Sides = tuple[int, int]  # sides of a picture, pixels

SMALLEST, LARGEST = 64, 512  # limits of "auto", texels per side
GLYPHS, MADE = 256, 128  # "auto" for generated pictures; procedural contexts are soft, many, and slow to make
MEMORY = 2**30  # most bytes of a bank with "auto", unless it is at its smallest
SOFT = 1.25  # enlarged by more than this, a picture looks blurred


def chosen_texels(size: Size, wanted: float, count: int) -> int:
    """``size`` itself, or for ``"auto"`` a size that holds ``wanted`` texels per side in a bank of ``count`` pictures.

    Raises:
        InputError: for anything but a power of two from 8 to 4096.
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
    """Texels per side that keep the resolution of every object, from their longest sides in pixels."""
    return max(longest, default=SMALLEST) / EXTENT


def for_contexts(sides: Sequence[Sides]) -> float:
    """Texels per side that keep the resolution of half of the contexts, so one huge photograph does not decide."""
    return statistics.median_high([min(pair) for pair in sides]) if sides else SMALLEST


def file_sides(paths: Sequence[Path]) -> list[Sides]:
    """Sides of picture files, from their headers, in either order, since EXIF may rotate a picture.

    Files that cannot be opened are skipped here: reading them will say why.
    """
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    found: list[Sides] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata, and sizes that the reader refuses
        for path in paths:
            try:
                if path.is_file():  # a pipe would block the reader
                    with Image.open(path, formats=formats) as picture:
                        found.append(picture.size)
            except Exception:  # damaged headers make decoders raise nearly anything
                continue
    return found


def warn_if_soft(kind: str, size: int, seen: float, texels: float, stacklevel: int) -> None:
    """Warn about a bank whose pictures look blurred because the canvas enlarges them too much.

    Args:
        kind: the bank, as the user calls it.
        size: size of the bank, texels per side.
        seen: pixels of the canvas that its pictures may cover.
        texels: texels that they have for these pixels.
        stacklevel: stack level of the user's line; this function is 1.
    """
    if seen <= SOFT * texels:
        return
    better = size
    while better * texels / size < seen and better < 4096:
        better *= 2
    warnings.warn(
        f"{kind}: the bank holds {size} x {size} pixels a picture, {texels:.0f} of which this canvas enlarges to up to "
        f"{seen:.0f}: they will look soft. Build it with size={better}; from files, with pictures of about that size.",
        Hint,
        stacklevel,
    )


def _bytes(size: int) -> int:
    return 4 * (size + 2) * (size + 4 + size // 2)  # approximate bytes of an atlas: see pyramid.py


EXTENT = 0.875  # share of a picture's side filled by the object's longest side; the rest is room for thicker strokes
