import copy
import pickle
import queue

import pytest
import torch
import torch.multiprocessing
from devicewait import no_waiting
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys
from kornia_cag.core.records import mapped, tensors
from kornia_cag.sampling import rows as module
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.sampling.rows import Rows, are_rows, check_rows

LOADED = " Rows come by DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=...), or from Rows.of(...)."
BANKS = " Build the PairSampler with the labels and the number of contexts of these banks."


def made(device="cpu"):
    """Five rows that differ in every column."""
    ids = torch.arange(5, device=device)
    return Rows.of(ids, ids + 10, ids + 20, epoch=ids + 30, seed=ids + 40)


def layered():
    objects = torch.tensor([[0, 1], [2, 3], [4, 5]])
    return Rows.of(objects, torch.tensor([6, 7, 8]), torch.arange(3), epoch=1, seed=2)


def same(a, b):
    return torch.equal(a.table, b.table)


def passed(batch):
    return batch


# --- columns


def test_columns(device):
    rows = made(device)
    columns = [rows.objects, rows.contexts, rows.index, rows.epoch, rows.seed]
    assert [column.tolist() for column in columns] == [[10 * c + i for i in range(5)] for c in range(5)]
    assert torch.equal(torch.stack(columns, dim=1), rows.table)
    assert torch.equal(rows.layers, rows.objects[:, None])
    assert (len(rows), rows.device.type, rows.table.dtype) == (5, device.type, torch.int64)
    assert repr(rows) == f"Rows(5, device='{rows.device}')"


def test_numbers_stand_for_all_samples():
    rows = layered()
    assert (rows.epoch.tolist(), rows.seed.tolist()) == ([1, 1, 1], [2, 2, 2])
    plain = Rows.of(torch.arange(2), torch.arange(2), torch.arange(2))
    assert not plain.table[:, 3:].any()


def test_layers_of_two_objects():
    rows = layered()
    assert rows.table.shape == (3, 6)
    assert rows.layers.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(rows.objects, rows.layers[:, 0])
    assert torch.equal(rows.keys, sample_keys(rows.seed, rows.epoch, rows.index))
    assert rows[1:].layers.tolist() == [[2, 3], [4, 5]]
    changed = rows.replaced(objects=torch.tensor([9, 9, 9]))
    assert changed.layers.tolist() == [[9, 1], [9, 3], [9, 5]]


@st.composite
def columns(draw):
    b, layers = draw(st.integers(1, 6)), draw(st.integers(0, 3))
    column = st.lists(st.integers(0, 2**62 - 1), min_size=b, max_size=b)
    objects = [draw(column) for _ in range(max(layers, 1))]
    first = torch.tensor(objects).T if layers else torch.tensor(objects[0])
    one_or_each = column | st.integers(0, 2**62 - 1)
    return first, torch.tensor(draw(column)), torch.tensor(draw(column)), draw(one_or_each), draw(one_or_each)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(columns())
def test_what_rows_are_made_of_is_what_they_hold(given_columns):
    objects, contexts, index, epoch, seed = given_columns
    named = {"epoch": epoch, "seed": seed}
    numbers = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in named.items()}
    rows = Rows.of(objects, contexts, index, **numbers)
    assert torch.equal(rows.layers, objects if objects.ndim == 2 else objects[:, None])
    assert torch.equal(rows.contexts, contexts)
    assert torch.equal(rows.index, index)
    for name, value in named.items():
        assert getattr(rows, name).tolist() == (value if isinstance(value, list) else len(rows) * [value])
    assert same(Rows.of(rows.layers, rows.contexts, rows.index, epoch=rows.epoch, seed=rows.seed), rows)
    assert same(pickle.loads(pickle.dumps(rows)), rows)
    assert same(Rows.cat(list(rows)), rows)


def test_keys_are_those_of_seed_epoch_and_index_computed_once(device, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "sample_keys", lambda *args: calls.append(1) or sample_keys(*args))
    rows = made(device)
    assert calls == []
    first = rows.keys
    assert rows.keys is first
    assert len(calls) == 1
    assert torch.equal(first, sample_keys(rows.seed, rows.epoch, rows.index))
    assert rows.to(device).keys is first  # nothing was moved


# --- parts, and other devices


def test_parts_share_memory():
    rows = made()
    assert rows[1:3].index.tolist() == [21, 22]
    rows[1:3].objects.fill_(7)
    assert rows.objects.tolist() == [0, 7, 7, 3, 4]


@pytest.mark.parametrize(
    ("place", "want"),
    [
        (slice(3, None), [23, 24]),
        (torch.tensor([4, 0, 4]), [24, 20, 24]),
        (torch.tensor([True, False, False, True, False]), [20, 23]),
        (torch.zeros(5, dtype=torch.bool), []),
        (3, [23]),
        (-1, [24]),
    ],
)
def test_indexing(place, want):
    part = made()[place]
    assert part.index.tolist() == want
    assert part.table.shape == (len(want), 5)


def test_a_part_has_keys_of_its_own():
    rows = made()
    assert torch.equal(rows[torch.tensor([3, 1])].keys, rows.keys[[3, 1]])
    assert torch.equal(rows[1:3].keys, rows.keys[1:3])


def test_cat_and_rows_of_one_sample_each():
    rows = made()
    assert Rows.cat([rows[3:], rows[:1]]).index.tolist() == [23, 24, 20]
    assert [part.table.tolist() for part in rows] == [[row] for row in rows.table.tolist()]


def test_replaced_leaves_the_rows_alone():
    rows = made()
    before, keys = rows.table.clone(), rows.keys
    ids = torch.full((5,), 9)
    changed = rows.replaced(objects=ids, contexts=ids + 1, seed=ids + 2)
    assert torch.equal(rows.table, before)
    assert changed.table.tolist() == [[9, 10, 20 + i, 30 + i, 11] for i in range(5)]
    assert torch.equal(changed.keys, sample_keys(changed.seed, changed.epoch, changed.index))
    assert not torch.equal(changed.keys, keys)
    assert same(rows.replaced(), rows)


def test_rows_cannot_be_changed_by_name():
    with pytest.raises(AttributeError):
        made().table = torch.zeros(1, 5, dtype=torch.int64)


def test_a_record_of_one_tensor():
    rows = made()
    assert [tensor is rows.table for tensor in tensors(rows)] == [True]
    flipped = mapped(lambda table: table.flip(0), rows)
    assert flipped.index.tolist() == [24, 23, 22, 21, 20]
    assert torch.equal(flipped.keys, rows.keys.flip(0))


def test_to(device):
    rows = made()
    moved = rows.to(device)
    assert moved.device.type == device.type
    assert torch.equal(moved.table.cpu(), rows.table)
    assert torch.equal(moved.keys.cpu(), rows.keys)
    assert moved.to(device) is moved
    assert moved.to(str(device)) is moved
    assert same(moved.to("cpu"), rows)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_rows_go_to_a_gpu_without_waiting():
    pinned = made().pin_memory()
    assert pinned.table.is_pinned()
    assert same(pinned, made())
    with no_waiting():
        moved = [rows.to("cuda") for rows in (pinned, made(), made()[1:3], made()[torch.tensor([4, 0])])]
    assert [rows.index.tolist() for rows in moved] == [[20, 21, 22, 23, 24]] * 2 + [[21, 22], [24, 20]]


# --- other processes


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_copies_compute_keys_of_their_own(copied):
    rows = made()
    keys = rows.keys
    again = copied(rows)
    assert same(again, rows)
    assert "keys" not in vars(again)
    assert torch.equal(again.keys, keys)


def echo(inbox, outbox):
    """Gives back what it is given, and stays until that has arrived."""
    for rows in iter(inbox.get, None):
        outbox.put((rows, "keys" in vars(rows)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_rows_go_through_queues_of_processes(start):
    context = torch.multiprocessing.get_context(start)
    inbox, outbox = context.Queue(), context.Queue()
    process = context.Process(target=echo, args=(inbox, outbox), daemon=True)
    process.start()
    try:
        for rows in (made(), made()[1:3], layered()):
            keys = rows.keys
            inbox.put(rows)
            again, sent_keys = outbox.get(timeout=100)
            assert same(again, rows)
            assert not sent_keys
            assert "keys" not in vars(again)
            assert torch.equal(again.keys, keys)
            del again
    finally:
        inbox.put(None)
        process.join(20)
    assert process.exitcode == 0
    with pytest.raises(queue.Empty):
        outbox.get_nowait()


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")], ids=["none", "fork", "spawn"])
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
def test_loaders_pass_rows_whole(kind, workers, start):
    pairs, want = PairSampler(range(5), 10, batch_size=8, seed=3), PairSampler(range(5), 10, batch_size=8, seed=3)
    loaded = list(kind(pairs.dataset, batch_sampler=pairs, collate_fn=passed, num_workers=workers,
                       multiprocessing_context=start))  # fmt: skip
    assert all(type(rows) is Rows for rows in loaded)
    assert [len(rows) for rows in loaded] == [8, 2]
    assert all(same(rows, other) for rows, other in zip(loaded, want, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_pins_rows(workers):
    pairs = PairSampler(range(5), 10, batch_size=5)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=passed, num_workers=workers, pin_memory=True)
    for rows, other in zip(loader, PairSampler(range(5), 10, batch_size=5), strict=True):
        assert type(rows) is Rows
        assert rows.table.is_pinned()
        assert same(rows, other)


class OneByOne(Dataset):
    """A wrapper, as users write them, that knows nothing of ``__getitems__``."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, row):
        return self.dataset[row]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_without_getitems_gives_a_list_of_single_rows(workers):
    pairs, want = PairSampler(range(5), 10, batch_size=8), PairSampler(range(5), 10, batch_size=8)
    loader = DataLoader(OneByOne(pairs.dataset), batch_sampler=pairs, collate_fn=passed, num_workers=workers)
    for listed, other in zip(loader, want, strict=True):
        assert [len(row) for row in listed] == len(other) * [1]
        assert are_rows(listed)
        assert same(check_rows(listed, objects=5, contexts=10), other)


# --- checks


@pytest.mark.parametrize(
    ("batch", "want"),
    [
        (made(), True),
        ([made()[:1], made()[:1]], True),
        ((made()[:1],), True),
        ([], False),
        ([made()[:1], 3], False),
        (torch.zeros(2, 5, dtype=torch.int64), False),
        ([torch.zeros(3, 4, 4)], False),
        ([(torch.zeros(3, 4, 4), 1)], False),
        ([{"image": None}], False),
        ([1, 2], False),
    ],
)
def test_rows_are_told_from_items(batch, want):
    assert are_rows(batch) == want


def test_rows_pass_as_they_are(device):
    rows = made(device)
    assert check_rows(rows, objects=5, contexts=15) is rows
    assert same(check_rows(tuple(rows), objects=5, contexts=15), rows)
    two = layered()
    assert check_rows(two, objects=6, contexts=9) is two


def table(*rows):
    return Rows(torch.tensor(rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(8, 5, dtype=torch.int64), "rows: expected those of a PairSampler, got int64 (8, 5)."),
        (lambda: [], "rows: expected those of a PairSampler, got []."),
        (lambda: [made()[:1], 3], "rows: expected those of a PairSampler, got [Rows(1, device='cpu'), 3]."),
        (lambda: 3, "rows: expected those of a PairSampler, got 3."),
        (lambda: [made(), made()],  # a PairSampler that was passed as sampler
         "rows: expected one row for each entry of a list, got [Rows(5, device='cpu'), Rows(5, device='cpu')]."),
        (lambda: made()[:0], "rows.table: expected at least one row of 5 or more columns, got int64 (0, 5)."),
        (lambda: table([0, 1, 2, 3]), "rows.table: expected at least one row of 5 or more columns, got int64 (1, 4)."),
        (lambda: table([0.0, 0, 0, 0, 0]), "rows.table: expected int64 (b, 4 + K), got float32 (1, 5)."),
        (lambda: table(0, 0, 0, 0, 0), "rows.table: expected int64 (b, 4 + K), got int64 (5,)."),
        (lambda: table([1, 2, 0, 0, 0], [2, 0, 0, 0, 0]), "rows: expected object ids from 0 to 1, got 1 to 2."),
        (lambda: table([1, 3, 0, 0, 0], [0, 0, 0, 0, 0]), "rows: expected context ids from 0 to 2, got 0 to 3."),
        (lambda: table([-1, 0, 0, 0, 0], [1, 0, 0, 0, 0]), "rows: expected object ids from 0 to 1, got -1 to 1."),
        (lambda: table([0, -2, 0, 0, 0]), "rows: expected context ids from 0 to 2, got -2 to -2."),
        (lambda: table([0, 0, 0, 0, 0, 2]), "rows: expected object ids from 0 to 1, got 2 to 2."),
        (lambda: table([0, 0, 0, 0, 0, 1, -1]), "rows: expected object ids from 0 to 1, got -1 to -1."),
    ],
)  # fmt: skip
def test_what_is_no_row_of_these_banks_is_refused(make, message, untyped):
    with pytest.raises(InputError) as caught:
        check_rows(make(), objects=2, contexts=3)
    assert str(caught.value) == message + (BANKS if " ids " in message else LOADED)


IDS = torch.arange(3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"objects": [0, 1, 2]}, "objects: expected int64 (b), got [0, 1, 2]."),
        ({"objects": IDS.float()}, "objects: expected int64 (b), got float32 (3,)."),
        ({"objects": IDS.reshape(3, 1, 1)}, "objects: expected int64 (b), got int64 (3, 1, 1)."),
        ({"objects": IDS.reshape(3, 1).int()}, "objects: expected int64 (b, K), got int32 (3, 1)."),
        ({"objects": IDS.reshape(3, 1)[:, :0]}, "objects: expected at least one object per sample, got int64 (3, 0)."),
        ({"contexts": IDS[:2]}, "contexts: expected int64 (3) on cpu, got int64 (2,)."),
        ({"contexts": 4}, "contexts: expected int64 (3) on cpu, got 4."),
        ({"index": IDS.int()}, "index: expected int64 (3) on cpu, got int32 (3,)."),
        ({"index": IDS.to("meta")},
         "index: expected int64 (3) on cpu, got int64 (3,) on meta. Move it with .to('cpu')."),
        ({"epoch": IDS[:1]}, "epoch: expected int64 (3) on cpu, got int64 (1,)."),
        ({"epoch": -1}, "epoch: expected an integer of at least 0 and at most 4611686018427387903, got -1."),
        ({"seed": 2**62},
         "seed: expected an integer of at least 0 and at most 4611686018427387903, got 4611686018427387904."),
        ({"seed": 0.5}, "seed: expected an integer of at least 0 and at most 4611686018427387903, got 0.5."),
        ({"seed": IDS.double()}, "seed: expected int64 (3) on cpu, got float64 (3,)."),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused(columns, message, untyped):
    with pytest.raises(InputError) as caught:
        Rows.of(**{"objects": IDS, "contexts": IDS, "index": IDS, **columns})
    assert str(caught.value) == message


def test_rows_of_rows_keep_their_keys(monkeypatch):
    """Keys are a hash of many operations: computed once, also for parts of a batch."""
    rows = Rows.of(torch.arange(6), torch.zeros(6, dtype=torch.int64), torch.arange(6), seed=5)
    keys = rows.keys
    monkeypatch.setattr("kornia_cag.sampling.rows.sample_keys", None)
    mask = torch.tensor([True, False] * 3)
    assert torch.equal(rows[mask].keys, keys[mask])
    assert torch.equal(rows[2].keys, keys[2:3])
    assert torch.equal(rows[-1].keys, keys[-1:])
    assert [part.keys.tolist() for part in rows.cut([2, 5])] == [part.tolist() for part in keys.split([2, 3, 1])]


def test_rows_arrive_with_their_keys_in_one_copy(monkeypatch):
    rows = Rows.of(torch.arange(6), torch.zeros(6, dtype=torch.int64), torch.arange(6), seed=5)
    sent = []
    monkeypatch.setattr("kornia_cag.sampling.rows.upload", lambda tensor, device: sent.append(tensor) or tensor)
    there = rows.to("meta")  # any device that is not this one
    assert len(sent) == 1
    monkeypatch.setattr("kornia_cag.sampling.rows.sample_keys", None)
    assert torch.equal(there.keys, rows.keys)
    assert torch.equal(there.table, rows.table)


def test_parts_are_cut_with_keys_that_were_hashed_together(monkeypatch):
    hashed = []
    monkeypatch.setattr("kornia_cag.sampling.rows.sample_keys", lambda *given: hashed.append(0) or sample_keys(*given))
    rows = Rows.of(torch.arange(6), torch.zeros(6, dtype=torch.int64), torch.arange(6), seed=5)
    parts = rows.cut([2, 5])
    assert torch.cat([part.keys for part in parts]).tolist() == rows.keys.tolist()
    assert len(hashed) == 1


def test_rows_move_between_devices_of_one_type(monkeypatch):
    monkeypatch.setattr("kornia_cag.sampling.rows.upload", lambda tensor, device: tensor.clone())
    rows = made()
    there = rows.to("cpu")
    assert there.table is not rows.table
    assert same(there, rows)
