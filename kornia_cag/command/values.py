"""Values of options, as argparse takes them: files, numbers, recipes and their fields. Nothing here needs torch."""

import argparse
import os
import shlex
from difflib import get_close_matches
from typing import Any

from kornia_cag.core.numerals import fraction as number
from kornia_cag.training.catalog import CATALOG


def path(text: str) -> str:
    """Parse an option that names a file or folder.

    Raises:
        ArgumentTypeError: for an empty string, which would mean the current folder, and for NUL, which no name holds.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected the name of a file or folder, got {text!r}")
    return text


def fraction(text: str) -> float:
    """Parse an option that is a number or a fraction such as ``8/255``.

    Raises:
        ArgumentTypeError: for anything else.
    """
    try:
        return number(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a number, or a fraction such as 8/255, got {text!r}") from None


def recipe(text: str) -> str:
    """Parse the name of a recipe, or of a file that holds one.

    Raises:
        ArgumentTypeError: for anything else.
    """
    if text in CATALOG or text.endswith((".yaml", ".yml")):
        return path(text)
    got, near = repr(text), get_close_matches(text, CATALOG, 1)
    fix = f" Did you mean {near[0]}?" if near else ""
    if "\0" not in text and os.path.isdir(text):
        got, fix = f"{got}, a folder", f" A folder of pictures is given with --objects {shlex.quote(text)}."
    raise argparse.ArgumentTypeError(
        f"expected one of {', '.join(sorted(CATALOG))}, or a file such as mine.yaml, got {got}.{fix}"
    )


class Sets(argparse.Action):
    """An option that sets fields of the recipe: all of them go the same way, as ``(option, field, text)``.

    Args:
        option_strings: the option's names.
        dest: not used.
        sets: the field that takes the option's value; or the values, by field, that the option stands for; or None, for
            an option that names its field.
        options: as for other options.
    """

    def __init__(
        self, option_strings: list[str], dest: str, *, sets: str | dict[str, str] | None = None, **options: Any
    ) -> None:
        self._sets = sets
        nargs = 0 if isinstance(sets, dict) else None
        super().__init__(option_strings, dest, nargs=nargs, default=argparse.SUPPRESS, **options)

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, used: str | None = None
    ) -> None:
        """Add to what is set already."""
        (name,) = self.option_strings
        if isinstance(self._sets, dict):
            given = self._sets
        elif self._sets is None:
            given, name = dict([value]), f"{name} {value[0]}"
        else:
            given = {self._sets: value}
        options.set = [*options.set, *((name, field, text) for field, text in given.items())]


def setting(text: str) -> tuple[str, str]:
    """Parse a field of the recipe and its value.

    Raises:
        ArgumentTypeError: for anything that is not ``FIELD=VALUE``.
    """
    field, equals, value = text.partition("=")
    if not field.strip() or not equals:
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE, such as ranges.pose.angle=-30,30, got {text!r}")
    return field.strip(), value
