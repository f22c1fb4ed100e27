"""Measuring on real pictures for train, evaluate and ablate, and training budgets."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import nn

from kornia_cag.command.columns import padded, width
from kornia_cag.command.options import number
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import fail, one_line
from kornia_cag.core.progress import progress
from kornia_cag.evaluation.accuracy import Accuracy, evaluate
from kornia_cag.evaluation.real import RealSet, handwriting, load_real
from kornia_cag.training.makers import blamed
from kornia_cag.training.recipe import Recipe

HANDWRITING = 'pip install "kornia_cag[demo]" for real handwriting'


def budget(options: argparse.Namespace, recipe: Recipe) -> int | None:
    """Number of images from ``--steps`` or ``--images``; None: the recipe's own."""
    if options.steps is not None and options.images is not None:
        fail("--steps", "either --steps or --images", "both")
    if options.steps is not None:
        return number("--steps", options.steps, 1, 2**40) * recipe.batch_size
    return None if options.images is None else number("--images", options.images, 1, 2**50)


def real_pictures(path: str | None, recipe: Recipe, classes: tuple[str, ...]) -> RealSet | None:
    """The pictures from ``--real``; without it, scikit-learn's handwriting if the classes are digits, else None."""
    with worded(real="--real"):
        if path is not None:
            return load_real(path, classes, recipe.size, recipe.fit)
        return handwriting(recipe.size) if _digits(recipe, classes) and find_spec("sklearn") is not None else None


def needed_pictures(path: str | None, recipe: Recipe, classes: tuple[str, ...]) -> RealSet:
    """:func:`real_pictures`, or an error if there are none."""
    real = real_pictures(path, recipe, classes)
    if real is None:
        fix = f"Or {HANDWRITING}." if _digits(recipe, classes) else ""
        fail("--real", "an .npz file or a folder of class folders", "nothing", fix)
    return real


def only_set(options: argparse.Namespace, when: str) -> str | None:
    """The one set of ``evaluate --real``, or None, where several would not do: ``when`` says where."""
    if options.real is None:
        return None
    if len(options.real) > 1:
        fail("--real", f"one set {when}", str(len(options.real)), "Take them one at a time.")
    (path,) = options.real
    return str(path)


def all_sets(paths: Sequence[str], recipe: Recipe, classes: tuple[str, ...]) -> list[RealSet]:
    """The pictures of every ``--real``, all in memory; sets of the same name are called by their paths.

    Raises:
        InputError: as for one set; it says which.
    """
    sets = []
    for path in paths:
        said = f"--real {shlex.quote(path)}"
        with worded(**{"--real": said, "real images": f"{said}, images", "real labels": f"{said}, labels"}):
            sets.append(needed_pictures(path, recipe, classes))
    names = [real.name for real in sets]
    return [real if names.count(real.name) == 1 else replace(real, name=path)
            for real, path in zip(sets, paths, strict=True)]  # fmt: skip


def print_unmeasured(recipe: Recipe, classes: tuple[str, ...]) -> None:
    """Print that nothing will be measured, and what to do about it."""
    other = f", or {HANDWRITING}" if _digits(recipe, classes) else ""
    print(f"no real pictures to measure on; pass --real{other}", flush=True)


def _digits(recipe: Recipe, classes: tuple[str, ...]) -> bool:
    return classes == tuple(recipe.classes)


def measured(
    network: nn.Module, real: RealSet, classes: tuple[str, ...], device: torch.device, options: argparse.Namespace
) -> Accuracy:
    """Measure a network's accuracy with progress; errors in the network are reported about ``--model``."""
    function = getattr(options, "model", None)
    with (
        worded(function="--model"),
        progress("measuring", patience=3.0) as log,
        blamed(function, lambda: "when measured"),
    ):
        return evaluate(network, real, classes, device, log=log)


def print_accuracy(accuracy: Accuracy, real: RealSet) -> None:
    """Print the most frequent errors and the accuracy."""
    if accuracy.confusions:
        print("most frequent errors: " + ", ".join(f"{t} as {p} ({n})" for t, p, n in accuracy.confusions[:6]))
    print(one_line(f"accuracy on {real.name}: {accuracy.share:.2%} of {len(real.labels):,} real pictures"))


def print_table(measures: Sequence[tuple[Accuracy, RealSet]]) -> None:
    """Print a line per set of real pictures."""
    titles = ("set", "pictures", "accuracy", "mean per class", "calibration error")
    names = [titles[0], *(one_line(real.name) for _, real in measures)]
    rows = [titles[1:], *((f"{len(real):,}", f"{one.share:.2%}", f"{one.mean_per_class:.2%}",
                           f"{one.calibration_error:.2%}") for one, real in measures)]  # fmt: skip
    widest = max(map(width, names))
    for name, row in zip(names, rows, strict=True):
        cells = (text.rjust(max(len(title), 9)) for text, title in zip(row, titles[1:], strict=True))
        print(padded(name, widest), *cells, sep="  ")
