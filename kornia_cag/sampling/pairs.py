"""``PairSampler``: which object meets which context, balanced, sharded, resumable. Indices only, no image needed.

Each epoch is a random biregular graph of objects and contexts (see :mod:`.graph`); its edges are the epoch's samples.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from kornia_cag.core.checks import check_int, describe, fail
from kornia_cag.sampling.biregular import biregular
from kornia_cag.sampling.rows import COLUMNS, Rows

_LOW = 0xFFFFFFFF
_EPOCH_LENGTH = 100_000  # samples: up to here an epoch is made longer to make all degrees exact
_EDGES, _OBJECTS, _CONTEXTS, _SLOTS, _UNIFORM = range(5)  # streams of randomness


def _generator(stream: int, *counters: int) -> np.random.Generator:
    # Two words per counter: different counters can then never spell the same seed.
    return np.random.default_rng([stream, *(word for c in counters for word in (c & _LOW, c >> 32))])


def _default_samples(sizes: Int64[np.ndarray, " k"], num_contexts: int, most: int) -> int:
    classes, limit = len(sizes), max(_EPOCH_LENGTH, 2 * num_contexts)
    objects_exact = math.lcm(*set(sizes.tolist()))
    all_exact = math.lcm(objects_exact, num_contexts // math.gcd(num_contexts, classes))
    every_context = -(-num_contexts // classes)
    for samples in (all_exact, -(-every_context // objects_exact) * objects_exact):
        if classes * samples <= limit and samples <= most:
            return samples
    return min(max(every_context, min(int(sizes.max()), limit // classes)), most)


def _class_labels(labels: Any) -> Int64[np.ndarray, " n"]:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        fail("labels", "one integer class per object", describe(labels), "Pass the labels of an ObjectBank.")
    found = np.unique(array)
    if found[0] < 0 or found[-1] != len(found) - 1:
        missing = np.setdiff1d(np.arange(len(found) + 1), found)[:3].tolist()
        got = f"class {found[0]}" if found[0] < 0 else f"none of class {', '.join(map(str, missing))}"
        fail("labels", f"classes 0 to {max(found[-1], 0)}, each with an object", got,
             "Number the classes from 0 without gaps.")  # fmt: skip
    return array.astype(np.int64)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        fail("rank", "rank and world_size together", f"rank={rank}, world_size={world_size}", "Pass both or neither.")
    if rank is None or world_size is None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return 0, 1
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    world_size = check_int("world_size", world_size)
    return check_int("rank", rank, 0, world_size - 1), world_size


class PairRows(Dataset[Rows]):
    """The data set of a :class:`PairSampler`: gives back the rows that it is asked for, a whole batch at a time."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.read = True  # whether the rows that were drawn last were read here, not in a worker process

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, row: Rows) -> Rows:
        return row

    def __getitems__(self, rows: Rows) -> Rows:
        """The rows themselves: no Python per sample."""
        self.read = True
        return rows


class _Pass(Iterator[Rows]):
    """One way through an epoch, with a state of its own for torchdata's ``StatefulDataLoader``.

    With workers that loader draws ahead for the iterator that it restores, even where it then takes another, because
    the end had been asked for; it says to neither which one it takes. So an iterator that is restored at the end gives
    nothing there, and no epoch is lost. Without workers it gives the next epoch.
    """

    def __init__(self, sampler: "PairSampler") -> None:
        self._sampler, self._batches, self._over = sampler, sampler._batches(), False

    def __next__(self) -> Rows:
        if self._over:
            raise StopIteration
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {"over": self._over or self._sampler._drawn_to_the_end_for_workers()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._over = state["over"]


class PairSampler(Sampler[Any]):
    """Batches of (object, context) pairs: the edges of one random biregular graph per epoch, in class-balanced order.

    Use it as ``DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...)``. A batch is :class:`Rows` on the CPU; a
    row says all about a sample: whatever is random later is a function of its seed, epoch and index.

    Within an epoch no pair comes twice. Every class has exactly ``samples_per_class`` samples; its objects share them
    with degrees that differ by at most one. So do the contexts' degrees. All are equal where the counts divide. An
    object meets every context with the same probability, and the objects of a class are alike. In any run of
    consecutive sample indices the class counts differ by at most one.

    In the long run, too, over the epochs 0 to e together, the totals of any two contexts differ by at most one, and so
    do those of any two objects of a class: with E samples per epoch, epoch e takes the places ``[e * E, (e + 1) * E)``
    of a cycle through all contexts in random order. The order is redrawn whenever the end of an epoch meets that of
    the cycle, so that no object is tied to contexts of its own rhythm. The objects of a class take turns likewise.

    Sample index ``i`` is the same pair for any batch size and rank. Global batch ``t`` covers ``batch_size *
    world_size`` indices, of which every rank takes an equal, contiguous part. The rows of a batch are shuffled, so that
    a slot sees changing classes.

    Every pass goes through fresh pairs: a new iterator goes on with the next epoch, whether the pass before it was
    finished or broken off. A pass is finished when its last batch is drawn, so that ``len(sampler)`` batches are enough
    (``islice``, Lightning's ``Trainer``). What a pass that is broken off did not draw is left out. An iterator that no
    batch was asked of does not count. (Worker processes draw ahead, and as soon as a loader is asked for an iterator.)

    :meth:`set_epoch` takes any epoch without those before it; ``state_dict``, taken at any batch, goes on there. The
    state is exact for this sampler and, with workers too, for torchdata's ``StatefulDataLoader``, which saves it;
    beside a plain DataLoader with workers it counts the batches drawn ahead. After the last batch it goes on with the
    next epoch; a ``StatefulDataLoader`` with workers that was not asked for the end by then asks for it first, which is
    a pass of no batches. Ranks agree as long as all of them take, break off and load alike.

    Args:
        labels: class of each object (an object's id is its place), every class from 0 to the highest.
        num_contexts: how many contexts there are.
        batch_size: rows per batch and rank.
        seed: of all pairs, in ``[0, 2^62)``.
        samples_per_class: of one epoch. By default the smallest number that makes all degrees equal, if the epoch then
            has at most ``max(100_000, 2 * num_contexts)`` samples; else the smallest that uses every context and makes
            the degrees equal within each class, under the same limit; else one that uses every context and, within
            that limit, every object.
        rank: of this process; by default from ``torch.distributed`` where that is initialised, else 0.
        world_size: number of processes, likewise.
        balanced: as said above. If false, every sample is an object and a context drawn uniformly and independently, as
            data loaders without balance do: classes, objects and contexts come as chance has it, pairs may repeat.
            Epochs are of the same length, and sharding, access by index and resuming are exact all the same.
        drop_last: leave out the last global batch if it is not full, instead of sharing it among the ranks. What is
            said above of whole epochs then holds before leaving out.

    Raises:
        InputError: for labels with gaps, sizes that cannot be, or ranks that cannot share an epoch equally.
    """

    def __init__(
        self,
        labels: Tensor | NDArray[Any] | Sequence[int],
        num_contexts: int,
        batch_size: int,
        *,
        seed: int = 0,
        samples_per_class: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        balanced: bool = True,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        classes = _class_labels(labels)
        self._order: NDArray[np.int64] = np.argsort(classes, kind="stable")  # objects, class by class
        self._sizes: NDArray[np.int64] = np.bincount(classes)
        self._labels_crc = zlib.crc32(classes.tobytes())
        self.num_contexts = check_int("num_contexts", num_contexts, 1, 2**31 - 1)
        self.batch_size = check_int("batch_size", batch_size)
        self.seed = check_int("seed", seed, 0, 2**62 - 1)
        self.rank, self.world_size = _place(rank, world_size)
        self.balanced, self.drop_last = balanced, drop_last
        self._most = int(self._sizes.min()) * self.num_contexts
        if samples_per_class is None:
            samples_per_class = _default_samples(self._sizes, self.num_contexts, self._most)
        fix = f"The smallest class has {self._most} different pairs: pass samples_per_class={self._most} or less."
        self.samples_per_class = check_int("samples_per_class", samples_per_class, 1, self._most, fix)
        self.samples = self.samples_per_class * len(self._sizes)
        self._check_shares()
        self._rows_read = PairRows(self.samples)
        self._epoch = self._next = self._turn = 0  # the batch to draw next, in 0 to len(self); whose turn it is
        # Since the last batch was drawn: was this place loaded? was its epoch named by set_epoch?
        self._loaded = self._named = False

    def _check_shares(self) -> None:
        classes, step = len(self._sizes), self.world_size // math.gcd(self.world_size, len(self._sizes))
        if self.samples_per_class % step:
            up = -(-self.samples_per_class // step) * step
            better = up if up <= self._most else self._most // step * step
            fail("world_size", f"a divisor of the {self.samples} samples per epoch", str(self.world_size),
                 f"Pass samples_per_class={better} ({better * classes} samples)." if better else
                 f"Each of the {classes} classes has at most {self._most} pairs: use fewer ranks.")  # fmt: skip
        if not len(self):
            fail("drop_last", "at least one whole batch per epoch",
                 f"{self.samples} samples for {self.world_size} x {self.batch_size}",
                 "Take a smaller batch_size, a larger samples_per_class, or drop_last=False.")  # fmt: skip

    @property
    def dataset(self) -> PairRows:
        """What a DataLoader takes as its data set; its length is the samples per epoch of all ranks."""
        return self._rows_read

    @property
    def epoch(self) -> int:
        """The epoch of the batch that comes next in a pass: with the last batch drawn, that of the pass to follow."""
        return self._epoch + (self._next == len(self) and not self._named)

    def set_epoch(self, epoch: int) -> None:
        """Go to ``epoch``; a place within this epoch that was just loaded is kept, any other epoch begins anew.

        At the end of the epoch, too: nothing of it is left then, and the pass is empty.
        """
        kept = check_int("epoch", epoch, 0, 2**62 - 1) == self._epoch and (self._loaded or self._named)
        self._epoch, self._next = int(epoch), self._next if kept else 0
        self._loaded, self._named = False, True
        self._turn += 1

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size * self.world_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Rows]:
        self._leave()
        return _Pass(self)

    def _leave(self) -> None:
        """Leave an epoch that was broken off or drawn to its end, unless a loaded state or set_epoch says to stay."""
        stay = self._named or (self._loaded and self._next < len(self))
        if self._next and not stay:
            self._epoch, self._next = self._epoch + 1, 0

    def _batches(self) -> Iterator[Rows]:
        # The place to start from is taken at the first batch: a DataLoader asks for several iterators and uses one.
        self._leave()
        self._turn += 1
        turn, epoch, first = self._turn, self._epoch, self._next
        edges = self._edges(epoch)
        for batch in range(first, len(self)):
            rows = self._rows(edges, epoch, batch)
            if turn == self._turn:
                self._epoch, self._next = epoch, batch + 1
                self._loaded = self._named = self._rows_read.read = False
            yield rows
        if turn == self._turn:
            self._epoch, self._next = epoch + 1, 0
            self._loaded = self._named = False

    def _drawn_to_the_end_for_workers(self) -> bool:
        return self._next == len(self) and not self._rows_read.read

    def _rows(self, edges: Int64[np.ndarray, " e"], epoch: int, batch: int) -> Rows:
        start = batch * self.batch_size * self.world_size
        count = min(self.batch_size, (self.samples - start) // self.world_size)
        start += self.rank * count
        index = start + _generator(_SLOTS, self.seed, epoch, start).permutation(count)
        rows = np.empty((count, len(COLUMNS)), np.int64)
        edge = edges[index]
        rows[:, 0], rows[:, 1], rows[:, 2] = edge >> 32, edge & _LOW, index
        rows[:, 3], rows[:, 4] = epoch, self.seed
        return Rows(torch.from_numpy(rows))

    def pairs(self, epoch: int | None = None) -> Int[Tensor, "e 2"]:
        """Object and context of every sample of an epoch (by default the current), all ranks, by sample index."""
        edges = self._edges(self.epoch if epoch is None else check_int("epoch", epoch, 0, 2**62 - 1))
        return torch.from_numpy(np.stack([edges >> 32, edges & _LOW], axis=1))

    def _edges(self, epoch: int) -> Int64[np.ndarray, " e"]:
        """The epoch's samples by index, as ``object << 32 | context``."""
        if not self.balanced:
            rng = _generator(_UNIFORM, self.seed, epoch)
            objects = rng.integers(len(self._order), size=self.samples)
            independent: Int64[np.ndarray, " e"] = objects << 32 | rng.integers(self.num_contexts, size=self.samples)
            return independent
        rng = _generator(_EDGES, self.seed, epoch)
        edges = biregular(self._degrees(epoch), self._cycle(epoch), rng)
        by_class = rng.permuted(edges.reshape(len(self._sizes), -1), axis=1)
        edges = by_class[rng.permutation(len(by_class))].T.ravel()
        named: Int64[np.ndarray, " e"] = self._order[edges >> 32] << 32 | edges & _LOW
        return named

    def _cycle(self, epoch: int) -> Int64[np.ndarray, " c"]:
        """The contexts, those that get one edge more in this epoch first."""
        n = self.num_contexts
        block = epoch // (n // math.gcd(n, self.samples))
        order = _generator(_CONTEXTS, self.seed, block).permutation(n)
        return np.roll(order, -(epoch * self.samples % n))

    def _degrees(self, epoch: int) -> Int64[np.ndarray, " n"]:
        """Contexts per object, class by class; classes of one size are done together."""
        samples, starts = self.samples_per_class, np.cumsum(self._sizes) - self._sizes
        degrees = np.repeat(samples // self._sizes, self._sizes)
        for size in np.unique(self._sizes).tolist():
            block = epoch // (size // math.gcd(size, samples))
            members = starts[self._sizes == size][:, None] + np.arange(size)
            turns = _generator(_OBJECTS, self.seed, block, size).permuted(members, axis=1)
            degrees[turns[:, (epoch * samples % size + np.arange(samples % size)) % size]] += 1
        return degrees

    def _configuration(self) -> dict[str, int]:
        return {"labels_crc": self._labels_crc, "num_contexts": self.num_contexts, "seed": self.seed,
                "samples_per_class": self.samples_per_class, "batch_size": self.batch_size,
                "world_size": self.world_size, "balanced": int(self.balanced),
                "drop_last": int(self.drop_last)}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Epoch, next batch and configuration: plain integers, the same on every rank."""
        return {"epoch": self._epoch, "batch": self._next, "configuration": self._configuration()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            InputError: for the state of a sampler that was built otherwise.
        """
        if not isinstance(state, dict) or not {"epoch", "batch", "configuration"} <= set(state):
            fail("state", "the state_dict of a PairSampler", describe(state))
        for name, mine in self._configuration().items():
            if (saved := state["configuration"].get(name)) != mine:
                fail("state", f"the state of a sampler with {name}={mine}", f"{name}={saved}",
                     "Build the sampler as the saved one was built.")  # fmt: skip
        batch = check_int("state['batch']", state["batch"], 0, len(self))
        epoch = check_int("state['epoch']", state["epoch"], 0, 2**62 - 1)
        # A StatefulDataLoader loads when it is iterated, so after a set_epoch that names the same epoch.
        self._named = self._named and epoch == self._epoch
        self._epoch, self._next, self._loaded = epoch, batch, True
        self._turn += 1

    def __repr__(self) -> str:
        low = (self.samples_per_class // self._sizes).min()
        high = -(-self.samples_per_class // self._sizes.min())
        fewest, most = self.samples // self.num_contexts, -(-self.samples // self.num_contexts)
        degrees = (f"contexts per object {low}{f' to {high}' if high > low else ''}, "
                   f"objects per context {fewest}{f' to {most}' if most > fewest else ''}")  # fmt: skip
        per_class = f"{self.samples_per_class} per class, " if self.balanced else ""
        return (f"PairSampler({len(self._order)} objects of {len(self._sizes)} classes, {self.num_contexts} contexts; "
                f"{self.samples} samples per epoch, {per_class}in {len(self)} batches of {self.batch_size}; "
                f"{degrees if self.balanced else 'independent uniform pairs'}; "
                f"seed={self.seed}, epoch={self.epoch}, rank {self.rank} of {self.world_size})")  # fmt: skip
