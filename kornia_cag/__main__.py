"""The entry point, light enough to answer Ctrl-C while torch is still being loaded."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line and return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a shell ignores Ctrl-C for what it starts in the background
            signal.signal(number, _leave)
    _open_streams()
    # Threads that wait for each other spin for a moment only, then sleep. By default they spin thirty times as long,
    # and a training beside other processes takes a multiple of its time; without spinning, it is a fifth slower where
    # it is alone. Read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    from kornia_cag.command.cli import main as command

    return _flushed(command())


def _flushed(status: int) -> int:
    """The status, unless what was printed finds no room."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more, and says so
        if status == 0:
            print(f"kornia-cag: {error}", file=sys.stderr)
        return status or 2
    return status


def _open_streams() -> None:
    """Let what is written to a closed stream go nowhere; a file that is opened later would take its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, for good


def _leave(number: int, frame: FrameType | None) -> None:
    """End in one line: an exception could be swallowed by whatever is being imported, and nothing is begun yet."""
    os.write(2, b"kornia-cag: interrupted\n" if number == signal.SIGINT else b"kornia-cag: terminated\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
