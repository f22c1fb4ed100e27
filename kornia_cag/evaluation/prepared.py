"""From a picture of any shape to what a network takes: square views, and one answer from them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from kornia_cag.banks.tiles import reduced, spare
from kornia_cag.core.checks import fail

Fit = Literal["squash", "cover"]
"""``squash``: the whole picture, squeezed into a square. ``cover``: square views along its long side, undistorted."""

SQUARE = 1.25  # long over short side, up to which one centred view is enough: it leaves out a tenth at either end
WIDE = 256  # side of a view, pixels: a batch of wider ones would take too much memory
LONGEST = 16  # long over short side, at most: 31 views


def at_once(most: int, size: int) -> int:
    """How many views a network sees at once: ``most``, or fewer if they are wider than :data:`WIDE` pixels."""
    return max(1, min(most, most * WIDE**2 // size**2))


def starts(long: int, short: int) -> list[int]:
    """Where the views along a long side begin, pixels: evenly spaced from end to end, at most half a view apart."""
    spare_room = long - short
    if long <= SQUARE * short:
        return [spare_room // 2]
    last = math.ceil(2 * spare_room / short)
    return [spare_room * view // last for view in range(last + 1)]


def prepared(
    images: Shaped[Tensor, "n 3 h w"], size: int, fit: Fit, *, argument: str = "images"
) -> Float[Tensor, "v 3 s s"]:
    """Pictures of one shape as a network takes them; the views of a picture follow each other.

    Args:
        images: uint8, or float32 in [0, 1].
        size: side of the network's pictures, pixels.
        fit: how to make a square of what is none.
        argument: name of the pictures, for errors.

    Raises:
        InputError: for pictures more than :data:`LONGEST` times as long as wide, if they are to be covered by views.
    """
    if fit == "squash":
        return _resized(images, size)
    height, width = images.shape[2:]
    long, short = max(height, width), min(height, width)
    if long > LONGEST * short:
        fail(argument, f"a picture at most {LONGEST} times as long as wide", f"{width} x {height} pixels", "Cut it.")
    axis = 2 if height > width else 3
    views = [_resized(images.narrow(axis, start, short), size) for start in starts(long, short)]
    return torch.stack(views, dim=1).flatten(0, 1)


def combined(logits: Float[Tensor, "v k"], views: Sequence[int] | None) -> Float[Tensor, "n k"]:
    """One row of logits per picture: of each class the highest among its views.

    An object counts where it is seen best. A network was taught that every picture shows an object, so what it says of
    views that show none, or a part of one, is weak, but would outvote the others in an average.

    Args:
        logits: of all views, those of a picture next to each other.
        views: number of views of each picture; None: one.
    """
    if views is None:
        return logits
    return torch.stack([part.amax(dim=0) for part in logits.split(list(views))])


def check_finite(argument: str, logits: Float[Tensor, "n k"]) -> None:
    """Require a finite largest logit of every picture: without one there is no answer. Waits for the device.

    Minus infinity for other classes is allowed: it is the logarithm of a probability too small for a float.

    Raises:
        InputError: for NaN, plus infinity, and nothing but minus infinity.
    """
    lost = int((~logits.amax(dim=1).isfinite()).sum())
    if lost:
        fail(argument, "finite logits", f"others for {lost:,} of {len(logits):,} pictures", "Train it again.")


def decisive(
    logits: Float[Tensor, "v k"], views: Sequence[int] | None, classes: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """Position, among all views, of the view of each picture that speaks loudest for a class."""
    counts = [1] * len(classes) if views is None else list(views)
    found, first = [], 0
    for part, of in zip(logits.split(counts), classes.tolist(), strict=True):
        found.append(first + int(part[:, of].argmax()))
        first += len(part)
    return torch.tensor(found, device=logits.device)


def _resized(images: Shaped[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 s s"]:
    height, width = images.shape[2:]
    factor = spare(height, width, min(height, width) // size)
    if factor > 1 and images.dtype == torch.uint8:  # as floats it would take a gigabyte
        images = torch.stack([_reduced(image, factor) for image in images])
    x = images.float() / 255 if images.dtype == torch.uint8 else images.clamp(0, 1)
    return x if x.shape[-2:] == (size, size) else F.interpolate(x, (size, size), mode="bilinear", antialias=True)


def _reduced(image: UInt8[Tensor, "3 h w"], factor: int) -> UInt8[Tensor, "3 H W"]:
    return torch.from_numpy(reduced(image.permute(1, 2, 0).numpy(), factor)).permute(2, 0, 1)
