"""``Supply``: the items of a source, decoded ahead by threads, and handed out in the order of the source."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int32
from torch import Tensor

from kornia_cag.banks.fitting import _square, _to_uint8
from kornia_cag.banks.items import image_pixels, item_image
from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.banks.sources import Mark
from kornia_cag.core.checks import InputError, describe, fail

MOST_WORKERS = 16  # by default
PATIENCE = 2.0  # seconds that closing waits for the threads, one of which may be waiting for the source
ANSWER = 30.0  # seconds that the source has to answer, before reading begins elsewhere


@dataclass(frozen=True)
class Decoded:
    """An item of the source.

    Attributes:
        texels: of the picture and its mip levels, one word each; None: it cannot be used.
        reason: why not.
        note: what is odd about it.
    """

    texels: Int32[Tensor, "ah aw"] | None
    reason: str = ""
    note: str = ""


class Supply:
    """Decodes a source's items in threads, in any order, and hands them out in the source's.

    One thread at a time reads the source, so it need not be safe for threads. Whatever it raises is raised by
    :meth:`take`, when the item is due at which it was raised, and again by every later call.

    Attributes:
        seconds: that callers have waited.
        closed: whether it gives no more items.

    Args:
        read: reads the next item and its place.
        decode: decodes an item; raises what must not be skipped.
        workers: number of threads.
        room: number of items that may be read and not yet released.
    """

    def __init__(
        self, read: Callable[[], tuple[Mark, Any]], decode: Callable[[Mark, Any], Decoded], *, workers: int, room: int
    ) -> None:
        self.seconds, self.closed = 0.0, False
        self._read, self._decode, self._room = read, decode, room
        self._lock = threading.RLock()  # the collector of garbage may close it in a thread that holds it
        self._free, self._changed = (threading.Condition(self._lock) for _ in range(2))  # to read, to take
        self._done: dict[int, tuple[Mark, Decoded] | BaseException] = {}
        self._asked = self._next = 0  # items read, items handed out
        self._busy = self._ended = False  # busy: a thread is in the source
        self._threads = [threading.Thread(target=self._work, name="contexts", daemon=True) for _ in range(workers)]
        self._begin()

    def take(self) -> tuple[Mark, Decoded]:
        """The next item, once it is decoded.

        Raises:
            InputError: if it is closed.
        """
        with self._changed:
            start = time.perf_counter()
            if self._next not in self._done:
                self._changed.wait_for(lambda: self._next in self._done or self.closed)
                self.seconds += time.perf_counter() - start
            if self._next not in self._done:
                fail("contexts", "an open stream", "a closed one", "Make another one.")
            outcome = self._done[self._next]
            if isinstance(outcome, BaseException):
                raise outcome
            del self._done[self._next]
            self._next += 1
            return outcome

    def release(self, count: int) -> None:
        """Let as many more items be read."""
        with self._lock:
            self._room += count
            self._free.notify()

    def close(self, *, patience: float) -> bool:
        """End the threads, and wait for them: each decodes what it has begun; return whether they have ended.

        Args:
            patience: most seconds to wait for all. A thread in the source ends when that answers, or the process does.
        """
        with self._lock:
            self.closed = True
            self._done.clear()
            self._free.notify_all()
            self._changed.notify_all()
        deadline = time.monotonic() + patience
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:  # all, unless the collector of garbage closes it
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in others)

    def _begin(self) -> None:
        """Start the threads, each of which computes alone; other threads keep their number."""
        count, ready = torch.get_num_threads(), threading.Barrier(len(self._threads) + 1)
        self._ready = ready
        for thread in self._threads:
            thread.start()
        ready.wait()
        torch.set_num_threads(count)  # which is also the number of threads that begin later

    def _work(self) -> None:
        torch.set_num_threads(1)
        self._ready.wait()
        while self._worked():
            pass

    def _worked(self) -> bool:
        """Read and decode an item; return whether there may be another."""
        number = self._turn()
        if number is None:
            return False
        outcome: tuple[Mark, Decoded] | BaseException
        try:
            mark, item = self._read()
        except BaseException as error:  # whatever a user's source raises is for the thread that takes
            self._leave(ended=True)
            return self._put(number, error)
        self._leave()
        try:
            outcome = mark, self._decode(mark, item)
        except BaseException as error:
            outcome = error
        return self._put(number, outcome)

    def _turn(self) -> int | None:
        """Wait until this thread may read the source; return the number of its item, or None: there is none to read."""
        with self._lock:
            self._free.wait_for(lambda: self.closed or self._ended or (self._room > 0 and not self._busy))
            if self.closed or self._ended:
                return None
            self._busy, self._asked, self._room = True, self._asked + 1, self._room - 1
            return self._asked - 1

    def _leave(self, *, ended: bool = False) -> None:
        """Let another thread read."""
        with self._lock:
            self._busy, self._ended = False, ended
            self._free.notify(len(self._threads) if ended else 1)

    def _put(self, number: int, outcome: tuple[Mark, Decoded] | BaseException) -> bool:
        with self._lock:
            if not self.closed:
                self._done[number] = outcome
            self._changed.notify_all()
        return not isinstance(outcome, BaseException)


def default_workers() -> int:
    """One less than the processors of this process, at most 16, at least 1."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(known - 1, MOST_WORKERS))


def decoded(mark: Mark, item: Any, *, key: str | int | None, size: int, skip: bool) -> Decoded:
    """An item as a context of ``size`` texels, which looks as in a :class:`ContextBank`.

    Raises:
        InputError: for an item without a picture; and unless they are skipped, for pictures that cannot be used.
    """
    known = item.get("__key__") if isinstance(item, Mapping) else None  # of webdataset
    name = f"item {mark.item} of the source" + ("" if known is None else f" ({known})")
    if key is not None:
        try:
            item = item[key]
        except (KeyError, IndexError, TypeError):
            fail(name, f"an entry {key!r}", describe(list(item) if isinstance(item, Mapping) else item))
    image, notes = item_image(name, Path(item) if isinstance(item, str) else item), list[str]()
    try:
        pixels = image_pixels(name, image, size, notes)
    except InputError as error:
        if not skip:
            raise
        return Decoded(None, str(error))
    square = _square(_to_uint8(pixels).permute(1, 2, 0).cpu(), size)
    note = f"{name} is read as sRGB, since its colour profile cannot be used ({notes[0]})" if notes else ""
    return Decoded(build_pyramid(square[None], replicate=True).words[0], note=note)
