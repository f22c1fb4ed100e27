"""One line that tells how far a run is: on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WIDTH = 79

Log = Callable[[str], None]


@contextmanager
def progress_line() -> Iterator[Log | None]:
    """A function that rewrites the terminal's last line, or ``None`` where nobody watches standard error."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda line: print(f"\r{line.ljust(WIDTH)}", end="", file=sys.stderr, flush=True)
    finally:
        print(file=sys.stderr)


def duration(seconds: float) -> str:
    """``42 s`` or ``4.2 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def bar(share: float, width: int = 20) -> str:
    """A share in [0, 1] as ``[#####-----]``."""
    full = int(share * width)
    return f"[{'#' * full}{'-' * (width - full)}]"
