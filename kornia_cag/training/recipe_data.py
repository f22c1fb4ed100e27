"""Recipes as plain data, for files: what a recipe may hold is listed here, so a file can name nothing else."""

import functools
from collections.abc import Mapping
from typing import Any

import torch

from kornia_cag.adversary.losses import Loss, cross_entropy, dlr, kl, margin
from kornia_cag.adversary.pixels import Transform
from kornia_cag.adversary.recapture import Recapture
from kornia_cag.core.checks import InputError
from kornia_cag.core.structure import TYPE, Structure
from kornia_cag.scenes.blends import Average, Blend, Difference, Hard, MultiBand, Over, Poisson
from kornia_cag.scenes.choices import OneOf
from kornia_cag.scenes.edges import Eroded, Feather, Smeared
from kornia_cag.scenes.finishes import Finish
from kornia_cag.scenes.layout import Anywhere, Band, Place
from kornia_cag.training.recipe import Recipe

_CLASSES: dict[Any, tuple[type, ...]] = {
    Blend: (Over, Hard, Average, Difference, Feather, Eroded, Smeared, MultiBand, Poisson, OneOf),
    Finish: (Recapture,),
    Place: (Anywhere, Band),
    Transform: (Recapture,),
}
_NAMES: dict[Any, dict[str, Any]] = {
    Loss: {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr, "kl": kl},
    torch.dtype: {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32},
}


@functools.cache
def structure() -> Structure:
    """What converts recipes; made when first needed."""
    return Structure(_CLASSES, _NAMES)


def recipe_data(recipe: Recipe) -> dict[str, Any]:
    """A recipe as dictionaries, lists and JSON's values.

    Raises:
        InputError: for a recipe with a part that a file cannot hold, such as a blend of your own.
    """
    try:
        return structure().write(recipe)
    except InputError as error:
        raise InputError(f"recipe{error}", "recipe") from error


def recipe_from(data: Any, labels: Mapping[str, str]) -> Recipe:
    """The recipe that data of :func:`recipe_data` describes. Nothing that it names is imported or called.

    Args:
        data: the data; fields that it lacks have the defaults of :class:`Recipe` and its parts.
        labels: what errors call fields, by their dotted path; those inside a field are named after it. ``""`` has what
            comes before the paths of all others.

    Raises:
        InputError: naming the first field that is unknown, missing, of another type, or out of its range.
    """
    recipe: Recipe = structure().read(data, Recipe, lambda path: _label(path, labels))
    return recipe


def changed(recipe: Recipe, fields: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Recipe:
    """A recipe with other fields: ``changed(SIGNS, {"ranges.pose.angle": (-30, 30), "size": 64})``.

    Args:
        recipe: the recipe, which stays as it is.
        fields: the values by dotted path, as a file would hold them; checked together.
        labels: what errors call them, as for :func:`recipe_from`; default: their paths.

    Raises:
        InputError: as :func:`recipe_from`.
    """
    data = recipe_data(recipe)
    for path, value in fields.items():
        for name in reversed(path.split(".")):
            value = {name: value}
        data = merged(data, value)
    return recipe_from(data, labels or {})


def merged(base: Any, other: Any) -> Any:
    """Data with other data laid over it: field by field, unless the other names another class.

    A class's name alone is one with its defaults, and data that names no class may be of the other's.
    """
    if isinstance(base, str) and isinstance(other, dict) and base in structure().classes(Recipe):
        base = {TYPE: base}
    if not isinstance(base, dict) or not isinstance(other, dict):
        return other
    if TYPE in base and other.get(TYPE, base[TYPE]) != base[TYPE]:
        return other
    return {**base, **{name: merged(base[name], item) if name in base else item for name, item in other.items()}}


def _label(path: str, labels: Mapping[str, str]) -> str:
    """What errors call a field: by the label of the innermost field around it, or of the first one inside it."""
    outer, inner = path, ""
    while outer and outer not in labels:
        outer, _, name = outer.rpartition(".")
        inner = f".{name}{inner}"
    if outer:
        return labels[outer] + inner
    within = (label for field, label in labels.items() if field.startswith(f"{path}."))
    return next(within, labels.get("", "") + path)
