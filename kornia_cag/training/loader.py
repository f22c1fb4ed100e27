"""A data loader whose position in its epoch can be saved."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.sampling.pairs import PairSampler


def stateful(pairs: PairSampler, collate: Callable[[Any], Any], seed: int) -> Any:
    """A ``StatefulDataLoader`` of a sampler's batches.

    Args:
        pairs: the sampler to iterate over.
        collate: turns a sampler's rows into a batch.
        seed: seed of the loader's own numbers, which do not come from torch's random state.
    """
    sampler: Any = pairs  # yields rows, whereas DataLoader's annotation says lists
    # An iterator draws a seed for its workers: from the global state, that would change dropout after a resume.
    seeds = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():  # torchdata uses what newer torch deprecates
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
        return StatefulDataLoader(pairs.dataset, batch_sampler=sampler, collate_fn=collate, generator=seeds)
