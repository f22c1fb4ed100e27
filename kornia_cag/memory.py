"""Memory for batches that is used again: on a CPU, memory fresh from the system costs as much as composing."""

import math
import weakref

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

LARGE = 2**20  # bytes; smaller blocks are torch's
PASSING = 31 * 2**20  # bytes; glibc learns sizes up to 32 MiB


class Memory:
    """Lends blocks of a CPU's memory to tensors, and takes a block back when the last tensor on it is gone.

    A system hands out a large block page by page, each cleared when first touched; a block used again has its pages.
    At most one block that nobody uses is kept. New blocks are NumPy's, which asks Linux for large pages.
    """

    def __init__(self) -> None:
        # What torch allocates on the way comes and goes. glibc gives the pages of such a block back to the system each
        # time, until it has seen one as large be freed (mallopt(3), M_MMAP_THRESHOLD): show it one.
        torch.empty(PASSING, dtype=torch.uint8)
        self._blocks: list[tuple[UInt8[np.ndarray, " n"], weakref.ref[np.ndarray]]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, " *shape"]:
        """An uninitialised contiguous tensor; on other devices than a CPU, and if it is small, torch's own."""
        count = math.prod(shape) * dtype.itemsize
        if device.type != "cpu" or count < LARGE:
            return torch.empty(shape, dtype=dtype, device=device)
        free = [block for block, lent in self._blocks if lent() is None and count <= block.nbytes <= 2 * count]
        block = free[0] if free else np.empty(count, np.uint8)
        lent = block[
            :count
        ]  # the tensor's storage holds this very array, and whoever uses the tensor holds the storage
        self._blocks = [pair for pair in self._blocks if pair[1]() is not None] + [(block, weakref.ref(lent))]
        return torch.from_numpy(lent).view(dtype).view(shape)

    def __reduce__(self) -> tuple[type["Memory"], tuple[()]]:
        return Memory, ()  # another process has memory of its own
