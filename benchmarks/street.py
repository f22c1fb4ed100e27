"""What each ingredient gives on street photographs: ``python benchmarks/street.py DATA --row "distractors" --seed 0``.

Each row trains the recipe ``street``, changed in one thing, from scratch: a detector of one class, "sign", that sees
composed scenes alone, cut-outs of signs on photographs without signs and on procedural contexts. It is measured on the
odd files of GTSDB's training part, 1360×800, which nothing was tuned on, at the last step. The rows that adapt to
unlabelled photographs take the even files, and read no label. ``DATA`` holds ``objects/signs``, ``contexts``,
``real/gtsdb_dev`` and ``real/gtsdb_dev.csv``.

``python benchmarks/street.py --table out/*.json`` prints a table of what several such runs found.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from kornia_cag import (
    ColorRange,
    ContextBank,
    DepthRange,
    Eroded,
    Feather,
    FourierMix,
    HarmonyRange,
    LabStatistics,
    MultiBand,
    OneOf,
    Over,
    Poisson,
    ScenePGD,
    SceneRange,
    Smeared,
    SunRange,
    Training,
)
from kornia_cag.banks.pictures import read_rgb
from kornia_cag.evaluation.boxes import BoxedSet, load_boxes
from kornia_cag.evaluation.detection import SIZES, evaluate_detector
from kornia_cag.scenes.blends import Hard
from kornia_cag.scenes.references import References
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipes import STREET

EVERY = OneOf((Over(), Hard(), Feather(), Eroded(), Smeared(), MultiBand(), Poisson()))
THREE = OneOf((Over(), Feather(), Smeared()))
Changed = Callable[[Recipe], Recipe]


def scene(**change: Any) -> Changed:
    """The recipe with other ranges."""

    def changed(recipe: Recipe) -> Recipe:
        ranges: SceneRange = replace(recipe.ranges, **change)
        return replace(recipe, ranges=ranges)

    return changed


def layout(**change: Any) -> Changed:
    """The recipe with objects laid out otherwise."""

    def changed(recipe: Recipe) -> Recipe:
        own = recipe.ranges.layout
        return recipe if own is None else scene(layout=replace(own, **change))(recipe)

    return changed


def fields(**change: Any) -> Changed:
    """The recipe with other fields."""

    def changed(recipe: Recipe) -> Recipe:
        made: Recipe = replace(recipe, **change)
        return made

    return changed


def under_all(recipe: Recipe) -> Recipe:
    """Every scene under three blends, in batches of 15 pictures: a third as many scenes."""
    return replace(scene(blend=THREE)(recipe), all_blends=True, batch_size=recipe.batch_size // len(THREE.blends))


def chained(recipe: Recipe) -> Recipe:
    """Half of the scenes lie over earlier ones, whose signs stay targets where a third of them is seen."""
    task = recipe.detection
    return recipe if task is None else replace(recipe, reset=0.0, detection=replace(task, min_visible=0.3))


def harsh(recipe: Recipe) -> Recipe:
    """Contexts and signs exposed apart, in stronger contrast: dark signs before a white sky."""
    light = replace(recipe.ranges.color, exposure=(-2.5, 1.5), contrast=(0.6, 1.8))
    one = (1.0, 1.0)
    apart = ColorRange(exposure=(-1.0, 1.5), brightness=one, contrast=one, saturation=one, hue=(0.0, 0.0))
    return scene(color=light, context_color=apart)(recipe)


ROWS: dict[str, Changed] = {
    "recipe": fields(),
    "blend: hard": scene(blend=Hard()),
    "blend: feathered": scene(blend=Feather()),
    "blend: Poisson": scene(blend=Poisson()),
    "blend: one of three": scene(blend=THREE),
    "blend: one of seven": scene(blend=EVERY),
    "blend: each scene under three": under_all,
    "no signs below others": layout(stacked=0.0),
    "no occlusion": layout(overlap=0.0),
    "more occlusion": layout(overlap=0.5, visible=0.4),
    "distractors": fields(distractors=2),
    "brightness matched": scene(harmony=HarmonyRange(brightness=(0.0, 0.6), color=(0.0, 0.0), contrast=(0.0, 0.0))),
    "light matched": scene(harmony=HarmonyRange()),
    "shadows": scene(sun=SunRange()),
    "haze and defocus": scene(depth=DepthRange()),
    "harsh light": harsh,
    "chain": chained,
    "scene gradient": fields(scene_attack=ScenePGD(steps=1, fraction=0.5)),
    "20 photographs": fields(),
    "no photographs": fields(),
    "unlabelled: FDA": fields(),
    "unlabelled: Lab statistics": fields(),
    "unlabelled: as contexts": fields(),
}


def street(data: Path, parity: int) -> list[Path]:
    """Photographs of streets: the odd files, or the even ones."""
    files = sorted((data / "real/gtsdb_dev").glob("*.jpg"))
    return [path for path in files if int(path.stem) % 2 == parity]


def contexts_of(row: str, recipe: Recipe, data: Path, seed: int) -> ContextBank:
    """The contexts of a row."""
    folder = None if row == "no photographs" else str(data / "contexts")
    if row == "20 photographs":
        made = recipe.contexts(None, device="cpu", seed=seed)
        photos = ContextBank.from_folder(data / "contexts", size=recipe.texels, device="cpu")
        return photos.split(20 / len(photos))[1] + made
    bank = recipe.contexts(folder, device="cpu", seed=seed)
    return bank + unlabelled(data, recipe) if row == "unlabelled: as contexts" else bank


def unlabelled(data: Path, recipe: Recipe) -> ContextBank:
    """The even files, of which nothing is known."""
    pictures = [torch.from_numpy(read_rgb(path)).permute(2, 0, 1) for path in street(data, 0)]
    return ContextBank.from_tensors(pictures, size=recipe.texels, device="cpu")


def recipe_of(row: str, data: Path) -> Recipe:
    """The recipe of a row."""
    recipe = ROWS[row](STREET)
    if row == "unlabelled: FDA":
        return scene(finish=(FourierMix(References(unlabelled(data, recipe))),))(recipe)
    if row == "unlabelled: Lab statistics":
        return scene(finish=(LabStatistics(References(unlabelled(data, recipe))),))(recipe)
    return recipe


def measured(data: Path, recipe: Recipe, classes: tuple[str, ...]) -> BoxedSet:
    """The odd files with all signs as one class."""
    real = load_boxes(data / "real/gtsdb_dev", data / "real/gtsdb_dev.csv", classes)
    odd = set(street(data, 1))
    real = replace(real, pictures=tuple(picture for picture in real.pictures if picture.path in odd))
    return real.as_one(recipe.names(classes)[0])


def trained(data: Path, row: str, images: int, seed: int) -> dict[str, Any]:
    """Train a row, and measure it."""
    recipe = recipe_of(row, data)
    objects = recipe.objects(str(data / "objects/signs"), device="cpu")
    training = Training(recipe, objects, contexts_of(row, recipe, data, seed), images=images, seed=seed)
    training.run(log=lambda share, word: print(f"{row}: {share:.0%} {word}", file=sys.stderr), log_every=60)
    real = measured(data, recipe, objects.classes)
    network: Any = training.result
    found = evaluate_detector(lambda images: network.detect(images, threshold=0.01), real, objects.device)
    return {"row": row, **training.report(found, real)}


def table(results: Iterable[dict[str, Any]]) -> str:
    """Rows of Markdown: the mean over seeds, its standard deviation, and by size."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["row"], []).append(result["detection"])
    lines = ["| row | seeds | AP at 0.5 | small | medium | large |", "|---|--:|--:|--:|--:|--:|"]
    for row in sorted(found, key=[*ROWS].index):
        every = found[row]
        at50 = [100 * one["at50"] for one in every]
        spread = f" ± {statistics.stdev(at50):.1f}" if len(every) > 1 else ""
        sizes = [statistics.mean(100 * one["by_size"][size]["at50"] for one in every) for size in SIZES]
        cells = [row, f"{len(every)}", f"{statistics.mean(at50):.1f}{spread} %", *(f"{mean:.1f} %" for mean in sizes)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train and measure one row, or print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="the folder of the data; with --table, files of results")
    parser.add_argument("--row", choices=ROWS, default="recipe")
    parser.add_argument("--images", type=int, default=12_000, help="pictures to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        found = [json.loads(path.read_text()) for path in options.data]
        print(table(chain.from_iterable(one if isinstance(one, list) else [one] for one in found)))
        return
    if len(options.data) > 1:
        parser.error("one folder of data, or --table")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    result = trained(options.data[0], options.row, options.images, options.seed)
    print(table([result]))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
