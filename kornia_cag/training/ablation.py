"""What each ingredient contributes: the paper's five rows, a recipe, and the recipe without each main ingredient."""

import statistics
from dataclasses import dataclass, replace
from typing import Any

from kornia_cag.adversary.pixels import PGD
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.run import Training

REFINEMENT = PGD(eps=16 / 255, eps_object=4 / 255, steps=2, random_start=False)  # the paper's budgets, with fewer steps


@dataclass(frozen=True)
class Row:
    """One line of an ablation table."""

    name: str
    recipe: Recipe
    photos: bool = True  # use the given photographs
    balanced: bool = True


def rows(recipe: Recipe, *, photos: bool = True) -> list[Row]:
    """What to train: the rows of Jin and Rinard's table in the recipe's ranges, and the recipe minus one thing each.

    As in the paper, the contexts of the five rows are pixel noise, except for random-context, which draws from all of
    the recipe's contexts. A row identical to the recipe itself is left out, including one without ``photos``.
    """
    plain = replace(recipe, attack=None, scene_attack=None, reset=None, hard_pairing=False, all_blends=False)
    reset = recipe.reset or 0.171
    noise = replace(plain, kind="pixel")
    attack = recipe.attack or REFINEMENT
    paper = [
        Row("paper: baseline", noise, photos=False),
        Row("paper: random context", plain),
        Row("paper: refinement only", replace(noise, attack=attack), photos=False),
        Row("paper: bias correction only", replace(noise, reset=reset), photos=False),
        Row("paper: full", replace(noise, attack=attack, reset=reset), photos=False),
    ]
    different = [row for row in paper if row != Row(row.name, recipe)]
    without = [row for row in _without(recipe) if photos or row.photos]
    return [*different, Row("recipe", recipe), *without, *_with(recipe)]


def _without(recipe: Recipe) -> list[Row]:
    ranges = recipe.ranges
    pose, color, camera = ranges.pose, ranges.color, ranges.camera

    def scene(**change: Any) -> Recipe:
        changed: SceneRange = replace(ranges, **change)
        return replace(recipe, ranges=changed)

    one = (1.0, 1.0)
    plain = ColorRange(brightness=one, contrast=one, saturation=one, hue=(0.0, 0.0))
    candidates = [
        Row("chain", replace(recipe, reset=None, hard_pairing=False)),
        Row("attack", replace(recipe, attack=None)),
        Row("scene attack", replace(recipe, scene_attack=None)),
        Row("hard pairing", replace(recipe, hard_pairing=False)),
        Row("photographs", recipe, photos=False),
        Row("light", scene(color=plain)),
        Row("exposure", scene(color=replace(color, exposure=(0.0, 0.0)))),
        Row("blur", scene(camera=replace(camera, blur=0.0))),
        Row("low resolution", scene(camera=replace(camera, low_resolution=(0.0, 0.0)))),
        Row("grain", scene(camera=replace(camera, grain=(0.0, 0.0)))),
        Row("camera", scene(camera=CameraRange())),
        Row("perspective", scene(pose=replace(pose, perspective=(0.0, 0.0)))),
        Row("turn and slant", scene(pose=replace(pose, angle=(0.0, 0.0), shear=(0.0, 0.0)))),
        Row("elastic", scene(pose=replace(pose, elastic=(0.0, 0.0)))),
        Row("holes", scene(pose=replace(pose, hole=(0.0, 0.0)))),
        Row("thickness", replace(recipe, thickness=())),
        Row("local contrast", replace(recipe, local=0)),
        Row("dropped maps", replace(recipe, map_dropout=0.0)),
        Row("averaged weights", replace(recipe, ema=0.0)),
        Row("views", replace(recipe, views=1)),
        Row("balance", recipe, balanced=False),
    ]
    return [replace(row, name=f"without {row.name}") for row in candidates if row != Row(row.name, recipe)]


def _with(recipe: Recipe) -> list[Row]:
    return [] if recipe.attack else [Row("with refinement", replace(recipe, attack=REFINEMENT))]


def ablated(
    row: Row, folders: tuple[str | None, str | None, str | None], *, images: int | None, seed: int, device: str,
    compile: bool = False, on_error: str = "raise",
) -> Training:  # fmt: skip
    """The training of one row; ``folders``: folder of objects, folder of photographs, and the objects' key."""
    objects, photos, key = folders
    bank = row.recipe.objects(objects, key=key, on_error=on_error, device=device)
    contexts = row.recipe.contexts(photos if row.photos else None, device=device, seed=seed, on_error=on_error)
    return Training(row.recipe, bank, contexts, images=images, seed=seed, balanced=row.balanced, compile=compile)


def alike(one: Row, other: Row, photos: str | None) -> bool:
    """Whether two rows train the same thing; without photographs, leaving them out changes nothing."""
    rows = (replace(row, name="", photos=row.photos and photos is not None) for row in (one, other))
    return len({repr(row) for row in rows}) == 1


def markdown(lines: list[dict[str, Any]]) -> str:
    """Format the result of :func:`summary` as an aligned Markdown table."""
    cells = [("row", "accuracy")]
    for line in lines:
        spread = "" if line["deviation"] is None else f" ± {line['deviation']:.2%}"
        cells.append((line["row"], f"{line['mean']:.2%}{spread}"))
    wide, high = (max(len(cell[i]) for cell in cells) for i in range(2))
    rows = [f"| {name.ljust(wide)} | {value.rjust(high)} |" for name, value in cells]
    return "\n".join([rows[0], f"|{'-' * (wide + 2)}|{'-' * (high + 1)}:|", *rows[1:]])


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds for each row, in row order.

    Args:
        results: results of single trainings, with ``row``, ``seed`` and ``accuracy``.
    """
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(result["row"], []).append(result["accuracy"])
    return [{"row": name, "seeds": len(values), "mean": round(statistics.mean(values), 5),
             "deviation": round(statistics.stdev(values), 5) if len(values) > 1 else None}
            for name, values in found.items()]  # fmt: skip
