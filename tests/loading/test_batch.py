"""What a collate gives: on its way from worker processes and into pinned memory, and of samples of several objects."""

import copy
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import make_contexts, make_objects
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from kornia_cag import (
    PGD,
    Batch,
    CAGCollate,
    ContextChain,
    Draft,
    InputError,
    OverfittingMonitor,
    PairSampler,
    Prefetcher,
    Rows,
    Scene,
    ScenePGD,
    Targets,
    WorstOf,
    attacked_loss,
)
from kornia_cag.core.records import SMALL, tensors
from kornia_cag.loading.batch import Pair, check_attacked
from kornia_cag.training.recipes import SIGNS

ATTACK = PGD(eps=0.1, eps_object=0.02, steps=1)


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(5, 3 * 16 * 16, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


def collated(*adversaries, returns="batch", size=16, **options):
    options = {"model": Judge() if adversaries else None, **options}
    return CAGCollate(make_objects(), make_contexts(), size, adversaries=adversaries, returns=returns, **options)


def pairs_of(count=8):
    return PairSampler(make_objects().labels, 7, batch_size=count, seed=5)


def same(one, other):
    return all(
        a.dtype == b.dtype and torch.equal(a.nan_to_num(nan=-9), b.nan_to_num(nan=-9))
        for a, b in zip(tensors(one), tensors(other), strict=True)
    )


# --- from worker processes


@pytest.mark.parametrize("returns", ["pair", "batch"])
@pytest.mark.parametrize("options", [{}, {"channels_last": True}, {"dtype": torch.uint8}], ids=str)
def test_batches_of_workers_are_those_of_the_main_process(returns, options):
    made = []
    for workers in (0, 2):
        pairs, collate = pairs_of(), collated(returns=returns, ranges=SIGNS.ranges, **options)
        made.append([*DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, num_workers=workers)])
    assert len(made[0]) == 5
    for here, there in zip(*made, strict=True):
        assert same(here, there)
        assert type(there) is type(here)
        assert here.images.stride() == there.images.stride()
        if returns == "batch":
            assert (type(there.rows), type(there.scene), type(there.targets)) == (Rows, Scene, Targets)
            assert there.attacked is None
            assert torch.equal(collate.composer.render(there.scene).images, there.clean)
            there.labels.mul_(torch.tensor(0))  # what came is one's own, and nothing else changes with it
            assert torch.equal(there.boxes[there.visible], here.boxes[here.visible])
        weight = torch.ones(1, requires_grad=True)
        if there.images.is_floating_point():
            there.images.mul_(weight).sum().backward()
            assert weight.grad is not None


@pytest.mark.parametrize("stages", [(ATTACK,), (WorstOf(k=2), ATTACK), (ScenePGD(steps=1, fraction=0.5), ATTACK)])
def test_drafts_of_workers_are_hardened_here(stages):
    made = []
    for workers in (0, 2):
        pairs, collate = pairs_of(), collated(*stages)
        ahead = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose, num_workers=workers)
        made.append([*Prefetcher(ahead, collate)])
    assert len(made[0]) == 5
    for here, there in zip(*made, strict=True):
        assert same(here, there)
        assert there.attacked.all()
        assert torch.equal(collate.composer.render(there.scene).images, there.clean)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a list of open files")
@pytest.mark.parametrize("what", ["batch", "draft"])
def test_many_batches_may_be_held_at_once(what):
    """Each tensor that a worker sends is an open file here, of which a process often has no more than 1024."""
    collate = collated(ranges=SIGNS.ranges) if what == "batch" else collated(ScenePGD(fraction=0.5), ATTACK)
    rows = next(iter(pairs_of()))
    loader = DataLoader(
        range(50),
        batch_size=1,
        num_workers=2,
        collate_fn=lambda _: (collate if what == "batch" else collate.compose)(rows),
    )
    before = descriptors()
    held = list(loader)
    assert len(held) == 50
    assert len([*tensors(held[0])]) > 35
    assert descriptors() - before < 50 * 6 + 20  # images, masks, and one of each dtype
    assert same(held[0], held[49])


def test_small_tensors_travel_together_and_large_ones_as_they_are():
    collate = collated(size=96)  # images above the bound
    batch = collate(next(iter(pairs_of())))
    assert batch.images.nbytes > SMALL > batch.boxes.nbytes
    _, (kind, _, whole, parts) = batch.__reduce__()
    assert kind is Batch
    large = [tensor for tensor in whole if tensor is not None]
    assert any(tensor is batch.images for tensor in large)
    assert {flat.dtype for flat, _, _ in parts} == {torch.float32, torch.int64, torch.bool}
    assert sum(len(places) for _, places, _ in parts) + len(large) == len({id(t) for t in tensors(batch)})
    for again in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), copy.copy(batch)):
        assert same(again, batch)
        assert again.images is again.clean  # nothing changed them


def test_a_draft_without_composites_can_be_sent_too():
    draft = collated(ScenePGD()).compose(next(iter(pairs_of())))
    assert (draft.made, draft.waiting) == (None, 8)
    again = pickle.loads(pickle.dumps(draft))
    assert (type(again), again.made, again.waiting, again.strength) == (Draft, None, 8, 1.0)
    assert torch.equal(again.rows.keys, draft.rows.keys)


# --- pinned


@pytest.fixture
def pinned(monkeypatch):
    """Stands in for CUDA's pinned memory: a copy that is remembered."""
    made = []

    def pin(tensor, *_):
        made.append(tensor.clone())
        return made[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return made


@pytest.mark.parametrize("stages", [(), (ATTACK,)], ids=["plain", "attacked"])
@pytest.mark.parametrize("returns", ["pair", "batch"])
def test_all_of_a_batch_is_pinned(stages, returns, pinned):
    batch = collated(*stages, returns=returns)(next(iter(pairs_of())))
    there = pin_memory(batch)
    assert type(there) is type(batch)
    assert same(there, batch)
    known = {id(tensor) for tensor in pinned}
    assert {id(tensor) for tensor in tensors(there)} == known
    if returns == "batch":
        assert (type(there.rows), type(there.scene), type(there.targets)) == (Rows, Scene, Targets)


def test_pinning_attacks_nobody(pinned):
    """A copy is no attack: clean and images are two tensors then."""
    plain = pin_memory(collated()(next(iter(pairs_of()))))
    assert plain.images is not plain.clean
    for use in (
        check_attacked,
        lambda b: attacked_loss(Judge(), b),
        lambda b: OverfittingMonitor(ATTACK, 5)(Judge(), b),
    ):
        with pytest.raises(InputError, match="batch: expected an attacked batch, got a batch from a collate without"):
            use(plain)
    hard = pin_memory(collated(ATTACK)(next(iter(pairs_of()))))
    check_attacked(hard)
    assert attacked_loss(Judge(), hard) > 0
    assert hard.attacked.all()


def test_batches_made_on_a_gpu_are_not_pinned(untyped):
    """A DataLoader with ``pin_memory=True`` asks a batch that knows how to; a stand-in plays the GPU."""
    made = SimpleNamespace(device=torch.device("cuda"))
    for batch in (Pair(made, made), Batch(*[made] * len(Batch._fields))):
        with pytest.raises(InputError, match=r"pin_memory: expected False .* Pass pin_memory=False\."):
            pin_memory(batch)


def test_what_was_not_asked_for_as_a_batch_is_refused(untyped):
    with pytest.raises(
        InputError, match=r'batch: expected Batch, got Pair\(images=.*CAGCollate\(\.\.\., returns="batch"'
    ):
        check_attacked(collated(ATTACK, returns="pair")(next(iter(pairs_of()))))


def test_repr_is_short():
    batch = collated()(next(iter(pairs_of())))
    for part in ("Batch(images=float32 (8, 3, 16, 16)", "rows=Rows", "scene=Scene", "attacked=NoneType"):
        assert part in repr(batch)
    assert len(repr(batch)) < 700


# --- several objects in a sample


def two(count=10, epoch=0):
    """Rows of two objects: of class i beneath class 2 i + 1, so that some are of one class."""
    index = torch.arange(count)
    return Rows.of(torch.stack([index % 5, (2 * index + 1) % 5], dim=1), index % 7, index, epoch=epoch, seed=3)


def test_a_batch_of_two_objects_a_sample():
    batch = collated(ATTACK, chain=ContextChain(0.0))(two())
    assert torch.equal(batch.targets.labels, two().layers)  # one object of each class
    assert batch.targets.boxes.shape == (10, 2, 4)
    assert batch.targets.visible.shape == batch.targets.share.shape == (10, 2)
    assert batch.targets.masks.shape == batch.targets.full.shape == (10, 2, 16, 16)
    assert len(batch.scene.layers) == 2
    assert torch.equal(batch.labels, batch.targets.labels[:, 0])
    assert torch.equal(batch.masks, batch.targets.masks[:, :1])
    assert torch.equal(batch.boxes, batch.targets.boxes[:, 0])
    assert (batch.targets.masks <= batch.targets.full + 1e-6).all()
    assert torch.equal(collated().composer.render(batch.scene).images, batch.clean)
    assert same(pickle.loads(pickle.dumps(batch)), batch)


def test_the_budget_of_objects_holds_on_both():
    batch = collated(PGD(eps=0.2, eps_object=0.01, steps=3))(two())
    cover = batch.targets.cover
    assert (cover > batch.masks + 0.5).any()  # the upper object lies elsewhere, too
    moved = (batch.images - batch.clean).abs()
    assert (moved <= 0.2 * (1 - cover) + 0.01 * cover + 1e-7).all()
    assert moved.amax(dim=(1, 2, 3)).min() > 0.1


def test_a_chain_of_two_objects_holds_the_labels_of_both():
    """A slot is taken where no object beneath is of a class that the sample shows."""
    collate = collated(chain=ContextChain(0.0))
    first = collate(two())
    assert not first.chained.any()
    held = collate.chain.slots(10, size=(16, 16), device=torch.device("cpu"), layers=2)
    assert torch.equal(held.labels, first.targets.labels)
    assert torch.equal(held.images, first.images)
    later = two(epoch=1)
    later = Rows.of(later.layers.roll(1, 0), later.contexts, later.index, epoch=1, seed=3)
    second = collate(later)
    apart = (first.targets.labels[:, :, None] != second.targets.labels[:, None, :]).flatten(1).all(dim=1)
    assert torch.equal(second.chained, apart)
    assert 0 < apart.sum() < 10
    state, again = collate.state_dict(), collated(chain=ContextChain(0.0))
    assert state["chain"]["labels"].shape == (10, 2)
    again.load_state_dict(state)
    assert same(again(two(epoch=2)), collate(two(epoch=2)))
    with pytest.raises(InputError, match=r"chain: expected composites of 1 objects, got 2\. Call chain\.clear\(\)"):
        collate(next(iter(pairs_of(10))))


@pytest.mark.parametrize("stage", [ScenePGD(steps=2), WorstOf(k=3), PGD(eps=0.1, steps=2),
                                   PGD(eps=0.1, steps=2, target="random"), PGD(eps=0.1, steps=2, target="least likely"),
                                   PGD(eps=0.1, steps=3, early_stop=True)], ids=repr)  # fmt: skip
def test_every_attack_raises_the_loss_of_both_objects(stage):
    net = Judge()

    def loss(batch):
        with torch.no_grad():
            return sum(F.cross_entropy(net(batch.images), y, reduction="none") for y in batch.targets.labels.unbind(1))

    plain, hard = loss(collated()(two())), loss(collated(stage, model=net)(two()))
    assert hard.mean() > plain.mean()


def test_an_attack_stops_once_the_model_names_no_object_of_a_sample():
    class Fixed(nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = logits

        def forward(self, x):
            return self.logits + 0.001 * x.flatten(1)[:, :5]

    images, keys = torch.rand(3, 3, 16, 16), torch.arange(3)
    labels = torch.tensor([[0, 1], [1, 0], [2, 3]])  # it names the first two: their lower and their upper object
    attack = PGD(eps=0.1, steps=2, early_stop=True, random_start=False)
    out = attack(Fixed(torch.tensor([9.0, 0, 0, 0, 0])), images, labels, keys=keys)
    assert (out != images).flatten(1).any(1).tolist() == [True, True, False]
