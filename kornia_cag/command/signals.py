"""Ctrl-C and SIGTERM: stop at once, or after the current step. For the command only, in its main thread."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kornia_cag.core import ranks
from kornia_cag.core.checks import Diverged, Interrupted

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    """Inside the block, ``handler`` takes both signals, except ignored ones; afterwards they are restored."""
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
    """Inside the block, both signals raise :class:`Interrupted`."""
    with _handled(_raise):
        yield


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Inside the block, the first signal only makes the yielded function true, so a step can end; the second raises.

    On exit, :class:`Interrupted` is raised if there was a signal, to any of several ranks.
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
        except RuntimeError as error:  # the same signal may have killed a compiler process, or another rank
            if not taken:
                raise
            raise Interrupted(taken[0]) from error
    (number,) = ranks.agreed(taken[0] if taken else 0)
    if number:
        raise Interrupted(number)
