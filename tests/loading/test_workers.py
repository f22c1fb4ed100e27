"""Worker processes that compose: however they are started, they make the same batches, and end when they should."""

import gc
import time

import pytest
import torch
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, ContextBank, ObjectBank, PairSampler

START = ["fork", "spawn", "forkserver"]


def parts():
    objects, contexts = ObjectBank.from_glyphs("ABC", size=16), ContextBank.procedural("mix", count=6, size=16)
    return CAGCollate(objects, contexts, 16), PairSampler(objects.labels, 6, batch_size=6, seed=4)


def alive(workers, seconds):
    """Those that have not ended in time."""
    limit = time.monotonic() + seconds
    while any(worker.is_alive() for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)
    return [worker for worker in workers if worker.is_alive()]


@pytest.mark.parametrize("persistent", [False, True], ids=["anew", "persistent"])
@pytest.mark.parametrize("start", START)
def test_workers_compose_what_the_main_process_does_and_end(start, persistent):
    collate, pairs = parts()
    wanted = [collate(rows) for rows in [*pairs, *pairs]]
    pairs.set_epoch(0)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, num_workers=2, timeout=100,
                        multiprocessing_context=start, persistent_workers=persistent)  # fmt: skip
    found, workers = [], set()
    for _ in range(2):
        batches = iter(loader)
        workers |= {*batches._workers}
        found += batches
    assert len(workers) == (2 if persistent else 4)
    for (images, labels), (other, others) in zip(found, wanted, strict=True):
        assert torch.equal(images, other)
        assert torch.equal(labels, others)
    del batches, loader
    gc.collect()
    assert not alive(workers, 30)
    assert {worker.exitcode for worker in workers} == {0}


@pytest.mark.parametrize("start", START)
def test_workers_end_when_a_pass_is_broken_off(start):
    collate, pairs = parts()
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, num_workers=2, timeout=100,
                        multiprocessing_context=start)  # fmt: skip
    batches = iter(loader)
    workers = [*batches._workers]
    next(batches)
    del batches, loader
    gc.collect()
    assert not alive(workers, 30)
