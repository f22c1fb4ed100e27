"""Running a subcommand, whose options are parsed: errors, signals and warnings each become one line."""

import argparse
import importlib
import signal
import sys
import warnings
from typing import Any

import torch

from kornia_cag.command.options import take_threads
from kornia_cag.command.results import way_on
from kornia_cag.command.signals import caught
from kornia_cag.command.wording import spelled
from kornia_cag.core.checks import Diverged, InputError, Interrupted, one_line
from kornia_cag.core.memory import no_memory, told


def run(options: argparse.Namespace) -> int:
    """Call the function of a subcommand, which has its name, in the module of that name; return the exit status."""
    threads = torch.get_num_threads()
    try:
        with caught(), warnings.catch_warnings():
            warnings.showwarning = _Told()
            take_threads(options)
            module = importlib.import_module(f"kornia_cag.command.{options.command}")
            getattr(module, options.command)(options)
    except (InputError, OSError) as error:
        return _said(str(error), 2)
    except Diverged as error:
        return _said(str(error), 1)
    except KeyboardInterrupt as error:
        number = error.args[0] if isinstance(error, Interrupted) else signal.SIGINT
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        return _said(word + way_on(options), 128 + number)
    except Exception as error:
        if not no_memory(error):
            raise
        return _said(f"{told(error)}. {_hint(error, options.hint)}", 2)
    finally:
        torch.set_num_threads(threads)
    return 0


def _hint(error: Exception, hint: str) -> str:
    """The advice of a subcommand, or other advice where it is what was done already."""
    return "Close other programs." if "cpu" in hint and not isinstance(error, torch.OutOfMemoryError) else hint


def _said(text: str, status: int) -> int:
    print(f"kornia-cag: {one_line(spelled(text))}", file=sys.stderr)
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
