import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting, no_waiting
from recorder import replaying
from torch import nn
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag import (
    PGD,
    CAGCollate,
    ContextBank,
    ContextChain,
    ContextStream,
    InputError,
    PairSampler,
    Prefetcher,
    ScenePGD,
    SceneRange,
    WorstOf,
)

SLOTS, SIDE = 12, 16


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def pictures():
    return map(picture, itertools.count())


def stream(device="cpu", source=pictures, **options):
    return ContextStream(source, slots=SLOTS, size=SIDE, device=device, **options)


def sampler(**options):
    options = {"samples_per_class": 12, "batch_size": 7, "seed": 5, **options}
    return PairSampler([0, 1, 2, 3, 4], SLOTS, **options)


def residents(epoch, device="cpu"):
    """The pictures of an epoch, as a bank that stays."""
    numbers = range(epoch * SLOTS, (epoch + 1) * SLOTS)
    images = [torch.from_numpy(picture(number)).permute(2, 0, 1) for number in numbers]
    return ContextBank.from_tensors(images, size=SIDE, device=device)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.layer.weight.data = torch.arange(15.0).view(5, 3).sin()
        self.layer.bias.data.zero_()

    def forward(self, x):
        return self.layer(x.mean((2, 3)))


STAGES = {
    "plain": lambda: {},
    "chain": lambda: {"chain": ContextChain(0.3)},
    "worst of": lambda: {"adversaries": (WorstOf(k=3),), "model": Net()},
    "attacks": lambda: {"adversaries": (ScenePGD(steps=1), PGD(eps=0.1)), "model": Net(), "chain": ContextChain(0.3)},
}


@pytest.mark.parametrize("options", STAGES.values(), ids=STAGES)
def test_batches_are_those_of_a_resident_bank_of_the_epochs_pictures(options, device):
    objects, pairs = make_objects(device, 16), sampler()
    rest = {name: value.to(device) if name == "model" else value for name, value in options().items()}
    other = {name: value.to(device) if name == "model" else value for name, value in options().items()}
    with stream(device) as contexts:
        streamed, twin = CAGCollate(objects, contexts, 16, **rest), CAGCollate(objects, None, 16, **other)
        for epoch in range(3):
            twin._composer = twin._composing(residents(epoch, device))
            for rows in pairs:
                assert torch.equal(streamed(rows).images, twin(rows).images)


def test_every_picture_is_offered_equally_often():
    numbers, met, pairs = {picture(k).tobytes(): k for k in range(5 * SLOTS)}, Counter(), sampler(samples_per_class=11)
    with stream(workers=3) as contexts:
        collate = CAGCollate(make_objects(size=16), contexts, 16)
        for _ in range(5):
            for rows in pairs:
                collate.compose(rows)
                shown = contexts.bank.pyramid.level(0)[rows.contexts].permute(0, 2, 3, 1)
                met.update(numbers[each.numpy().tobytes()] for each in shown)
    assert met.keys() == set(range(5 * SLOTS))
    assert {*met.values()} == {4, 5}  # 55 samples an epoch


def batches(loader, count):
    found = []
    while len(found) < count:
        for batch in loader:
            found.append(batch.images.clone())
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("name", ["plain", "chain", "attacks"])
@pytest.mark.parametrize("stop", [3, 8, 9, 10, 25])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_a_stopped_loader_goes_on_to_the_bit(name, stop):
    def loader(contexts):
        pairs, collate = sampler(), CAGCollate(make_objects(size=16), contexts, 16, **STAGES[name]())
        made = StatefulDataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate.compose, num_workers=0)
        return Prefetcher(made, collate)

    with stream() as one, stream() as other:
        whole = batches(loader(one), stop + 25)
        first = loader(other)
        iterator, found = iter(first), []
        while len(found) < stop:
            batch = next(iterator, None)
            if batch is None:
                iterator = iter(first)
            else:
                found.append(batch.images.clone())
        state = first.state_dict()
    with stream(workers=4) as fresh:
        resumed = loader(fresh)
        resumed.load_state_dict(state)
        later = batches(resumed, 25)
    assert all(torch.equal(a, b) for a, b in zip(whole, found + later, strict=True))


def test_a_recorded_composition_reads_the_slots_anew():
    pairs, objects = sampler(batch_size=12), make_objects(size=16)
    with stream() as one, stream() as other:
        recorded, eager = CAGCollate(objects, one, 16), CAGCollate(objects, other, 16)
        recorder = replaying(recorded)
        for _ in range(3):
            for rows in pairs:
                assert torch.equal(recorded(rows).images, eager(rows).images)
    assert recorder.replays > 10


def test_ranks_see_the_same_pictures():
    objects = make_objects(size=16)
    with stream() as whole, stream() as one, stream() as other:
        collates = [CAGCollate(objects, each, 16, returns="batch") for each in (whole, one, other)]
        for _ in range(2):
            shown = []
            samplers = sampler(batch_size=12), *(sampler(rank=rank, world_size=2, batch_size=5) for rank in range(2))
            for collate, pairs in zip(collates, samplers, strict=True):
                made = [(batch.rows.index, batch.images) for batch in map(collate, pairs)]
                shown.append({int(k): image for index, images in made for k, image in zip(index, images, strict=True)})
            assert {**shown[1], **shown[2]}.keys() == shown[0].keys()
            assert all(torch.equal(image, shown[0][k]) for k, image in {**shown[1], **shown[2]}.items())


def test_nothing_waits_for_the_device(device):
    pairs = sampler()
    with stream(device) as contexts:
        collate = CAGCollate(make_objects(device, 16), contexts, 16)
        for rows in pairs:
            collate(rows)
        with RefuseWaiting() if device.type == "cpu" else no_waiting():
            for rows in pairs:
                collate(rows)


def test_a_twin_leaves_the_slots_alone():
    with stream() as contexts:
        collate, pairs = CAGCollate(make_objects(size=16), contexts, 16), sampler()
        for _ in range(3):
            for rows in pairs:
                collate(rows)
        before = contexts.bank.pyramid.checksum()
        collate.twin(None)(next(iter(sampler())))
        assert contexts.bank.pyramid.checksum() == before


def test_items_of_a_data_set_need_no_slots():
    with stream() as contexts:
        made = CAGCollate(make_objects(size=16), contexts, 16)([torch.rand(3, 20, 20)])
        assert made.images.shape == (1, 3, 16, 16)
        assert contexts.waited == 0


def test_workers_are_refused():
    pairs = sampler()
    with stream() as contexts:
        collate = CAGCollate(make_objects(size=16), contexts, 16, ranges=SceneRange())
        loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate, num_workers=1)
        with pytest.raises(InputError, match=r"num_workers: expected 0 with a ContextStream"):
            next(iter(loader))


def test_states_of_other_collates_are_refused():
    objects = make_objects(size=16)
    with stream() as contexts:
        streamed, resident = CAGCollate(objects, contexts, 16), CAGCollate(objects, make_contexts(size=16), 16)
        with pytest.raises(InputError, match="the state of a collate with a stream of contexts, got none"):
            streamed.load_state_dict(resident.state_dict())
        with pytest.raises(InputError, match="the state of a collate with no stream of contexts, got one"):
            resident.load_state_dict(streamed.state_dict())
