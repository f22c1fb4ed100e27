"""A data loader whose position in its epoch can be saved."""

import warnings
from typing import Any, NamedTuple

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.core.ranks import Share
from kornia_cag.loading.batch import Batch, Pair
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.sampling.rows import Rows


class Dealt(NamedTuple):
    """What a rank gets of a global batch."""

    share: Share
    batch: Pair | Batch


def stateful(pairs: PairSampler, collate: CAGCollate[Pair | Batch], seed: int, views: int = 1) -> Any:
    """A ``StatefulDataLoader`` of a sampler's batches, each with its share: it yields :class:`Dealt`.

    Args:
        pairs: the sampler to iterate over.
        collate: turns a sampler's rows into a batch.
        views: pictures of a row.
        seed: seed of the loader's own numbers, which do not come from torch's random state.
    """

    def dealt(found: Any) -> Dealt:
        rows: Rows = found  # whereas DataLoader's annotation says a list
        return Dealt(rows.share._replace(views=views), collate(rows))

    sampler: Any = pairs  # yields rows, whereas DataLoader's annotation says lists
    # An iterator draws a seed for its workers: from the global state, that would change dropout after a resume.
    seeds = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():  # torchdata uses what newer torch deprecates
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
        return StatefulDataLoader(pairs.dataset, batch_sampler=sampler, collate_fn=dealt, generator=seeds)
