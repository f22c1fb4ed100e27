import copy
import io
import pickle
import warnings
import weakref
from contextlib import contextmanager

import pytest
import torch
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting, no_waiting
from recorder import replaying
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag import (
    FGSM,
    PGD,
    Adversary,
    CAGCollate,
    ContextChain,
    External,
    HardPairing,
    InputError,
    PairSampler,
    ScenePGD,
    SceneRange,
    WorstOf,
)
from kornia_cag.core.records import tensors
from kornia_cag.loading.prefetch import Prefetcher, SideStream
from kornia_cag.scenes.chunks import Renderer


class FakeStream:
    """Says what it is told, and knows the stream that is current."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


class FakeCuda:
    """CUDA's streams on a CPU, where everything is done at once: what is left to see is the order of calls."""

    def __init__(self, patch):
        self.log, self.recorded = [], []
        self.current = FakeStream("consumer", self.log)
        patch.setattr(torch.cuda, "Stream", lambda device: FakeStream("side", self.log))
        patch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(Tensor, "record_stream", lambda tensor, stream: self.recorded.append((id(tensor), stream.name)))

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def logs(self, name, function):
        """The function, which now says when and on which stream it is called."""

        def logged(*arguments, **options):
            self.log.append(f"{name} on {self.current.name}")
            return function(*arguments, **options)

        return logged


@pytest.fixture
def fake(monkeypatch):
    return FakeCuda(monkeypatch)


@pytest.fixture(params=["at once", "ahead"])
def prefetcher(request, monkeypatch):
    """Makes a Prefetcher as it is on a CPU, or one that composes ahead as on a GPU."""
    if request.param == "ahead":
        FakeCuda(monkeypatch)

    def make(loader, collate):
        made = Prefetcher(loader, collate)
        made._side = SideStream(collate.device) if request.param == "ahead" else None
        return made

    return make


class Linear(nn.Module):
    """Changes from step to step in a way that a GPU, too, computes alike in every run."""

    def __init__(self, device="cpu"):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 3 * 16 * 16, generator=generator).to(device))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T

    @torch.no_grad()
    def step(self):
        self.weight.add_(self.weight.roll(7), alpha=-0.5)


ATTACK = PGD(eps=0.1, eps_object=0.02, steps=2, fraction=0.7)


def hardened(device="cpu", *adversaries, **options):
    """Epochs of four batches, the last one small; with chain and attack."""
    objects, contexts = make_objects(device), make_contexts(device, count=6)
    options = {"returns": "batch", "chain": ContextChain(0.2), **options}
    collate = CAGCollate(objects, contexts, 16, model=Linear(device), adversaries=adversaries or (ATTACK,), **options)
    return PairSampler(objects.labels.cpu(), 6, batch_size=8, seed=5), collate


def stateful(*arguments, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)  # torchdata calls it
        return StatefulDataLoader(*arguments, **options)


def loader(pairs, fn, kind=DataLoader, **options):
    return kind(pairs.dataset, batch_sampler=pairs, collate_fn=fn, **options)


def take(batches, collate, count, got=None, after=lambda done: None):
    """Draw up to ``count`` batches in all, over as many epochs as it takes, with a training step after each."""
    got = [] if got is None else got
    while len(got) < count:
        for batch in batches:
            got.append(batch)
            if collate.model is not None:
                collate.model.step()
            after(len(got))
            if len(got) >= count:
                break
    return got


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


# --- the same batches


def test_batches_are_those_of_the_plain_loader_to_the_bit(prefetcher):
    pairs, collate = hardened()
    want = take(loader(pairs, collate), collate, 10)
    pairs, collate = hardened()
    got = take(prefetcher(loader(pairs, collate.compose), collate), collate, 10)
    assert [len(batch.labels) for batch in got[:4]] == [8, 8, 8, 6]
    assert_same(want, got)
    assert sum(int(batch.chained.sum()) for batch in got) > 20


ADVERSARIES = {"gradient": ScenePGD(steps=1, fraction=0.5), "worst": WorstOf(k=3, fraction=0.6)}


def everything(*scene_attacks):
    pairing = HardPairing(5, decay=0.5)
    chain = ContextChain(0.1, pairing=pairing, warm_start=True)
    return (*hardened("cpu", *scene_attacks, ATTACK, chain=chain), pairing)


def drawn(batches, collate, pairing, count, got=None):
    """With a training step, and its word to the pairing, after each."""
    got = [] if got is None else got

    def tell(done):
        with torch.no_grad():
            pairing.observe(collate.model(got[-1].images), got[-1].labels)

    return take(batches, collate, count, got, tell)


@pytest.mark.parametrize("scene_attack", ADVERSARIES.values(), ids=ADVERSARIES.keys())
def test_batches_are_the_same_with_all_adversaries(prefetcher, scene_attack):
    pairs, collate, pairing = everything(scene_attack)
    want = drawn(loader(pairs, collate), collate, pairing, 10)
    pairs, collate, pairing = everything(scene_attack)
    got = drawn(prefetcher(loader(pairs, collate.compose), collate), collate, pairing, 10)
    assert_same(want, got)
    pairs, collate, _ = everything()
    assert not torch.equal(take(loader(pairs, collate), collate, 9)[-1].images, got[8].images)


@pytest.mark.parametrize(
    "scene_attacks", [(), *((attack,) for attack in ADVERSARIES.values())], ids=["none", *ADVERSARIES]
)
def test_batches_are_the_same_if_a_recording_composes_them(prefetcher, scene_attacks):
    """All are held to the end: no replay writes to what somebody has, and each reads the chain as it is then."""
    pairs, collate, pairing = everything(*scene_attacks)
    want = drawn(loader(pairs, collate), collate, pairing, 14)
    pairs, collate, pairing = everything(*scene_attacks)
    recorder = replaying(collate)
    got = drawn(prefetcher(loader(pairs, collate.compose), collate), collate, pairing, 14)
    assert_same(want, got)
    assert len(recorder.recorded) == 2  # the last, smaller batch comes again soon
    assert recorder.replays in (12, 13)  # one may be composed ahead


@pytest.mark.parametrize("scene_attack", ADVERSARIES.values(), ids=ADVERSARIES.keys())
@pytest.mark.parametrize("stop", [1, 3])
def test_stopping_with_all_adversaries_is_bit_identical(prefetcher, scene_attack, stop):
    pairs, collate, pairing = everything(scene_attack)
    want = drawn(loader(pairs, collate), collate, pairing, 10)
    pairs, collate, pairing = everything(scene_attack)
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    got, state, weight = [], None, None
    for batch in batches:
        got.append(batch)
        collate.model.step()
        with torch.no_grad():
            pairing.observe(collate.model(batch.images), batch.labels)
        if len(got) == stop:
            state, weight = copy.deepcopy(batches.state_dict()), collate.model.weight.detach().clone()
            break
    pairs, collate, pairing = everything(scene_attack)
    collate.model.weight.data.copy_(weight)
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    batches.load_state_dict(state)
    assert_same(want, drawn(batches, collate, pairing, 10, got))


def test_the_attack_meets_the_weights_of_its_step(prefetcher):
    """The comparison above can tell: other weights, another batch."""
    pairs, collate = hardened()
    batches = iter(prefetcher(loader(pairs, collate.compose), collate))
    first = next(batches)
    collate.model.step()
    second = next(batches)
    attacks = []
    for trained in (True, False):
        _, other = hardened()
        assert torch.equal(other(first.rows).images, first.images)
        if trained:
            other.model.step()
        attacks.append(other(second.rows).images)
    assert torch.equal(second.images, attacks[0])
    assert not torch.equal(second.images, attacks[1])


def test_a_pair_holds_on_to_nothing_else(prefetcher):
    """While the model trains, what is left of a composed batch is free."""
    seen = []

    class Negative(Adversary):
        needs_targets = True

        def harden(self, model, draft):
            seen.append([weakref.ref(tensor) for tensor in (draft.pictures, draft.mask)])
            return draft.with_images(1 - draft.pictures)

    pairs, collate = hardened("cpu", Negative(), returns="pair")
    for step, _ in enumerate(prefetcher(loader(pairs, collate.compose), collate)):
        assert len(seen) == step + 1
        assert [ref() for ref in seen[-1]] == [None, None]


# --- streams


def test_the_next_batch_is_composed_between_the_attack_and_the_training_step(fake, monkeypatch):
    pairs, collate = hardened()
    monkeypatch.setattr(Renderer, "__call__", fake.logs("compose", Renderer.__call__))
    monkeypatch.setattr(PGD, "harden", fake.logs("attack", PGD.harden))
    made = Prefetcher(loader(pairs, collate.compose), collate)
    made._side = SideStream(collate.device)
    for _ in made:
        fake.log.append("train")
    ahead = ["side waits for consumer", "compose on side"]
    handed = ["consumer waits for side", "attack on consumer"]
    assert fake.log == [*ahead, *3 * [*handed, *ahead, "train"], *handed, "train"]


def tensors_in(record):
    """Found by pickling, whatever kinds of container a record is made of."""
    found = []

    class Finder(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Tensor):
                found.append(value)
                return len(found)
            return None

    Finder(io.BytesIO()).dump(vars(record))  # a draft itself is pickled as few tensors
    return found


def test_all_that_is_composed_is_recorded_on_the_consumer_s_stream(fake):
    pairs, collate = hardened()
    rows = next(iter(pairs))
    side = SideStream(torch.device("cpu"))
    collect = side.launch(lambda: collate.compose(rows))
    assert fake.recorded == []
    want = tensors_in(collect())
    assert len(want) > 8
    assert set(fake.recorded) == {(id(tensor), "consumer") for tensor in want}


def test_one_stream_per_loader(monkeypatch, fake):
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or FakeStream("side", fake.log))
    pairs, collate = hardened()
    batches = Prefetcher(loader(pairs, collate.compose), collate)
    batches._side = SideStream(collate.device)
    for _ in range(3):
        list(batches)
    assert len(made) == 1


def test_nothing_waits_for_the_device(prefetcher):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    epoch = iter(batches)
    next(epoch)  # a DataLoader reads a seed on the host when it starts
    with RefuseWaiting():
        assert len([batches.state_dict() for _ in epoch]) == 3


# --- epochs


def test_an_epoch_is_finished_by_going_through_it(prefetcher):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose), collate)
    assert len(batches) == 4
    for epoch in range(3):
        assert pairs.epoch == epoch
        assert [int(batch.rows.epoch[0]) for batch in batches] == 4 * [epoch]
    assert pairs.epoch == 3


@pytest.mark.parametrize("stop", [1, 3, 4])
@pytest.mark.parametrize("how", ["break", "error"])
def test_a_loop_that_is_broken_off_goes_on_with_the_next_epoch(prefetcher, stop, how):
    def some(batches, collate):
        list(batches)
        got = []
        try:
            for batch in batches:
                got.append(batch)
                if len(got) == stop and how == "break":
                    break
                if len(got) == stop:
                    raise KeyError
        except KeyError:
            pass
        taken = take(batches, collate, 9, got)
        assert [int(batch.rows.epoch[0]) for batch in taken] == stop * [1] + 4 * [2] + (5 - stop) * [3]
        return taken

    pairs, collate = hardened()
    want = some(loader(pairs, collate), collate)
    pairs, collate = hardened()
    got = some(prefetcher(loader(pairs, collate.compose), collate), collate)
    assert_same(want, got)


def test_set_epoch_goes_to_the_sampler_and_the_collate(prefetcher):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    next(iter(batches))
    batches.set_epoch(7)
    assert pairs.epoch == collate.state_dict()["photos"]["epoch"] == 7
    state = batches.state_dict()
    assert (state["batch"], state["loader"]["_index_sampler_state"]["epoch"]) == (0, 7)
    assert {int(batch.rows.epoch[0]) for batch in batches} == {7}


class Photos(IterableDataset):
    """A stream of unknown length."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(3, 20, 20, generator=generator) for _ in range(self.count))


@pytest.mark.parametrize("count", [0, 3, 4, 11])
def test_empty_loaders_single_batches_and_unknown_lengths(prefetcher, count):
    _, collate = hardened()
    want = [batch for _ in range(2) for batch in DataLoader(Photos(count), batch_size=4, collate_fn=collate)]
    _, collate = hardened()
    batches = prefetcher(DataLoader(Photos(count), batch_size=4, collate_fn=collate.compose), collate)
    assert_same(want, [batch for _ in range(2) for batch in batches])
    _, collate = hardened()
    listed = DataLoader(list(Photos(count)), batch_size=4, collate_fn=collate.compose)
    assert_same(want, [batch for _ in range(2) for batch in prefetcher(listed, collate)])


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_a_state_taken_after_an_epoch_goes_on_with_the_next(prefetcher, length, monkeypatch):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    if length == "unknown":
        monkeypatch.delattr(DataLoader, "__len__")
    assert len(list(batches)) == 4
    state = batches.state_dict()
    assert state["batch"] == 0
    want = list(batches)
    batches.load_state_dict(state)
    assert_same(want, list(batches))


def test_an_error_belongs_to_its_own_batch(prefetcher, monkeypatch):
    pairs, collate = hardened()
    want = take(loader(pairs, collate), collate, 4)
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    render = Renderer.__call__

    def fails_on_the_last(self, composer, rows, *arguments, **options):
        return render(self, composer, rows, *arguments, **options) if len(rows) == 8 else rows.table[99]

    monkeypatch.setattr(Renderer, "__call__", fails_on_the_last)
    got = []
    with pytest.raises(IndexError):
        take(batches, collate, 4, got)
    assert_same(want[:3], got)


def test_no_state_in_the_midst_of_a_batch_that_failed(prefetcher):
    """It would leave that batch out."""
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    attack, collate.adversaries = collate.adversaries, (External(lambda images, labels: images[99]),)
    with pytest.raises(IndexError):
        take(batches, collate, 1)
    with pytest.raises(InputError, match="state: expected a state after a delivered batch"):
        batches.state_dict()
    collate.adversaries = attack
    take(batches, collate, 1)
    batches.state_dict()


# --- resume


def resumed(prefetcher, stops, total, build=hardened):
    """A run that stops after the given numbers of batches and goes on elsewhere."""
    got, state = [], None
    for stop in (*stops, total):
        pairs, collate = build()
        batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
        if state is not None:
            batches.load_state_dict(state["batches"])
            collate.model.load_state_dict(state["model"])
        take(batches, collate, stop, got)
        file = io.BytesIO()
        torch.save({"batches": batches.state_dict(), "model": collate.model.state_dict()}, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    return got


@pytest.mark.parametrize("stops", [*((stop,) for stop in range(10)), (2, 4), (3, 4, 6, 6, 8), (4, 7)])
def test_stopping_after_any_batch_and_going_on_is_bit_identical(prefetcher, stops):
    pairs, collate = hardened()
    want = take(loader(pairs, collate), collate, 10)
    assert_same(want, resumed(prefetcher, stops, 10))


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_epoch_that_is_broken_off_gives_way_to_the_next(prefetcher, stop):
    """Also after its last batch, which comes early then."""
    runs = []
    for wrap in (None, prefetcher):
        pairs, collate = hardened()
        batches = loader(pairs, collate.compose if wrap else collate, stateful)
        batches = wrap(batches, collate) if wrap else batches
        got = take(batches, collate, 2)
        saved = batches.state_dict(), collate.state_dict()
        batches.load_state_dict(saved[0])
        collate.load_state_dict(saved[1])
        got += take(batches, collate, stop)
        runs.append(got + take(batches, collate, 6))
        assert [int(batch.rows.epoch[0]) for batch in runs[-1]] == 2 * [0] + stop * [0] + 4 * [1] + 2 * [2]
    assert batches.state_dict()["batch"] == 2
    assert_same(*runs)


def test_a_state_may_be_taken_at_every_step(prefetcher):
    """Taking it changes nothing, and it says what was handed out."""
    pairs, collate = hardened()
    want = take(loader(pairs, collate), collate, 10)
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    seen = []

    def look(done):
        state = batches.state_dict()
        seen.append((state["batch"], state["loader"]["_index_sampler_state"]["batch"]))
        assert torch.equal(state["collate"]["chain"]["images"][:6], got[-1].images[:6])

    got = []
    take(batches, collate, 10, got, after=look)
    assert_same(want, got)
    assert seen == 2 * [(1, 1), (2, 2), (3, 3), (4, 4)] + [(1, 1), (2, 2)]


def test_a_loaded_state_is_the_state(prefetcher):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose, stateful), collate)
    take(batches, collate, 1)
    state = batches.state_dict()
    take(batches, collate, 3)
    batches.load_state_dict(state)
    batches.set_epoch(0)
    assert batches.state_dict()["batch"] == 1
    assert batches.state_dict()["loader"]["_index_sampler_state"]["batch"] == 1


def test_photos_composed_ahead_are_not_counted_as_done(prefetcher):
    _, collate = hardened()
    photos = list(Photos(16))
    want = take(DataLoader(photos, batch_size=4, collate_fn=collate), collate, 6)
    _, collate = hardened()
    batches = prefetcher(stateful(photos, batch_size=4, collate_fn=collate.compose), collate)
    got = take(batches, collate, 2)
    state, model = batches.state_dict(), collate.model.state_dict()
    _, collate = hardened()
    collate.model.load_state_dict(model)
    batches = prefetcher(stateful(photos, batch_size=4, collate_fn=collate.compose), collate)
    batches.load_state_dict(state)
    assert_same(want, take(batches, collate, 6, got))


def test_what_has_no_state_says_so(prefetcher):
    pairs, collate = hardened()
    batches = prefetcher(loader(pairs, collate.compose), collate)
    with pytest.raises(InputError, match="loader: expected a StatefulDataLoader, whose state can be saved, got a Dat"):
        batches.state_dict()
    state = {"loader": {}, "collate": collate.state_dict(), "batch": 0}
    with pytest.raises(InputError, match="loader: expected a StatefulDataLoader"):
        batches.load_state_dict(state)
    with pytest.raises(InputError, match=r"state: expected the state_dict of a Prefetcher, got \{\}"):
        batches.load_state_dict({})


# --- what is refused


@pytest.mark.usefixtures("untyped")
def test_a_loader_that_does_not_compose_is_refused():
    pairs, collate = hardened()
    _, other = hardened()
    fix = r" The loader composes, the Prefetcher attacks\.$"
    start = r"^loader: expected one with collate_fn=collate\.compose, got "
    with pytest.raises(InputError, match=f"{start}the collate itself.{fix}"):
        Prefetcher(loader(pairs, collate), collate)
    for fn in (other.compose, list):
        with pytest.raises(InputError, match=f"{start}<.*{fix}"):
            Prefetcher(loader(pairs, fn), collate)
    with pytest.raises(InputError, match=r"^loader: expected DataLoader, got PairSampler.*collate_fn=collate\.compose"):
        Prefetcher(pairs, collate)
    with pytest.raises(InputError, match=r"^collate: expected CAGCollate, got <bound method"):
        Prefetcher(loader(pairs, collate.compose), collate.compose)
    with pytest.raises(InputError, match=r"^pin_memory: expected False in a loader that only composes, got True"):
        Prefetcher(loader(pairs, collate.compose, pin_memory=True), collate)


# --- workers


@pytest.mark.parametrize("kind", [DataLoader, stateful])
def test_workers_compose_and_the_attack_runs_here(kind):
    objects, contexts = make_objects(), make_contexts(count=6)
    runs = []
    for workers in (None, 0, 2):
        pairs = PairSampler(objects.labels, 6, batch_size=8, seed=5)
        collate = CAGCollate(objects, contexts, 16, model=Linear(), adversaries=(FGSM(eps=0.1),),
                             returns="batch")  # fmt: skip
        if workers is None:
            batches = loader(pairs, collate, kind)
        else:
            batches = Prefetcher(loader(pairs, collate.compose, kind, num_workers=workers), collate)
        runs.append(take(batches, collate, 6))
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


def test_workers_with_a_chain_are_refused():
    pairs, collate = hardened()
    with pytest.raises(InputError, match="num_workers: expected 0 with a chain"):
        list(Prefetcher(loader(pairs, collate.compose, num_workers=1), collate))


def test_the_composing_half_can_be_sent_to_a_process():
    pairs, collate = hardened()
    collate.chain = None
    rows = next(iter(pairs))
    again = pickle.loads(pickle.dumps(collate.compose))
    for one, other in zip(tensors_in(collate.compose(rows)), tensors_in(again(rows)), strict=True):
        assert torch.equal(one, other)


# --- on a GPU


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("returns", ["pair", "batch"])
def test_cuda_batches_are_those_of_the_plain_loader_captured_or_not(gpu, returns):
    """Read late, long after the next batch was launched: nothing is overwritten, and no weights are stale."""

    def read(batch):
        torch.cuda._sleep(20_000_000)  # a training step of about 10 ms; the host is far ahead
        return [tensor.clone() for tensor in tensors(batch)]

    runs = []
    for ahead, graph in ((False, False), (True, False), (False, True), (True, True)):
        pairs, collate = hardened(gpu, returns=returns, graph=graph)
        batches = Prefetcher(loader(pairs, collate.compose), collate) if ahead else loader(pairs, collate)
        got = []
        for _ in range(5):
            for batch in batches:
                got.append(read(batch))
                del batch
                collate.model.step()
        runs.append(got)
    for first, *others in zip(*runs, strict=True):
        for other in others:
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.cuda
def test_cuda_composes_on_the_side_stream_and_attacks_on_the_consumer_s(gpu):
    composed, attacked = [], []

    def stage(images, keys):
        composed.append(torch.cuda.current_stream())
        return images

    def attack(images, labels):
        attacked.append(torch.cuda.current_stream())
        return images

    pairs, collate = hardened(gpu, External(attack), ranges=SceneRange(finish=(stage,)))
    batches = Prefetcher(loader(pairs, collate.compose), collate)
    mine = torch.cuda.Stream()
    with torch.cuda.stream(mine):
        for _ in range(2):
            for batch in batches:
                assert torch.cuda.current_stream() == mine
                assert batch.images.device.type == "cuda"
    assert len(composed) == len(attacked) == 8
    assert len(set(composed)) == 1
    assert set(attacked) == {mine}
    assert composed[0] not in (mine, torch.cuda.default_stream())


@pytest.mark.cuda
def test_cuda_composes_while_the_model_trains(gpu):
    """The side stream is done while the consumer's is still busy with its step."""
    pairs, collate = hardened(gpu)
    batches = Prefetcher(loader(pairs, collate.compose), collate)
    list(batches)  # the first use of everything
    for _ in batches:
        torch.cuda._sleep(2_000_000_000)  # about a second
        busy = torch.cuda.current_stream().record_event()
        batches._side._stream.synchronize()
        assert not busy.query()
        break
    torch.cuda.synchronize()


@pytest.mark.cuda
@pytest.mark.parametrize("graph", [False, True])
def test_cuda_never_synchronises(gpu, graph):
    pairs, collate = hardened(gpu, graph=graph)
    batches = Prefetcher(loader(pairs, collate.compose, stateful), collate)
    for _ in range(2):  # by now all is captured
        list(batches)
    with no_waiting():
        for _ in batches:
            collate.model.step()
            batches.state_dict()


@pytest.mark.cuda
@pytest.mark.parametrize("stops", [(1,), (2, 4), (3, 4, 6)])
def test_cuda_stopping_and_going_on_is_bit_identical(gpu, stops):
    pairs, collate = hardened(gpu)
    want = take(loader(pairs, collate), collate, 9)
    assert_same(want, resumed(Prefetcher, stops, 9, lambda: hardened(gpu)))
