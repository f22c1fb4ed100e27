"""Transparency of PNG files by raw sample value.

A ``tRNS`` chunk names the transparent sample as stored in the file. Decoding loses it: Pillow scales greys of 1, 2 and
4 bits, keeps only the high bytes of 16-bit colours, and treats the chunk differently from version to version. So the
chunk is read here, and compared with samples that are scaled back.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR, PALETTE = 0, 2, 3


@dataclass(frozen=True)
class Transparency:
    """The content of a ``tRNS`` chunk.

    Source: Portable Network Graphics specification, third edition, section 11.3.1.1.
    """

    depth: int  # bits per sample
    colour: int  # GREY, COLOUR or PALETTE
    values: tuple[int, ...]  # the transparent sample; of a palette, the alpha of each entry from the first

    @property
    def deep(self) -> bool:
        """Whether samples have a low byte that Pillow drops."""
        return self.colour == COLOUR and self.depth == 16

    def alpha(self, tile: Image.Image, low: Image.Image | None = None) -> UInt8[np.ndarray, "h w"]:
        """Alpha of a tile as Pillow decoded it; ``low`` holds the low bytes of 16-bit colours."""
        if self.colour == PALETTE:
            table = np.full(256, 255, np.uint8)
            table[: len(self.values)] = self.values
            found: np.ndarray = table[np.asarray(tile)]
            return found
        mask = 2**self.depth - 1  # for shorter samples, only the low bits of a value count
        values = np.array([value & mask for value in self.values])
        if self.colour == GREY and self.depth == 16:
            clear = np.asarray(tile) == values[0]
        elif self.colour == GREY:
            clear = np.asarray(tile.convert("L")) == values[0] * (255 // mask)
        else:
            clear = (np.asarray(tile) == (values >> 8 if self.deep else values)).all(axis=2)
            if low is not None:
                clear &= (np.asarray(low) == (values & 255)).all(axis=2)
        return np.where(clear, 0, 255).astype(np.uint8)


def transparency(file: Any) -> Transparency | None:
    """The ``tRNS`` chunk of a PNG file; None without a valid one before the image data.

    Leaves the file at its beginning.
    """
    file.seek(0)
    try:
        return _search(file) if file.read(8) == SIGNATURE else None
    finally:
        file.seek(0)


def _search(file: Any) -> Transparency | None:
    depth = colour = -1
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR":
            body = file.read(length)
            if length != 13:
                return None
            depth, colour = body[8], body[9]
            file.seek(4, 1)  # the checksum
        elif kind == b"tRNS" and colour in (GREY, COLOUR, PALETTE):
            body = file.read(min(length, 256))
            count = {GREY: 1, COLOUR: 3, PALETTE: 0}[colour]
            if len(body) < 2 * count:
                return None
            return Transparency(depth, colour, struct.unpack(f">{count}H", body[: 2 * count]) if count else tuple(body))
        elif kind in (b"IDAT", b"IEND"):
            return None
        else:
            file.seek(length + 4, 1)
    return None


def low_bytes(file: Any) -> Image.Image:
    """Decode a PNG file of 16-bit colours once more, for the low bytes that Pillow drops."""
    file.seek(0)
    image: Any = Image.open(file, formats=["PNG"])
    # Read as little-endian, Pillow keeps the other byte of each sample.
    image.tile = [(*tile[:3], "RGB;16L") for tile in image.tile]
    image.load()
    low: Image.Image = image
    return low
