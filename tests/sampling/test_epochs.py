"""Every way of going through a loader goes on to fresh samples, and a saved state goes on where it was taken."""

import itertools
import warnings

import pytest
import torch
from conftest import make_contexts, make_objects
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag import CAGCollate, PairSampler, Prefetcher
from kornia_cag.sampling.rows import Rows

OBJECTS, CONTEXTS = make_objects(), make_contexts(count=6)


def rows_of(batch):
    return batch


def sampler(batch_size=8):
    """Epochs of 30 samples, by default in four batches."""
    return PairSampler(OBJECTS.labels, 6, batch_size=batch_size, seed=5)


def stateful(*arguments, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)  # torchdata calls it
        return StatefulDataLoader(*arguments, **options)


def rows_loader(kind, workers, pairs=None, **options):
    pairs = pairs or sampler()
    return kind(pairs.dataset, batch_sampler=pairs, collate_fn=rows_of, num_workers=workers, **options)


def prefetched(kind, workers, pairs=None, **options):
    collate, pairs = CAGCollate(OBJECTS, CONTEXTS, 16, returns="batch"), pairs or sampler()
    composing = kind(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose, num_workers=workers, **options)
    return Prefetcher(composing, collate)


def rows(batch):
    return batch if isinstance(batch, Rows) else batch.rows


def same(a, b):
    return torch.equal(a.table, b.table)


def epoch_of(batch):
    """The epoch of all its rows."""
    return rows(batch).epoch.unique().item()


def endless(pairs):
    """All rows, epoch by epoch."""
    for epoch in itertools.count():
        pairs.set_epoch(epoch)
        yield from pairs


WAYS = pytest.mark.parametrize("way", [rows_loader, prefetched], ids=["loader", "prefetcher"])
KINDS = pytest.mark.parametrize("kind", [DataLoader, stateful], ids=["plain", "stateful"])
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@WAYS
@KINDS
@WORKERS
def test_three_passes_of_as_many_batches_as_there_are_give_three_epochs(way, kind, workers):
    batches, want = way(kind, workers), endless(sampler())
    for epoch in range(3):
        taken = [rows(batch) for batch in itertools.islice(batches, len(batches))]
        assert [epoch_of(part) for part in taken] == 4 * [epoch]
        assert all(same(part, next(want)) for part in taken)


@WAYS
@KINDS
@WORKERS
def test_a_pass_that_is_broken_off_gives_way_to_the_next_epoch(way, kind, workers):
    batches = way(kind, workers)
    for epoch, taken in enumerate((1, 3, 5, 2, 1)):
        for batch in itertools.islice(batches, taken):
            assert epoch_of(batch) == epoch


@KINDS
@pytest.mark.parametrize("taken", [1, 4, 5])
def test_workers_that_persist(kind, taken):
    batches = rows_loader(kind, 2, persistent_workers=True)
    for epoch in range(3):
        assert {epoch_of(part) for part in itertools.islice(batches, taken)} == {epoch}


def test_workers_that_draw_ahead_past_the_end_of_an_epoch():
    """More batches ahead than an epoch has: it is drawn to its end before the first one is handed out."""
    batches = rows_loader(DataLoader, 2, sampler(20))
    for epoch, taken in enumerate((1, 2, 3, 1)):
        assert {epoch_of(part) for part in itertools.islice(batches, taken)} == {epoch}


@WAYS
@KINDS
@WORKERS
def test_set_epoch_says_where_the_next_pass_begins(way, kind, workers):
    pairs = sampler()
    batches = way(kind, workers, pairs)
    for epoch, taken in ((0, 4), (0, 1), (5, 2), (5, 4), (2, 5), (2, 5)):
        pairs.set_epoch(epoch)
        assert {epoch_of(batch) for batch in itertools.islice(batches, taken)} == {epoch}


RESUMED = [(0, 8, done) for done in range(10)] + [(2, 8, 3), (2, 8, 4), (2, 8, 5), (2, 20, 1), (2, 20, 4)]


@WAYS
@pytest.mark.parametrize(("workers", "size", "done"), RESUMED)
@pytest.mark.parametrize("asked", [False, True], ids=["counted", "asked for the end"])
def test_a_state_goes_on_to_the_bit(way, workers, size, done, asked):
    """Two batches an epoch are fewer than workers draw ahead."""
    batches, want = way(stateful, workers, sampler(size)), list(itertools.islice(endless(sampler(size)), 20))
    length = len(batches)
    passes = [length] * (done // length) + [done % length] * (done % length > 0)
    for taken in passes:
        list(itertools.islice(batches, taken + (asked and taken == length)))
    resumed = way(stateful, workers, sampler(size))
    resumed.load_state_dict(batches.state_dict())
    if way is rows_loader and workers and not asked and done % length == 0:
        assert list(resumed) == []  # the end, which had not been asked for
    rest = [rows(batch) for _ in range(3) for batch in itertools.islice(resumed, length)]
    assert len(rest) == 3 * length - done % length
    assert all(same(a, b) for a, b in zip(rest, want[done:], strict=False))


class OneByOne(Dataset):
    """A wrapper, as users write them, that knows nothing of ``__getitems__``."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, row):
        return self.dataset[row]


@pytest.mark.parametrize("how", ["one by one", "unbatched"])
def test_a_state_at_the_end_of_an_epoch_goes_on_however_rows_are_read(how):
    def loader():
        pairs = sampler()
        if how == "one by one":
            return stateful(OneByOne(pairs.dataset), batch_sampler=pairs, collate_fn=Rows.cat)
        return stateful(pairs.dataset, sampler=pairs, batch_size=None)

    batches, resumed = loader(), loader()
    list(itertools.islice(batches, len(sampler())))
    resumed.load_state_dict(batches.state_dict())
    assert [epoch_of(batch) for batch in resumed] == 4 * [1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_before_the_first_batch_of_a_pass_is_that_of_its_epoch(workers):
    batches = rows_loader(stateful, workers)
    next(iter(batches))
    second = iter(batches)
    resumed = rows_loader(stateful, workers)
    resumed.load_state_dict(batches.state_dict())
    assert [epoch_of(part) for part in resumed] == [epoch_of(part) for part in second] == 4 * [1]


@WAYS
def test_a_loop_that_names_its_epochs_resumes_at_the_end_of_one(way):
    pairs = sampler()
    batches = way(stateful, 0, pairs)
    list(itertools.islice(batches, len(batches)))
    state, pairs = batches.state_dict(), sampler()
    resumed, got = way(stateful, 0, pairs), []
    resumed.load_state_dict(state)
    for epoch in range(3):
        pairs.set_epoch(epoch) if way is rows_loader else resumed.set_epoch(epoch)
        got.append([epoch_of(batch) for batch in resumed])
    assert got == [[], 4 * [1], 4 * [2]]


def test_items_of_a_data_set_are_counted_on():
    """The collate counts samples, not passes: none comes twice, however the loader is gone through."""
    photos = [torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(i)) for i in range(10)]
    batches = DataLoader(photos, batch_size=4, collate_fn=CAGCollate(OBJECTS, None, 16, returns="batch"))
    index = [batch.rows.index for taken in (3, 1, 3, 4) for batch in itertools.islice(batches, taken)]
    assert torch.cat(index).sort().values.tolist() == list(range(10 + 4 + 10 + 10))


@pytest.mark.filterwarnings("ignore")  # Lightning's own: of its loggers, of few workers, of torch
@WORKERS
@pytest.mark.parametrize("limit", [1.0, 2], ids=["whole", "limited"])
def test_lightning(workers, limit):
    lightning = pytest.importorskip("lightning")
    seen = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 1)

        def training_step(self, batch, index):
            seen.append((self.current_epoch, index, epoch_of(batch)))
            return self.layer(batch.table.float()).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False,
                                limit_train_batches=limit)  # fmt: skip
    trainer.fit(Module(), rows_loader(DataLoader, workers))
    assert seen == [(epoch, index, epoch) for epoch in range(3) for index in range(2 if limit == 2 else 4)]
