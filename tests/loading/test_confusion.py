import itertools

import pytest
import torch
from devicewait import RefuseWaiting
from hypothesis import given, settings
from hypothesis import strategies as st

from kornia_cag import CAGCollate, ContextChain, HardPairing, InputError, PairSampler, Rows
from kornia_cag.core.randomness import sample_keys


def keys(count, device="cpu", seed=0):
    index = torch.arange(count, device=device)
    return sample_keys(0 * index + seed, 0 * index, index)


def confused(matrix, device="cpu", **options):
    """A pairing that has observed exactly this confusion."""
    matrix = torch.tensor(matrix, dtype=torch.float32, device=device)
    pairing = HardPairing(len(matrix), decay=0.0, **options)
    pairing.observe(matrix.clamp(min=1e-9).log(), torch.arange(len(matrix), device=device))
    pairing.publish()
    torch.testing.assert_close(pairing.confusion, matrix, atol=1e-6, rtol=0)
    return pairing


def total(matrix, labels, last, order):
    scores = torch.tensor(matrix).fill_diagonal_(0.0)
    return float((scores[labels, last[order]] * (last[order] >= 0)).sum())  # an empty slot counts nothing


def test_objects_go_over_those_they_are_mistaken_for(device):
    # class 0 is mistaken for 1, 1 for 2, 2 for 0
    pairing = confused([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]], device)
    labels, last = torch.arange(60, device=device) % 3, torch.arange(60, device=device) * 7 % 3
    order = pairing.order(last, labels, keys(60, device))
    assert (last[order] == (labels + 1) % 3).float().mean() > 0.9


@given(b=st.integers(2, 40), classes=st.integers(2, 7), rounds=st.integers(1, 8), seed=st.integers(0, 2**20))
@settings(max_examples=50, deadline=None)
def test_every_slot_serves_once_and_confusion_never_falls(b, classes, rounds, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(classes, classes, generator=generator).softmax(1).tolist()
    labels = torch.randint(classes, (b,), generator=generator)
    last = torch.randint(-1, classes, (b,), generator=generator)
    order = confused(matrix, rounds=rounds).order(last, labels, keys(b, seed=seed))
    assert order.sort().values.tolist() == list(range(b))
    assert total(matrix, labels, last, order) >= total(matrix, labels, last, torch.arange(b)) - 1e-5


def test_the_order_is_nearly_the_best():
    generator = torch.Generator().manual_seed(1)
    shares = []
    for _ in range(20):
        matrix = torch.rand(5, 5, generator=generator).softmax(1).tolist()
        labels, last = (torch.randint(5, (7,), generator=generator) for _ in range(2))
        order = confused(matrix).order(last, labels, keys(7))
        best = max(total(matrix, labels, last, torch.tensor(p)) for p in itertools.permutations(range(7)))
        worst = min(total(matrix, labels, last, torch.tensor(p)) for p in itertools.permutations(range(7)))
        shares.append((total(matrix, labels, last, order) - worst) / (best - worst))
    assert sum(shares) / len(shares) > 0.97


def test_before_anything_is_observed_slots_keep_their_places():
    pairing = HardPairing(3)
    assert pairing.confusion is None
    order = pairing.order(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), keys(3))
    assert order.tolist() == [0, 1, 2]


def test_the_confusion_is_a_running_mean_of_probabilities():
    pairing = HardPairing(2, decay=0.75)
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    pairing.observe(logits, torch.tensor([0, 0, 0]))
    want = 0.75 * 0.5 + 0.25 * logits.softmax(1)[:, 0].mean().item()
    assert pairing.confusion[0].tolist() == pytest.approx([want, 1 - want])
    assert pairing.confusion[1].tolist() == [0.5, 0.5]  # no sample of this class was seen


def test_a_sample_that_is_not_a_number_is_left_out():
    one, other = HardPairing(2, decay=0.5), HardPairing(2, decay=0.5)
    logits = torch.tensor([[2.0, 0.0], [torch.nan, 0.0], [0.0, torch.inf]])
    one.observe(logits, torch.tensor([0, 0, 1]))
    other.observe(logits[:1], torch.tensor([0]))
    assert torch.equal(one.confusion, other.confusion)


def test_orders_go_by_what_was_published():
    pairing = confused([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
    labels, last = torch.arange(30) % 3, torch.arange(30) // 10
    before = pairing.order(last, labels, keys(30))
    pairing.observe(torch.tensor([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]), torch.arange(3))  # the other way
    assert torch.equal(pairing.order(last, labels, keys(30)), before)
    pairing.publish()
    assert not torch.equal(pairing.order(last, labels, keys(30)), before)


def test_a_state_goes_on_where_it_was_taken():
    pairing, other = confused([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]]), HardPairing(3, decay=0.0)
    pairing.observe(torch.eye(3), torch.arange(3))  # observed, not published
    other.load_state_dict(pairing.state_dict())
    labels, last = torch.arange(30) % 3, torch.arange(30) // 10
    for _ in range(2):
        assert torch.equal(other.order(last, labels, keys(30)), pairing.order(last, labels, keys(30)))
        pairing.publish()
        other.publish()


def test_wrong_arguments_are_refused(untyped):
    with pytest.raises(InputError, match="classes: expected an integer of at least 2"):
        HardPairing(1)
    with pytest.raises(InputError, match=r"logits: expected .* \(b, 3\).*got float32 \(2, 4\)"):
        HardPairing(3).observe(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="the state_dict of a HardPairing"):
        HardPairing(3).load_state_dict({})
    with pytest.raises(InputError, match=r"state\['running'\]: expected float32 \(3, 3\)"):
        HardPairing(3).load_state_dict(HardPairing(3).state_dict() | {"running": torch.zeros(2, 2)})
    with pytest.raises(InputError, match="pairing"):
        ContextChain(pairing=3)


def test_a_state_of_a_chain_with_a_pairing_needs_one():
    state = ContextChain(pairing=HardPairing(5)).state_dict()
    with pytest.raises(InputError, match="a chain like this, one with no pairing, got one with a pairing"):
        ContextChain().load_state_dict(state)


def test_a_pairing_that_nobody_tells_anything_warns_once(objects, contexts):
    chain = ContextChain(0.2, pairing=HardPairing(5))
    collate = CAGCollate(objects, contexts, 16, chain=chain)
    rows = next(iter(PairSampler(objects.labels.cpu(), len(contexts), batch_size=7, seed=5)))
    for _ in range(9):
        collate(rows)
    with pytest.warns(UserWarning, match="10 batches without an observation"):
        collate(rows)
    collate(rows)
    told = HardPairing(5)
    for _ in range(30):
        told.observe(torch.zeros(1, 5), torch.tensor([0]))
        told.publish()


def test_all_classes_serve_as_contexts_equally_often_whatever_the_confusion(objects, contexts):
    """All are mistaken for class 0, which lies beneath others no more often for it, over many batches."""
    pairing = HardPairing(5, decay=0.0)
    chain = ContextChain(0.3, pairing=pairing)
    collate = CAGCollate(objects, contexts, 16, chain=chain, returns="batch")
    logits, labels = torch.zeros(5, 5, device=objects.device), torch.arange(5, device=objects.device)
    logits[:, 0] = 5.0
    under = torch.zeros(5, device=objects.device)
    for epoch in range(40):
        for rows in PairSampler(objects.labels.cpu(), len(contexts), batch_size=20, seed=epoch):
            offered = chain.offered(collate.composer, rows.to(objects.device)).labels[:, 0]
            batch = collate(rows)
            under += torch.bincount(offered[batch.chained], minlength=5)
            pairing.observe(logits, labels)
    share = under / under.sum()
    assert under.sum() > 500
    assert (share - 0.2).abs().max() < 0.05


# --- in the collate


def hard(objects, contexts, size=16):
    pairing = HardPairing(len(objects.classes), decay=0.0)
    chain = ContextChain(0.0, pairing=pairing)
    return pairing, CAGCollate(objects, contexts, size, chain=chain, returns="batch")


def test_an_object_lies_over_the_composite_that_the_order_says(objects, contexts, device):
    """Each class is mistaken for the next one. With the default camera a chained context is the composite itself."""
    pairing, collate = hard(objects, contexts)
    rows = next(iter(PairSampler(objects.labels.cpu(), len(contexts), batch_size=20, seed=5)))
    later = Rows.of(rows.objects, rows.contexts, rows.index, epoch=1, seed=rows.seed).to(device)
    pairing.observe(9 * torch.eye(5, device=device).roll(1, 1), torch.arange(5, device=device))
    first, second = collate(rows), collate(later)
    order = pairing.order(first.labels, first.labels, later.keys)
    assert (first.labels[order] == (first.labels + 1) % 5).float().mean() > 0.5  # a fifth by chance
    assert second.chained.float().mean() > 0.8
    outside = (second.masks == 0) & second.chained[:, None, None, None]
    assert outside.float().mean() > 0.2
    gap = (second.images - first.images[order]).abs() * outside
    assert gap.max() < 1e-6


def test_nothing_waits_for_the_device(device):
    pairing = confused([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]], device)
    labels, logits = torch.arange(6, device=device) % 3, torch.zeros(6, 3, device=device)
    with RefuseWaiting():
        pairing.observe(logits, labels)
        pairing.publish()
        pairing.order(labels, labels, keys(6, device))
