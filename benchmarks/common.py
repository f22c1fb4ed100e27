"""What the benchmarks share beside fixtures: the batch, the clock's end, the rows."""

import os
from collections.abc import Iterator

import torch
from torch import Tensor

from kornia_cag import ContextBank, ObjectBank, PairSampler

BATCH = 128


def wait(device: torch.device) -> None:
    """Let the device finish, so that a clock reads its time and not that of the launches."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rows(objects: ObjectBank, contexts: ContextBank) -> Iterator[Tensor]:
    """Rows of whole batches without end."""
    pairs = PairSampler(objects.labels, len(contexts), BATCH, drop_last=True)
    while True:
        yield from pairs
