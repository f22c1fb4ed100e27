"""``kornia-cag predict``: names and probabilities for photographs, and boxes if the network finds objects."""

import argparse
import glob
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from kornia_cag.command.columns import padded, width
from kornia_cag.command.drawing import draw_found
from kornia_cag.command.options import chosen_device, load_classifier, needs_detector, number, read_model
from kornia_cag.command.wording import spelled, worded
from kornia_cag.core.checks import check_number, fail, first_few, one_line
from kornia_cag.core.progress import Log, progress
from kornia_cag.training.detected import Box, Detected
from kornia_cag.training.makers import blamed
from kornia_cag.training.network import THRESHOLD, Trained
from kornia_cag.training.prediction import Prediction, Refused, located, several

Photos = Iterable[tuple[str, Any] | Refused]
Answering = Callable[[Photos], Iterator[Prediction | Detected | Refused]]
WIDEST = 60  # places of a path that others are aligned with


def predict(options: argparse.Namespace) -> None:
    """Print what a trained network sees in photographs, as soon as a batch is read."""
    trained = read_model(options, chosen_device(options.device))
    photos, skips = list(located(options.photos)), options.on_error == "skip"
    answered, trained = _answering(options, trained, photos)
    widths = [width(_shown(photo.path if isinstance(photo, Refused) else photo[0])) for photo in photos]
    aligned, refused, drawn = min(max(widths), WIDEST), list[Refused](), set[str]()
    with (
        worded(function="--model", network="model", path="--draw"),
        blamed(options.model, lambda: "when it predicted"),
        _told(options) as log,
    ):
        for done, found in enumerate(answered(photos), 1):
            if isinstance(found, Refused):
                refused.append(found)
            if not (skips and isinstance(found, Refused)):
                print(_as_json(found) if options.json else _as_text(found, aligned, trained.names))
            if options.draw is not None and isinstance(found, Detected):
                draw_found(found, Path(options.draw), drawn)
            log(done / len(photos), "")
    sys.stdout.flush()
    if refused:
        _report(refused, len(photos), skips)


def _answering(
    options: argparse.Namespace, trained: Trained, photos: list[tuple[str, Any] | Refused]
) -> tuple[Answering, Trained]:
    """What answers, and the network that it asks; every option must have an effect."""
    if trained.recipe.detection is None:
        needs_detector(options, ("threshold", "classifier", "draw"))
        top = 3 if options.top is None else number("--top", options.top, 1, 2**31 - 1)
        return lambda photos: trained.answers(photos, top), trained
    if options.top is not None:
        fail("--top", "a network that names pictures", "one that finds objects", "Pass --threshold.")
    threshold = check_number("--threshold", THRESHOLD if options.threshold is None else options.threshold, 0, 1)
    if options.draw is not None:
        _check_draw(options, photos)
    finding = load_classifier(options, trained)
    return lambda photos: finding.sightings(photos, threshold), finding


def _check_draw(options: argparse.Namespace, photos: list[tuple[str, Any] | Refused]) -> None:
    """Require a folder to write to that holds no photograph, and from which no later run will take any."""
    folder = Path(options.draw)
    if folder.exists() and not folder.is_dir():
        fail("--draw", "a folder", f"{str(folder)!r}, which is a file")
    here = Path(os.path.realpath(folder))
    files = {Path(photo[1]) for photo in photos if not isinstance(photo, Refused)}
    real = {Path(os.path.realpath(file)) for file in files}
    parents = {file.parent for file in files | real}
    if any(_same(here, parent) for parent in parents) or any(_searched(here, photo) for photo in options.photos):
        fail("--draw", "a folder outside of that of the photographs", repr(options.draw), "Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for place in folder.iterdir():
        if Path(os.path.realpath(place)) in real:  # writing would follow the link
            fail("--draw", "a folder without links to the photographs", f"{str(place)!r}", "Choose another folder.")


def _searched(folder: Path, photo: str) -> bool:
    """Whether pictures in a folder, a real path, are among those that a folder or a pattern means."""
    around = (folder, *folder.parents)
    if os.path.exists(photo) or not glob.has_magic(photo):
        return os.path.isdir(photo) and any(_same(place, Path(photo)) for place in around)
    parts = Path(os.path.abspath(photo)).parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    pattern = Path(os.path.realpath(Path(*parts[:fixed])), *parts[fixed:])
    if "**" in pattern.parts:  # all that is below
        below = Path(*pattern.parts[: pattern.parts.index("**")])
        return any(place.match(str(below)) for place in around)
    return folder.match(str(pattern.parent)) or any(place.match(str(pattern)) for place in around)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _told(options: argparse.Namespace) -> AbstractContextManager[Log]:
    """Progress where the lines themselves are none: not among them on a terminal, nor with JSON."""
    if options.json or sys.stdout.isatty():
        return nullcontext(lambda share, word: None)
    return progress("predicting", patience=3.0)


def _report(refused: list[Refused], count: int, skips: bool) -> None:
    """Warn of what was skipped, or end with an error; ``count`` is of pictures and of patterns that match none."""
    patterns = [one for one in refused if one.unmatched]
    bad = [one for one in refused if not one.unmatched]
    nothing = f"no file that matches {first_few([repr(one.path) for one in patterns])}" if patterns else ""
    if skips and len(refused) < count:
        told = f"skipped {len(bad)} of {count - len(patterns)} pictures: {several(bad)}" if bad else ""
        warnings.warn("; and ".join(filter(None, (told, nothing))), stacklevel=2)
        return
    if not bad:
        fail("PHOTO", "pictures that exist", nothing, "Check the pattern.")
    fix = "" if skips else "Take them out, or pass --on-error skip."
    told = f"{len(bad)} of {count - len(patterns)} that cannot: {several(bad)}"
    fail("PHOTO", "pictures that can be read", "; and ".join(filter(None, (told, nothing))), fix)


def _as_json(found: Prediction | Detected | Refused) -> str:
    """One line."""
    if isinstance(found, Refused):
        return json.dumps({"path": found.path, "error": spelled(found.reason)})
    if isinstance(found, Detected):
        objects = [{"name": one.name, "probability": round(one.probability, 6), "box": [round(v, 2) for v in one.box]}
                   for one in found.objects]  # fmt: skip
        return json.dumps({"path": found.path, "size": found.size, "objects": objects})
    ranked = [{"name": name, "probability": round(share, 6)} for name, share in found.ranked]
    return json.dumps({"path": found.path, "predictions": ranked})


def _as_text(found: Prediction | Detected | Refused, aligned: int, names: tuple[str, ...]) -> str:
    """One line: path, best name, percent, then the others; of a detector one for each object, with its box."""
    path = padded(_shown(found.path), aligned)
    if isinstance(found, Refused):
        return f"{path}  not read: {one_line(spelled(found.reason))}"
    widest = min(max(width(_shown(name)) for name in names), WIDEST)
    if isinstance(found, Detected):
        lines = [f"{path}  {padded(_shown(one.name), widest)}  {one.probability:6.1%}   {_corners(one.box)}"
                 for one in found.objects]  # fmt: skip
        return "\n".join(lines) or f"{path}  nothing found"
    others = ", ".join(f"{_shown(name)} {share:.1%}" for name, share in found.ranked[1:])
    line = f"{path}  {padded(_shown(found.name), widest)}  {found.probability:6.1%}"
    return f"{line}   then {others}" if others else line


def _corners(box: Box) -> str:
    left, top, right, bottom = map(round, box)
    return f"from ({left}, {top}) to ({right}, {bottom})"


def _shown(name: str) -> str:
    return one_line(name)
