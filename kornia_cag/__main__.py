"""The entry point, light enough to answer Ctrl-C while torch is still loading."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line and return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell ignores Ctrl-C for background jobs
            signal.signal(number, _leave)
    _open_streams()
    # Waiting threads spin only briefly, then sleep. The default is thirty times as long, which slows training several
    # times over next to other processes; with no spinning at all, training alone is a fifth slower. Read when torch
    # loads.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from kornia_cag.command.cli import main as command

    return _flushed(command())


def _flushed(status: int) -> int:
    """The status, unless standard output cannot be flushed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again, and complains
        if status == 0:
            print(f"kornia-cag: {error}", file=sys.stderr)
        return status or 2
    return status


def _open_streams() -> None:
    """Point closed streams to the null device; otherwise a file opened later would take their number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, for good


def _leave(number: int, frame: FrameType | None) -> None:
    """Exit with one line: an import in progress could swallow an exception, and no work has started."""
    os.write(2, b"kornia-cag: interrupted\n" if number == signal.SIGINT else b"kornia-cag: terminated\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
