"""Going through a sampler's epochs with data loaders, which draw ahead, break off and resume."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from kornia_cag.sampling.rows import Rows


class PairRows(Dataset[Rows]):
    """The data set of a :class:`PairSampler`: gives back the rows that it is asked for, a whole batch at a time.

    Args:
        samples: its length, those of one epoch.
    """

    def __init__(self, *, samples: int) -> None:
        self.samples = samples
        self.read = True  # whether the rows that were drawn last were read here, not in a worker process

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, row: Rows) -> Rows:
        self.read = True
        return row

    def __getitems__(self, rows: Rows) -> Rows:
        """The rows themselves: no Python per sample."""
        return self[rows]


@dataclass(kw_only=True)
class Place:
    """Which batch a sampler draws next. Of several passes only the one begun last moves it.

    Attributes:
        length: batches per epoch.
        epoch: of the batch.
        batch: in 0 to ``length``; at the end, nothing is left of the epoch.
        turn: a pass moves the place as long as no other has begun, and nobody has said where to go.
        loaded: since the last batch was drawn, was this place loaded?
        named: since then, was its epoch named by ``set_epoch``?
    """

    length: int
    epoch: int = 0
    batch: int = 0
    turn: int = 0
    loaded: bool = False
    named: bool = False

    @property
    def next_epoch(self) -> int:
        """The epoch of the batch that comes next in a pass."""
        return self.epoch + (self.batch == self.length and not self.named)

    def set_epoch(self, epoch: int) -> None:
        """Go to ``epoch``: to its start, or, if it is the one just loaded or named, to the place in it."""
        kept = epoch == self.epoch and (self.loaded or self.named)
        self.epoch, self.batch = epoch, self.batch if kept else 0
        self.loaded, self.named = False, True
        self.turn += 1

    def load(self, *, epoch: int, batch: int) -> None:
        """Go to a saved place."""
        # A StatefulDataLoader loads when it is iterated, so after a set_epoch that names the same epoch.
        self.named = self.named and epoch == self.epoch
        self.epoch, self.batch, self.loaded = epoch, batch, True
        self.turn += 1

    def leave(self) -> None:
        """Leave an epoch that was broken off or drawn to its end, unless a loaded or named place says to stay."""
        stay = self.named or (self.loaded and self.batch < self.length)
        if self.batch and not stay:
            self.epoch, self.batch = self.epoch + 1, 0

    def begin(self) -> int:
        """Begin a pass, whose turn it is now."""
        self.leave()
        self.turn += 1
        return self.turn

    def advance(self, turn: int, *, epoch: int, batch: int) -> bool:
        """Go on to a batch, if it is this pass's turn; returns whether it is."""
        if turn == self.turn:
            self.epoch, self.batch = epoch, batch
            self.loaded = self.named = False
        return turn == self.turn


Batches = Callable[[int, int], Iterator[Rows]]  # (epoch, first batch) to the batches from there to the epoch's end


class Pass(Iterator[Rows]):
    """One way through an epoch, with a state of its own for torchdata's ``StatefulDataLoader``.

    With workers that loader draws ahead for the iterator that it restores, even where it then takes another, because
    the end had been asked for; it says to neither which one it takes. So an iterator that is restored at the end gives
    nothing there, and no epoch is lost. Without workers it gives the next epoch.
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
        """Whether nothing is left for it to give."""
        drawn_by_workers = self._place.batch == self._place.length and not self._dataset.read
        return {"over": self._over or drawn_by_workers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of another."""
        self._over = state["over"]


def _drawn(place: Place, dataset: PairRows, batches: Batches) -> Iterator[Rows]:
    # The place to start from is taken at the first batch: a DataLoader asks for several iterators and uses one.
    turn = place.begin()
    epoch, first = place.epoch, place.batch
    for batch, rows in enumerate(batches(epoch, first), first):
        if place.advance(turn, epoch=epoch, batch=batch + 1):
            dataset.read = False
        yield rows
    place.advance(turn, epoch=epoch + 1, batch=0)
