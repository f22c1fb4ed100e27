"""A source of pictures, read from its beginning to its end, again and again, and from any place in it.

A place is two counts, and what the source says of itself, if it can: reading goes on there after a restart.
"""

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kornia_cag.core.checks import check_instance, check_int, describe, fail

EVERY = 256  # items between two states that a source is asked for: some take as long as a picture

Source = Iterable[Any] | Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class Mark:
    """A place in a source.

    Attributes:
        passes: how often the source has been read to its end.
        item: items read of the pass since.
        kept: number of the item that ``state`` is of, at most ``item``.
        state: the source's own, or None: it has none, and is read from its beginning.
    """

    passes: int = 0
    item: int = 0
    kept: int = 0
    state: Any = None

    def state_dict(self) -> dict[str, Any]:
        """The mark as plain data."""
        return dict(vars(self))

    @classmethod
    def read(cls, state: Any) -> "Mark":
        """The mark of :meth:`state_dict`.

        Raises:
            InputError: for anything else.
        """
        check_instance("state", state, dict)
        if set(state) != {"passes", "item", "kept", "state"}:
            fail("state", "a place in a source", describe(state))
        item = check_int("state['item']", state["item"], 0)
        return cls(check_int("state['passes']", state["passes"], 0), item,
                   check_int("state['kept']", state["kept"], 0, item), state["state"])  # fmt: skip


Place = tuple[Mark, int]  # and how many pictures were skipped before it


def read_place(state: Any) -> tuple[int, Place]:
    """A generation and its place, of a state.

    Raises:
        InputError: for anything else.
    """
    check_instance("state['places'][...]", state, dict)
    rest = {name: value for name, value in state.items() if name not in ("generation", "skipped")}
    generation, skipped = (check_int(f"state[{name!r}]", state.get(name), 0) for name in ("generation", "skipped"))
    return generation, (Mark.read(rest), skipped)


class Reading:
    """Reads the items of a source without end.

    Args:
        source: an iterable, or a function that returns a fresh one. If an iterable has ``state_dict`` and
            ``load_state_dict``, it is asked for its state now and then, and every pass starts with its first one.

    Raises:
        InputError: for anything else.
    """

    def __init__(self, source: Any) -> None:
        if isinstance(source, str | bytes) or not (isinstance(source, Iterable) or callable(source)):
            fail("source", "an iterable of pictures, or a function that returns one", describe(source),
                 "For a folder: ContextStream.from_folder(path, ...).")  # fmt: skip
        self._source = source
        self._stateful = all(callable(getattr(source, name, None)) for name in ("state_dict", "load_state_dict"))
        self._mark, self._first = Mark(), self._state()
        self._items: Iterator[Any] | None = None

    def seek(self, mark: Mark) -> None:
        """Go to a place; what lies before it is read and dropped with the next item."""
        self._mark, self._items = mark, None

    def next(self) -> tuple[Mark, Any]:
        """The next item, and its place.

        Raises:
            InputError: for a source that is empty, or that cannot be read again.
        """
        while True:
            items = self._items = self._sought() if self._items is None else self._items
            here = self._mark
            if self._stateful and here.item % EVERY == 0 and here.item != here.kept:
                here = Mark(here.passes, here.item, here.item, self._state())
            for item in items:
                self._mark = Mark(here.passes, here.item + 1, here.kept, here.state)
                return here, item
            self._check_some(here)
            self.seek(Mark(here.passes + 1))

    def _state(self) -> Any:
        return copy.deepcopy(self._source.state_dict()) if self._stateful else None

    def _sought(self) -> Iterator[Any]:
        """An iterator at the mark."""
        mark, source = self._mark, self._source
        state = self._first if mark.state is None else mark.state
        if self._stateful:
            source.load_state_dict(copy.deepcopy(state))
        made = source if isinstance(source, Iterable) else source()
        if not isinstance(made, Iterable):
            fail("source()", "an iterable of pictures", describe(made))
        items = iter(made)
        for number in range(mark.kept, mark.item):
            if next(items, self) is self:
                fail("source", f"at least {mark.item} items, as when the state was saved", f"{number}",
                     "Give it the same files in the same order.")  # fmt: skip
        return items

    @staticmethod
    def _check_some(here: Mark) -> None:
        if here.item:
            return
        again = "" if not here.passes else " when it was read again"
        fail("source", "at least one picture", f"none{again}",
             "Pass a function that returns a fresh one: source=lambda: pictures(...)." if again else "")  # fmt: skip


def names(folder: str | Path, paths: Sequence[Path]) -> dict[str, int]:
    """Number and CRC-32 of the names of files in a folder, in their order: the same wherever the folder is."""
    inside = sorted(path.relative_to(folder).as_posix() for path in paths)
    return {"count": len(inside), "crc": zlib.crc32("\0".join(inside).encode("utf-8", "surrogateescape"))}


class Shuffled:
    """Paths without end, in another random order in every pass, at any place of which reading can begin at once.

    Args:
        paths: at least one.
        seed: seed of the order.
    """

    def __init__(self, paths: list[str], *, seed: int) -> None:
        self._paths, self._seed, self._next = paths, seed, 0

    def __iter__(self) -> Iterator[str]:
        count = len(self._paths)
        while True:
            order = np.random.default_rng([self._seed, self._next // count]).permutation(count)
            for place in order[self._next % count :].tolist():
                self._next += 1
                yield self._paths[place]

    def state_dict(self) -> dict[str, int]:
        """The number of paths so far."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place."""
        self._next = check_int("state['next']", state["next"], 0)
