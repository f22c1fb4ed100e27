"""``Prefetcher``: composes the next batch on a side stream while the model trains on the current one."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from operator import length_hint
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from kornia_cag.adversary.stage import Draft
from kornia_cag.core.checks import check_instance, describe, fail
from kornia_cag.core.records import tensors
from kornia_cag.loading.batch import Output
from kornia_cag.loading.collate import CAGCollate

T = TypeVar("T")


class SideStream:
    """A CUDA stream for work ahead of its consumer, the stream that is current when a method is called."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def launch(self, work: Callable[[], T]) -> Callable[[], T]:
        """Start ``work`` after everything already queued on the consumer's stream, in parallel with what comes later.

        Returns:
            A function that returns the result or raises the error of ``work``; calling it makes the consumer's stream
            wait for the result. The host never waits.
        """
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        future: Future[T] = Future()
        with torch.cuda.stream(self._stream):
            try:
                future.set_result(work())
            except Exception as error:  # raised when the next batch is requested
                future.set_exception(error)
        return partial(self._collect, future)

    def _collect(self, future: Future[T]) -> T:
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_stream(self._stream)
        result = future.result()
        for tensor in tensors(result):
            tensor.record_stream(consumer)  # or later work could overwrite what the consumer still reads
        return result


class Prefetcher(Generic[Output]):
    """Iterates over a loader that composes, and hardens each batch against the model as it is when the batch is due.

    ``Prefetcher(DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose), collate)`` yields the same
    batches as ``DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)``, bit for bit. On a GPU it composes
    one batch ahead, on its own stream, so that composing overlaps with the training step. On a CPU it composes a batch
    on request; worker processes can still compose while the attack runs in the main process.

    Breaking out of the loop drops the batch composed ahead; the sampler's epochs begin and end as without a prefetcher.
    A state saved after the last batch resumes with the next epoch, even if the loader has workers.
    Only an ``Unkeyed`` finish notices: it draws from the global random state one training step earlier.

    Args:
        loader: with ``collate_fn=collate.compose`` and ``pin_memory=False``.
        collate: hardens batches, and holds the chain.

    Raises:
        InputError: for a loader that does not compose with this collate, or that pins memory.
    """

    def __init__(self, loader: DataLoader[Any], collate: CAGCollate[Output]) -> None:
        check_instance("collate", collate, CAGCollate)
        check_instance("loader", loader, DataLoader, "Pass DataLoader(..., collate_fn=collate.compose).")
        if loader.collate_fn != collate.compose:
            got = "the collate itself" if loader.collate_fn is collate else describe(loader.collate_fn)
            fail("loader", "one with collate_fn=collate.compose", got, "The loader composes, the Prefetcher attacks.")
        if loader.pin_memory:
            fail("pin_memory", "False in a loader that only composes", "True", "Pin the finished batches instead.")
        self.loader, self.collate = loader, collate
        self._side = SideStream(collate.device) if collate.device.type == "cuda" else None
        self._start = self._done = 0  # batches of the epoch: done when loaded, delivered so far
        self._saved: dict[str, Any] | None = None  # the state without the batch composed ahead, while there is one
        self._failed = False  # a batch was taken from the loader but not delivered
        self._ended = False  # the loaded state is from after the last batch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Output]:
        """The batches of one epoch."""
        compose: Callable[[], Draft | None] = partial(next, iter(self.loader), None)
        self._done, self._start, self._failed = self._start, 0, False
        ended, self._ended = self._ended, False
        pending = self._ahead(compose)
        composed = pending()
        if composed is None and ended:  # with workers a StatefulDataLoader first yields the end of its old epoch
            pending = self._ahead(compose := partial(next, iter(self.loader), None))
            composed = pending()
        while composed is not None:
            self._failed = True
            batch = self.collate.harden(composed)
            self._done, self._failed = self._done + 1, False
            del composed  # the training step needs the memory
            pending = self._ahead(compose)  # after the attack, which the chain needs; before the training step
            yield batch
            composed = pending()
        self._done, self._saved = 0, None

    def _ahead(self, compose: Callable[[], Draft | None]) -> Callable[[], Draft | None]:
        # Free what the side stream reads only after the consumer's stream has waited for it, or the batch is dropped.
        if self._side is None or self._done == length_hint(self.loader, -1):  # asking would end the sampler's epoch
            self._saved = None
            return compose
        self._saved = self._state(self.loader) if hasattr(self.loader, "state_dict") else None
        return self._side.launch(compose)

    def set_epoch(self, epoch: int) -> None:
        """Go to ``epoch``: calls ``set_epoch`` of the sampler and the collate."""
        parts: tuple[Any, ...] = (self.loader.batch_sampler, self.loader.sampler, self.collate)
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        self._done, self._saved, self._ended = self._start, None, False

    def state_dict(self) -> dict[str, Any]:
        """Where to resume: after the last delivered batch. The sampler's own state also counts batches composed ahead.

        Raises:
            InputError: if the loader has no state (use a ``StatefulDataLoader``), or if the last batch failed.
        """
        loader = self._resumable()
        if self._failed:
            fail("state", "a state after a delivered batch", "one in the middle of a failed batch",
                 "Resume from an earlier state.")  # fmt: skip
        if self._saved is None:
            return self._state(loader)
        # Take the current value of what the batch composed ahead left alone: training may have updated the pairing.
        photos = self._saved["collate"]["photos"]
        return {**self._saved, "collate": {**self.collate.state_dict(), "photos": photos}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state_dict`; the next iteration resumes there.

        Raises:
            InputError: for any other state, that of a loader or collate built differently, or a loader without state.
        """
        if not isinstance(state, dict) or set(state) != {"loader", "collate", "batch"}:
            fail("state", "the state_dict of a Prefetcher", describe(state))
        self._resumable().load_state_dict(state["loader"])
        self.collate.load_state_dict(state["collate"])
        self._ended = state["batch"] == length_hint(self.loader, -1)
        self._start = self._done = 0 if self._ended else state["batch"]
        self._saved = None

    def _resumable(self) -> Any:
        if not hasattr(self.loader, "state_dict"):
            fail("loader", "a StatefulDataLoader, whose state can be saved", f"a {type(self.loader).__name__}")
        return self.loader

    def _state(self, loader: Any) -> dict[str, Any]:
        return {"loader": loader.state_dict(), "collate": self.collate.state_dict(), "batch": self._done}
