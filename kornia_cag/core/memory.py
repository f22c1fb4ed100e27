"""Memory for batches that is used again: on a CPU, memory fresh from the system costs as much as composing.

Also how much memory there is, and what an error says that comes of none being left.
"""

import contextlib
import functools
import math
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

LARGE = 2**20  # bytes; smaller blocks are torch's
PASSING = 31 * 2**20  # bytes; glibc learns sizes up to 32 MiB


class Memory:
    """Lends blocks of a CPU's memory to tensors, and takes a block back when the last tensor on it is gone.

    A system hands out a large block page by page, each cleared when first touched; a block used again has its pages.
    Of the blocks that nobody uses, a request takes one or none, and drops the others: tensors used side by side want a
    memory each. New blocks are NumPy's, which asks Linux for large pages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # no two threads may be lent one block
        self._blocks: list[tuple[UInt8[np.ndarray, " n"], weakref.ref[np.ndarray]]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, " *shape"]:
        """An uninitialised contiguous tensor; on other devices than a CPU, and if it is small, torch's own."""
        count = math.prod(shape) * dtype.itemsize
        if device.type != "cpu" or count < LARGE:
            return torch.empty(shape, dtype=dtype, device=device)
        _keep_pages()
        with self._lock:
            free = [block for block, lent in self._blocks if lent() is None and count <= block.nbytes <= 2 * count]
            block = free[0] if free else np.empty(count, np.uint8)
            # The tensor's storage holds this very array, and whoever uses the tensor holds the storage.
            array = block[:count]
            self._blocks = [pair for pair in self._blocks if pair[1]() is not None] + [(block, weakref.ref(array))]
        return torch.from_numpy(array).view(dtype).view(shape)

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        return Memory, ()  # another process has memory of its own


@functools.cache
def _keep_pages() -> None:
    """Let the process keep the pages of what torch allocates on the way, which comes and goes with every batch.

    glibc gives the pages of a large block back to the system each time, until it has seen one as large be freed
    (mallopt(3), M_MMAP_THRESHOLD): it is shown one, once.
    """
    torch.empty(PASSING, dtype=torch.uint8, device="cpu")


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, in Python's words or in one of torch's."""
    words = ("can't allocate memory", "DefaultCPUAllocator", "not enough memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def machine_memory() -> int | None:
    """Bytes that this process may use at most: the machine's, or what its container allows; None if unknown."""
    found = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            found.append(int(Path(limit).read_text()))
    return min((bytes for bytes in found if bytes > 0), default=None)


def fits(count: int) -> bool:
    """Whether this process may use so many bytes at all; yes where nobody knows."""
    most = machine_memory()
    return most is None or count <= most
