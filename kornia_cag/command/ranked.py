"""A command as one of several ranks, which torchrun or ``--nproc`` has started: who speaks, and who is silent."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn

import torch

from kornia_cag.command.launching import LOST
from kornia_cag.core import ranks
from kornia_cag.core.checks import fail

PATIENCE = 15.0  # seconds


@contextmanager
def as_rank(options: argparse.Namespace) -> Iterator[None]:
    """Inside the block this process is the rank that its environment names, if any; only rank 0 prints.

    Raises:
        InputError: for a command that does not run on several ranks.
    """
    if not ranks.told():
        yield
        return
    if options.command != "train":
        fail("torchrun", "kornia-cag train, which alone runs on several ranks", f"kornia-cag {options.command}",
             "Run it without torchrun.")  # fmt: skip
    count = int(os.environ["WORLD_SIZE"])
    if options.nproc not in (None, count):
        fail("--nproc", "to be left out under torchrun, which starts the ranks", str(options.nproc))
    if count > 1 and options.device not in ("auto", "cpu", "cuda"):
        fail("--device", "auto, cpu or cuda with several ranks, each of which has a GPU of its own", options.device)
    cuda = options.device != "cpu" and torch.cuda.is_available()
    with ExitStack() as stack:
        stack.enter_context(ranks.connected("cuda" if cuda else "cpu"))
        if ranks.here()[0] > 0:
            silent = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(silent))
            stack.enter_context(redirect_stderr(silent))
        yield


def speaks(options: argparse.Namespace, *, stopped: bool) -> bool:
    """Whether this process tells of its end: the first of several ranks that fail; of a signal ``--nproc`` tells.

    Args:
        options: of the command.
        stopped: whether a signal ends it.
    """
    if stopped and ranks.told() and getattr(options, "nproc", None) is not None:
        return False
    if ranks.here()[1] == 1 and ranks.told():  # it was refused before it was connected, as all the others were
        return os.environ["RANK"] == "0"
    return ranks.heard()


def left() -> NoReturn:
    """End without a word: another rank has ended, and it, or whoever started both, tells why."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()
    time.sleep(PATIENCE)  # until the launcher has met the other one, which may still be busy ending, and ends this one
    os._exit(LOST)  # nothing is to be cleaned up: connections are gone, and a GPU may wait for the other rank
