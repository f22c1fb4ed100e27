"""Reusable memory for batches: on a CPU, fresh memory from the system costs as much as composing.

Also how much memory there is, and how to recognise out-of-memory errors.
"""

import contextlib
import functools
import math
import os
import re
import threading
import weakref
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from kornia_cag.core.checks import fail

LARGE = 2**20  # bytes; smaller blocks are left to torch
PASSING = 31 * 2**20  # bytes; glibc adapts to sizes up to 32 MiB


class Memory:
    """Lends blocks of CPU memory to tensors, and takes a block back when its last tensor is gone.

    The system provides a large block page by page, each cleared on first touch; a reused block already has its pages.
    A request takes at most one of the unused blocks and drops the others: tensors used side by side need a memory each.
    New blocks come from NumPy, which asks Linux for large pages.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # no two threads may get the same block
        self._blocks: list[tuple[UInt8[np.ndarray, " n"], weakref.ref[np.ndarray]]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, " *shape"]:
        """An uninitialised contiguous tensor; torch's own if it is small or not on a CPU."""
        count = math.prod(shape) * dtype.itemsize
        if device.type != "cpu" or count < LARGE:
            return torch.empty(shape, dtype=dtype, device=device)
        _keep_pages()
        with self._lock:
            free = [block for block, lent in self._blocks if lent() is None and count <= block.nbytes <= 2 * count]
            block = free[0] if free else np.empty(count, np.uint8)
            # The tensor's storage holds this array, and every user of the tensor holds the storage.
            array = block[:count]
            self._blocks = [pair for pair in self._blocks if pair[1]() is not None] + [(block, weakref.ref(array))]
        return torch.from_numpy(array).view(dtype).view(shape)

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        return Memory, ()  # another process has its own memory


@functools.cache
def _keep_pages() -> None:
    """Let the process keep the pages of torch's temporary tensors, which come and go with every batch.

    glibc returns the pages of a large block to the system each time, until it has seen one that large being freed
    (mallopt(3), M_MMAP_THRESHOLD): so free one, once.
    """
    torch.empty(PASSING, dtype=torch.uint8, device="cpu")


def no_memory(error: BaseException) -> bool:
    """Whether an error means out of memory, in Python's or one of torch's wordings."""
    words = ("can't allocate memory", "DefaultCPUAllocator", "not enough memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def machine_memory() -> int | None:
    """Most bytes that this process may use: the machine's, or its container's limit; None if unknown."""
    found = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            found.append(int(Path(limit).read_text()))
    return min((bytes for bytes in found if bytes > 0), default=None)


def told(error: BaseException) -> str:
    """How much memory could not be had, as far as an error of :func:`no_memory` says so: one line, without a stop."""
    first = str(error).partition("\n")[0]
    if asked := re.search(r"DefaultCPUAllocator.* allocate (\d+) bytes", first):
        return f"out of memory: {int(asked[1]) / 1e9:,.1f} GB more cannot be had"
    return " ".join(first.split()).rstrip(".").rpartition("] ")[2] or "out of memory"


def check_memory(argument: str, images: int, size: int | tuple[int, int], per_pixel: int, fix: str) -> None:
    """Refuse a batch that cannot fit into CPU memory: the system would kill the process without a word.

    Args:
        argument: what sets the size of the images, for the error.
        images: number in the batch.
        size: their side, or ``(height, width)``, pixels.
        per_pixel: bytes needed per pixel of an image, at least.
        fix: advice for the error.

    Raises:
        InputError: for a batch that takes more memory than the process may use.
    """
    height, width = (size, size) if isinstance(size, int) else size
    have, need = machine_memory(), images * height * width * per_pixel
    if have is not None and need > have:
        fail(argument, f"a batch that fits this machine's {have / 1e9:.0f} GB of memory",
             f"{images:,} image{'' if images == 1 else 's'} of {width} x {height} pixels, which "
             f"take{'s' if images == 1 else ''} {need / 1e9:,.0f} GB or more", fix)  # fmt: skip


def fits(count: int) -> bool:
    """Whether this process may use that many bytes at all; True if unknown."""
    most = machine_memory()
    return most is None or count <= most
