"""A single picture: read from a file as 8-bit RGBA or RGB, keyed from white.

Uses only NumPy and Pillow. A file is either read as a viewer would show it (first frame, EXIF orientation applied, any
colour mode converted to 8-bit RGB) or refused with an :class:`~kornia_cag.core.checks.InputError` that names it.
"""

import errno
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from kornia_cag.banks.colour import base_mode, to_srgb
from kornia_cag.banks.keying import key_white
from kornia_cag.banks.png import Transparency, low_bytes, transparency
from kornia_cag.banks.tiles import flattened, spare, tiles
from kornia_cag.core.checks import InputError, check_choice, describe, fail

MAX_PIXELS = 2**26  # per picture, 256 MiB as RGBA: larger ones are treated as decompression bombs
KEYS = ("white",)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

PathLike = str | os.PathLike[str]


def check_path(argument: str, value: Any) -> Path:
    """Require a path that the system accepts, and return it."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        fail(argument, "a path", describe(value))
    if "\0" in text:
        fail(argument, "a path", f"{describe(text)}, which contains a NUL character", "Check how it was built.")
    return Path(text)


def kind_of(path: Path) -> str:
    """``"file"``, ``"folder"``, ``"other"`` (a pipe, a device), or ``"nothing"``.

    Raises:
        InputError: naming the path, if the system cannot tell: in a folder without access, or a loop of links.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except OSError as error:
        fail(str(path), "a file or folder that can be reached", system_reason(error), way_in(error))
    except ValueError:  # a name that no system accepts
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def way_in(error: OSError) -> str:
    """Advice for a path that cannot be reached."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Grant yourself permission to read it and to enter the folders above it."
    return "Fix the link." if error.errno == errno.ELOOP else ""


def check_key(key: str | None) -> None:
    """Require no key or a known one."""
    check_choice("key", key, (None, *KEYS))


def read_rgba(path: PathLike, *, key: str | None = None, notes: list[str] | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Read a cut-out with straight alpha, in sRGB.

    With ``key="white"`` a picture without transparency gets some: white connected to the border becomes transparent,
    white inside the object stays. A picture that already has transparency keeps it.

    Args:
        path: the file.
        key: ``"white"`` or None.
        notes: collects problems with the colour profile; None: warn about them.

    Raises:
        InputError: naming the file, if it cannot be read, has no transparent pixels or only those.
    """
    check_key(key)
    rgba = noted(path, *_decode(check_path("path", path)), notes)
    if key == "white" and rgba[..., 3].min() == 255:
        rgba = key_white(rgba)
        if rgba[..., 3].max() == 0:
            fail(str(path), 'an object on white for key="white"', "white all over")
        if rgba[..., 3].min() == 255:
            fail(str(path), 'a white border for key="white"', "no white pixel on the border",
                 "Give the picture an alpha channel.")  # fmt: skip
    if rgba[..., 3].min() == 255:
        fail(str(path), "a picture with transparency", "none",
             'Add an alpha channel, or pass key="white" if its background is white.')  # fmt: skip
    if rgba[..., 3].max() == 0:
        fail(str(path), "a visible object", "zero alpha everywhere")
    return rgba


def read_rgb(
    path: PathLike, *, side: int | None = None, notes: list[str] | None = None, on_white: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Read an opaque picture, in sRGB.

    Args:
        path: the file.
        side: required shorter side, pixels, if less than all will do: a huge JPEG is decoded at half its size or less.
        notes: collects problems with the colour profile; None: warn about them.
        on_white: lay a transparent picture on white, as most viewers do, instead of refusing it.

    Raises:
        InputError: naming the file, if it cannot be read or is transparent anywhere.
    """
    rgba = noted(path, *_decode(check_path("path", path), side), notes)
    return flattened(rgba) if on_white else _opaque(str(path), rgba)


def read_bytes(
    name: str, data: bytes, side: int | None = None, notes: list[str] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Like :func:`read_rgb`, from the bytes of a file; ``name`` is for errors."""
    with refusing(name):
        rgba, note = _decode_open(name, io.BytesIO(data), side)
    return _opaque(name, noted(name, rgba, note, notes))


def _opaque(name: str, rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    if rgba[..., 3].min() < 255:
        fail(name, "an opaque picture", "transparent pixels", "Flatten it onto a background.")
    return rgba[..., :3].copy()


def noted(name: PathLike, rgba: UInt8[np.ndarray, "h w 4"], note: str, notes: list[str] | None) -> np.ndarray:
    """The picture itself, once a note on its colour profile is collected, or warned of where none are collected."""
    if note and notes is None:
        warn_of_profile(str(name), note)
    elif note and notes is not None:
        notes.append(note)
    return rgba


def warn_of_profile(name: str, reason: str) -> None:
    """Warn that a colour profile is ignored."""
    warnings.warn(f"{name}: read as sRGB, since its colour profile cannot be used ({reason})", stacklevel=4)


def system_reason(error: OSError) -> str:
    """What the operating system says, such as "permission denied"."""
    return (error.strerror or type(error).__name__).lower()


def _decode(path: Path, draft: int | None = None) -> tuple[UInt8[np.ndarray, "h w 4"], str]:
    """Read any file as straight RGBA in sRGB, opaque where the file has no transparency, and a note on its profile.

    Raises:
        InputError: naming the file.
    """
    name = str(path)
    with refusing(name):
        if (kind := kind_of(path)) in ("folder", "other"):  # a pipe or a device would block the reader forever
            fail(name, "a picture file", "a folder" if kind == "folder" else "no regular file")
        with path.open("rb") as file:
            return _decode_open(name, file, draft)


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one line that names the picture."""
    try:
        with _quiet():
            yield
    except InputError:
        raise
    except UnidentifiedImageError:
        fail(name, f"a picture ({', '.join(FORMATS)})", "no image, or one with a damaged header")
    except Image.DecompressionBombError:
        fail(name, f"a picture of at most {MAX_PIXELS:,} pixels", "a larger one", "Shrink it.")
    except MemoryError:
        fail(name, "a picture that fits into memory", "a larger one", "Shrink it.")
    except OSError as error:
        if error.strerror is not None:  # from the system; Pillow's own carry none
            fail(name, "a picture file that can be opened", system_reason(error), way_in(error))
        fail(name, "a whole picture", f"a truncated or corrupt one ({_line(error)})")
    except Exception as error:  # damaged files make decoders raise nearly anything
        fail(name, "a whole picture", f"a corrupt one ({type(error).__name__}: {_line(error)})")


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore Pillow's warnings, which are handled (the size) or do not affect the pixels (odd metadata).

    Not in other threads: filters are those of the process, and several threads would restore each other's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _decode_open(name: str, file: Any, draft: int | None) -> tuple[UInt8[np.ndarray, "h w 4"], str]:
    if not file.read(1):
        fail(name, "a picture file", "an empty one")
    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]
    clear = transparency(file)
    with Image.open(file, formats=formats) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            fail(name, f"a picture of at most {MAX_PIXELS:,} pixels", f"{width} x {height}", "Shrink it.")
        if draft is not None and (factor := spare(height, width, min(height, width) // draft)) > 1:
            image.draft(None, (width // factor, height // factor))  # JPEG's built-in reduction by 2, 4 or 8
        image.load()
        if image.format == "PNG":
            image.info.pop("transparency", None)  # read by ourselves
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
        low = low_bytes(file) if clear is not None and clear.deep else None
        rgba, note = straight_rgba(name, image, clear, low)
    return _turned(rgba, turn), note


def straight_rgba(
    name: str, image: Image.Image, clear: Transparency | None = None, low: Image.Image | None = None
) -> tuple[UInt8[np.ndarray, "h w 4"], str]:
    """The pixels of a Pillow image as straight RGBA in sRGB, and why its colour profile could not be used, if any.

    Args:
        name: name of the image, for errors.
        image: any mode, 8 or 16 bits per channel.
        clear: transparency of a PNG file.
        low: low bytes of a PNG file with 16-bit colours.

    Raises:
        InputError: for other pixel types.
    """
    if image.mode == "F":
        fail(name, "a picture of integers", "one of floating point numbers", "Save it with 8 or 16 bits.")
    base = base_mode(image.mode)
    convert, note = to_srgb(image.info, base)
    rgba = np.empty((image.height, image.width, 4), np.uint8)
    for box in tiles(image.height, image.width):
        left, top, right, bottom = box
        tile, place = image.crop(box), rgba[top:bottom, left:right]
        shown = _from_16_bit(name, tile) if image.mode.startswith("I") else tile
        place[...] = np.asarray(shown.convert("RGBA"))
        if convert is not None:
            place[..., :3] = np.asarray(convert(shown.convert(base)))
        if clear is not None:
            place[..., 3] = clear.alpha(tile, None if low is None else low.crop(box))
    return rgba, note


def _from_16_bit(name: str, tile: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255 with rounding. Pillow itself would clip at 255."""
    grey = np.asarray(tile).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        fail(name, "8 or 16 bits per channel", "32 bits", "Save it with 8 or 16 bits.")
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8))


def _turned(rgba: UInt8[np.ndarray, "h w 4"], orientation: Any) -> UInt8[np.ndarray, "H W 4"]:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation not in range(2, 9):
        return rgba
    upright = rgba.swapaxes(0, 1) if orientation >= 5 else rgba
    down, across = (-1 if orientation in turned else 1 for turned in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(upright[::down, ::across])
