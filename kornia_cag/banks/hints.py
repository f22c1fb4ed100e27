"""Hints on cut-outs that can be used, but that people would rather not use: one warning for each kind of problem.

What cannot be told from what is meant is not hinted at. A cut-out that touches the border of its file may be cut off,
or cropped closely, as most are; a nearly opaque rectangle may be a photograph by mistake, or a sign.
"""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from kornia_cag.banks.fitting import FAINT
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.checks import Hint, first_few

EMPTY = 0.02  # of the square around an object, covered: on a canvas of 32 pixels, a dozen
ENLARGED = 2.0  # times: then a whole level of detail is missing, next to contexts that have it
THIN = 4.0  # pixels: less does not hold two strokes with a gap around and between them


def warn_of_twins(folder: str, names: Sequence[str], checksums: Sequence[int], stacklevel: int) -> None:
    """Warn about classes that share a picture: no model can tell them apart.

    Args:
        folder: of the pictures.
        names: class of each picture.
        checksums: of each picture.
        stacklevel: stack level of the user's line; this function is 1.
    """
    owners: dict[int, dict[str, None]] = {}
    for name, checksum in zip(names, checksums, strict=True):
        owners.setdefault(checksum, {})[name] = None
    twins = [" and ".join(map(repr, classes)) for classes in owners.values() if len(classes) > 1]
    if twins:
        warnings.warn(f"{folder}: classes with the same picture, which no model can tell apart: {first_few(twins)}. "
                      "Replace one of each, or make them one class.", Hint, stacklevel)  # fmt: skip


def warn_if_empty(folder: str, names: Sequence[str], alpha: Float[Tensor, "n s s"], stacklevel: int) -> None:
    """Warn about cut-outs that are nearly empty, as if specks lay around a small object.

    Args:
        folder: of the pictures.
        names: class of each picture.
        alpha: of each picture, as fitted into a bank; in [0, 1].
        stacklevel: stack level of the user's line; this function is 1.
    """
    shares = alpha.flatten(1).mean(dim=1) / EXTENT**2
    empty = [f"{name!r} ({share:.1%})" for name, share in zip(names, shares.tolist(), strict=True) if share < EMPTY]
    if empty:
        warnings.warn(f"{folder}: {len(empty)} of {len(names)} cut-outs cover hardly any of the square around them: "
                      f"{first_few(empty)}. Objects are scaled by all that is visible: erase specks that lie apart.",
                      Hint, stacklevel)  # fmt: skip


def warn_if_small(names: Sequence[str], sides: Sequence[int], seen: float, stacklevel: int) -> None:
    """Warn about pictures that the canvas enlarges more than twice, whatever the size of the bank that holds them.

    Args:
        names: class of each object.
        sides: longest side of each object in its file, pixels.
        seen: pixels of the canvas that its longest side may cover.
        stacklevel: stack level of the user's line; this function is 1.
    """
    small = [f"{name!r} ({side})" for name, side in zip(names, sides, strict=True) if seen > ENLARGED * side]
    if small:
        warnings.warn(f"objects: {len(small)} of {len(names)} are shown with up to {seen:.0f} pixels on this canvas, "
                      f"more than twice as many as their files hold: {first_few(small)}. They will look soft: give "
                      "larger pictures.", Hint, stacklevel)  # fmt: skip


def warn_if_thin(names: Sequence[str], alpha: UInt8[Tensor, "n s s"], seen: float, stacklevel: int) -> None:
    """Warn about objects of which the canvas shows a line.

    Args:
        names: class of each object.
        alpha: of each object.
        seen: pixels of the canvas that the longest side covers on average.
        stacklevel: stack level of the user's line; this function is 1.
    """
    visible = alpha >= FAINT
    longest, shortest = torch.stack([_spans(visible.any(dim=axis)) for axis in (1, 2)]).sort(dim=0, descending=True)[0]
    short = (seen * shortest / longest).tolist()
    thin = [f"{name!r} ({px:.1f})" for name, px in zip(names, short, strict=True) if px < THIN]
    if thin:
        warnings.warn(f"objects: {len(thin)} of {len(names)} are long and thin, with about these many pixels for their "
                      f"shorter side on this canvas: {first_few(thin)}. Take a larger canvas.",
                      Hint, stacklevel)  # fmt: skip


def _spans(seen: Tensor) -> Int[Tensor, " n"]:
    """From the first visible entry of each row to the last."""
    last: Tensor = seen.shape[1] - seen.flip(1).byte().argmax(dim=1) - seen.byte().argmax(dim=1)
    return last
