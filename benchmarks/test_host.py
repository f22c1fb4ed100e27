"""What does a batch cost the host, before any device has work?

Measured, at 128, 1,024 and 4,096 rows a batch, for 43 objects on 512 contexts and 10,000 on 100,000:

``rows``: a batch out of a ``PairSampler`` alone. ``loader``: the same through a DataLoader whose collate checks and
uploads the rows, as ``CAGCollate`` does, and composes nothing. Neither contains the start of an epoch.

``epoch_start``: the first batch of an epoch, which is when the graph of the whole epoch is drawn. ``images`` are those
of the epoch, so that the time per batch is what the start adds to each of its batches of 4,096. With 10 objects on 100
contexts an epoch has 100 samples and no such batch; with 50 on 512, five a class, half of all pairs occur, which is the
slowest kind of graph.

How: ``ROUNDS`` rounds, of ``TAKE`` batches or of one start; median and interquartile range. The device is waited for
before the clock starts and not after: the time is that until Python goes on. All of it is one thread: pin the process
to a quiet core (``taskset -c 1``).
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from common import wait
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader

from kornia_cag import PairSampler
from kornia_cag.sampling.rows import Rows, check_rows

ROUNDS = 40
TAKE = 4
BATCHES = (128, 1024, 4096)
BANKS = ((43, 512), (10_000, 100_000))
EPOCHS = ((10, 100, 10), (43, 512, 43), (50, 512, 10), (10_000, 100_000, 43))  # objects, contexts, classes


def sampler(objects: int, contexts: int, batch: int, classes: int = 43) -> PairSampler:
    return PairSampler(np.arange(objects) % classes, contexts, batch_size=batch)


def measure(benchmark: BenchmarkFixture, start: Callable[[], Iterator[Rows]], batch: int) -> None:
    """Time ``TAKE`` batches after the first of an epoch."""

    def begun() -> tuple[tuple[Iterator[Rows]], dict[str, object]]:
        batches = start()
        wait(next(batches).device)
        return (batches,), {}

    def take(batches: Iterator[Rows]) -> Rows:
        for _ in range(TAKE):
            rows = next(batches)
        return rows

    rows = benchmark.pedantic(take, setup=begun, rounds=ROUNDS, warmup_rounds=2)
    assert rows.table.shape == (batch, 5)
    benchmark.extra_info.update(images=TAKE * batch, batch=batch, device=rows.device.type)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("objects", "contexts"), BANKS)
def test_rows(benchmark, objects, contexts, batch):
    benchmark.group = f"host batch {batch}"
    pairs = sampler(objects, contexts, batch)
    measure(benchmark, lambda: iter(pairs), batch)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("objects", "contexts"), BANKS)
def test_loader(benchmark, device, objects, contexts, batch):
    benchmark.group = f"host batch {batch}"
    pairs = sampler(objects, contexts, batch)

    def collate(rows: Rows) -> Rows:
        return check_rows(rows, objects=objects, contexts=contexts).to(device)

    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    measure(benchmark, lambda: iter(loader), batch)


@pytest.mark.parametrize(("objects", "contexts", "classes"), EPOCHS)
def test_epoch_start(benchmark, objects, contexts, classes):
    benchmark.group = "host epoch start"
    pairs = sampler(objects, contexts, 4096, classes)
    rows = benchmark.pedantic(lambda: next(iter(pairs)), rounds=ROUNDS, warmup_rounds=2)
    assert len(rows) == min(4096, pairs.samples)
    benchmark.extra_info.update(images=pairs.samples, batch=4096, device="cpu")
