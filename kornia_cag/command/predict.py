"""``kornia-cag predict``: names and probabilities for photographs."""

import argparse
import json
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext

from kornia_cag.command.columns import padded, width
from kornia_cag.command.options import chosen_device, number, read_model
from kornia_cag.command.wording import spelled, worded
from kornia_cag.core.checks import fail, first_few, one_line
from kornia_cag.core.progress import Log, progress
from kornia_cag.training.makers import blamed
from kornia_cag.training.prediction import Prediction, Refused, located, several

WIDEST = 60  # places of a path that others are aligned with


def predict(options: argparse.Namespace) -> None:
    """Print what a trained network sees in photographs, as soon as a batch is read."""
    trained = read_model(options, chosen_device(options.device))
    top, skips = number("--top", options.top, 1, 2**31 - 1), options.on_error == "skip"
    photos = list(located(options.photos))
    widths = [width(_shown(photo.path if isinstance(photo, Refused) else photo[0])) for photo in photos]
    aligned, refused = min(max(widths), WIDEST), list[Refused]()
    with (
        worded(function="--model", network="model"),
        blamed(options.model, lambda: "when it predicted"),
        _told(options) as log,
    ):
        for done, found in enumerate(trained.answers(photos, top), 1):
            if isinstance(found, Refused):
                refused.append(found)
            if not (skips and isinstance(found, Refused)):
                print(_as_json(found) if options.json else _as_text(found, aligned, trained.classes))
            log(done / len(photos), "")
    sys.stdout.flush()
    if refused:
        _report(refused, len(photos), skips)


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


def _as_json(found: Prediction | Refused) -> str:
    """One line."""
    if isinstance(found, Refused):
        return json.dumps({"path": found.path, "error": spelled(found.reason)})
    ranked = [{"name": name, "probability": round(share, 6)} for name, share in found.ranked]
    return json.dumps({"path": found.path, "predictions": ranked})


def _as_text(found: Prediction | Refused, aligned: int, classes: tuple[str, ...]) -> str:
    """One line: path, best name, percent, then the others."""
    path = padded(_shown(found.path), aligned)
    if isinstance(found, Refused):
        return f"{path}  not read: {one_line(spelled(found.reason))}"
    widest = min(max(width(_shown(name)) for name in classes), WIDEST)
    others = ", ".join(f"{_shown(name)} {share:.1%}" for name, share in found.ranked[1:])
    line = f"{path}  {padded(_shown(found.name), widest)}  {found.probability:6.1%}"
    return f"{line}   then {others}" if others else line


def _shown(name: str) -> str:
    return one_line(name)
