"""Rewords the library's errors for the command line: arguments become options, advice becomes what to type."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from kornia_cag.core.checks import InputError

ADVICE = {  # the library's advice, as a pattern: the command's
    r"Pass its path: recipe\.objects\('signs/'\)": "Pass --objects FOLDER",
    r"Add some to the bank: bank \+ other\.unlabelled\(\)\.": "Put more into the folder of --distractors.",
    r"Set distractors, such as to 2\.": "Pass --set distractors=2, too.",
    r'read it with from_folder\(key="white"\)': "pass --key white",
    r'key="white"': "--key white",
    r'on_error="skip"': "--on-error skip",
    r"Keep it, or train another network with function=": "Leave it out, or train another network with --model",
    r"Pass fewer of them as images=\.": "Pass fewer of them by --real.",
    r"Pass function=": "Pass --model ",
    r"Pass (one of them|them) as boxes\.": r"Pass \1 by --annotations.",
    r"float32=True": "--float32",
    r"write 8 / 255 for eight": "write 8/255 for eight",
    r"Read others with load_real, or pip": "Pass --real, or pip",
    r"choose another folder\.": "choose another --out.",
    r"Start afresh with a new Training\.": "Leave --resume out to start afresh.",
    r"the arguments of the (saved run|first run)": r"the options of the \1",
    r"Call torch\.set_num_threads\((\d+)\)": r"Pass --threads \1",
    r"Resume it with Training\.load\.": "Resume it: repeat its kornia-cag train with --resume.",
}


@contextmanager
def worded(**options: str) -> Iterator[None]:
    """Make errors raised inside name the command-line option instead of the argument.

    Args:
        options: option per argument name: ``folder="--objects"``.

    Raises:
        InputError: in place of one about such an argument; any other passes unchanged.
    """
    try:
        yield
    except InputError as error:
        if error.argument not in options:
            raise
        option = options[error.argument]
        raise InputError(option + str(error).removeprefix(error.argument), option) from error


def spelled(text: str) -> str:
    """A message with the library's advice reworded for the command line."""
    for pattern, here in ADVICE.items():
        text = re.sub(pattern, here, text)
    return text
