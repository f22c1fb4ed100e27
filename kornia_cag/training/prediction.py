"""What a trained network sees in photographs: files are found, read, prepared and predicted a few at a time."""

import glob
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from kornia_cag.banks.folders import find_pictures
from kornia_cag.banks.items import item_pixels
from kornia_cag.banks.pictures import check_path, kind_of, read_rgb
from kornia_cag.banks.refusals import unadvised
from kornia_cag.core.checks import InputError, check_int, describe, fail, first_few
from kornia_cag.core.devices import device_of
from kornia_cag.core.memory import check_memory
from kornia_cag.evaluation.prepared import Fit, at_once, combined, prepared

Views = Float[Tensor, "_ 3 s s"]  # of one picture

BATCH = 64  # views that a network sees at once, if they are not too wide
SEEN = 36  # bytes per pixel of a view while a network sees it, at least; measured: 110 to 270
SMALLER = "Use a network of smaller pictures."


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one picture.

    Attributes:
        path: the file; ``photos[3]`` for the fourth picture in memory.
        ranked: names of classes and their probabilities in [0, 1], the most probable first.
    """

    path: str
    ranked: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.ranked[0][0]

    @property
    def probability(self) -> float:
        """Its probability, in [0, 1]."""
        return self.ranked[0][1]


@dataclass(frozen=True)
class Refused:
    """A picture that cannot be read, and why."""

    path: str
    reason: str
    unmatched: bool = False  # no picture, but a pattern that no file matches

    @classmethod
    def of(cls, name: str, error: InputError) -> "Refused":
        """What an error says about a picture."""
        return cls(name, str(error).removeprefix(f"{name}: "))

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def several(refused: list[Refused]) -> str:
    """The first few of them, and how many more there are, without the advice to skip what is skipped."""
    return first_few([f"{one.path} ({unadvised(one.reason)})" for one in refused], ";")


def located(photos: Any) -> Iterator[tuple[str, Any] | Refused]:
    """Every picture that is meant: its name, and a ``Path`` or what holds it in memory. Nothing is opened yet.

    Args:
        photos: a path, or an item of a data set as ``CAGCollate`` takes it (a PIL image, a tensor, an array, bytes), or
            any number of both. A path names a file; a folder, of which all pictures in it and below are taken, sorted
            by path; or a pattern, such as ``photos/*.jpg`` or ``photos/**/*.png``.

    Raises:
        InputError: for anything else.
    """
    if isinstance(photos, str | os.PathLike):
        yield from _files(photos)
    elif isinstance(photos, Image.Image | bytes | bytearray | memoryview | Mapping) or _is_one(photos):
        yield "photos", photos
    elif isinstance(photos, Iterable):
        for place, photo in enumerate(photos):
            yield from _files(photo) if isinstance(photo, str | os.PathLike) else [(f"photos[{place}]", photo)]
    else:
        fail("photos", "a path, a picture, or several", describe(photos))


def _is_one(photos: Any) -> bool:
    return isinstance(photos, Tensor | np.ndarray) and photos.ndim < 4  # one of four dimensions is a batch


def _files(text: str | os.PathLike[str]) -> Iterator[tuple[str, Path] | Refused]:
    try:
        path = check_path("photos", text)
        kind = kind_of(path)
        if kind == "nothing" and glob.has_magic(str(path)):
            yield from _matching(path)
        else:
            yield from _below(path)
    except InputError as error:
        yield Refused.of(str(text), error)


def _matching(pattern: Path) -> Iterator[tuple[str, Path] | Refused]:
    """What a pattern means, each file once, whatever links lead to it."""
    seen = set[str]()
    for match in sorted(_matches(pattern.parts, "")):
        for found in _below(Path(match)):
            real = os.path.realpath(found.path if isinstance(found, Refused) else found[1])
            if real not in seen:
                seen.add(real)
                yield found
    if not seen:
        yield Refused(str(pattern), "expected a pattern of files that exist, got no match.", unmatched=True)


def _matches(parts: tuple[str, ...], base: str) -> Iterator[str]:
    """Paths below ``base``, itself no pattern, that match; ``**`` enters a folder once: ``glob`` runs in circles."""
    if "**" not in parts:
        yield from glob.iglob(os.path.join(glob.escape(base), *parts))
        return
    place = parts.index("**")
    folders = glob.glob(os.path.join(glob.escape(base), *parts[:place])) if place else [base]
    seen = set[str]()
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(folder or "."):
            continue
        seen.add(real)
        if place + 1 == len(parts):  # with all that is below it
            yield folder or "."
            continue
        yield from _matches(parts[place + 1 :], folder)
        folders += sorted(glob.glob(os.path.join(glob.escape(folder), "*", "")), reverse=True)


def _below(path: Path) -> Iterator[tuple[str, Path] | Refused]:
    """A file, or all pictures of a folder."""
    try:
        if kind_of(path) != "folder":
            yield str(path), path
            return
        pictures, others = find_pictures(path)
    except InputError as error:
        yield Refused.of(str(path), error)
        return
    found: list[tuple[str, Path] | Refused] = [(str(picture), picture) for picture in pictures]
    found += [Refused(str(other), reason) for other, reason in others]
    yield from sorted(found, key=lambda one: Path(one.path if isinstance(one, Refused) else one[0]))


def predicted(
    network: nn.Module,
    classes: tuple[str, ...],
    photos: Iterable[tuple[str, Any] | Refused],
    *,
    size: int,
    fit: Fit,
    top: int,
) -> Iterator[Prediction | Refused]:
    """Predict what :func:`located` found, in this order. Only a batch of small pictures is in memory at a time.

    Args:
        network: maps images ``(b, 3, size, size)`` to logits ``(b, classes)``, in evaluation mode.
        classes: their names.
        photos: named pictures.
        size: side of the network's pictures, pixels.
        fit: how to make squares of pictures that are none.
        top: number of names per picture.

    Raises:
        InputError: for a network whose pictures do not fit into memory.
    """
    if device_of(network).type == "cpu":
        check_memory("network", 1, size, SEEN, SMALLER)
    most = at_once(BATCH, size)
    top = min(check_int("top", top), len(classes))
    ready: list[tuple[str, Views] | Refused] = []
    waiting, notes = 0, list[str]()
    for photo in photos:
        ready.append(photo if isinstance(photo, Refused) else _read(*photo, size, fit, notes))
        waiting += 1 if isinstance(ready[-1], Refused) else len(ready[-1][1])
        if waiting >= most:
            yield from _decided(network, classes, ready, top)
            ready, waiting = [], 0
    yield from _decided(network, classes, ready, top)
    if notes:
        warnings.warn(f"read {len(notes)} file(s) as sRGB, whose colour profile cannot be used: "
                      f"{first_few(notes, ';')}", stacklevel=3)  # fmt: skip


def _read(name: str, photo: Any, size: int, fit: Fit, notes: list[str]) -> tuple[str, Views] | Refused:
    """The views of one picture."""
    said: list[str] = []
    try:
        if isinstance(photo, Path):
            rgb = read_rgb(photo, side=size, notes=said, on_white=True)
            planes: Tensor = torch.from_numpy(rgb).permute(2, 0, 1)
        else:
            planes = item_pixels(name, photo, size).detach().cpu()
        views = prepared(planes[None], size, fit, argument=name)
    except InputError as error:
        return Refused.of(name, error)
    notes.extend(f"{name} ({note})" for note in said)
    return name, views


def _decided(
    network: nn.Module,
    classes: tuple[str, ...],
    ready: list[tuple[str, Views] | Refused],
    top: int,
) -> Iterator[Prediction | Refused]:
    """Predictions of a batch, in the order of its pictures."""
    read = [photo[1] for photo in ready if not isinstance(photo, Refused)]
    best = iter(_ranked(network, read, top) if read else ())
    for photo in ready:
        if isinstance(photo, Refused):
            yield photo
        else:
            row = next(best)
            if math.isfinite(row[0][1]):
                yield Prediction(photo[0], tuple((classes[place], share) for place, share in row))
            else:
                yield Refused(photo[0], "expected finite logits of the network, got others. Train it again.")


@torch.no_grad()
def _ranked(network: nn.Module, pictures: list[Views], top: int) -> list[list[tuple[int, float]]]:
    """Classes and probabilities of each picture, the most probable first."""
    device = device_of(network)
    views = torch.cat(pictures)
    parts = views.split(at_once(BATCH, views.shape[-1]))
    logits = torch.cat([network(part.to(device)).cpu().float() for part in parts])
    shares, places = combined(logits, [len(picture) for picture in pictures]).softmax(dim=1).topk(top, dim=1)
    return [list(zip(*row, strict=True)) for row in zip(places.tolist(), shares.tolist(), strict=True)]
