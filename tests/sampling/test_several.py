"""Samples of several objects: balance, no repeats, and classes that meet equally often."""

import numpy as np
import pytest
import torch

from kornia_cag import InputError, PairSampler
from kornia_cag.sampling.several import subsets

CASES = {
    "signs": ([*range(43)], 188, 5, 0),
    "seams": ([0, 0, 1, 2, 2, 2, 3], 60, 3, 0),
    "distractors": ([0, 0, 1, 2, -1, -1, -1], 40, 2, 2),
    "one and a distractor": ([0, 1, 2, -1], 7, 1, 1),
    "all classes": ([0, 1, 2], 50, 3, 0),
}


def sampler(labels, contexts, several, beside, **more):
    options = {"batch_size": 6, "seed": 4} | more
    return PairSampler(labels, contexts, objects_per_scene=several, distractors_per_scene=beside, **options)


def epochs(name, count=1, **more):
    """Objects (s, K) with their classes, and contexts, of a few epochs, by sample index."""
    labels, contexts, several, beside = CASES[name]
    made = sampler(labels, contexts, several, beside, **more)
    for epoch in range(count):
        pairs = made.pairs(epoch).view(made.samples, several + beside, 2).numpy()
        yield np.array(labels)[pairs[..., 0]], pairs[..., 0], pairs[:, 0, 1]


@pytest.mark.parametrize("name", CASES)
def test_all_come_equally_often_and_none_twice(name):
    labels, contexts, several, beside = CASES[name]
    classes, objects, places = next(epochs(name, samples_per_class=12 if name == "seams" else None))
    assert ((classes < 0).sum(axis=1) == beside).all()
    known = [row[row >= 0] for row in classes]
    assert all(len(set(row)) == several for row in known)
    assert all(len(set(row)) == several + beside for row in objects)
    assert np.ptp(np.bincount(np.concatenate(known))) == 0
    shown = np.bincount(objects.ravel(), minlength=len(labels))
    for label in set(labels) - {-1}:
        assert np.ptp(shown[np.array(labels) == label]) <= 1
    assert np.ptp(np.bincount(places, minlength=contexts)) <= 1
    pairs = objects * contexts + places[:, None]
    found = np.unique(pairs[classes >= 0], return_counts=True)[1]
    assert found.max() == 1


@pytest.mark.parametrize("name", ["seams", "distractors"])
def test_runs_are_balanced_and_totals_differ_by_one_in_the_long_run(name):
    labels, contexts, *_ = CASES[name]
    shown, met = np.zeros(len(labels), int), np.zeros(contexts, int)
    for classes, objects, places in epochs(name, 7):
        running = np.cumsum([np.bincount(row[row >= 0], minlength=max(labels) + 1) for row in classes], axis=0)
        runs = running[5:] - running[:-5]
        assert np.ptp(runs, axis=1).max() <= 2
        shown += np.bincount(objects.ravel(), minlength=len(labels))
        met += np.bincount(places, minlength=contexts)
        assert np.ptp(met) <= 1
        assert all(np.ptp(shown[np.array(labels) == label]) <= 1 for label in set(labels) - {-1})


def test_any_two_classes_meet_equally_often():
    together = np.zeros((4, 4))
    for classes, _, _ in epochs("seams", 200):
        there = (classes[:, :, None] == np.arange(4)).any(axis=1).astype(float)
        together += there.T @ there
    pairs = together[np.triu_indices(4, 1)]
    assert pairs.sum() > 20_000
    assert np.ptp(pairs) < 5 * np.sqrt(pairs.mean())
    assert np.ptp(np.diag(together)) == 0


def test_objects_of_a_row_and_distractors_are_in_random_order():
    found = [classes for classes, _, _ in epochs("distractors", 20)]
    share = (np.concatenate(found) < 0).mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.06
    beside = np.concatenate([objects[objects >= 4] for _, objects, _ in epochs("distractors", 20)])
    counts = np.bincount(beside)[4:]
    assert np.ptp(counts) < 6 * np.sqrt(counts.mean())


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_sample_is_the_same_in_any_batch_and_on_any_rank(world_size):
    labels, contexts, several, beside = CASES["distractors"]
    more = {"samples_per_class": 36}
    alone = list(sampler(labels, contexts, several, beside, batch_size=9, **more))
    ranks = []
    for rank in range(world_size):
        ranks += sampler(labels, contexts, several, beside, rank=rank, world_size=world_size, **more)
    one, other = (torch.cat([rows.table for rows in found]) for found in (alone, ranks))
    assert torch.equal(one[one[:, 2].argsort()], other[other[:, 2].argsort()])
    assert one.shape == (54, 4 + 4)


def test_repeats_show_a_class_twice_and_balance_the_epoch():
    made = PairSampler([0, 1], 30, batch_size=4, objects_per_scene=4, repeats=True)
    classes = made.pairs().view(-1, 4, 2)[..., 0]
    assert torch.bincount(classes.flatten()).tolist() == [made.samples_per_class] * 2
    assert (classes == 0).all(dim=1).any()
    free = PairSampler([0, 1, 1], 30, batch_size=4, objects_per_scene=4, repeats=True, balanced=False)
    assert free.pairs().shape == (4 * free.samples, 2)


def test_state_resumes_and_refuses_another_number_of_objects():
    labels, contexts, several, beside = CASES["distractors"]
    one, other = sampler(labels, contexts, several, beside), sampler(labels, contexts, several, beside)
    batches = iter(one)
    next(batches)
    other.load_state_dict(one.state_dict())
    assert torch.equal(next(batches).table, next(iter(other)).table)
    with pytest.raises(InputError, match="state: expected the state of a sampler with distractors_per_scene=1"):
        sampler(labels, contexts, several, 1).load_state_dict(one.state_dict())


def test_every_subset_is_equally_likely():
    found = np.sort(subsets(60_000, 5, 3, np.random.default_rng(0)), axis=1)
    assert (np.diff(found, axis=1) > 0).all()
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 10
    assert np.abs(counts - 6000).max() < 5 * np.sqrt(6000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampler([0, 1], 9, 3, 0), "objects_per_scene: expected at most 2"),
        (lambda: sampler([0, 1], 9, 2, 0, balanced=False), "repeats: expected True with balanced=False"),
        (lambda: sampler([0, 1, -1], 9, 2, 2), "distractors_per_scene: expected at most 1"),
        (lambda: sampler([0, 1], 9, 1, 1), "distractors_per_scene: expected at most 0"),
        (lambda: sampler([0, 1, -1], 9, 1, 0), "Show what has no class by distractors_per_scene"),
        (lambda: sampler([0, 1, 2], 9, 2, 0, samples_per_class=3), "samples_per_class: expected a multiple of 2"),
    ],
)
def test_errors_say_what_to_change(call, message):
    with pytest.raises(InputError, match=message):
        call()
