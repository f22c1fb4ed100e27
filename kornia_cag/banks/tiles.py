"""Processing a large picture in tiles, so that intermediate results never take a multiple of its memory."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

TILE = 2**18  # pixels, about
HUGE = 2**24  # pixels: a larger picture is reduced, as far as the bank permits, before converting to float

Box = tuple[int, int, int, int]  # left, top, right, bottom, as in Pillow


def tiles(height: int, width: int, align: int = 1) -> Iterator[Box]:
    """Boxes of about :data:`TILE` pixels that cover a picture; inner borders are multiples of ``align``."""
    across = max(TILE // align, align) // align * align if width > TILE // align else width
    down = max(TILE // max(across, 1), align) // align * align
    for top in range(0, height, down):
        for left in range(0, width, max(across, 1)):
            yield left, top, min(left + across, width), min(top + down, height)


def spare(height: int, width: int, room: int) -> int:
    """Factor that reduces a huge picture to a manageable size, at most ``room``; 1 for all others."""
    factor = 1
    while factor < room and -(-height // factor) * -(-width // factor) > HUGE:
        factor += 1
    return factor


def reduced(picture: UInt8[np.ndarray, "h w c"], factor: int) -> UInt8[np.ndarray, "H W c"]:
    """Means of ``factor`` × ``factor`` boxes, rounded; straight RGBA becomes premultiplied."""
    height, width, channels = picture.shape
    small = np.empty((-(-height // factor), -(-width // factor), channels), np.uint8)
    for left, top, right, bottom in tiles(height, width, factor):
        tile = Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))
        tile = (tile.convert("RGBa") if channels == 4 else tile).reduce(factor)
        y, x = top // factor, left // factor
        small[y : y + tile.height, x : x + tile.width] = np.asarray(tile)
    return small


def flattened(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with straight alpha, laid on white."""
    if rgba[..., 3].min() == 255:
        return rgba[..., :3].copy()
    height, width = rgba.shape[:2]
    flat = np.empty((height, width, 3), np.uint8)
    for left, top, right, bottom in tiles(height, width):
        tile = Image.fromarray(np.ascontiguousarray(rgba[top:bottom, left:right]))
        white = Image.new("RGBA", tile.size, "white")
        flat[top:bottom, left:right] = np.asarray(Image.alpha_composite(white, tile).convert("RGB"))
    return flat
