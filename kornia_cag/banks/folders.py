"""Folders of picture files for the banks: find files and classes, read them, report what is wrong with bad ones.

No visible file is ignored silently: one that is not a picture is refused by name, or skipped with a warning if the
caller allows it.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kornia_cag.banks.pictures import (
    PathLike,
    check_key,
    check_path,
    glyph,
    kind_of,
    read_rgb,
    read_rgba,
    system_reason,
    way_in,
)
from kornia_cag.core.checks import InputError, check_choice, fail

__all__ = [
    "glyph",
    "list_contexts",
    "list_folder",
    "list_objects",
    "read_contexts",
    "read_objects",
    "read_rgb",
    "read_rgba",
]

ON_ERROR = ("raise", "skip")
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
SYSTEM_FILES = ("desktop.ini", "thumbs.db")  # left behind by Windows Explorer
TAKE_OUT = 'Take it out of the folder, or pass on_error="skip".'

Apply = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Refusals:
    """How to treat bad files below ``folder``: raise at the first, or collect them for one summary.

    Files with an unusable colour profile are collected either way.
    """

    folder: Path
    on_error: str
    found: list[tuple[Path, str]] = field(default_factory=list)
    profiles: list[tuple[Path, str]] = field(default_factory=list)

    @contextmanager
    def at(self, path: Path) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            if self.on_error == "raise":
                raise InputError(f"{path}: {reason}") from error
            self.found.append((path, reason))

    def __str__(self) -> str:
        return self._summary(self.found)

    def _summary(self, found: list[tuple[Path, str]]) -> str:
        shown = [f"{path.relative_to(self.folder)} ({reason})" for path, reason in found[:3]]
        return "; ".join(shown) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")

    def warn(self) -> None:
        if self.found:
            warnings.warn(f"{self.folder}: skipped {len(self.found)} bad file(s): {self}", stacklevel=3)
        if self.profiles:
            warnings.warn(f"{self.folder}: read {len(self.profiles)} file(s) as sRGB, whose colour profile cannot be "
                          f"used: {self._summary(self.profiles)}", stacklevel=3)  # fmt: skip


def list_objects(folder: PathLike, *, on_error: str = "raise") -> list[tuple[str, list[Path]]]:
    """Find the classes of a folder: one picture per class (named by its stem), or one sub-folder per class.

    Classes that are numbers are sorted by value, others and files by name. Hidden files are ignored; any other file
    without a picture suffix is refused, or skipped with a warning under ``on_error="skip"``. No file is opened.

    Raises:
        InputError: for a missing or empty folder, both layouts at once, a duplicate class or a class without pictures.
    """
    classes, refusals = _scan_objects(folder, on_error)
    refusals.warn()
    return classes


def list_contexts(folder: PathLike, *, on_error: str = "raise") -> list[Path]:
    """Find all pictures in a folder and below, sorted by path, under the same rules as :func:`list_objects`."""
    paths, refusals = _scan_contexts(folder, on_error)
    refusals.warn()
    return paths


def find_pictures(folder: PathLike) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All pictures in a folder and below, sorted by path, and what else is there, with the reason to refuse it."""
    paths, refusals = _scan_contexts(folder, "skip")
    return paths, refusals.found


def read_objects(
    folder: PathLike, *, key: str | None = None, on_error: str = "raise", apply: Apply | None = None
) -> tuple[list[str], list[tuple[int, np.ndarray]]]:
    """Read the cut-outs of a folder: the class names, and ``(class index, RGBA)`` of each file in order.

    ``apply`` is called on each picture as soon as it is read, so large pictures need not be in memory together.
    ``on_error="skip"`` skips bad files and warns once, but never leaves a class without a picture.

    Raises:
        InputError: as for :func:`list_objects` and :func:`read_rgba`.
    """
    check_key(key)
    classes, refusals = _scan_objects(folder, on_error)
    images: list[tuple[int, np.ndarray]] = []
    for index, (name, paths) in enumerate(classes):
        bad = _Refusals(refusals.folder, on_error)
        good = _read_all(paths, lambda path, notes: read_rgba(path, key=key, notes=notes), apply, bad)
        if not good:
            fail(str(folder), f"at least one readable picture of class {name!r}", f"none: {bad}")
        images.extend((index, image) for image in good)
        refusals.found.extend(bad.found)
        refusals.profiles.extend(bad.profiles)
    refusals.warn()
    return [name for name, _ in classes], images


def read_contexts(
    folder: PathLike,
    *,
    on_error: str = "raise",
    apply: Apply | None = None,
    side: int | None = None,
    on_white: bool = False,
) -> list[np.ndarray]:
    """Read all pictures in a folder and below as RGB, under the same rules as :func:`read_objects`.

    ``side`` is the required shorter side of each picture, pixels; see :func:`read_rgb`, also for ``on_white``.
    """

    def read(path: Path, notes: list[str]) -> np.ndarray:
        return read_rgb(path, side=side, notes=notes, on_white=on_white)

    paths, refusals = _scan_contexts(folder, on_error)
    images = _read_all(paths, read, apply, refusals)
    if not images:
        fail(str(folder), "at least one readable picture", f"none: {refusals}")
    refusals.warn()
    return images


def _read_all(
    paths: Sequence[Path], read: Callable[[Path, list[str]], np.ndarray], apply: Apply | None, refusals: _Refusals
) -> list[np.ndarray]:
    images = []
    for path in paths:
        notes: list[str] = []
        with refusals.at(path):
            image = read(path, notes)
            refusals.profiles.extend((path, note) for note in notes)
            images.append(image if apply is None else apply(image))
    return images


def _scan_objects(folder: PathLike, on_error: str) -> tuple[list[tuple[str, list[Path]]], _Refusals]:
    check_choice("on_error", on_error, ON_ERROR)
    refusals = _Refusals(check_path("folder", folder), on_error)
    folders, rest = _parted(list_folder(refusals.folder), refusals)
    files = _pictures(rest, refusals)
    if folders and files:
        fail(str(folder), "either one picture per class or one sub-folder per class",
             f"both: {files[0].name} and {folders[0].name}/", "Move the pictures into sub-folders.")  # fmt: skip
    classes: dict[str, list[Path]] = {path.name: _pictures(list_folder(path), refusals) for path in folders}
    for path in files:
        if path.stem in classes:
            fail(str(folder), "one picture per class", f"{classes[path.stem][0].name} and {path.name}",
                 f"Rename one, or move both into a sub-folder {path.stem}/.")  # fmt: skip
        classes[path.stem] = [path]
    for name, paths in classes.items():
        if not paths:
            fail(str(refusals.folder / name), "at least one picture", f"none: {refusals}" if refusals.found else "none")
    if not classes:
        fail(str(folder), "pictures, or sub-folders with pictures", f"none: {refusals}" if refusals.found else "none")
    return sorted(classes.items(), key=lambda item: _class_order(item[0])), refusals


def _class_order(name: str) -> tuple[bool, int, str]:
    """Sort key: numbers by value, so that 10 comes after 9, then all other names alphabetically."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name


def _scan_contexts(folder: PathLike, on_error: str) -> tuple[list[Path], _Refusals]:
    check_choice("on_error", on_error, ON_ERROR)
    refusals = _Refusals(check_path("folder", folder), on_error)
    paths: list[Path] = []
    todo, seen = [refusals.folder], set[str]()
    while todo:
        place = todo.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder already read, or a loop of links
            continue
        seen.add(real)
        entries: list[Path] = []
        with refusals.at(place) if place != refusals.folder else nullcontext():
            entries = list_folder(place)
        folders, rest = _parted(entries, refusals)
        todo.extend(folders)
        paths.extend(_pictures(rest, refusals))
    if not paths:
        fail(str(folder), "pictures", f"none: {refusals}" if refusals.found else "none")
    return sorted(paths), refusals


def list_folder(folder: Path) -> list[Path]:
    """The visible entries of a folder, sorted by name.

    Raises:
        InputError: naming a folder that cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        fail(str(folder), "a folder", system_reason(error), way_in(error))
    return [path for path in entries if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES]


def _parted(entries: Sequence[Path], refusals: _Refusals) -> tuple[list[Path], list[Path]]:
    """Split entries into folders and others; refuse those that cannot be told."""
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in entries:
        with refusals.at(path):
            parts[kind_of(path) != "folder"].append(path)
    return parts


def _pictures(entries: Sequence[Path], refusals: _Refusals) -> list[Path]:
    """Entries with a picture suffix; the others are refused."""
    pictures = []
    for path in entries:
        with refusals.at(path):
            if kind_of(path) == "folder":
                fail(str(path), "a picture file", "a folder", TAKE_OUT)
            if path.suffix.lower() not in SUFFIXES:
                fail(str(path), f"a picture file ({', '.join(SUFFIXES)})", "another suffix", TAKE_OUT)
            pictures.append(path)
    return pictures
