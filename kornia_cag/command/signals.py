"""Ctrl-C and SIGTERM: one line at once, or after the step that is running. For the command only, in its main thread."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kornia_cag.core.checks import Diverged, Interrupted

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Inside, ``handler`` takes both signals, but for those that are ignored; outside, all is as it was."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def caught() -> Iterator[None]:
    """Inside, both signals raise :class:`Interrupted`."""
    with _handled(_raise):
        yield


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Inside, the first signal only makes the given function true, so that a step can end; the second one raises.

    On leaving, :class:`Interrupted` is raised if there was a signal.
    """
    taken: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        if taken:
            raise Interrupted(number)
        taken.append(number)

    with _handled(take):
        try:
            yield lambda: bool(taken)
        except Diverged:
            raise
        except RuntimeError:  # a compiler that worked for this process may have been ended by the same Ctrl-C
            if not taken:
                raise
    if taken:
        raise Interrupted(taken[0])
