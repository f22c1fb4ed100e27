"""The rows of a sampler: what a sample is made from."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from kornia_cag.core.checks import check_tensor, fail

_FIX = "Rows come by DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...)."


def check_rows(rows: Any, objects: int, contexts: int) -> Int[Tensor, "b 5"]:
    """Rows as one tensor: a loader without :meth:`PairRows.__getitems__` gives a list of them.

    Raises:
        InputError: for anything else, and for ids beyond the given counts of objects and contexts.
    """
    if isinstance(rows, list | tuple) and rows and all(row.shape == (len(COLUMNS),) for row in rows):
        rows = torch.stack(tuple(rows))
    check_tensor("rows", rows, ("b", len(COLUMNS)), torch.int64, fix=_FIX)
    if not len(rows):
        fail("rows", "at least one", "none", _FIX)
    table: Tensor = rows
    if table.device.type == "cpu":  # elsewhere, reading the ids would wait for the device
        ids = np.asarray(table)
        for column, count in enumerate((objects, contexts)):
            of_column = ids[:, column]
            if of_column.view(np.uint64).max() >= count:  # read as unsigned, a negative id is a very high one
                fail("rows", f"{COLUMNS[column]} ids from 0 to {count - 1}", f"{of_column.min()} to {of_column.max()}",
                     "Build the PairSampler with the labels and the number of contexts of these banks.")  # fmt: skip
    return table


COLUMNS = ("object", "context", "index", "epoch", "seed")
