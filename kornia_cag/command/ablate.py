"""``kornia-cag ablate``: train a recipe with one ingredient left out at a time, plus the paper's rows, and compare."""

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.command.attended import attended
from kornia_cag.command.measuring import budget, measured, needed_pictures
from kornia_cag.command.options import (
    MOST_SEED,
    check_training_memory,
    chosen_device,
    chosen_recipe,
    given_folder,
    given_photos,
    load_objects,
    needs_classifier,
    number,
    on_error,
)
from kornia_cag.command.plots import draw_ablation
from kornia_cag.command.results import ABLATION, PLOT, TABLE, check_out, claimed, folder, resume_threads, set_aside
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import InputError, check_int, check_number, fail, first_few, one_line
from kornia_cag.core.plain import differences, plain
from kornia_cag.core.saved import LARGEST, check_fields, check_plain, check_type, refused
from kornia_cag.core.storage import read_json, write_json, write_text
from kornia_cag.evaluation.real import RealSet
from kornia_cag.training.ablation import ablated, alike, markdown, rows, summary
from kornia_cag.training.recipe import Recipe


def ablate(options: argparse.Namespace) -> None:
    """Train every row of an ablation on the same budget, measure it, and save each result as it comes in."""
    out = folder(options)
    resume_threads(options, out)
    base, seeds = chosen_recipe(options), number("--seeds", options.seeds, 1, 10_000)
    needs_classifier(base, "RECIPE")
    first = number("--seed", options.seed, 0, MOST_SEED)
    images, device = budget(options, base), str(chosen_device(options.device))
    check_out(options, out)
    check_training_memory(options, base)
    folders = given_folder(options, "objects"), given_photos(options), options.key
    objects = load_objects(options, base)
    real = needed_pictures(options.real, base, objects.classes)
    every = rows(base, photos=folders[1] is not None)
    table = [row for row in every if not options.only or any(word in row.name for word in options.only)]
    if not table:
        fail("--only", f"words of these rows: {', '.join(row.name for row in every)}", " ".join(options.only))
    with claimed(out):
        plan = _ablation_plan(options, base, images, real, objects)
        done = _ablated_before(out / ABLATION, plan, resume=options.resume)
        todo = [(row, seed) for seed, row in itertools.product(range(first, first + seeds), table)
                if (row.name, seed) not in done]  # fmt: skip
        for i, (row, seed) in enumerate(todo):
            # a row that trains exactly like a finished one reuses its result
            twin = next(
                (other for other in table if (other.name, seed) in done and alike(other, row, folders[1])), None
            )
            if twin is not None:
                done[row.name, seed] = {**done[twin.name, seed], "row": row.name, "same_run_as": twin.name}
            else:
                with worded(size="--size"):
                    training = ablated(row, folders, images=images, seed=seed, device=device, compile=options.compile,
                                       on_error=on_error(options))  # fmt: skip
                attended(training, f"{row.name}, seed {seed}", more=len(todo) - i - 1)
                accuracy = measured(training.result, real, objects.classes, training.objects.device, options)
                done[row.name, seed] = {"row": row.name, **training.report(accuracy, real)}
            runs = [*done.values()]
            try:  # save even if printing fails, and print even if saving fails
                write_json(out / ABLATION, {"plan": plan, "summary": summary(runs), "runs": runs})
            finally:
                print(f"{row.name}, seed {seed}: {done[row.name, seed]['accuracy']:.2%}", flush=True)
        _tabulate(summary([*done.values()]), out, f"recipe {base.name}")


def _tabulate(found: list[dict[str, Any]], out: Path, title: str) -> None:
    """Print the ablation's table, and write it with its plot."""
    text = markdown(found)
    print(text)
    write_text(out / TABLE, text + "\n")
    print(one_line(f"wrote {out / ABLATION} and {out / TABLE}"))
    try:
        draw_ablation(found, out / PLOT, title=title)
        print(one_line(f"wrote {out / PLOT}"))
    except InputError as error:  # the plot is optional: everything else is written
        print(f"no plot: {error}")


def _ablation_plan(
    options: argparse.Namespace, recipe: Recipe, images: int | None, real: RealSet, objects: ObjectBank
) -> dict[str, Any]:
    """What all rows share, ready for JSON."""
    photographs = given_photos(options)
    # Procedural contexts differ between seeds.
    photos = None
    if photographs is not None:
        photos = ContextBank.from_folder(photographs, size=64, on_error=on_error(options), device="cpu").pyramid
    plan: dict[str, Any] = plain({
        "recipe": recipe, "images": recipe.images if images is None else images, "compile": options.compile,
        "threads": torch.get_num_threads() if objects.device.type == "cpu" else None,
        "real": {"name": real.name, "pictures": len(real.labels)},
        "objects": {"count": len(objects), "crc": objects.pyramid.checksum()},
        "photographs": None if photos is None else {"count": len(photos.atlas), "crc": photos.checksum()},
    })  # fmt: skip
    return plan


def _ablated_before(file: Path, plan: dict[str, Any], *, resume: bool) -> dict[tuple[str, int], dict[str, Any]]:
    """The saved results of an interrupted ablation, by row and seed; without ``resume`` they are set aside."""
    if not resume:
        set_aside(file.parent, "ablate")
    if not file.is_file():
        return {}
    wanted = "--resume", "results that ablate wrote", "Leave --resume out to start afresh."
    saved = read_json(file, *wanted)
    with refused(file, *wanted):
        before = check_fields("its content", saved, ("plan", "summary", "runs"))["plan"]
        check_plain("plan", before)
        check_type("runs", saved["runs"], list)
        runs = dict(map(_result, saved["runs"]))
    if other := differences(plan, before):
        fail("--resume", "the options of the saved ablation", first_few(other), "Repeat them, or leave it out.")
    return runs


def _result(run: Any) -> tuple[tuple[str, int], dict[str, Any]]:
    """Check one saved result; return its row and seed, and the result."""
    check_type("runs", run, dict)
    row = run.get("row")
    check_type("runs.row", row, str)
    check_number("runs.accuracy", run.get("accuracy"), 0, 1)
    return (str(row), check_int("runs.seed", run.get("seed"), 0, LARGEST)), run
