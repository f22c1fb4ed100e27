import functools
import itertools
import math
import pickle
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.core.checks import InputError
from kornia_cag.sampling.biregular import _sorting, biregular, match, trade
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.sampling.rows import Rows, check_rows


def epoch_rows(sampler):
    """All rows of the sampler's next epoch, in the order of the batches."""
    return Rows.cat(list(sampler))


def by_index(rows):
    """Rows in the order of their sample indices."""
    return rows[rows.index.argsort()]


def same(a, b):
    return torch.equal(a.table, b.table)


def same_pairs(a, b):
    return torch.equal(a.table[:, :2], b.table[:, :2])


def spread(counts):
    return int(counts.max() - counts.min())


def chi_square_is_plausible(counts, epochs, two_sided=True):
    """Whether pair counts (n, N) over independent graphs with equal degrees fit "every pair equally likely".

    The margins of such counts are fixed, and by symmetry their covariance is p (1 - p) on the (n - 1)(N - 1) directions
    left, so the statistic has that many degrees of freedom; it is held against five standard deviations.
    """
    n, big = counts.shape
    p = counts.sum() / counts.size / epochs
    freedom = (n - 1) * (big - 1)
    statistic = ((counts - epochs * p) ** 2).sum() / (epochs * p * (1 - p)) * freedom / (n * big)
    deviation = (statistic - freedom) / math.sqrt(2 * freedom)
    return abs(deviation) < 5 if two_sided else deviation < 5


def pair_counts(samplers_and_epochs, n, big):
    counts = np.zeros((n, big))
    for sampler, epoch in samplers_and_epochs:
        pairs = sampler.pairs(epoch).numpy()
        np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    return counts


# --- the graph


@st.composite
def settings_of_a_sampler(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=7))
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(len(sizes)), sizes))
    contexts = draw(st.integers(1, 40))
    return labels, contexts, draw(st.integers(1, min(sizes) * contexts)), draw(st.integers(0, 2**62 - 1))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(settings_of_a_sampler(), st.integers(0, 1000))
def test_graph_of_any_size(config, epoch):
    labels, contexts, samples, seed = config
    sampler = PairSampler(labels, contexts, batch_size=5, seed=seed, samples_per_class=samples)
    pairs = sampler.pairs(epoch).numpy()
    assert len(pairs) == len(sampler.dataset) == samples * (labels.max() + 1)
    assert pairs.min() >= 0
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert spread(np.bincount(pairs[:, 1], minlength=contexts)) <= 1
    assert (np.bincount(labels[pairs[:, 0]]) == samples).all()
    per_object = np.bincount(pairs[:, 0], minlength=len(labels))
    assert all(spread(per_object[labels == c]) <= 1 for c in range(labels.max() + 1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(settings_of_a_sampler())
def test_totals_differ_by_at_most_one_in_the_long_run(config):
    labels, contexts, samples, seed = config
    sampler = PairSampler(labels, contexts, batch_size=5, seed=seed, samples_per_class=samples)
    per_context, per_object = np.zeros(contexts, int), np.zeros(len(labels), int)
    for epoch in range(12):
        pairs = sampler.pairs(epoch).numpy()
        per_context += np.bincount(pairs[:, 1], minlength=contexts)
        per_object += np.bincount(pairs[:, 0], minlength=len(labels))
        assert spread(per_context) <= 1
        assert all(spread(per_object[labels == c]) <= 1 for c in range(labels.max() + 1))


@pytest.mark.parametrize(
    ("objects", "contexts", "samples"), [(43, 188, 188), (43, 188, 187), (10, 7, 7), (10, 7, 1), (1, 1, 1), (1, 5, 3)]
)
def test_small_dense_graphs(objects, contexts, samples):
    pairs = PairSampler(range(objects), contexts, batch_size=8, samples_per_class=samples).pairs().numpy()
    assert len(np.unique(pairs, axis=0)) == objects * samples
    assert (np.bincount(pairs[:, 0]) == samples).all()
    assert spread(np.bincount(pairs[:, 1], minlength=contexts)) <= 1


def test_very_unequal_objects():
    """One object must meet every context, others few: stubs cannot be matched there, trades can."""
    degrees, cycle = np.array([20, 3, 3, 2, 2, 1, 0, 9]), np.random.default_rng(1).permutation(20)
    edges = biregular(degrees, cycle, np.random.default_rng(0))
    assert len(np.unique(edges)) == 40
    assert (np.bincount(edges >> 32, minlength=8) == degrees).all()
    assert (np.bincount(edges & 0xFFFFFFFF) == 2).all()


def test_matching_that_cannot_succeed_gives_up_and_trades_take_over(monkeypatch):
    objects, stubs = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    tries = [match(objects, stubs, np.random.default_rng(seed), num_contexts=4) for seed in range(20)]
    assert any(found is None for found in tries)  # every object needs every context: hardly any swap is left
    monkeypatch.setattr("kornia_cag.sampling.biregular.match", lambda *_, **__: None)
    edges = biregular(np.full(16, 2), np.arange(16), np.random.default_rng(0))
    assert len(np.unique(edges)) == 32


@given(st.lists(st.integers(0, 3 << 31), min_size=1, max_size=50), st.integers(0, 30))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_sorting_keeps_ties_in_place(values, coarse):
    keys = np.array(values) >> coarse
    assert (_sorting(keys, int(keys.max()).bit_length()) == keys.argsort(kind="stable")).all()


def test_a_seed_gives_the_same_graph_everywhere():
    """Double edges are swapped away here, and whichever of two comes first must not depend on the processor."""
    pairs = PairSampler(np.arange(500) % 43, 512, batch_size=8, seed=1).pairs().numpy()
    assert zlib.crc32(pairs.astype("<i8").tobytes()) == 2915261282


@pytest.mark.parametrize(("balanced", "want"), [(True, 3471644598), (False, 1189920307)])
def test_a_seed_gives_the_same_batches_everywhere(balanced, want):
    """Pairs, their order, the shuffled slots; of rank 1 in the third epoch, where objects and contexts take turns."""
    sampler = PairSampler(np.arange(30) % 7, 50, batch_size=16, seed=1, samples_per_class=18, rank=1, world_size=2,
                          balanced=balanced)  # fmt: skip
    sampler.set_epoch(2)
    assert zlib.crc32(epoch_rows(sampler).table.numpy().astype("<i8").tobytes()) == want


@pytest.mark.parametrize(
    ("labels", "contexts", "samples"),
    [(range(12), 48, 4), ([0, 1, 2, 3] * 3, 48, 12), (range(12), 20, 10), (range(6), 9, 8), (range(4), 6, 3)],
    ids=["sparse", "sparse, several objects a class", "middle", "dense", "tiny"],
)
def test_every_pair_is_equally_likely(labels, contexts, samples):
    n, epochs = len(labels), 400
    make = [PairSampler(labels, contexts, batch_size=4, seed=seed, samples_per_class=samples) for seed in range(epochs)]
    assert chi_square_is_plausible(pair_counts([(s, 0) for s in make], n, contexts), epochs)
    assert chi_square_is_plausible(pair_counts([(make[7], e) for e in range(epochs)], n, contexts), epochs)


def test_chi_square_test_has_power():
    """The same graph for every seed, or a cyclic one with a random start, would be found out."""
    cyclic = np.zeros((6, 12))
    for start in np.random.default_rng(0).integers(12, size=400):
        for obj, step in itertools.product(range(6), range(4)):
            cyclic[obj, (start + 4 * obj + step) % 12] += 1
    assert not chi_square_is_plausible(cyclic, 400)


def test_no_object_is_tied_to_contexts_of_its_own_rhythm():
    """Two objects a class and twice as many contexts as samples: both take turns every other epoch."""
    sampler = PairSampler([0, 0, 1, 1, 2, 2], 6, batch_size=3, seed=3, samples_per_class=1)
    counts = pair_counts([(sampler, e) for e in range(1200)], 6, 6)
    assert (counts > 0).all()
    assert chi_square_is_plausible(counts, 1200, two_sided=False)


def test_trades_reach_every_graph_equally_often():
    """There are 90 graphs of 4 objects and 4 contexts with all degrees 2."""
    draws, seen = 4500, {}
    for seed in range(draws):
        graph = trade(np.full(4, 2), np.arange(4), np.random.default_rng(seed)).tobytes()
        seen[graph] = seen.get(graph, 0) + 1
    assert len(seen) == 90
    statistic = sum((count - draws / 90) ** 2 for count in seen.values()) / (draws / 90)
    assert abs(statistic - 89) < 5 * math.sqrt(2 * 89)


def test_matching_and_trades_draw_alike():
    """Both ways agree in how many contexts two objects share, squared: a number that fixed patterns get wrong."""
    degrees, cycle = np.full(16, 4), np.arange(32)
    objects = np.repeat(np.arange(16), 4)

    def squares(edges):
        table = np.zeros((16, 32))
        table[edges >> 32, edges & 0xFFFFFFFF] = 1
        return ((table @ table.T)[np.triu_indices(16, 1)] ** 2).sum()

    def matched(rng):
        return objects << 32 | match(objects, np.resize(cycle, 64), rng, num_contexts=32)

    a = np.array([squares(matched(np.random.default_rng(seed))) for seed in range(500)])
    b = np.array([squares(trade(degrees, cycle, np.random.default_rng(seed))) for seed in range(500)])
    assert abs(a.mean() - b.mean()) < 5 * math.sqrt((a.var() + b.var()) / 500)
    assert a.var() > 1


def test_memory_does_not_grow_with_objects_times_contexts():
    tracemalloc.start()
    sampler = PairSampler(np.arange(10_000) % 10, 1_000_000, batch_size=512)
    rows = next(iter(sampler))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.table.shape == (512, 5)
    assert sampler.samples == 1_000_000
    assert peak < 150e6


@pytest.mark.parametrize(
    ("labels", "contexts", "samples"),
    [
        (range(43), 188, 188),
        (range(10), 1000, 100),
        (range(10), 10, 1),
        ([0] * 4 + [1] * 6, 5, 60 // 5),
        (range(43), 1_000_003, -(-1_000_003 // 43)),  # exact degrees would need 43 million samples
        (np.repeat(range(40), range(101, 141)), 1000, 140),  # nor can the objects' degrees be made equal
        ([0, 1, 1, 1, 1, 1], 1, 1),
    ],
)
def test_default_samples_per_class(labels, contexts, samples):
    sampler = PairSampler(labels, contexts, batch_size=16)
    assert sampler.samples_per_class == samples
    assert sampler.samples >= contexts


# --- order and batches


def test_rows_say_everything():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    sampler = PairSampler(labels, 9, batch_size=4, seed=11)
    sampler.set_epoch(5)
    rows = epoch_rows(sampler)
    assert rows.table.dtype == torch.int64
    assert rows.device.type == "cpu"
    assert rows.index.sort().values.tolist() == list(range(sampler.samples))
    assert (rows.epoch == 5).all()
    assert (rows.seed == 11).all()
    assert torch.equal(sampler.pairs(5)[rows.index], torch.stack([rows.objects, rows.contexts], dim=1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(settings_of_a_sampler(), st.integers(0, 50), st.data())
def test_any_window_is_class_balanced(config, epoch, data):
    labels, contexts, samples, seed = config
    sampler = PairSampler(labels, contexts, batch_size=5, seed=seed, samples_per_class=samples)
    classes = labels[sampler.pairs(epoch)[:, 0].numpy()]
    start = data.draw(st.integers(0, len(classes) - 1))
    stop = data.draw(st.integers(start + 1, len(classes)))
    assert spread(np.bincount(classes[start:stop], minlength=labels.max() + 1)) <= 1


def test_batches_are_class_balanced_and_slots_change_class():
    labels = np.arange(12) % 6
    batches = list(PairSampler(labels, 60, batch_size=6, samples_per_class=60))
    classes = np.stack([labels[batch.objects] for batch in batches])
    assert (np.sort(classes, axis=1) == np.arange(6)).all()
    assert all(len(set(column)) == 6 for column in classes.T)


def test_pairs_do_not_depend_on_batch_size():
    rows = {size: epoch_rows(PairSampler(range(6), 14, batch_size=size, seed=2)) for size in (1, 5, 7, 1000)}
    for other in rows.values():
        assert same(by_index(other), by_index(rows[1]))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 5, 7, 36])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_together_have_the_batches_of_one_process(world_size, batch_size, drop_last):
    """Slot ``i`` of rank ``r`` is slot ``i * W + r`` of the batch; the last batch may have fewer rows than ranks."""
    options = {"seed": 4, "samples_per_class": 12, "drop_last": drop_last, "batch_size": batch_size}
    alone = PairSampler([0, 1, 2] * 2, 10, **options)
    ranks = [PairSampler([0, 1, 2] * 2, 10, rank=r, world_size=world_size, **options) for r in range(world_size)]
    batches = [list(rank) for rank in ranks]
    assert {len(found) for found in batches} == {len(alone)}
    for whole, *parts in zip(alone, *batches, strict=True):
        for rank, part in enumerate(parts):
            assert part.share == (rank, world_size, len(whole), 1)
            assert len(part) == part.share.mine
            assert same(part, whole[torch.arange(len(whole))[rank::world_size]])
    assert sum(len(part) for found in batches for part in found) == (36 // batch_size * batch_size if drop_last else 36)


def test_a_state_resumes_on_another_number_of_ranks():
    def sampler(rank=0, ranks=1):
        return PairSampler(range(5), 10, batch_size=4, seed=6, rank=rank, world_size=ranks)

    rest = list(sampler())[1:]
    ran = sampler(2, 4)
    next(iter(ran))
    resumed = [sampler(rank, 3) for rank in range(3)]
    for one in resumed:
        one.load_state_dict(ran.state_dict())
    for whole, *parts in zip(rest, *resumed, strict=True):
        assert sorted(Rows.cat(parts).index.tolist()) == sorted(whole.index.tolist())


def test_rank_comes_from_torch_distributed(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        sampler = PairSampler(range(4), 8, batch_size=2)
        assert (sampler.rank, sampler.world_size) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def test_deterministic_and_no_global_randomness():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (epoch_rows(PairSampler(range(9), 30, batch_size=8, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert same(first, again)
    assert not same_pairs(first, other)


# --- epochs, state, loaders


def test_finishing_advances_and_set_epoch_jumps():
    sampler = PairSampler(range(5), 10, batch_size=4)
    first, second = epoch_rows(sampler), epoch_rows(sampler)
    assert sampler.epoch == 2
    assert second.epoch.unique().tolist() == [1]
    assert not same_pairs(first, second)
    sampler.set_epoch(1)
    assert same(epoch_rows(sampler), second)


def test_breaking_off_leaves_the_rest_of_the_epoch_out():
    sampler = PairSampler(range(5), 10, batch_size=4)
    batches = iter(sampler)
    next(batches)
    assert sampler.epoch == 0
    assert "epoch=0" in repr(sampler)
    assert same(epoch_rows(sampler), epoch_rows_of(1))
    assert sampler.epoch == 2
    assert same(next(batches), list(PairSampler(range(5), 10, batch_size=4))[1])  # the old pass goes on beside it
    assert sampler.epoch == 2


def epoch_rows_of(epoch):
    sampler = PairSampler(range(5), 10, batch_size=4)
    sampler.set_epoch(epoch)
    return epoch_rows(sampler)


def test_the_last_batch_finishes_the_epoch():
    sampler = PairSampler(range(5), 10, batch_size=4)
    for epoch in range(3):
        assert sampler.epoch == epoch
        taken = Rows.cat(list(itertools.islice(sampler, len(sampler))))
        assert same(taken, epoch_rows_of(epoch))
    assert sampler.epoch == 3
    assert "epoch=3" in repr(sampler)
    assert torch.equal(sampler.pairs(), sampler.pairs(3))


def test_iterators_that_no_batch_was_asked_of_do_not_count():
    sampler = PairSampler(range(5), 10, batch_size=4)
    iter(sampler), iter(sampler)
    used, unused = iter(sampler), iter(sampler)
    assert same(next(used), epoch_rows_of(0)[:4])
    iter(sampler)
    assert same(Rows.cat(list(used)), epoch_rows_of(0)[4:])
    assert same(Rows.cat(list(unused)), epoch_rows_of(1))
    state = PairSampler(range(5), 10, batch_size=4)
    state.load_state_dict({**sampler.state_dict(), "epoch": 4, "batch": 1})
    iter(state), iter(state)
    assert same(epoch_rows(state), epoch_rows_of(4)[4:])


def test_a_state_after_the_last_batch_goes_on_with_the_next_epoch():
    sampler = PairSampler(range(5), 10, batch_size=4)
    batches = list(itertools.islice(sampler, len(sampler)))
    resumed = PairSampler(range(5), 10, batch_size=4)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.epoch == 1
    assert same(epoch_rows(resumed), epoch_rows_of(1))
    resumed.load_state_dict({**sampler.state_dict(), "batch": len(batches)})
    resumed.set_epoch(1)
    assert same(epoch_rows(resumed), epoch_rows_of(1))


def test_set_epoch_after_a_pass_says_where_to_go():
    sampler = PairSampler(range(5), 10, batch_size=4)
    for taken in (1, 3):
        for _ in range(2):
            list(itertools.islice(sampler, taken))
            sampler.set_epoch(0)
            assert sampler.epoch == 0
        assert same(next(iter(sampler)), epoch_rows_of(0)[:4])


@pytest.mark.parametrize("order", ["load, set", "set, load"])
def test_a_loop_that_names_its_epochs_resumes_at_the_end_of_one(order):
    """Nothing is left of the epoch that was saved at its last batch; a StatefulDataLoader loads after set_epoch."""
    sampler = PairSampler(range(5), 10, batch_size=4)
    list(itertools.islice(sampler, len(sampler)))
    state = sampler.state_dict()
    resumed, taken = PairSampler(range(5), 10, batch_size=4), []
    for epoch in range(3):
        resumed.set_epoch(epoch)
        if epoch == 0:
            resumed.load_state_dict(state)
        if epoch == 0 and order == "load, set":
            resumed.set_epoch(epoch)
        assert resumed.epoch == epoch
        taken.extend(resumed)
    assert same(Rows.cat(taken), Rows.cat([epoch_rows_of(1), epoch_rows_of(2)]))


@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_agree_on_the_epoch_of_every_pass(drop_last):
    ranks = [PairSampler([0, 1, 2] * 2, 10, batch_size=5, rank=r, world_size=2, samples_per_class=12,
                         drop_last=drop_last)
             for r in range(2)]  # fmt: skip
    for epoch, taken in enumerate((len(ranks[0]), 1, len(ranks[0]), 2, 1)):
        parts = [Rows.cat(list(itertools.islice(rank, taken))) for rank in ranks]
        assert all((part.epoch == epoch).all() for part in parts)
        together = Rows.cat(parts).index
        assert len(together.unique()) == len(together)


def test_set_epoch_during_an_iteration_holds():
    sampler = PairSampler(range(5), 10, batch_size=4)
    batches = iter(sampler)
    next(batches)
    sampler.set_epoch(7)
    assert all((batch.epoch == 0).all() for batch in batches)
    assert sampler.epoch == 7


def test_state_resumes_after_every_batch():
    def make():
        return PairSampler([0, 1, 1, 2], 9, batch_size=4, seed=3)

    endless, sampler = [], make()
    states = [sampler.state_dict()]
    for _ in range(2):
        for batch in sampler:
            endless.append(batch)
            states.append(sampler.state_dict())
    for done, state in enumerate(states):
        resumed = make()
        resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
        rest = [batch for _ in range(3) for batch in resumed][: len(endless) - done]
        assert all(same(a, b) for a, b in zip(rest, endless[done:], strict=True))


def test_set_epoch_of_the_loaded_epoch_keeps_the_place():
    sampler = PairSampler(range(5), 10, batch_size=4)
    batches = list(sampler)
    state = {**sampler.state_dict(), "epoch": 0, "batch": 2}
    sampler.load_state_dict(state)
    sampler.set_epoch(0)
    assert same(next(iter(sampler)), batches[2])
    sampler.load_state_dict(state)
    sampler.set_epoch(1)
    assert sampler.state_dict()["batch"] == 0


def rows_of(batch):
    return batch


@pytest.mark.parametrize("workers", [0, 2])
def test_plain_loader_passes_batches_whole(workers):
    sampler = PairSampler(range(5), 10, batch_size=8)
    loader = DataLoader(sampler.dataset, batch_sampler=sampler, collate_fn=rows_of, num_workers=workers)
    assert len(loader) == len(sampler)
    loaded = [Rows.cat(list(loader)) for _ in range(2)]
    fresh = PairSampler(range(5), 10, batch_size=8)
    assert all(same(epoch, epoch_rows(fresh)) for epoch in loaded)


def calls_of_a_batch(size):
    """Python calls from asking a loader for a batch to checked rows."""
    sampler = PairSampler(range(10), 1000, batch_size=size, samples_per_class=1000)
    collate = functools.partial(check_rows, objects=10, contexts=1000)
    batches = iter(DataLoader(sampler.dataset, batch_sampler=sampler, collate_fn=collate))
    next(batches)
    calls = []
    sys.setprofile(lambda _, event, __: calls.append(event))
    try:
        rows = next(batches)
    finally:
        sys.setprofile(None)
    assert rows.table.shape == (size, 5)
    return len(calls)


def test_no_python_per_sample():
    few, many = calls_of_a_batch(4), calls_of_a_batch(4096)
    assert 10 < many < few + 10


def test_dataset_gives_back_what_it_is_asked_for():
    sampler = PairSampler(range(5), 10, batch_size=8)
    rows = next(iter(sampler))
    assert sampler.dataset.__getitems__(rows) is rows
    assert sampler.dataset[rows] is rows
    assert len(sampler.dataset) == sampler.samples


def stateful_loader(workers):
    sampler = PairSampler(range(4), 6, batch_size=5, seed=9, samples_per_class=3)
    return StatefulDataLoader(sampler.dataset, batch_sampler=sampler, collate_fn=rows_of, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_loader_resumes_after_every_batch(workers):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)  # torchdata calls it
        reference, whole = [], PairSampler(range(4), 6, batch_size=5, seed=9, samples_per_class=3)
        for _ in range(3):
            reference.extend(whole)
        loader, states = stateful_loader(workers), []
        states.append(loader.state_dict())
        for _ in range(2):
            for batch in loader:
                assert same(batch, reference[len(states) - 1])
                states.append(loader.state_dict())
        ended = loader.state_dict()
        for done, state in [*enumerate(states), (len(reference) - len(whole), ended)]:
            resumed = stateful_loader(workers)
            resumed.load_state_dict(state)
            rest = itertools.islice((batch for _ in range(3) for batch in resumed), 3)
            assert all(same(a, b) for a, b in zip(rest, reference[done : done + 3], strict=True))


# --- errors and words


def small() -> PairSampler:
    return PairSampler([0, 1], 4, batch_size=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PairSampler([0, 2], 5, batch_size=1),
         "labels: expected classes 0 to 2, each with an object, got none of class 1. Number the classes from 0"),
        (
            lambda: PairSampler([0, -1], 5, batch_size=1),
            "labels: expected classes 0 to 0, each with an object, got class -1.",
        ),
        (lambda: PairSampler([], 5, batch_size=1), "labels: expected one integer class per object, got []. "),
        (
            lambda: PairSampler(torch.zeros(3), 5, batch_size=1),
            "labels: expected one integer class per object, got float32 (3,).",
        ),
        (lambda: PairSampler(np.zeros((2, 2), int), 5, batch_size=1), "labels: .* got int64 array (2, 2)."),
        (lambda: PairSampler([0, 1], 0, batch_size=1), "num_contexts: expected an integer of at least 1 "),
        (lambda: PairSampler([0, 1], 5, batch_size=0), "batch_size: expected an integer of at least 1, got 0."),
        (lambda: PairSampler([0, 1], 5, batch_size=1, seed=-1), "seed: "),
        (lambda: PairSampler([0, 1, 1], 5, batch_size=1, samples_per_class=6),
         "samples_per_class: expected an integer of at least 1 and at most 5, got 6. The smallest class has 5 "
         "different pairs: pass samples_per_class=5 or less."),
        (lambda: PairSampler([0, 1, 2], 5, batch_size=3, rank=0, world_size=4),
         "batch_size: expected at least 4, a row for every rank, got 3. It counts the rows of all ranks."),
        (lambda: PairSampler([0, 1], 5, batch_size=1, world_size=2), "rank: expected rank and world_size together"),
        (
            lambda: PairSampler([0, 1], 5, batch_size=1, rank=2, world_size=2),
            "rank: expected an integer of at least 0 and at",
        ),
        (lambda: PairSampler([0, 1], 4, batch_size=100, drop_last=True),
         "drop_last: expected at least one whole batch per epoch, got 4 samples for batches of 100. Use a smaller"),
        (lambda: PairSampler([0, 1], 4, batch_size=2).set_epoch(-1), "epoch: "),
        (
            lambda: small().load_state_dict({}),
            "state: expected the state_dict of a PairSampler,",
        ),
        (lambda: small().load_state_dict(PairSampler([0, 1], 4, batch_size=1).state_dict()),
         "state: expected the state of a sampler with batch_size=2, got batch_size=1. Build the sampler like the"),
        (
            lambda: small().load_state_dict(PairSampler([1, 0], 4, batch_size=2).state_dict()),
            "labels_crc=",
        ),
        (lambda: small().load_state_dict({**small().state_dict(), "batch": 9}),
         "state['batch']: expected an integer of at least 0 and at most 2, got 9."),
    ],
)  # fmt: skip
def test_errors_say_what_to_change(call, message):
    with pytest.raises(InputError) as caught:
        call()
    start, _, end = message.partition(" .* ")
    assert start in str(caught.value)
    assert end in str(caught.value)


def test_repr_tells_the_epoch():
    text = repr(PairSampler([0, 0, 1, 1, 1], 8, batch_size=3, seed=5, samples_per_class=7, rank=1, world_size=2))
    assert text == (
        "PairSampler(5 objects of 2 classes, 8 contexts; 14 samples per epoch, 7 per class, in 5 batches of 3; "
        "contexts per object 2 to 4, objects per context 1 to 2; seed=5, epoch=0, rank 1 of 2)"
    )


# --- without balance


def test_unbalanced_pairs_are_independent_and_uniform():
    """Degrees spread as those of a multinomial draw do, classes are not balanced, pairs repeat."""
    labels, contexts = [0, 0, 0, 1], 5
    sampler = PairSampler(labels, contexts, batch_size=7, seed=3, samples_per_class=5, balanced=False)
    epochs = [sampler.pairs(epoch).numpy() for epoch in range(1000)]
    assert all(pairs.shape == (10, 2) for pairs in epochs)
    cells = np.stack([np.bincount(pairs[:, 0] * contexts + pairs[:, 1], minlength=20) for pairs in epochs])
    total = cells.sum(axis=0)
    assert ((total - 500) ** 2 / 500).sum() < 60  # chi-square of 19 degrees of freedom: mean 19, deviation 6
    variance = cells.var(axis=0).mean()
    assert variance == pytest.approx(10 * (1 / 20) * (19 / 20), rel=0.1)
    assert (cells > 1).any()
    of_class_1 = np.array([(pairs[:, 0] == 3).sum() for pairs in epochs])
    assert of_class_1.mean() == pytest.approx(2.5, rel=0.1)  # one object of four, not one class of two
    assert of_class_1.var() == pytest.approx(10 * 3 / 16, rel=0.2)


@pytest.mark.parametrize("batch_size", [2, 3, 12])
@pytest.mark.parametrize("world_size", [1, 2])
def test_unbalanced_shards_and_access_by_index(batch_size, world_size):
    def rows(rank, size, of):
        return epoch_rows(PairSampler([0, 1, 0], 8, batch_size=size, seed=5, samples_per_class=6, rank=rank,
                                      world_size=of,
                                      balanced=False))  # fmt: skip

    shards = by_index(Rows.cat([rows(rank, batch_size, world_size) for rank in range(world_size)]))
    assert shards.index.tolist() == list(range(12))
    whole = PairSampler([0, 1, 0], 8, batch_size=5, seed=5, samples_per_class=6, balanced=False)
    assert torch.equal(shards.table[:, :2], whole.pairs(0))
    assert not torch.equal(whole.pairs(0), whole.pairs(1))
    assert not torch.equal(
        whole.pairs(0), PairSampler([0, 1, 0], 8, batch_size=5, seed=5, samples_per_class=6).pairs(0)
    )


def test_unbalanced_state():
    def build(balanced=False):
        return PairSampler([0, 1, 0], 8, batch_size=5, seed=5, samples_per_class=6, balanced=balanced)

    sampler = build()
    batches = iter(sampler)
    next(batches)
    state = sampler.state_dict()
    rest = list(batches)
    again = build()
    again.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(again, rest, strict=True))
    with pytest.raises(InputError, match="state: expected the state of a sampler with balanced=1, got balanced=0"):
        build(balanced=True).load_state_dict(state)
    assert "12 samples per epoch, in 3 batches of 5; independent uniform pairs; seed=5" in repr(sampler)


def test_rows_come_with_their_keys():
    """Hashed with numpy, whose calls cost the host less than those of torch."""
    for rows in PairSampler([0, 1, 2], 7, batch_size=5, seed=2**61 + 5):
        assert torch.equal(rows.__dict__["keys"], Rows(rows.table).keys)
