"""``kornia-cag train``: train a recipe, measure it, and write the results into a folder."""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

from kornia_cag.banks.stream import Contexts, ContextStream
from kornia_cag.command.attended import attended
from kornia_cag.command.finding import measured_boxes, print_precision, real_boxes
from kornia_cag.command.measuring import budget, measured, print_accuracy, print_unmeasured, real_pictures
from kornia_cag.command.options import check_training_memory, chosen_recipe, load_training_banks, needs_detector
from kornia_cag.command.preview import boxes_and_names, compose
from kornia_cag.command.results import (
    PREVIEW,
    REPORT,
    check_documents,
    check_out,
    claimed,
    folder,
    resumable,
    resume_threads,
    set_aside,
)
from kornia_cag.command.sheets import save_sheet
from kornia_cag.command.wording import worded
from kornia_cag.core import ranks
from kornia_cag.core.checks import Hint, fail, one_line
from kornia_cag.core.plain import plain, to_json
from kornia_cag.core.progress import duration
from kornia_cag.core.storage import make_again, write_json
from kornia_cag.evaluation.accuracy import Accuracy
from kornia_cag.evaluation.boxes import BoxedSet
from kornia_cag.evaluation.detection import DetectionAccuracy
from kornia_cag.evaluation.real import RealSet
from kornia_cag.training.network import CHECKPOINT, CONFIG, MODEL, save_network
from kornia_cag.training.provenance import versions
from kornia_cag.training.run import Training


def train(options: argparse.Namespace) -> None:
    """Train, measure, and write the results into a folder."""
    out = folder(options)
    resume_threads(options, out)
    recipe = chosen_recipe(options)
    images = budget(options, recipe)
    check_out(options, out)
    if options.resume and not resumable(options):
        fail("--resume", f"a saved run in {str(out)!r}", "none", "Leave --resume out to start afresh.")
    check_training_memory(options, recipe)
    if options.resume:  # the hints on its pictures were given when the run began
        warnings.simplefilter("ignore", Hint)
    objects, contexts = load_training_banks(options, recipe)
    task = recipe.detection
    if len(recipe.names(objects.classes)) < 2 and task is None:
        fail("--objects", "at least two classes to tell apart", f"one, {objects.classes[0]!r}")
    real: RealSet | BoxedSet | None
    if task is None:
        needs_detector(options, ("annotations",))
        real = real_pictures(options.real, recipe, objects.classes)
    else:
        real = real_boxes(options.real, options.annotations, task, objects.classes)
    if not options.json:
        print(f"{objects!r}\n{contexts!r}", flush=True)
        if real is None:
            print_unmeasured(recipe, objects.classes)
    with worded(size="--size", function="--model", batch_size="--batch-size", **{"recipe.batch_size": "--batch-size"}):
        training = Training(recipe, objects, contexts, images=images, seed=options.seed, balanced=options.balanced,
                            function=options.model, compile=options.compile, float32=options.float32)  # fmt: skip
    with claimed(out):
        _trained(training, contexts, options, out)
        if ranks.here()[0] > 0:
            return
        if not (out / CONFIG).is_file():  # somebody removed the folder
            make_again(out)
            _write_beginning(training, contexts, options, out)
        # saved before the user's own network can fail while it is measured
        save_network(out / MODEL, training.learner.average, recipe, objects.classes, options.model)
        accuracy = _measured(training, real, options)
        report = {**training.report(accuracy, real), **_streamed(contexts)}
        write_json(out / REPORT, report)
    print(to_json(report)) if options.json else _print_result(training, contexts, accuracy, real, out)


def _measured(
    training: Training, real: RealSet | BoxedSet | None, options: argparse.Namespace
) -> Accuracy | DetectionAccuracy | None:
    network, device = training.result, training.objects.device
    if isinstance(real, BoxedSet):
        return measured_boxes(network, real, device, options)
    return None if real is None else measured(network, real, training.classes, device, options)


def _trained(training: Training, contexts: Contexts, options: argparse.Namespace, out: Path) -> None:
    """Train to the end, on all ranks, of which the first writes."""
    if ranks.here()[0] == 0:
        _prepare(training, contexts, options, out)
    if options.resume:
        with worded(path="--resume"):
            training.load(out / CHECKPOINT)
    attended(training, training.recipe.name, save=out / CHECKPOINT)


def _prepare(training: Training, contexts: Contexts, options: argparse.Namespace, out: Path) -> None:
    """Look at the files of the run to resume; otherwise write those that are known before training."""
    with tempfile.TemporaryFile(dir=out):  # fail now, not after training, if the folder is not writable
        pass
    if options.resume:
        check_documents(out, "--resume")
        return
    set_aside(out, "train")
    _write_beginning(training, contexts, options, out)


def _write_beginning(training: Training, contexts: Contexts, options: argparse.Namespace, out: Path) -> None:
    """Write what is known before training: the configuration, and a sheet of composites."""
    given = {name: value for name, value in vars(options).items() if name not in ("command", "hint")}
    recipe, objects = training.recipe, training.objects
    seen = None if isinstance(contexts, ContextStream) else contexts.pyramid.checksums()
    about = {"options": plain(given), "versions": versions(), "trained_on": seen}
    write_json(out / CONFIG, {**training.plan(), **about})
    alone = recipe.pairs(objects, len(contexts), seed=training.seed, balanced=training.pairs.balanced, alone=True)
    batch = compose(recipe, objects, contexts, alone, training.model, batches=1)
    boxes, names = boxes_and_names(recipe, batch, objects.classes)
    finds = recipe.detection is not None
    save_sheet(out / PREVIEW, batch.images[:96], 4 if finds else 12, boxes=boxes[:96] if finds else None,
               names=names[:96], insets=True)  # fmt: skip


def _print_result(
    training: Training, contexts: Contexts, accuracy: Accuracy | DetectionAccuracy | None,
    real: RealSet | BoxedSet | None, out: Path,
) -> None:  # fmt: skip
    print(f"trained on {training.seen:,} composites in {duration(training.seconds)}")
    if training.monitor is not None and (overfitting := training.monitor.report())["looks"]:
        *_, own, found = overfitting["looks"][-1]
        catastrophic = "catastrophic overfitting (train with more --attack-steps or a smaller --eps): "
        print(f"{catastrophic if overfitting['overfitted'] else ''}"
              f"{own:.0%} correct under the training's own attack, {found:.0%} under PGD")  # fmt: skip
    if isinstance(accuracy, DetectionAccuracy) and isinstance(real, BoxedSet):
        print_precision(accuracy, real)
    elif isinstance(accuracy, Accuracy) and isinstance(real, RealSet):
        print_accuracy(accuracy, real)
    if isinstance(contexts, ContextStream):
        _print_stream(contexts)
    print(one_line(f"wrote {out / MODEL} and {out / REPORT}"))


def _streamed(contexts: Contexts) -> dict[str, Any]:
    """What became of streamed photographs, for the report."""
    if not isinstance(contexts, ContextStream):
        return {}
    few = {} if contexts.usable is None else {"usable": contexts.usable}
    return {"contexts": {"skipped": contexts.skipped, "waited": round(contexts.waited, 1), **few}}


def _print_stream(contexts: ContextStream) -> None:
    """Say what became of the photographs, each of which counts again in every pass."""
    skipped, files, usable = contexts.skipped, contexts.files["count"], contexts.usable
    few = "" if usable is None else f"; only {usable:,} for {len(contexts):,} slots, some of which held the same"
    print(f"contexts from {files:,} files: {skipped:,} skipped as unusable, {contexts.waited:.1f} s waited for{few}")
