"""``kornia-cag recipe``: the recipes that there are, and one of them as a file to edit."""

import argparse

from kornia_cag.command.options import chosen_recipe
from kornia_cag.training.catalog import PURPOSES
from kornia_cag.training.recipe_file import recipe_text


def recipe(options: argparse.Namespace) -> None:
    """Print what each recipe is for, or all fields of one."""
    if options.what == "list":
        print(_table([("RECIPE", "NEEDS", "FOR"), *_recipes()]))
        return
    purpose = PURPOSES.get(options.recipe, "")
    print(recipe_text(chosen_recipe(options), f"{options.recipe}: {purpose}" if purpose else ""), end="")


def _recipes() -> list[tuple[str, str, str]]:
    """Name, needs and purpose of each recipe."""
    parts = ((name, *text.rpartition("; ")) for name, text in PURPOSES.items())
    return [(name, needs, purpose) for name, purpose, _, needs in parts]


def _table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {needs:{widths[1]}}  {purpose}" for name, needs, purpose in rows)
