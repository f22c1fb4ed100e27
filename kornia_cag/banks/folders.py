"""Folders of picture files for the banks: find files and classes, read them, report what is wrong with bad ones.

No visible file is ignored silently: one that is not a picture is refused by name, or skipped with a warning if the
caller allows it. All that is wrong in a folder is said in one error.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from kornia_cag.banks.glyphs import glyph
from kornia_cag.banks.pictures import (
    PathLike,
    check_key,
    check_path,
    kind_of,
    read_rgb,
    read_rgba,
    system_reason,
    way_in,
)
from kornia_cag.banks.refusals import TAKE_OUT, Refusals
from kornia_cag.core.checks import fail

__all__ = [
    "context_files",
    "glyph",
    "list_contexts",
    "list_folder",
    "list_objects",
    "object_files",
    "read_contexts",
    "read_objects",
    "read_rgb",
    "read_rgba",
]

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
SYSTEM_FILES = ("desktop.ini", "thumbs.db")  # left behind by Windows Explorer
Apply = Callable[[np.ndarray], np.ndarray]


def list_objects(folder: PathLike, *, on_error: str = "raise") -> list[tuple[str, list[Path]]]:
    """Find the classes of a folder: one picture per class (named by its stem), or one sub-folder per class.

    Classes that are numbers are sorted by value, others and files by name. Hidden files are ignored; any other file
    without a picture suffix is refused, or skipped with a warning under ``on_error="skip"``. No file is opened.

    Raises:
        InputError: for a missing or empty folder, both layouts at once, a duplicate class or a class without pictures.
    """
    classes, refusals = _scan_objects(folder, on_error)
    refusals.settle()
    return classes


def list_contexts(folder: PathLike, *, on_error: str = "raise") -> list[Path]:
    """Find all pictures in a folder and below, sorted by path, under the same rules as :func:`list_objects`."""
    paths, refusals = _scan_contexts(folder, on_error)
    refusals.settle()
    return paths


def find_pictures(folder: PathLike) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All pictures in a folder and below, sorted by path, and what else is there, with the reason to refuse it."""
    paths, refusals = _scan_contexts(folder, "skip")
    if refusals.lasting:
        refusals.settle()
    return paths, refusals.found


def object_files(folder: PathLike) -> list[Path]:
    """The pictures that :func:`read_objects` would read, whatever else is there."""
    classes, _ = _scan_objects(folder, None)
    return [path for _, paths in classes for path in paths]


def context_files(folder: PathLike) -> list[Path]:
    """The pictures that :func:`read_contexts` would read, whatever else is there."""
    return _scan_contexts(folder, None)[0]


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
        before = len(refusals.found)
        good = _read_all(paths, lambda path, notes: read_rgba(path, key=key, notes=notes), apply, refusals)
        if not good:
            wanted = f"at least one readable picture of class {name!r}"
            refusals.nothing_left(refusals.folder, wanted, refusals.found[before:])
        images.extend((index, image) for image in good)
        if refusals.enough:
            break
    refusals.settle()
    return [name for name, _ in classes], images


def read_contexts(
    folder: PathLike,
    *,
    on_error: str | None = "raise",
    apply: Apply | None = None,
    side: int | None = None,
    on_white: bool = False,
) -> list[np.ndarray]:
    """Read all pictures in a folder and below as RGB, under the same rules as :func:`read_objects`.

    ``side`` is the required shorter side of each picture, pixels; see :func:`read_rgb`, also for ``on_white``.
    ``on_error=None`` raises, too, and offers no skipping.
    """

    def read(path: Path, notes: list[str]) -> np.ndarray:
        return read_rgb(path, side=side, notes=notes, on_white=on_white)

    paths, refusals = _scan_contexts(folder, on_error)
    images = _read_all(paths, read, apply, refusals)
    if paths and not images:
        refusals.nothing_left(refusals.folder, "at least one readable picture", refusals.found)
    refusals.settle()
    return images


def _read_all(
    paths: Sequence[Path], read: Callable[[Path, list[str]], np.ndarray], apply: Apply | None, refusals: Refusals
) -> list[np.ndarray]:
    images = []
    for path in paths:
        notes: list[str] = []
        with refusals.at(path):
            image = read(path, notes)
            refusals.profiles.extend((path, note) for note in notes)
            images.append(image if apply is None else apply(image))
        if refusals.enough:
            break
    return images


def _scan_objects(folder: PathLike, on_error: str | None) -> tuple[list[tuple[str, list[Path]]], Refusals]:
    refusals = Refusals(check_path("folder", folder), on_error)
    folders, rest = _parted(list_folder(refusals.folder), refusals)
    files = _pictures(rest, refusals)
    if folders and files:
        with refusals.always_at(refusals.folder):
            fail(str(folder), "either one picture per class or one sub-folder per class",
                 f"both: {files[0].name} and {folders[0].name}/", "Move the pictures into sub-folders.")  # fmt: skip
        files = []
    classes: dict[str, list[Path]] = {}
    for path in folders:
        with refusals.always_at(path):
            before = len(refusals.found)
            classes[path.name] = _pictures(list_folder(path), refusals)
            if not classes[path.name]:
                refusals.nothing_left(path, "at least one picture", refusals.found[before:])
    for path in files:
        with refusals.always_at(refusals.folder):
            if path.stem in classes:
                fail(str(folder), "one picture per class", f"{classes[path.stem][0].name} and {path.name}",
                     f"Rename one, or move both into a sub-folder {path.stem}/.")  # fmt: skip
            classes[path.stem] = [path]
    if not folders and not files:
        refusals.nothing_left(refusals.folder, "pictures, or sub-folders with pictures", refusals.found)
    some = {name: paths for name, paths in classes.items() if paths}
    return sorted(some.items(), key=lambda item: _class_order(item[0])), refusals


def _class_order(name: str) -> tuple[bool, int, str]:
    """Sort key: numbers by value, so that 10 comes after 9, then all other names alphabetically."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name


def _scan_contexts(folder: PathLike, on_error: str | None) -> tuple[list[Path], Refusals]:
    refusals = Refusals(check_path("folder", folder), on_error)
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
        refusals.nothing_left(refusals.folder, "pictures", refusals.found)
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


def _parted(entries: Sequence[Path], refusals: Refusals) -> tuple[list[Path], list[Path]]:
    """Split entries into folders and others; refuse those that cannot be told."""
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in entries:
        with refusals.at(path):
            parts[kind_of(path) != "folder"].append(path)
    return parts


def _pictures(entries: Sequence[Path], refusals: Refusals) -> list[Path]:
    """Entries with a picture suffix; the others are refused."""
    pictures = []
    for path in entries:
        with refusals.at(path):
            if kind_of(path) == "folder":
                fail(str(path), "a picture file", "a folder", TAKE_OUT)
            if path.suffix.lower() not in SUFFIXES:
                fail(str(path), "a picture file, such as .png or .jpg", "another suffix", TAKE_OUT)
            pictures.append(path)
    return pictures
