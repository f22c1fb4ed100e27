"""A data loader whose place in its epoch can be saved."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.sampling.pairs import PairSampler


def stateful(pairs: PairSampler, collate: Callable[[Any], Any], seed: int) -> Any:
    """A ``StatefulDataLoader`` of a sampler's batches.

    Args:
        pairs: what it goes over.
        collate: what makes a batch of a sampler's rows.
        seed: of the loader's own numbers, which are not drawn from torch's random state.
    """
    sampler: Any = pairs  # yields whole tensors of rows, where the annotation of DataLoader says lists
    # An iterator draws a seed for its workers: from the global state, dropout would go on otherwise after a resume.
    seeds = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():  # torchdata calls what newer torch deprecates
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
        return StatefulDataLoader(pairs.dataset, batch_sampler=sampler, collate_fn=collate, generator=seeds)
