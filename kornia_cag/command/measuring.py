"""Measuring on real pictures for train, evaluate and ablate, and training budgets."""

import argparse
from importlib.util import find_spec

import torch
from torch import nn

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
