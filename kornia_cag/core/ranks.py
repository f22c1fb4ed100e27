"""Several processes that train one network: who has which rows of a batch, and what they tell each other.

Of a global batch rank ``r`` of ``W`` has slots ``r``, ``r + W``, ``r + 2 W`` and so on: loads differ by at most one,
and a slot is the same rank's in every batch. Only this module asks ``torch.distributed``. With one process nothing
here communicates or copies.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from kornia_cag.core.checks import fail
from kornia_cag.core.records import Record, mapped

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of the environment, by which torchrun tells a rank
_BROKEN = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
_SAID = "kornia_cag/said"


class Share(NamedTuple):
    """A rank's share of a global batch: of its slots 0, 1, 2, ... those that are ``rank`` modulo ``ranks``.

    Attributes:
        rank: of this process, from 0.
        ranks: number of processes.
        total: rows of the global batch.
        views: pictures of every row, one view of all rows after the other.
    """

    rank: int = 0
    ranks: int = 1
    total: int = 0
    views: int = 1

    @property
    def pictures(self) -> int:
        """Pictures of the global batch."""
        return self.total * self.views

    @property
    def mine(self) -> int:
        """Pictures of this rank."""
        return self.first(self.total) * self.views

    def first(self, slots: int) -> int:
        """How many of the first ``slots`` slots are this rank's."""
        return len(range(self.rank, slots, self.ranks))

    def own(self, tensor: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "b ..."]:
        """This rank's part of a tensor over the global batch."""
        if self.ranks == 1:
            return tensor
        part: Tensor = tensor.unflatten(0, (self.views, self.total))[:, self.rank :: self.ranks].flatten(0, 1)
        return part


def here() -> tuple[int, int]:
    """Rank of this process and number of processes; 0 and 1 unless ``torch.distributed`` is initialised."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def told() -> bool:
    """Whether the environment names a rank, as torchrun's does."""
    return all(os.environ.get(name) for name in VARIABLES)


@contextmanager
def connected(kind: str) -> Iterator[None]:
    """Inside the block this process is the rank that the environment names, on the GPU of its local rank, if any.

    Args:
        kind: type of the device, ``"cuda"`` or ``"cpu"``.

    Raises:
        InputError: for more processes on this machine than it has GPUs.
    """
    if kind == "cuda":
        local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= count:
            fail("ranks", f"at most {count} on this machine, one for each GPU", f"local rank {local}")
        torch.cuda.set_device(local)
    # a step agrees on small numbers of the host, which must not wait for a GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield
    finally:
        dist.destroy_process_group()


def heard() -> bool:
    """Whether this rank is the first to ask: of several that fail alike, one tells."""
    if here()[1] == 1:
        return True
    try:
        return bool(dist.distributed_c10d._get_default_store().add(_SAID, 1) == 1)
    except RuntimeError:  # whoever kept the store has ended, and told why
        return False


def broken(error: BaseException) -> bool:
    """Whether an error is that another rank has ended, so that this one has nothing to tell."""
    if here()[1] == 1 or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in _BROKEN)


def agreed(*values: int) -> tuple[int, ...]:
    """The largest of each value over all ranks, which call this together; numbers of the host, so no GPU is waited for.

    Args:
        values: integers, or truths.
    """
    if here()[1] == 1:
        return values
    most = torch.tensor(values, dtype=torch.int64, device="cpu")
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return tuple(most.tolist())


def summed(tensor: Tensor) -> Tensor:
    """The sum over all ranks, which call this together; does not wait for a GPU."""
    if here()[1] == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def stacked(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "w ..."]:
    """The tensors of all ranks, which have one shape; all ranks call this together."""
    if here()[1] == 1:
        return tensor[None]
    raw = tensor.detach().contiguous()
    parts = [torch.empty_like(raw) for _ in range(here()[1])]
    dist.all_gather(parts, raw)
    return torch.stack(parts)


def whole(record: Record, share: Share) -> Record:
    """A record of tensors over this rank's rows as one over the global batch, to the bit; all ranks call this together.

    Args:
        record: of tensors (b, ...), of the rows of this rank.
        share: of the rows.

    Raises:
        InputError: without ``torch.distributed``.
    """
    if share.ranks == 1:
        return record
    if here() != (share.rank, share.ranks):
        fail("rank", f"rank {share.rank} of {share.ranks} in torch.distributed, as the rows' sampler has it",
             "{} of {}".format(*here()), "Call torch.distributed.init_process_group() first.")  # fmt: skip
    return mapped(lambda tensor: _interleaved(tensor, share), record)


def _interleaved(tensor: Shaped[Tensor, "b ..."], share: Share) -> Shaped[Tensor, "n ..."]:
    most = -(-share.total // share.ranks)
    full = tensor.new_zeros(most, *tensor.shape[1:])
    full[: len(tensor)] = tensor.detach()
    if not full.numel():
        return tensor.new_zeros(share.total, *tensor.shape[1:])
    raw = stacked(full.view(most, -1).view(torch.uint8))  # bytes: not every backend takes every dtype
    return raw.transpose(0, 1).flatten(0, 1)[: share.total].view(tensor.dtype).view(share.total, *tensor.shape[1:])
