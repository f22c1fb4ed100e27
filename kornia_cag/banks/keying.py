"""Keying a cut-out from its white background.

Except for the fill, which SciPy does, each pixel depends only on its 3 x 3 neighbourhood. So pictures are processed in
tiles, which takes a few bytes per pixel for any shape and content.
"""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from kornia_cag.banks.tiles import tiles

WHITE_TOLERANCE = 16  # levels of 255 below white that still count as white, to allow for JPEG noise


def key_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    """Make white connected to the border transparent, and unmix white from the adjacent pixels.

    A pixel next to the background is modelled as ``a F + (1 - a) white``, where ``F`` is the darkest colour among it
    and its eight neighbours. Over white the result looks unchanged; over other colours there is no light fringe.
    """
    height, width = rgba.shape[:2]
    white = np.empty((height, width), np.bool_)
    for left, top, right, bottom in tiles(height, width):
        white[top:bottom, left:right] = rgba[top:bottom, left:right, :3].min(axis=2) >= 255 - WHITE_TOLERANCE
    outside = connected_to_border(white)
    keyed = np.zeros_like(rgba)
    for left, top, right, bottom in tiles(height, width):
        y, x = max(top - 1, 0), max(left - 1, 0)
        tile = _unmixed(rgba[y : bottom + 1, x : right + 1, :3], outside[y : bottom + 1, x : right + 1])
        keyed[top:bottom, left:right] = tile[top - y : bottom - y, left - x : right - x]
    return keyed


def _unmixed(rgb: UInt8[np.ndarray, "h w 3"], outside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    alpha = np.where(outside, 0, 255).astype(np.uint8)
    padded = np.pad(outside, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    y, x = np.nonzero(beside & ~outside)
    ink = 255.0 - rgb[y, x]  # distance from white, per channel
    full = _strongest_neighbour(rgb, y, x)
    share = (ink * full).sum(axis=1) / np.maximum((full * full).sum(axis=1), 1)
    share = np.clip(np.maximum(share, ink.max(axis=1) / 255), 1 / 255, 1)  # keeps colours within 0..255
    keyed = np.dstack([rgb, alpha])
    keyed[y, x, :3] = np.rint(255 - np.minimum(ink / share[:, None], 255))
    keyed[y, x, 3] = np.rint(255 * share)
    keyed[outside] = 0
    return keyed


def _strongest_neighbour(rgb: UInt8[np.ndarray, "h w 3"], y: np.ndarray, x: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Per pixel, the distance from white (per channel) of the darkest pixel in its 3 x 3 neighbourhood."""
    height, width = rgb.shape[:2]
    ink = 765 - rgb.sum(axis=2, dtype=np.int16).ravel()
    best = y * width + x
    for dy, dx in product((-1, 0, 1), repeat=2):
        near = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
        best = np.where(ink[near] > ink[best], near, best)
    darkest: np.ndarray = 255.0 - rgb.reshape(-1, 3)[best]
    return darkest


def connected_to_border(white: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """White pixels connected to the border by white pixels (up, down, left, right)."""
    if min(white.shape) <= 2:  # every pixel is border
        return white
    labels, count = ndimage.label(white)  # 4-connected; 0 where it is not white
    outer = np.zeros(count + 1, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outer[edge] = True
    outer[0] = False
    found: np.ndarray = outer[labels]
    return found
