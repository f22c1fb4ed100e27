"""``kornia-cag train``: train a recipe, measure it, and write the results into a folder."""

import argparse
import tempfile
import warnings
from pathlib import Path

from kornia_cag.command.attended import attended
from kornia_cag.command.measuring import budget, measured, print_accuracy, print_unmeasured, real_pictures
from kornia_cag.command.options import check_training_memory, chosen_recipe, load_banks
from kornia_cag.command.preview import compose
from kornia_cag.command.results import (
    PREVIEW,
    REPORT,
    check_documents,
    check_out,
    claimed,
    folder,
    resume_threads,
    set_aside,
)
from kornia_cag.command.sheets import save_sheet
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import Hint, fail, one_line
from kornia_cag.core.plain import plain, to_json
from kornia_cag.core.progress import duration
from kornia_cag.core.storage import write_json
from kornia_cag.evaluation.accuracy import Accuracy
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
    if options.resume and not (out / CHECKPOINT).is_file():
        fail("--resume", f"a saved run in {str(out)!r}", "none", "Leave --resume out to start afresh.")
    check_training_memory(options, recipe)
    if options.resume:  # the hints on its pictures were given when the run began
        warnings.simplefilter("ignore", Hint)
    objects, contexts = load_banks(options, recipe)
    if len(objects.classes) < 2:
        fail("--objects", "at least two classes to tell apart", f"one, {objects.classes[0]!r}")
    real = real_pictures(options.real, recipe, objects.classes)
    if not options.json:
        print(f"{objects!r}\n{contexts!r}", flush=True)
        if real is None:
            print_unmeasured(recipe, objects.classes)
    with worded(size="--size", function="--model", **{"recipe.batch_size": "--batch-size"}):
        training = Training(recipe, objects, contexts, images=images, seed=options.seed, balanced=options.balanced,
                            function=options.model, compile=options.compile, float32=options.float32)  # fmt: skip
    with claimed(out):
        _prepare(training, options, out)
        attended(training, recipe.name, save=out / CHECKPOINT)
        # saved before the user's own network can fail while it is measured
        save_network(out / MODEL, training.learner.average, recipe, objects.classes, options.model)
        accuracy = None if real is None else measured(training.result, real, objects.classes, objects.device, options)
        report = training.report(accuracy, real)
        write_json(out / REPORT, report)
    print(to_json(report)) if options.json else _print_result(training, accuracy, real, out)


def _prepare(training: Training, options: argparse.Namespace, out: Path) -> None:
    """Load the checkpoint when resuming; otherwise write the files that are known before training."""
    with tempfile.TemporaryFile(dir=out):  # fail now, not after training, if the folder is not writable
        pass
    if options.resume:
        check_documents(out, "--resume")
        with worded(path="--resume"):
            training.load(out / CHECKPOINT)
        return
    set_aside(out, "train")
    given = {name: value for name, value in vars(options).items() if name not in ("command", "hint")}
    recipe, objects, contexts = training.recipe, training.objects, training.collate.composer.contexts
    about = {"options": plain(given), "versions": versions(), "trained_on": contexts.pyramid.checksums()}
    write_json(out / CONFIG, {**training.plan(), **about})
    batch = compose(recipe, objects, contexts, training.pairs, training.model, batches=1)
    names = [objects.classes[label] if label >= 0 else "" for label in batch.labels[:96].tolist()]
    save_sheet(out / PREVIEW, batch.images[:96], 12, names=names, insets=True)


def _print_result(training: Training, accuracy: Accuracy | None, real: RealSet | None, out: Path) -> None:
    print(f"trained on {training.seen:,} composites in {duration(training.seconds)}")
    if training.monitor is not None and (overfitting := training.monitor.report())["looks"]:
        *_, own, found = overfitting["looks"][-1]
        catastrophic = "catastrophic overfitting (train with more --attack-steps or a smaller --eps): "
        print(f"{catastrophic if overfitting['overfitted'] else ''}"
              f"{own:.0%} correct under the training's own attack, {found:.0%} under PGD")  # fmt: skip
    if accuracy is not None and real is not None:
        print_accuracy(accuracy, real)
    print(one_line(f"wrote {out / MODEL} and {out / REPORT}"))
