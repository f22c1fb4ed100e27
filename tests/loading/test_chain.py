import math
from dataclasses import dataclass

import pytest
import torch
from devicewait import RefuseWaiting
from torch import Tensor

from kornia_cag import PGD, CAGCollate, ContextChain, InputError, PairSampler
from kornia_cag.adversary.losses import kl
from kornia_cag.core.randomness import sample_keys, uniform

SIZE = (6, 5)


def keys(count, epoch=0, device="cpu"):
    index = torch.arange(count, device=device)
    return sample_keys(0 * index + 7, 0 * index + epoch, index)


def composites(count, value, device="cpu"):
    """Pictures whose pixels tell their slot and batch."""
    return (value + torch.arange(count, device=device) / 1000)[:, None, None, None].expand(-1, 3, *SIZE).clone()


def classes(count, of, device="cpu"):
    return torch.full((count, 1), of, device=device)


@dataclass
class Offered:
    """What a chain offers, and who takes it."""

    images: Tensor
    use: Tensor


def offered(chain, labels, keys, size):
    """What the chain puts behind objects of these classes (b, K), as the composer takes it."""
    earlier = chain.slots(len(labels), size=size, device=labels.device, layers=labels.shape[1])
    return Offered(earlier.images, earlier.used(labels, uniform(keys, "chain.reset")))


def test_an_empty_chain_offers_nothing(device):
    earlier = offered(ContextChain(0.0), classes(4, 0, device), keys(4, device=device), SIZE)
    assert earlier.images.shape == (4, 3, *SIZE)
    assert not earlier.use.any()


def test_slots_offer_what_they_held_last(device):
    chain = ContextChain(0.0)
    for value in (0.2, 0.6):
        chain.keep(composites(4, value, device), classes(4, 0, device))
    earlier = offered(chain, classes(4, 1, device), keys(4, device=device), SIZE)
    assert earlier.use.all()
    assert torch.equal(earlier.images, composites(4, 0.6, device))


def test_kept_composites_are_copies():
    chain, images = ContextChain(0.0), composites(3, 0.5).requires_grad_()
    chain.keep(images, classes(3, 0))
    with torch.no_grad():
        images.zero_()
    earlier = offered(chain, classes(3, 1), keys(3), SIZE)
    assert torch.equal(earlier.images, composites(3, 0.5))
    assert not earlier.images.requires_grad


@pytest.mark.parametrize("reset", [0.0, 0.171, 0.5, 1.0])
def test_slots_reset_with_the_given_probability(reset):
    count = 20_000
    chain = ContextChain(reset)
    chain.keep(composites(count, 0.1), classes(count, 0))
    fresh = (~offered(chain, classes(count, 1), keys(count), SIZE).use).sum().item()
    assert abs(fresh - reset * count) <= 4 * math.sqrt(count * reset * (1 - reset))


def test_resets_differ_from_epoch_to_epoch_and_repeat_with_the_key():
    chain = ContextChain(0.5)
    chain.keep(composites(64, 0.1), classes(64, 0))
    one, same, other = (offered(chain, classes(64, 1), keys(64, epoch), SIZE).use for epoch in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_label_in_the_context_always_differs():
    chain, labels = ContextChain(0.0), torch.arange(60)[:, None] % 3
    chain.keep(composites(60, 0.1), labels)
    new = torch.arange(60)[:, None] // 3 % 3
    assert torch.equal(offered(chain, new, keys(60), SIZE).use, (new != labels)[:, 0])


def test_share_of_fresh_contexts_with_balanced_classes():
    """The formula of the docstring, over many batches of random labels."""
    generator, chain, fresh, count = torch.Generator().manual_seed(0), ContextChain(0.2), 0, 500
    for epoch in range(20):
        labels = torch.randint(4, (count, 1), generator=generator)
        if epoch:
            fresh += (~offered(chain, labels, keys(count, epoch), SIZE).use).sum().item()
        chain.keep(composites(count, 0.1), labels)
    share, n = 0.2 + 0.8 / 4, 19 * count
    assert abs(fresh / n - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_a_smaller_batch_leaves_the_slots_beyond_it():
    chain = ContextChain(0.0)
    chain.keep(composites(5, 0.1), classes(5, 0))
    chain.keep(composites(2, 0.8), classes(2, 1))
    earlier = offered(chain, classes(5, 2), keys(5), SIZE)
    assert earlier.use.all()
    assert torch.equal(earlier.images, torch.cat([composites(2, 0.8), composites(5, 0.1)[2:]]))
    labels, held = torch.tensor([[1], [0], [0], [1], [0]]), torch.tensor([[1], [1], [0], [0], [0]])
    assert torch.equal(offered(chain, labels, keys(5), SIZE).use, (labels != held)[:, 0])
    few = offered(chain, classes(2, 2), keys(2), SIZE)
    assert torch.equal(few.images, composites(2, 0.8))


def test_a_larger_batch_finds_the_new_slots_empty():
    chain = ContextChain(0.0)
    chain.keep(composites(2, 0.1), classes(2, 0))
    earlier = offered(chain, classes(4, 1), keys(4), SIZE)
    assert earlier.use.tolist() == [True, True, False, False]
    assert torch.equal(earlier.images[:2], composites(2, 0.1))
    chain.keep(composites(4, 0.6), classes(4, 1))
    assert offered(chain, classes(4, 0), keys(4), SIZE).use.all()


def test_clear_forgets():
    chain = ContextChain(0.0)
    chain.keep(composites(2, 0.1), classes(2, 0))
    assert repr(chain) == "ContextChain(reset=0, slots=2)"
    chain.clear()
    assert repr(chain) == "ContextChain(reset=0, slots=0)"
    assert not offered(chain, classes(2, 1), keys(2), SIZE).use.any()


def test_state_round_trip_through_a_file(tmp_path, device):
    chain = ContextChain(0.3)
    torch.save(chain.state_dict(), tmp_path / "empty.pt")
    chain.keep(composites(9, 0.3, device), torch.arange(9, device=device)[:, None])
    torch.save(chain.state_dict(), tmp_path / "full.pt")
    chain.keep(composites(9, 0.9, device), classes(9, 0, device))  # the state saved is not a view of the chain
    again = ContextChain(0.3)
    again.load_state_dict(torch.load(tmp_path / "full.pt", weights_only=True))
    new = classes(9, 4, device)
    earlier = offered(again, new, keys(9, device=device), SIZE)
    assert torch.equal(earlier.images, composites(9, 0.3, device))
    assert not earlier.use[4]
    again.load_state_dict(torch.load(tmp_path / "empty.pt", weights_only=True))
    assert not offered(again, new, keys(9, device=device), SIZE).use.any()


def test_a_state_is_not_changed_by_later_batches():
    chain = ContextChain(0.0)
    chain.keep(composites(4, 0.1), classes(4, 0))
    state = chain.state_dict()
    chain.keep(composites(4, 0.7), classes(4, 1))
    chain.keep(composites(2, 0.9), classes(2, 1))
    assert torch.equal(state["images"], composites(4, 0.1))
    assert state["labels"].tolist() == [[0], [0], [0], [0]]


@pytest.mark.parametrize("reset", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_reset_is_a_probability(reset, untyped):
    with pytest.raises(InputError, match=r"reset: expected a number in \[0, 1\]"):
        ContextChain(reset)


def test_composites_of_another_size_are_refused():
    chain = ContextChain(0.0)
    chain.keep(composites(2, 0.1), classes(2, 0))
    message = r"chain: expected torch.float32 composites of \(7, 5\) pixels.*of \(6, 5\).*chain\.clear\(\)"
    with pytest.raises(InputError, match=message):
        offered(chain, classes(2, 1), keys(2), (7, 5))


def test_another_state_is_refused():
    with pytest.raises(InputError, match=r"state: expected keys 'changes', .*'pairing', 'targets', got \['pictures'\]"):
        ContextChain().load_state_dict({"pictures": None})


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (composites(2, 0.1), None, r"state\['labels'\]: expected int64 \(2, K\) on cpu, got None"),
        (None, classes(2, 0), r"state\['images'\]: expected float32 or .* or uint8 \(b, 3, h, w\), got None"),
        (composites(2, 0.1), classes(3, 0), r"state\['labels'\]: expected int64 \(2, K\).*got int64 \(3, 1\)"),
        (composites(2, 0.1).double(), classes(2, 0), r"state\['images'\]: .* got float64"),
        (composites(2, 0.1)[:, :1], classes(2, 0), r"state\['images'\]: .* got float32 \(2, 1, 6, 5\)"),
        (composites(2, 0.1), classes(2, 0.0), r"state\['labels'\]: .* got float32"),
    ],
)
def test_a_state_that_holds_something_else_is_refused(images, labels, message, untyped):
    chain = ContextChain(0.0)
    chain.keep(composites(4, 0.1), classes(4, 0))
    state = {"images": images, "labels": labels, "targets": None, "generations": None, "pairing": None, "changes": None}
    with pytest.raises(InputError, match=message):
        chain.load_state_dict(state)
    assert torch.equal(chain.state_dict()["images"], composites(4, 0.1))  # as it was


def test_a_state_is_moved_where_it_is_wanted(device):
    one, other = ContextChain(0.0), ContextChain(0.0)
    one.keep(composites(3, 0.4), classes(3, 0))
    other.load_state_dict(one.state_dict(), device)
    earlier = offered(other, classes(3, 1, device), keys(3, device=device), SIZE)
    assert earlier.images.device.type == device.type
    assert torch.equal(earlier.images.cpu(), composites(3, 0.4))


def test_nothing_waits_for_the_device(device):
    chain, labels, k = ContextChain(0.2), torch.arange(5, device=device)[:, None], keys(5, device=device)
    images = composites(5, 0.2, device)
    with RefuseWaiting():
        for count in (5, 3, 5):
            offered(chain, labels[:count], k[:count], SIZE)
            chain.keep(images[:count], labels[:count])


# --- inside the collate


def test_the_attacked_composite_is_what_is_kept(objects, contexts, device):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)).to(device)
    chain = ContextChain(0.0)
    collate = CAGCollate(objects, contexts, 16, chain=chain, model=model,
                         adversaries=(PGD(eps=0.1, steps=2),), returns="batch")  # fmt: skip
    rows = next(iter(PairSampler(objects.labels, len(contexts), batch_size=10)))
    batch = collate(rows)
    assert (batch.images - batch.clean).abs().max() > 0.05
    kept = offered(chain, (batch.targets.labels + 1) % 5, keys(10, device=device), (16, 16))
    assert torch.equal(kept.images, batch.images)


def test_a_chained_slot_shows_its_last_composite_around_the_object(objects, contexts, device):
    """Where the mask is 0 and the camera is perfect, the context is the earlier composite, bit for bit."""
    chain = ContextChain(0.4)
    collate = CAGCollate(objects, contexts, 24, chain=chain, returns="batch")
    last, chained = None, 0
    for rows in PairSampler(objects.labels, len(contexts), batch_size=7, samples_per_class=7):
        batch = collate(rows)
        if last is not None:
            outside = (batch.masks == 0).expand_as(batch.images)
            same = torch.where(outside, batch.images == last.images, True).flatten(1).all(dim=1)
            assert torch.equal(same, batch.chained)
            assert not (batch.chained & (batch.labels == last.labels)).any()
            chained += int(batch.chained.sum())
        else:
            assert not batch.chained.any()
        last = batch
    assert chained >= 7


# --- warm start


def test_an_attack_starts_where_the_last_one_of_its_slot_ended(device):
    chain, clean = ContextChain(0.0, warm_start=True), composites(4, 0.2, device)
    assert chain.changes(4) is None  # nothing was attacked yet
    chain.keep(clean[:3] + 0.1, classes(3, 0, device), torch.full_like(clean[:3], 0.1))
    torch.testing.assert_close(chain.changes(2), torch.full_like(clean[:2], 0.1))
    moved = torch.tensor([0.1, 0.1, 0.1, 0.0], device=device)[:, None, None, None]  # the fourth slot has none
    torch.testing.assert_close(chain.changes(4), moved.expand_as(clean))
    chain.keep(
        clean[:2] - 0.1, classes(2, 0, device), torch.full_like(clean[:2], -0.1)
    )  # a smaller batch leaves the third slot alone
    moved = torch.tensor([-0.1, -0.1, 0.1, 0.0], device=device)[:, None, None, None]
    torch.testing.assert_close(chain.changes(4), moved.expand_as(clean))
    chain.clear()
    assert chain.changes(4) is None


def test_without_warm_start_nothing_is_kept():
    chain, clean = ContextChain(0.0), composites(4, 0.2)
    chain.keep(clean + 0.1, classes(4, 0), torch.full_like(clean, 0.1))
    assert chain.changes(4) is None
    assert chain.state_dict()["changes"] is None


def test_a_warm_start_survives_its_state():
    chain, other, clean = ContextChain(0.0, warm_start=True), ContextChain(0.0, warm_start=True), composites(4, 0.2)
    chain.keep(clean + 0.1, classes(4, 0), torch.full_like(clean, 0.1))
    other.load_state_dict(chain.state_dict())
    assert torch.equal(other.changes(5), chain.changes(5))
    assert chain.changes(5).any()


def test_a_warm_start_needs_the_clean_composites(untyped):
    with pytest.raises(InputError, match=r"changes: expected float32 .*got None\. warm_start needs it"):
        ContextChain(warm_start=True).keep(composites(4, 0.2), classes(4, 0))


def test_a_slot_that_was_not_attacked_starts_at_random(objects, contexts, device):
    """Half of the samples are attacked; with the divergence as loss, whose gradient at the image itself is 0."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)).to(device)
    attack = PGD(eps=0.1, steps=1, fraction=0.5, loss=kl)
    chain = ContextChain(1.0, warm_start=True)
    collate = CAGCollate(objects, contexts, 16, chain=chain, model=model, adversaries=(attack,), returns="batch")
    cold = CAGCollate(objects, contexts, 16, model=model, adversaries=(attack,), returns="batch")
    one, two, *_ = PairSampler(objects.labels.cpu(), len(contexts), batch_size=15, seed=5)
    first, second, alone = collate(one), collate(two), cold(two)
    before, now = ((batch.images != batch.clean).flatten(1).any(1) for batch in (first, second))
    assert (now == (alone.images != alone.clean).flatten(1).any(1)).all()
    assert (now & ~before).any()
    assert torch.equal(second.images[now & ~before], alone.images[now & ~before])
    warm = (second.images != alone.images).flatten(1).any(1)
    assert warm[now & before].all()


def test_a_state_without_perturbations_is_refused(untyped):
    chain = ContextChain(0.0)
    chain.keep(composites(4, 0.2), classes(4, 0))
    other = ContextChain(0.0, warm_start=True)
    with pytest.raises(InputError, match="a chain like this, one with a warm start, got one with no warm start"):
        other.load_state_dict(chain.state_dict())
    assert other.changes(4) is None


def test_the_collate_starts_the_attack_there(objects, contexts, device):
    """A step of 0 shows where an attack started: the batch is kept where the last one ended."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)).to(device)
    attack, still = (PGD(eps=0.1, alpha=alpha, steps=1) for alpha in (None, 0.0))
    chain = ContextChain(1.0, warm_start=True)
    collate = CAGCollate(objects, contexts, 16, chain=chain, model=model, adversaries=(attack,), returns="batch")
    rows = list(PairSampler(objects.labels.cpu(), len(contexts), batch_size=8, seed=5))
    first = collate(rows[0])
    collate.adversaries = (still,)
    second = collate(rows[1])
    want = (second.clean + (first.images - first.clean)).clamp(0, 1)
    torch.testing.assert_close(second.images, want, atol=1e-6, rtol=0)
    assert (second.images != second.clean).float().mean() > 0.5
