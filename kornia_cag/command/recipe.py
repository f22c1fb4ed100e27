"""``kornia-cag recipe``: the recipes that there are, and one of them as a file to edit."""

import argparse

from kornia_cag.command.options import chosen_recipe
from kornia_cag.training.catalog import CATALOG
from kornia_cag.training.recipe_file import recipe_text


def recipe(options: argparse.Namespace) -> None:
    """Print what each recipe is for, or all fields of one."""
    if options.what == "list":
        print(_table([("RECIPE", "NEEDS", "FOR"), *((name, of.needs, of.purpose) for name, of in CATALOG.items())]))
        return
    known = CATALOG.get(options.recipe)
    about = f"{options.recipe}: for {known.purpose}; needs {known.needs}" if known else ""
    print(recipe_text(chosen_recipe(options), about), end="")


def _table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {needs:{widths[1]}}  {purpose}" for name, needs, purpose in rows)
