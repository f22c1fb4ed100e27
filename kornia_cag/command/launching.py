"""``--nproc``: torch's own launcher starts the ranks; what ends one of them ends all, and is told in one line."""

import argparse
import logging
import os
import signal
from collections.abc import Mapping, Sequence

import torch
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from kornia_cag.command.options import number
from kornia_cag.command.results import way_on
from kornia_cag.core import ranks
from kornia_cag.core.checks import Interrupted, fail
from kornia_cag.core.progress import say

MOST = 1024  # ranks on one machine
LOST = 3  # exit status of a rank that another one has left
_QUIET = {
    "TORCH_CPP_LOG_LEVEL": "FATAL",  # or each of the others tells how it lost its connection
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "20",  # seconds until ranks are killed that do not end by themselves
}


def wanted(options: argparse.Namespace) -> bool:
    """Whether ranks are still to be started: asked for, and this process is none of them."""
    return getattr(options, "nproc", None) not in (None, 1) and not ranks.told()


def launched(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run a command line in as many processes as ``--nproc`` says; return the exit status.

    Raises:
        InputError: for an impossible number of ranks.
        Interrupted: after Ctrl-C or SIGTERM, once the ranks have saved the run and ended.
    """
    count = _count(options)
    for name, value in {**_QUIET, "OMP_NUM_THREADS": str(max(1, _cores() // count))}.items():
        os.environ.setdefault(name, value)
    logging.disable()  # this process does nothing else
    ours = ["--standalone", f"--nproc-per-node={count}", "--max-restarts=0", "--monitor-interval=0.1"]
    started = torchrun.parse_args([*ours, "-m", "kornia_cag"])
    started.training_script_args = [*arguments]  # parsed with ours, they could look like the launcher's own
    try:
        torchrun.run(started)
    except SignalException as error:
        raise Interrupted(int(error.sigval)) from error
    except ChildFailedError as error:
        return _told(error.failures, options)
    return 0


def _count(options: argparse.Namespace) -> int:
    count = number("--nproc", options.nproc, 1, MOST)
    # torch is asked no more than this, or this process would take memory on a GPU
    cuda = options.device != "cpu" and torch.cuda.is_available()
    if cuda and count > (gpus := torch.cuda.device_count()):
        fail("--nproc", f"at most {gpus}, one rank for each GPU", str(count), "Pass --device cpu to use none.")
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _told(failures: Mapping[int, ProcessFailure], options: argparse.Namespace) -> int:
    """Tell of a rank that was killed, which cannot have told of itself; return the exit status."""
    first = sorted(failures.items(), key=lambda item: item[1].timestamp)
    killed = [(rank, -failure.exitcode) for rank, failure in first if failure.exitcode < 0]
    for rank, by in killed:
        if by != signal.SIGTERM:  # by which the others are ended
            name = signal.Signals(by).name
            say(f"kornia-cag: rank {rank} was killed by {name}, and the others stopped{way_on(options)}")
            return 128 + by
    spoken = [failure.exitcode for _, failure in first if failure.exitcode not in (LOST, -signal.SIGTERM)]
    signals = {128 + by: by for by in (signal.SIGINT, signal.SIGTERM)}
    for status in sorted(
        spoken, key=lambda status: status in signals
    ):  # a signal may only be how the others were ended
        if status in signals:
            raise Interrupted(int(signals[status]))
        return status
    say(f"kornia-cag: the ranks lost each other{way_on(options)}")
    return LOST
