"""``kornia-cag bench``: time what matters on this machine."""

import argparse
from dataclasses import replace

from kornia_cag.bench.timings import GLYPHS, table, timings
from kornia_cag.command.options import check_training_memory, chosen_recipe, load_banks, needs_classifier
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import check_number
from kornia_cag.core.plain import to_json
from kornia_cag.core.progress import progress
from kornia_cag.training.provenance import hardware, versions
from kornia_cag.training.recipes import RIGID_SIGNS


def bench(options: argparse.Namespace) -> None:
    """Time what matters on this machine, and say whether composing on the device pays off."""
    recipe = chosen_recipe(options)
    needs_classifier(recipe, "RECIPE")
    seconds = check_number("--seconds", options.seconds, 0.01, 600)
    check_training_memory(options, recipe)
    if recipe.name == "signs":  # the CPU loaders have no elastic displacement
        recipe = replace(recipe, ranges=RIGID_SIGNS)
    if options.objects is None and not recipe.classes:  # speed does not depend on the pictures
        recipe = replace(recipe, classes=GLYPHS)
    objects, contexts = load_banks(options, recipe)
    where = hardware(objects.device)
    if not options.json:
        rigid = ", without deformation" if recipe.ranges is RIGID_SIGNS else ""
        print(f"{where}; {recipe.name}{rigid}", flush=True)
    with worded(size="--size"), progress("timing") as log:
        report = timings(recipe, objects, contexts, compiled=not options.no_compile, seconds=seconds, log=log)
    report |= {"recipe": recipe.name, "hardware": where, "versions": versions()}
    print(to_json(report) if options.json else "\n".join(table(report)))
