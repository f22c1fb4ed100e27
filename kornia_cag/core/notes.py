"""What fields mean, from the docstrings of their classes: the one place where it is written."""

import inspect
import re


def notes(kind: type) -> dict[str, str]:
    """The meaning of each field, from the section ``Attributes`` of a docstring, as plain text for readers of a file.

    Marks of reStructuredText are gone, and so is the pointer to another class, whose fields a file shows in the same
    place; None is called null, as in files.
    """
    text = inspect.cleandoc(kind.__doc__ or "")
    section = re.search(r"^Attributes:\n(.*?)(?:^\S|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    if section is None:
        return {}
    found = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", section[1], flags=re.DOTALL | re.MULTILINE)
    return {name: _plain(note) for name, note in found}


def _plain(note: str) -> str:
    text = re.sub(r":\w+:`\.?([^`]+)`", r"\1", " ".join(note.split())).replace("``", "")
    return re.sub(r"\bNone\b", "null", re.sub(r":? units in \w+", "", text)).rstrip(".")
