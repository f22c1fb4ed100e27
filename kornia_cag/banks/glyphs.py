"""A character as a picture, rendered from the font that comes with Pillow."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from kornia_cag.core.checks import check_int, describe, fail


def glyph(character: str, size: int, argument: str = "character") -> UInt8[np.ndarray, "size size 4"]:
    """Render one character in the font that comes with Pillow: black, with its ink as straight alpha.

    A capital letter is 80 % of ``size`` high, others are in proportion and shrunk if they would not fit; the bounding
    box of the ink is centred. ``argument`` is what errors call the character.

    Raises:
        InputError: for anything but one character, and for one that the font lacks or that has no ink.
    """
    check_int("size", size, low=4)
    if len(character) != 1:
        fail(argument, "one character", describe(character))
    inner = 0.8 * size
    reference = _ink(character, 256.0)
    missing = _ink("\U0010ffff", 256.0)  # a noncharacter: no font has it, so this renders the box for missing ones
    if 0 in reference.shape or (reference.shape == missing.shape and (reference == missing).all()):
        fail(argument, "one that the font can draw", describe(character), "Leave it out, or draw it as a picture.")
    scale = min(inner / max(_ink("H", 256.0).shape[0], reference.shape[0]), inner / reference.shape[1])
    # Rendered four times too large and then averaged: centred to an eighth of a pixel, without hinting to the pixel
    # grid. Very large glyphs need less, and Pillow refuses even larger pictures.
    times = max(1, min(4, 8192 // size))
    ink = Image.fromarray(_ink(character, times * 256.0 * scale))
    canvas = Image.new("L", (times * size, times * size))
    canvas.paste(ink, ((canvas.width - ink.width) // 2, (canvas.height - ink.height) // 2))
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., 3] = np.asarray(canvas.reduce(times))
    return rgba


def _ink(character: str, points: float) -> UInt8[np.ndarray, "h w"]:
    """The coverage of a character, cropped to its bounding box; zero rows or columns if there is no ink."""
    font = ImageFont.load_default(size=points)
    left, top, right, bottom = (int(v) for v in font.getbbox(character))
    canvas = Image.new("L", (max(right - left, 0) + 8, max(bottom - top, 0) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), character, fill=255, font=font)
    box = canvas.getbbox()
    return np.asarray(canvas.crop(box)) if box else np.zeros((0, 0), np.uint8)
