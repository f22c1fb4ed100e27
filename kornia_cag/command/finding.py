"""Measuring detectors for train and evaluate: boxes of real photographs, average precision, and what is missed."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kornia_cag.command.columns import padded, width
from kornia_cag.command.drawing import save_misses
from kornia_cag.command.measuring import only_set
from kornia_cag.command.options import load_classifier
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import check_number, fail, one_line
from kornia_cag.core.plain import to_json
from kornia_cag.core.progress import progress
from kornia_cag.evaluation.annotations import find_boxes
from kornia_cag.evaluation.boxes import BoxedSet, load_boxes
from kornia_cag.evaluation.detection import DetectionAccuracy, Precision, coco_package, evaluate_detector
from kornia_cag.evaluation.measurement import measurement
from kornia_cag.evaluation.misses import Match, matched
from kornia_cag.training.makers import blamed
from kornia_cag.training.network import THRESHOLD, Trained
from kornia_cag.training.task import DetectionTask

LOWEST = 0.01  # score of boxes that average precision is told of


def real_boxes(
    path: str | None, annotations: str | None, task: DetectionTask, classes: tuple[str, ...]
) -> BoxedSet | None:
    """The photographs from ``--real``, with the boxes that a detector should find; None without the option."""
    if path is None:
        if annotations is not None:
            fail("--annotations", "to be used with --real, whose boxes they are", "no --real")
        return None
    with worded(real="--real", folder="--real", boxes="--annotations", detection="--real"):
        coco_package()
        source = find_boxes(path) if annotations is None else annotations
        if task.classes == "all":
            return load_boxes(path, source, classes)
        names = {} if task.name in classes else {task.name: classes[0]}
        return load_boxes(path, source, classes, names=names).as_one(task.name)


def measured_boxes(
    network: nn.Module, real: BoxedSet, device: torch.device, options: argparse.Namespace
) -> DetectionAccuracy:
    """Measure a detector with progress; errors in the network are reported about ``--model``."""
    detector: Any = network.eval()
    with (
        worded(function="--model"),
        progress("measuring", patience=3.0) as log,
        blamed(options.model, lambda: "when measured"),
    ):
        return evaluate_detector(lambda images: detector.detect(images, threshold=LOWEST), real, device, log=log)


def print_precision(accuracy: DetectionAccuracy, real: BoxedSet) -> None:
    """Print average precision, by size and overall."""
    print("\n".join(f"{name:6}  {_percents(one)}" for name, one in accuracy.by_size.items() if one.mean is not None))
    whole = f"mAP@.5 {_percent(accuracy.overall.at50)}, mAP {_percent(accuracy.overall.mean)}"
    print(one_line(f"{whole} on {real.name}: {real.to_find:,} boxes in {len(real):,} real pictures"))


def _percents(one: Precision) -> str:
    return f"AP@.5 {_percent(one.at50)}  AP {_percent(one.mean)}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.2%}"


def evaluate_boxes(options: argparse.Namespace, trained: Trained) -> None:
    """Measure a trained detector on real photographs, as ``evaluate`` does."""
    path = only_set(options, "for a network that finds objects")
    threshold = check_number("--threshold", THRESHOLD if options.threshold is None else options.threshold, 0, 1)
    trained = load_classifier(options, trained)
    if trained.recipe.detection is None:  # load_classifier keeps it
        return
    real = real_boxes(path, options.annotations, trained.recipe.detection, trained.classes)
    if real is None:
        fail("--real", "a folder of photographs with boxes", "nothing")
    accuracy = measured_boxes(trained.network, real, trained.device, options)
    matches = [
        matched(found, true, threshold=threshold) for found, true in zip(accuracy.found, real.pictures, strict=True)
    ]
    counts = _counts(real, matches)
    if options.json:
        print(to_json(measurement(accuracy, real, detection=True) | {"threshold": threshold, **counts}))
    else:
        _print_classes(accuracy)
        print_precision(accuracy, real)
        print(f"from a probability of {threshold:g} on: {counts['hits']:,} of {counts['boxes']:,} found, "
              f"{counts['false_alarms']:,} false alarms")  # fmt: skip
    if options.errors is not None:
        with worded(path="--errors"):
            written = save_misses(options.errors, real.pictures, matches)
        if not options.json:
            print(one_line(f"wrote {options.errors}") if written else "nothing to show")


def _counts(real: BoxedSet, matches: Sequence[Match]) -> dict[str, int]:
    return {
        "boxes": real.to_find,
        "hits": sum(int(match.hit.sum()) for match in matches),
        "false_alarms": sum(int(((match.owner < 0) & ~match.excused).sum()) for match in matches),
    }


def _print_classes(accuracy: DetectionAccuracy) -> None:
    names = {name: one_line(name) for name in accuracy.by_class}
    widest = max(map(width, names.values()))
    for name, one in accuracy.by_class.items():
        if one.mean is not None and len(names) > 1:
            print(f"{padded(names[name], widest)}  {_percents(one)}")
