"""Running a subcommand, whose options are parsed: errors, signals and warnings each become one line."""

import argparse
import importlib
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from kornia_cag.command.launching import launched, wanted
from kornia_cag.command.options import take_threads
from kornia_cag.command.ranked import as_rank, left, speaks
from kornia_cag.command.results import way_on
from kornia_cag.command.signals import caught
from kornia_cag.command.wording import spelled
from kornia_cag.core import ranks
from kornia_cag.core.checks import Diverged, InputError, Interrupted, one_line
from kornia_cag.core.memory import no_memory, told


def run(options: argparse.Namespace, arguments: Sequence[str] = ()) -> int:
    """Call the function of a subcommand, which has its name, in the module of that name; return the exit status.

    Args:
        options: as parsed.
        arguments: what they were parsed from, for the ranks of ``--nproc``.
    """
    threads = torch.get_num_threads()
    try:
        with as_rank(options):
            return _ended(options, arguments)
    except InputError as error:  # before there were ranks
        return _said(options, str(error), 2)
    finally:
        torch.set_num_threads(threads)


def _ended(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Do it, and tell why, in one line, if it fails."""
    try:
        with caught(), warnings.catch_warnings():
            warnings.showwarning = _Told()
            if wanted(options):
                return launched(options, arguments)
            take_threads(options)
            module = importlib.import_module(f"kornia_cag.command.{options.command}")
            getattr(module, options.command)(options)
    except (InputError, OSError) as error:
        return _said(options, str(error), 2)
    except Diverged as error:
        return _said(options, str(error), 1)
    except KeyboardInterrupt as error:
        number = error.args[0] if isinstance(error, Interrupted) else signal.SIGINT
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        return _said(options, word + way_on(options), 128 + number, stopped=True)
    except Exception as error:
        if ranks.broken(error):
            left()
        if not no_memory(error):
            raise
        return _said(options, f"{told(error)}. {_hint(error, options.hint)}", 2)
    return 0


def _hint(error: Exception, hint: str) -> str:
    """The advice of a subcommand, or other advice where it is what was done already."""
    return "Close other programs." if "cpu" in hint and not isinstance(error, torch.OutOfMemoryError) else hint


def _said(options: argparse.Namespace, text: str, status: int, *, stopped: bool = False) -> int:
    if speaks(options, stopped=stopped):
        to = sys.stderr if ranks.here()[0] == 0 else sys.__stderr__  # of other ranks, standard error is redirected
        print(f"kornia-cag: {one_line(spelled(text))}", file=to)
    return status


class _Told:
    """Shows each warning in one line, and once: a command may load the same pictures, or compose from them, twice."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        text = one_line(spelled(str(message)))
        if text not in self._said:
            self._said.add(text)
            print(f"kornia-cag: warning: {text}", file=sys.stderr)
