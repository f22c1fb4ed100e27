"""Progress on standard error: a bar on a terminal, elsewhere a line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines
BAR = "{desc}{percentage:3.0f}%|{bar:20}|{postfix}"

Log = Callable[[float, str], None]  # takes the share done, in [0, 1], and a status text


@contextmanager
def progress(name: str, start: float = 0.0, *, patience: float = 0.0) -> Iterator[Log]:
    """A function that reports the progress of ``name`` and the estimated time left.

    On a terminal it moves a bar. Elsewhere it prints lines, without carriage returns: at its first call, every
    :data:`EVERY` seconds, and at the end.

    Args:
        name: name of the work.
        start: share done earlier.
        patience: seconds before anything is shown: shorter work is not reported.
    """
    begun = time.perf_counter()

    def left(share: float) -> str:
        passed = time.perf_counter() - begun
        if share >= 1:
            return f"took {duration(passed)}"
        return f"{duration(passed / (share - start) * (1 - share))} left" if share > start else ""

    if not sys.stderr.isatty():
        yield _lines(name, left, begun + patience)
        return
    with _Bar(desc=f"{name}: ", total=1.0, initial=start, bar_format=BAR, delay=patience, file=sys.stderr) as bar:

        def draw(share: float, word: str) -> None:
            bar.n = min(1.0, share)
            bar.set_postfix_str("  ".join(filter(None, (word, left(share)))), refresh=True)

        yield draw


class _Bar(tqdm):
    monitor_interval = 0  # no thread of its own: the caller draws


def _lines(name: str, left: Callable[[float], str], first: float) -> Log:
    due, begun = first, False

    def line(share: float, word: str) -> None:
        nonlocal due, begun
        now = time.perf_counter()
        if now >= due or (begun and share >= 1):
            due, begun = now + EVERY, True
            say("  ".join(filter(None, (f"{name}: {int(100 * min(1.0, share)):3}%", word, left(share)))))

    return line


def say(line: str) -> None:
    """Print a status line to standard error, unbuffered: standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``4.2 min`` or ``3.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
