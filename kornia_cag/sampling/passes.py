"""Iterating over a sampler's epochs with data loaders that draw ahead, break off and resume."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from kornia_cag.sampling.rows import Rows


class PairRows(Dataset[Rows]):
    """The data set of a :class:`PairSampler`: returns the rows that index it, a whole batch at a time.

    Args:
        samples: its length, the samples per epoch.
    """

    def __init__(self, *, samples: int) -> None:
        self.samples = samples
        self.read = True  # whether the last rows were read in this process, not in a worker

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, row: Rows) -> Rows:
        self.read = True
        return row

    def __getitems__(self, rows: Rows) -> Rows:
        """The rows themselves, without Python work per sample."""
        return self[rows]


@dataclass(kw_only=True)
class Place:
    """Which batch a sampler draws next. Of several passes only the latest moves it.

    Attributes:
        length: batches per epoch.
        epoch: epoch of the batch.
        batch: in 0 to ``length``; at ``length`` the epoch is used up.
        turn: a pass moves the place until another begins, or the place is set.
        loaded: whether the place was loaded since the last batch was drawn.
        named: whether ``set_epoch`` named its epoch since then.
    """

    length: int
    epoch: int = 0
    batch: int = 0
    turn: int = 0
    loaded: bool = False
    named: bool = False

    @property
    def next_epoch(self) -> int:
        """The epoch of the next batch."""
        return self.epoch + (self.batch == self.length and not self.named)

    def set_epoch(self, epoch: int) -> None:
        """Go to ``epoch``: to its start, or if it was just loaded or named, to the place in it."""
        kept = epoch == self.epoch and (self.loaded or self.named)
        self.epoch, self.batch = epoch, self.batch if kept else 0
        self.loaded, self.named = False, True
        self.turn += 1

    def load(self, *, epoch: int, batch: int) -> None:
        """Go to a saved place."""
        # A StatefulDataLoader loads when iterated, that is, after a set_epoch that names the same epoch.
        self.named = self.named and epoch == self.epoch
        self.epoch, self.batch, self.loaded = epoch, batch, True
        self.turn += 1

    def leave(self) -> None:
        """Leave an epoch that was broken off or finished, unless its place was just loaded or named."""
        stay = self.named or (self.loaded and self.batch < self.length)
        if self.batch and not stay:
            self.epoch, self.batch = self.epoch + 1, 0

    def begin(self) -> int:
        """Begin a pass; it is now this pass's turn."""
        self.leave()
        self.turn += 1
        return self.turn

    def advance(self, turn: int, *, epoch: int, batch: int) -> bool:
        """Advance to a batch if it is this pass's turn; return whether it is."""
        if turn == self.turn:
            self.epoch, self.batch = epoch, batch
            self.loaded = self.named = False
        return turn == self.turn


Batches = Callable[[int, int], Iterator[Rows]]  # (epoch, first batch) to the batches from there to the epoch's end


class Pass(Iterator[Rows]):
    """One pass through an epoch, with its own state for torchdata's ``StatefulDataLoader``.

    With workers that loader draws ahead for the iterator it restores, even if it then uses another because the end had
    been reached; it tells neither which one it uses. So an iterator restored at the end yields nothing there, and no
    epoch is lost. Without workers it yields the next epoch.
    """

    def __init__(self, place: Place, dataset: PairRows, batches: Batches) -> None:
        place.leave()
        self._place, self._dataset, self._over = place, dataset, False
        self._batches = _drawn(place, dataset, batches)

    def __next__(self) -> Rows:
        if self._over:
            raise StopIteration
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Whether it has nothing left to yield."""
        drawn_by_workers = self._place.batch == self._place.length and not self._dataset.read
        return {"over": self._over or drawn_by_workers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of another pass."""
        self._over = state["over"]


def _drawn(place: Place, dataset: PairRows, batches: Batches) -> Iterator[Rows]:
    # Read the starting place at the first batch: a DataLoader creates several iterators and uses one.
    turn = place.begin()
    epoch, first = place.epoch, place.batch
    for batch, rows in enumerate(batches(epoch, first), first):
        if place.advance(turn, epoch=epoch, batch=batch + 1):
            dataset.read = False
        yield rows
    place.advance(turn, epoch=epoch + 1, batch=0)
