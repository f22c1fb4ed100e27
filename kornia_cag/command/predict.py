"""``kornia-cag predict``: names and probabilities for photographs."""

import argparse
import json
import sys
import warnings

from kornia_cag.command.options import chosen_device, number, read_model
from kornia_cag.command.wording import spelled, worded
from kornia_cag.core.checks import fail, one_line
from kornia_cag.training.makers import blamed
from kornia_cag.training.prediction import Prediction, Refused, located, predicted, several

WIDEST = 60  # characters of a path that others are aligned with


def predict(options: argparse.Namespace) -> None:
    """Print what a trained network sees in photographs, as soon as a batch is read."""
    trained = read_model(options, chosen_device(options.device))
    top, skips = number("--top", options.top, 1, 2**31 - 1), options.on_error == "skip"
    photos = list(located(options.photos))
    widths = [len(_shown(photo.path if isinstance(photo, Refused) else photo[0])) for photo in photos]
    width, refused = min(max(widths), WIDEST), list[Refused]()
    with worded(function="--model", network="model"), blamed(options.model, lambda: "when it predicted"):
        for found in predicted(trained.network, trained.classes, photos, size=trained.recipe.size,
                               fit=trained.recipe.fit, top=top):  # fmt: skip
            if isinstance(found, Refused):
                refused.append(found)
            if not (skips and isinstance(found, Refused)):
                print(_as_json(found) if options.json else _as_text(found, width, trained.classes))
    sys.stdout.flush()
    if refused:
        _report(refused, len(photos), skips)


def _report(refused: list[Refused], count: int, skips: bool) -> None:
    if skips and len(refused) < count:
        warnings.warn(f"skipped {len(refused)} of {count} pictures: {several(refused)}", stacklevel=2)
        return
    fix = "" if skips else "Take them out, or pass --on-error skip."
    fail("PHOTO", "pictures that can be read", f"{len(refused)} of {count} that cannot: {several(refused)}", fix)


def _as_json(found: Prediction | Refused) -> str:
    """One line."""
    if isinstance(found, Refused):
        return json.dumps({"path": found.path, "error": spelled(found.reason)})
    ranked = [{"name": name, "probability": round(share, 6)} for name, share in found.ranked]
    return json.dumps({"path": found.path, "predictions": ranked})


def _as_text(found: Prediction | Refused, width: int, classes: tuple[str, ...]) -> str:
    """One line: path, best name, percent, then the others."""
    path = _shown(found.path).ljust(width)
    if isinstance(found, Refused):
        return f"{path}  not read: {one_line(spelled(found.reason))}"
    widest = min(max(len(_shown(name)) for name in classes), WIDEST)
    others = ", ".join(f"{_shown(name)} {share:.1%}" for name, share in found.ranked[1:])
    line = f"{path}  {_shown(found.name).ljust(widest)}  {found.probability:6.1%}"
    return f"{line}   then {others}" if others else line


def _shown(name: str) -> str:
    return one_line(name)
