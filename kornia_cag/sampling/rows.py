"""``Rows``: what each sample of a batch is made from. Everything random later is a function of its row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_tensor, describe, fail
from kornia_cag.core.devices import upload
from kornia_cag.core.randomness import sample_keys
from kornia_cag.core.ranks import Share

COLUMNS = ("object", "context", "index", "epoch", "seed")
FIX = "Rows come by DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...), or from Rows.of(...)."


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Rows of ``b`` samples, packed into one tensor so that they go to a device in one copy.

    A :class:`PairSampler` yields them; :meth:`of` builds them from columns. They can be pickled, pinned and joined, and
    are indexed like a tensor: ``rows[:8]``, ``rows[mask]``; ``rows[3]`` is still rows, with one sample. Slices share
    memory.

    Attributes:
        table: (b, 4 + K); object, context, index, epoch, seed, then the objects of the other K - 1 layers.
    """

    table: Int[Tensor, "b n"]

    @classmethod
    def of(
        cls,
        objects: Int[Tensor, " b"] | Int[Tensor, "b k"],
        contexts: Int[Tensor, " b"],
        index: Int[Tensor, " b"],
        *,
        epoch: int | Int[Tensor, " b"] = 0,
        seed: int | Int[Tensor, " b"] = 0,
    ) -> "Rows":
        """Build rows from columns on one device.

        Args:
            objects: ids in the object bank, from 0; for one layer, or for K layers from back to front.
            contexts: ids in the context bank, from 0.
            index: indices of the samples in their epoch, from 0.
            epoch: one for all samples, or one each.
            seed: one for all samples, or one each, in ``[0, 2^62)``.

        Raises:
            InputError: for columns of different lengths, types or devices, and for numbers out of range.
        """
        layered = isinstance(objects, Tensor) and objects.ndim == 2
        check_tensor("objects", objects, ("b", "K") if layered else ("b",), torch.int64)
        layers = objects if layered else objects[:, None]
        if not layers.shape[1]:
            fail("objects", "at least one object per sample", describe(objects))
        lowest, *above = layers.unbind(1)
        given = {"contexts": contexts, "index": index, "epoch": epoch, "seed": seed}
        columns = [_column(name, column, lowest) for name, column in given.items()]
        return cls(torch.stack([lowest, *columns, *above], dim=1))

    @property
    def objects(self) -> Int[Tensor, " b"]:
        """(b,); ids in the object bank; those of the lowest layer if there are several."""
        return self.table[:, 0]

    @property
    def layers(self) -> Int[Tensor, "b k"]:
        """(b, K); ids in the object bank, from back to front."""
        lowest, above = self.table[:, :1], self.table[:, len(COLUMNS) :]
        return torch.cat([lowest, above], dim=1) if above.shape[1] else lowest

    @property
    def contexts(self) -> Int[Tensor, " b"]:
        """(b,); ids in the context bank."""
        return self.table[:, 1]

    @property
    def index(self) -> Int[Tensor, " b"]:
        """(b,); index of each sample in its epoch."""
        return self.table[:, 2]

    @property
    def epoch(self) -> Int[Tensor, " b"]:
        """(b,); epochs from 0."""
        return self.table[:, 3]

    @property
    def seed(self) -> Int[Tensor, " b"]:
        """(b,); in ``[0, 2^62)``."""
        return self.table[:, 4]

    @cached_property
    def keys(self) -> Int[Tensor, " b"]:
        """(b,); the source of each sample's randomness: a hash of seed, epoch and index. Computed once."""
        return sample_keys(self.seed, self.epoch, self.index)

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.table.device

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device, in one copy; from the CPU to a GPU without waiting for it.

        Their keys go along: a processor computes them in less time than a GPU takes to start that many kernels.
        """
        if torch.device(device).type == self.device.type:
            table = upload(self.table, device)
            return self if table is self.table else self._told(Rows(table))
        both = upload(torch.cat([self.table, self.keys[:, None]], dim=1), device)
        return self._told(Rows(both[:, :-1]).with_keys(both[:, -1]))

    def with_keys(self, keys: Int[Tensor, " b"]) -> "Rows":
        """These rows, whose :attr:`keys` are known."""
        self.__dict__["keys"] = keys  # where the cached property keeps them
        return self

    @property
    def share(self) -> Share:
        """The part of a global batch that these rows are: the whole, unless a sampler of several ranks dealt them."""
        return Share(*self.__dict__.get("dealt", (0, 1, len(self))))

    def with_share(self, share: Share) -> "Rows":
        """These rows, which are a rank's :attr:`share` of a global batch; rows taken from them are not."""
        self.__dict__["dealt"] = share
        return self

    def pin_memory(self) -> "Rows":
        """The same rows in pinned memory; called by a DataLoader with ``pin_memory=True``."""
        pinned = self._told(Rows(self.table.pin_memory()))
        return pinned.with_keys(self.keys) if "keys" in self.__dict__ else pinned

    def _told(self, copy: "Rows") -> "Rows":
        """A copy that knows its share, if these rows do."""
        return copy.with_share(self.share) if "dealt" in self.__dict__ else copy

    def replaced(
        self,
        *,
        objects: Int[Tensor, " b"] | None = None,
        contexts: Int[Tensor, " b"] | None = None,
        seed: Int[Tensor, " b"] | None = None,
    ) -> "Rows":
        """The same rows with different objects (in the lowest layer), contexts or seeds."""
        table = self.table.clone()
        for column, values in ((0, objects), (1, contexts), (4, seed)):
            if values is not None:
                table[:, column] = values
        return Rows(table)

    def cut(self, ends: Sequence[int]) -> list["Rows"]:
        """The rows in parts, with keys that are computed once for all.

        Args:
            ends: indices of the rows at which a new part begins.
        """
        _ = self.keys
        return [self[start:end] for start, end in zip([0, *ends], [*ends, None], strict=True)]

    @staticmethod
    def cat(rows: Sequence["Rows"]) -> "Rows":
        """Concatenate rows."""
        return Rows(torch.cat([part.table for part in rows]))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, place: int | slice | Int[Tensor, " n"] | Bool[Tensor, " b"]) -> "Rows":
        single = isinstance(place, int) and not isinstance(place, bool)
        if not single and not isinstance(place, slice | list) and not (isinstance(place, Tensor) and place.ndim == 1):
            fail("rows[...]", "one place, a slice, or a list or tensor of places", describe(place),
                 "A column has a name: rows.objects, rows.contexts, rows.index, rows.epoch, rows.seed.")  # fmt: skip
        places = [place] if single else place
        part = Rows(self.table[places])
        return part.with_keys(self.keys[places]) if "keys" in self.__dict__ else part

    def __iter__(self) -> Iterator["Rows"]:
        """Iterate over rows of one sample each."""
        return (Rows(self.table[place : place + 1]) for place in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"table": self.table}  # keys are cheaper to compute than to send
        if "dealt" in self.__dict__:
            state["dealt"] = tuple(self.share)
        return state

    def __repr__(self) -> str:
        return f"Rows({len(self)}, device='{self.device}')"


def _column(name: str, value: Any, like: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The column ``value``, or a column filled with one number for all samples."""
    if name in ("epoch", "seed") and not isinstance(value, Tensor):
        return torch.full_like(like, check_int(name, value, 0, 2**62 - 1))
    check_tensor(name, value, like.shape, torch.int64, like.device)
    column: Tensor = value
    return column


def are_rows(batch: Any) -> bool:
    """Whether a batch is rows, or a list of them, as from a loader that fetches one sample at a time."""
    return isinstance(batch, Rows) or (
        isinstance(batch, list | tuple) and bool(batch) and all(isinstance(row, Rows) for row in batch)
    )


def check_rows(rows: Any, *, objects: int, contexts: int) -> Rows:
    """Require rows, or a list of them, and return them as one.

    Args:
        rows: argument of a collate.
        objects: number of objects.
        contexts: number of contexts.

    Raises:
        InputError: for anything else, and for ids beyond the given numbers of objects and contexts.
    """
    if not are_rows(rows):
        fail("rows", "those of a PairSampler", describe(rows), FIX)
    if not isinstance(rows, Rows) and any(len(row) != 1 for row in rows):
        fail("rows", "one row for each entry of a list", describe(rows), FIX)
    found = rows if isinstance(rows, Rows) else Rows.cat(rows)
    check_tensor("rows.table", found.table, ("b", "4 + K"), torch.int64, fix=FIX)
    if found.table.shape[1] < len(COLUMNS) or (not len(found) and found.share.ranks == 1):
        fail("rows.table", f"at least one row of {len(COLUMNS)} or more columns", describe(found.table), FIX)
    if found.device.type == "cpu" and len(found):  # on other devices, reading the ids would wait for the device
        table = np.asarray(found.table)
        places = [(0, objects), (1, contexts), *((k, objects) for k in range(len(COLUMNS), table.shape[1]))]
        for column, count in places:
            ids = table[:, column]
            if ids.view(np.uint64).max() >= count:  # read as unsigned, a negative id is a very high one
                name = "context" if column == 1 else "object"
                fail("rows", f"{name} ids from 0 to {count - 1}", f"{ids.min()} to {ids.max()}",
                     "Build the PairSampler with the labels and the number of contexts of these banks.")  # fmt: skip
    return found


torch.serialization.add_safe_globals([Rows])  # so that torch.load takes saved rows with weights_only=True
