"""``Captures``: work that is the same for every batch is recorded once, and replayed by one launch.

Eager composition is hundreds of small kernels, which a host takes longer to launch than a GPU to run; a compiled one is
a dozen, after checks that take the host as long. A CUDA graph launches them all together. It always reads the same
memory and writes the same memory, so every batch is copied in before a replay and out after it.
What records is a :class:`Recorder`; everything else here knows no CUDA.
"""

import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from kornia_cag.core.checks import InputError, fail
from kornia_cag.core.memory import no_memory
from kornia_cag.core.records import copied, mapped, tensors

MOST = 4  # recordings at a time: each holds the memory of one batch in the making
RECENT = 16  # batches; what does not come again within so many is not worth a recording

Work = Callable[..., Any]  # from records of tensors to a record of tensors
Given = tuple[Any, ...]  # its arguments


@dataclass(frozen=True)
class Recording:
    """Recorded work, and the memory that it is tied to.

    Attributes:
        given: the records that a replay reads.
        made: the record that a replay writes.
        replay: repeats the work, without waiting for it.
    """

    given: Given
    made: Any
    replay: Callable[[], None]


@runtime_checkable
class Recorder(Protocol):
    """Records work, without results: these come with the first replay."""

    def record(self, work: Work, given: Given) -> Recording:
        """Record ``work(*given)``; arguments of the same shapes may take the place of these."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """What is launched inside runs after what was launched in the turn before, on whichever stream."""
        ...


@dataclass
class _Kept:
    recording: Recording
    owner: object  # a replay reads memory of the owner, too
    used: int


class Captures:
    """Replays recorded work, for at most :data:`MOST` shapes of arguments at a time.

    What is seen for the first time runs as it is: the last, smaller batch of an epoch and a bank of photos come once.
    It is recorded if it comes again within :data:`RECENT` batches, and makes room for something else once it has not
    come for so many. Where everything recorded is in use, further work stays unrecorded.

    Results are fresh memory, not a buffer of the recording: whoever gets them may keep them and write into them, and a
    chain and a :class:`kornia_cag.Prefetcher` hold those of several batches. Copying them costs a GPU some
    microseconds. Threads take turns, and so do streams.

    Args:
        recorder: records and replays.
        optional: whether to go on without recordings, after a warning, where the recorder refuses to record.
    """

    def __init__(self, recorder: Recorder, *, optional: bool = False) -> None:
        self._recorder, self._optional, self._refused = recorder, optional, False
        self._lock = threading.Lock()
        self._kept: dict[Hashable, _Kept] = {}
        self._seen: dict[Hashable, tuple[int, weakref.ref[object]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, work: Work, given: Given, *, owner: object, settings: tuple[Hashable, ...]) -> Any:
        """The record ``work(*given)``, run or replayed.

        Args:
            work: depends on its arguments, the owner and the settings, and on nothing else.
            given: records of tensors; what they hold besides tensors counts as settings.
            owner: what the work reads besides, told apart by identity; kept as long as a recording of its work.
            settings: numbers and flags that the work depends on, told apart by value.
        """
        name = (id(owner), settings, tuple(_signature(given)))
        with self._lock:
            self._count += 1
            if name not in self._kept and not self._refused and self._due(name, owner):
                self._record(name, work, given, owner)
            if name in self._kept:
                return self._replayed(self._kept[name], given)
        return work(*given)

    def _due(self, name: Hashable, owner: object) -> bool:
        """Whether to record this now; notes that it was here."""
        self._seen = {each: seen for each, seen in self._seen.items() if self._count - seen[0] <= RECENT}
        again = name in self._seen and self._seen[name][1]() is owner  # another owner may have got the id of a lost one
        self._seen[name] = self._count, weakref.ref(owner)
        return again and (len(self._kept) < MOST or self._count - self._oldest().used > RECENT)

    def _oldest(self) -> _Kept:
        return min(self._kept.values(), key=lambda kept: kept.used)

    def _record(self, name: Hashable, work: Work, given: Given, owner: object) -> None:
        try:
            made = _Kept(self._recorder.record(work, given), owner, self._count)
        except (InputError, torch.OutOfMemoryError) as error:
            if not self._optional:
                raise
            self._refused = True
            warnings.warn(f"Composition is launched kernel by kernel, which is slower than a CUDA graph. {error} "
                          "(graph=False: no warning.)", stacklevel=2)  # fmt: skip
            return
        if len(self._kept) == MOST:  # only now: recording has waited for every replay
            oldest = self._oldest()
            self._kept = {each: kept for each, kept in self._kept.items() if kept is not oldest}
        self._kept[name] = made
        del self._seen[name]

    def _replayed(self, kept: _Kept, given: Given) -> Any:
        kept.used = self._count
        with self._recorder.turn():
            for held, tensor in zip(tensors(kept.recording.given), tensors(given), strict=True):
                held.copy_(tensor)
            kept.recording.replay()
            return copied(kept.recording.made)

    def __reduce__(self) -> tuple[Any, tuple[Recorder]]:
        return partial(Captures, optional=self._optional), (self._recorder,)  # another process records for itself


def _signature(record: Any) -> Iterator[Hashable]:
    """Everything about a record but the numbers in its tensors."""
    if isinstance(record, Tensor):
        yield tuple(record.shape), record.dtype
    elif isinstance(record, tuple):
        for item in record:
            yield from _signature(item)
    elif is_dataclass(record) and not isinstance(record, type):
        for field in fields(record):
            yield from _signature(getattr(record, field.name))
    else:
        yield record


def _dense(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, without gaps."""
    return torch.empty_like(tensor).copy_(tensor)


class CudaRecorder:
    """Records CUDA graphs, which take turns and therefore share their memory.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._done = torch.cuda.Event()
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def record(self, work: Work, given: Given) -> Recording:
        """Record a CUDA graph. Waits for the device.

        Raises:
            InputError: for work that reads from the device, or copies from the host.
        """
        consumer = torch.cuda.current_stream(self._device)
        # Buffers of inference mode could not be written to outside of it; to leave it turns gradients on.
        with torch.cuda.device(self._device), torch.inference_mode(False), torch.no_grad():
            self._stream.wait_stream(consumer)
            with torch.cuda.stream(self._stream):
                # Libraries set themselves up on first use, and compilers for each layout of memory, which they may not
                # do while recording.
                held = mapped(_dense, given)
                work(*held)
            consumer.wait_stream(self._stream)
            try:
                return self._captured(work, held)
            except RuntimeError as error:
                cause = error.__context__ or error  # where the work fails, ending its capture fails as well
                if no_memory(cause):
                    raise cause from None
                fail("graph", "work that a CUDA graph can record", f"'{str(cause).partition(chr(10))[0]}'",
                     "A blend of your own may neither read from the device nor make tensors on the CPU. Or leave "
                     "graph=True out.")  # fmt: skip
            finally:
                torch.cuda.set_stream(consumer)  # a failed capture would leave its own

    def _captured(self, work: Work, held: Given) -> Recording:
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs), None)  # a pool ends with its last graph
        # thread_local: other threads may go on allocating and pinning memory.
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            made = work(*held)
        self._graphs.add(graph)
        return Recording(held, made, graph.replay)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the current stream wait for the last turn, and the next turn for the current stream."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._done)
        try:
            yield
        finally:
            self._done.record(stream)

    def __reduce__(self) -> tuple[type["CudaRecorder"], tuple[torch.device]]:
        return CudaRecorder, (self._device,)
