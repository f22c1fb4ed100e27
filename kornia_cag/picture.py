"""One picture: read from a file as 8-bit RGBA or RGB, keyed out of its white, or drawn from a font.

Only NumPy and Pillow here. A file is either read as a viewer would show it (first frame, EXIF orientation applied, any
colour mode brought to 8-bit RGB) or refused with an :class:`~kornia_cag.checks.InputError` that names it.
"""

import os
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from kornia_cag.checks import InputError, check_choice, check_int, describe, fail

MAX_PIXELS = 2**26  # per picture, 256 MiB as RGBA: larger ones are taken for decompression bombs
WHITE_TOLERANCE = 16  # levels of 255 below white that still count as white, so that JPEG's noise does
KEYS = ("white",)
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

PathLike = str | os.PathLike[str]


def check_path(argument: str, value: Any) -> Path:
    """Require a path and return it as such."""
    if not isinstance(value, str | os.PathLike):
        fail(argument, "a path", describe(value))
    return Path(value)


def check_key(key: str | None) -> None:
    """Require no key or a known one."""
    check_choice("key", key, (None, *KEYS))


def read_rgba(path: PathLike, *, key: str | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Read a cut-out with straight alpha.

    With ``key="white"`` a picture without transparency gets it: white that is connected to the border becomes
    transparent, white inside the object stays. A picture that already has transparency keeps its own.

    Raises:
        InputError: naming the file, when it cannot be read, has no transparent pixel or has nothing but those.
    """
    check_key(key)
    rgba = _decode(check_path("path", path))
    if key == "white" and rgba[..., 3].min() == 255:
        rgba = _key_white(rgba[..., :3])
        if rgba[..., 3].max() == 0:
            fail(str(path), 'an object on white for key="white"', "white all over")
        if rgba[..., 3].min() == 255:
            fail(str(path), 'a white border for key="white"', "no white pixel on the border",
                 "Give the picture an alpha channel.")  # fmt: skip
    if rgba[..., 3].min() == 255:
        fail(str(path), "a picture with transparency", "none",
             'Give it an alpha channel, or pass key="white" if it stands on white.')  # fmt: skip
    if rgba[..., 3].max() == 0:
        fail(str(path), "a visible object", "zero alpha everywhere")
    return rgba


def read_rgb(path: PathLike) -> UInt8[np.ndarray, "h w 3"]:
    """Read an opaque picture.

    Raises:
        InputError: naming the file, when it cannot be read or is transparent anywhere.
    """
    rgba = _decode(check_path("path", path))
    if rgba[..., 3].min() < 255:
        fail(str(path), "an opaque picture", "transparent pixels", "Flatten it onto a background.")
    return rgba[..., :3].copy()


def system_reason(error: OSError) -> str:
    """What the operating system says, such as "permission denied"."""
    return (error.strerror or type(error).__name__).lower()


def _decode(path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """Read any file as straight RGBA, opaque where the file has no transparency.

    Raises:
        InputError: naming the file.
    """
    try:
        # A pipe or a device would keep the reader waiting for ever.
        if path.exists() and not path.is_file():
            fail(str(path), "a picture file", "a folder" if path.is_dir() else "no regular file")
        with path.open("rb") as file, warnings.catch_warnings():
            # What Pillow warns of is either decided here (the size) or does not change the pixels (odd metadata).
            warnings.simplefilter("ignore")
            if not file.read(1):
                fail(str(path), "a picture file", "an empty one")
            return _decode_open(path, file)
    except InputError:
        raise
    except UnidentifiedImageError:
        fail(str(path), f"a picture ({', '.join(FORMATS)})", "no image, or one with a damaged header")
    except Image.DecompressionBombError:
        fail(str(path), f"a picture of at most {MAX_PIXELS:,} pixels", "a larger one", "Shrink it.")
    except OSError as error:
        if error.strerror is not None:  # from the system; Pillow's own carry none
            fail(str(path), "a picture file that can be opened", system_reason(error))
        fail(str(path), "a whole picture", f"a truncated or corrupt one ({error})")
    except Exception as error:  # damaged files make decoders raise nearly anything
        fail(str(path), "a whole picture", f"a corrupt one ({type(error).__name__}: {error})")


def _decode_open(path: Path, file: Any) -> UInt8[np.ndarray, "h w 4"]:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(file, formats=formats) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            fail(str(path), f"a picture of at most {MAX_PIXELS:,} pixels", f"{width} x {height}", "Shrink it.")
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            return _from_16_bit(path, upright)
        if upright.mode == "F":
            fail(str(path), "a picture of integers", "one of floating point numbers", "Save it with 8 or 16 bits.")
        return np.array(upright.convert("RGBA"), np.uint8)


def _from_16_bit(path: Path, image: Image.Image) -> UInt8[np.ndarray, "h w 4"]:
    """Scale 0..65535 to 0..255 with rounding. Pillow itself would clip at 255."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        fail(str(path), "8 or 16 bits per channel", "32 bits", "Save it with 8 or 16 bits.")
    rgba = np.full((*grey.shape, 4), 255, np.uint8)
    rgba[..., :3] = ((grey + 128) // 257)[..., None]
    if "transparency" in image.info:
        rgba[..., 3][grey == image.info["transparency"]] = 0
    return rgba


def _key_white(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 4"]:
    """Make white that is connected to the border transparent, and unmix white from the pixels beside it.

    A pixel beside the background is taken as ``a F + (1 - a) white``, where ``F`` is the darkest colour among it and
    its eight neighbours; over white the result looks as before, over any other colour there is no light fringe.
    """
    outside = _connected_to_border(rgb.min(axis=2) >= 255 - WHITE_TOLERANCE)
    alpha = np.where(outside, 0, 255).astype(np.uint8)
    padded = np.pad(outside, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    y, x = np.nonzero(beside & ~outside)
    ink = 255.0 - rgb[y, x]  # distance from white, per channel
    full = _strongest_neighbour(rgb, y, x)
    share = (ink * full).sum(axis=1) / np.maximum((full * full).sum(axis=1), 1)
    share = np.clip(np.maximum(share, ink.max(axis=1) / 255), 1 / 255, 1)  # so that no colour leaves 0..255
    keyed = np.dstack([rgb, alpha])
    keyed[y, x, :3] = np.rint(255 - np.minimum(ink / share[:, None], 255))
    keyed[y, x, 3] = np.rint(255 * share)
    keyed[outside] = 0
    return keyed


def _strongest_neighbour(rgb: UInt8[np.ndarray, "h w 3"], y: np.ndarray, x: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Per pixel, the distance from white (per channel) of the darkest of its 3 x 3 neighbourhood."""
    best: np.ndarray = 255.0 - rgb[y, x]
    for dy, dx in product((-1, 0, 1), repeat=2):
        near = 255.0 - rgb[np.clip(y + dy, 0, rgb.shape[0] - 1), np.clip(x + dx, 0, rgb.shape[1] - 1)]
        best = np.where((near.sum(axis=1) > best.sum(axis=1))[:, None], near, best)
    return best


def _connected_to_border(white: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Those white pixels that a path of white pixels (up, down, left, right) joins with the border.

    Horizontal runs are the nodes of a graph and overlaps of neighbouring rows its edges; every run takes the smallest
    number in its component by hooking and pointer jumping, so that even a maze needs few passes.
    """
    # A white frame joins the whole border into run 0; a black column keeps runs from crossing rows.
    grid = np.pad(np.pad(white, 1, constant_values=True), ((0, 0), (0, 1)))
    stride = grid.shape[1]
    change = np.flatnonzero(np.diff(grid.ravel().astype(np.int8), prepend=0))
    start, end = change[::2], change[1::2]
    first = np.searchsorted(end, start + stride, side="right")  # runs of the next row that overlap: first..last - 1
    count = np.maximum(np.searchsorted(start, end + stride, side="left") - first, 0)
    upper = np.repeat(np.arange(len(start)), count)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(count) - count), count)
    root = np.arange(len(start))
    while True:
        before = root.copy()
        smallest = np.minimum(before[upper], before[lower])
        np.minimum.at(root, before[upper], smallest)
        np.minimum.at(root, before[lower], smallest)
        root = root[root][root]
        if (root == before).all():
            break
    marks = np.zeros(grid.size + 1, np.int8)
    marks[start[root == 0]] = 1
    marks[end[root == 0]] = -1
    outer: np.ndarray = np.cumsum(marks, dtype=np.int8)[:-1].reshape(grid.shape)[1:-1, 1:-2] == 1
    return outer


def glyph(character: str, size: int) -> UInt8[np.ndarray, "size size 4"]:
    """Render one character with the font that Pillow carries: black, its ink in straight alpha.

    A capital letter is 80 % of ``size`` high, others are in proportion and shrunk where they would not fit; the
    bounding box of the ink is centred.

    Raises:
        InputError: for anything but one character, and for one that the font lacks or that has no ink.
    """
    check_int("size", size, low=4)
    if len(character) != 1:
        fail("character", "one character", describe(character))
    inner = 0.8 * size
    reference = _ink(character, 256.0)
    missing = _ink("\U0010ffff", 256.0)  # a noncharacter: no font has it, so this is the box drawn for missing ones
    if 0 in reference.shape or (reference.shape == missing.shape and (reference == missing).all()):
        fail("character", "one that the font can draw", describe(character), "Leave it out, or draw it as a picture.")
    scale = min(inner / max(_ink("H", 256.0).shape[0], reference.shape[0]), inner / reference.shape[1])
    # Four times too large and then averaged: centred to an eighth of a pixel, and no hinting to the pixel grid.
    ink = Image.fromarray(_ink(character, 4 * 256.0 * scale))
    canvas = Image.new("L", (4 * size, 4 * size))
    canvas.paste(ink, ((canvas.width - ink.width) // 2, (canvas.height - ink.height) // 2))
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., 3] = np.asarray(canvas.reduce(4))
    return rgba


def _ink(character: str, points: float) -> UInt8[np.ndarray, "h w"]:
    """The coverage of a character, cropped to its bounding box: no row or no column if there is no ink."""
    font = ImageFont.load_default(size=points)
    left, top, right, bottom = (int(v) for v in font.getbbox(character))
    canvas = Image.new("L", (max(right - left, 0) + 8, max(bottom - top, 0) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), character, fill=255, font=font)
    box = canvas.getbbox()
    return np.asarray(canvas.crop(box)) if box else np.zeros((0, 0), np.uint8)
