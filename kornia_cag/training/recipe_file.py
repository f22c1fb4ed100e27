"""Recipes as files that people read and edit: YAML, with the meaning and unit of each field beside it."""

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from kornia_cag.core.checks import fail
from kornia_cag.core.document import MOST_BYTES, read_document, scalar
from kornia_cag.core.notes import notes
from kornia_cag.core.storage import write_text
from kornia_cag.core.structure import TYPE
from kornia_cag.training.catalog import USUAL
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipe_data import merged, recipe_data, recipe_from, structure
from kornia_cag.training.recipes import RECIPES

BASE = "base"  # the key that names the recipe to start from
_COLUMN, _WIDTH = 34, 118  # where notes begin and end
_PARTS = {"ranges": "scenes", "ink": "objects and contexts", "reset": "what makes it harder", "images": "training",
          "network": "network"}  # fmt: skip


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a file. Nothing that it names is imported or called.

    A file with ``base: signs`` holds what differs from that recipe. Without a base, fields that it lacks have the
    defaults of :class:`Recipe` and its parts; ``size`` and ``ranges`` must be there. A file without a ``name`` is named
    as the file is.

    Raises:
        InputError: naming the file, the line and the field, for whatever is not right.
    """
    data, lines = read_document(path, "a recipe")
    if not isinstance(data, dict):
        fail(str(path), "the fields of a recipe", "nothing" if data is None else "something else")
    own = {"name": Path(path).stem, **data}
    base = own.pop(BASE, None)
    if BASE in data and base not in [*RECIPES]:
        near = get_close_matches(str(base), RECIPES, 1)
        fail(f"{path}, line {lines[BASE]}: {BASE}", f"one of {', '.join(RECIPES)}",
             "nothing" if base is None else repr(base), f"Did you mean {near[0]}?" if near else "")  # fmt: skip
    if base is None:
        missing = [field.name for field in fields(Recipe) if field.default is MISSING and field.name not in own]
        if missing:
            fail(str(path), f"a {BASE}, or else {' and '.join(missing)}", "neither",
                 f"{BASE}: {USUAL} has all fields that a file leaves out.")  # fmt: skip
    whole = own if base is None else merged(recipe_data(RECIPES[base]), own)
    labels = {field: f"{path}, line {line}: {field}" for field, line in lines.items() if field}
    return recipe_from(whole, {"": f"{path}: ", **labels})


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe into a file, with the meaning of each field; :func:`load_recipe` gives an equal one.

    Raises:
        InputError: for a recipe with a part that a file cannot hold, such as a blend of your own, and for one whose
            file would be too long to be read.
        OSError: for a full disk and the like.
    """
    text = recipe_text(recipe)
    if (size := len(text.encode())) > MOST_BYTES:
        fail("recipe", f"one whose file has at most {MOST_BYTES:,} bytes", f"{size:,} bytes",
             "Long classes and thickness make it long.")  # fmt: skip
    write_text(path, text)


def recipe_text(recipe: Recipe, about: str = "") -> str:
    """The text of a recipe's file; ``about`` is a comment at its head."""
    head = [f"# {line}" for line in textwrap.wrap(about, _WIDTH - 2)]
    return "\n".join([*head, *_lines(recipe, recipe_data(recipe), "")]) + "\n"


def _lines(value: Any, data: dict[str, Any], indent: str) -> Iterator[str]:
    """The lines of one object's fields, and of those inside it."""
    meaning = notes(type(value)) | {TYPE: ""}
    for name, choices in structure().choices(type(value)).items():
        meaning[name] = "; ".join(filter(None, (meaning.get(name, ""), f"one of {', '.join(choices)}")))
    for name, item in data.items():
        if not indent and name in _PARTS:
            yield from ("", f"# --- {_PARTS[name]}")
        inner = isinstance(item, dict)
        yield from _noted(f"{indent}{name}:" if inner else f"{indent}{name}: {_flow(item)}", meaning.get(name, ""))
        if inner:
            yield from _lines(getattr(value, name), item, f"{indent}  ")


def _noted(text: str, note: str) -> Iterator[str]:
    """A line with a note beside it, which may go on below."""
    column = max(_COLUMN, min(len(text), _WIDTH // 2) + 2)
    first, *more = textwrap.wrap(note, _WIDTH - column - 2) or [""]
    if first and len(text) + len(first) + 4 > _WIDTH:  # no room beside it
        first, more = "", [first, *more]
    yield f"{text:{column - 2}}  # {first}" if first else text
    yield from (f"{' ' * column}# {line}" for line in more)


def _flow(item: Any) -> str:
    """A value in one line."""
    if isinstance(item, list):
        return f"[{', '.join(map(_flow, item))}]"
    if isinstance(item, dict):
        return f"{{{', '.join(f'{name}: {_flow(inner)}' for name, inner in item.items())}}}"
    if isinstance(item, str):
        if re.fullmatch(r"[A-Za-z][\w -]*\w|[A-Za-z]", item, re.ASCII) and scalar(item) == item:
            return item
        text: str = yaml.safe_dump(item, default_style='"', width=float("inf"))
        return text.rstrip("\n")
    if isinstance(item, float) and len(repr(item)) > 8:  # such as 8 / 255
        above, below = Fraction(item).limit_denominator(255).as_integer_ratio()
        return f"{above}/{below}" if above / below == item and below > 1 else repr(item)
    return json.dumps(item)
