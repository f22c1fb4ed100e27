import gc
import pickle
import threading
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from composing import RANGES, make_composer, rows, same
from conftest import make_contexts, make_objects
from devicewait import no_waiting
from recorder import Strict
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kornia_cag.core.checks import InputError
from kornia_cag.core.records import copied, tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes import capture
from kornia_cag.scenes.blends import Blend
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.capture import MOST, RECENT, Captures, CudaRecorder
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.programs import composed
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.training.recipes import RECIPES

SIZE = (18, 22)


class Owner:
    """Something to be told from others by identity."""


OWNER = Owner()


@pytest.fixture
def recorder():
    return Strict()


@pytest.fixture
def captures(recorder):
    return Captures(recorder)


def doubled(captures, size, owner=OWNER, settings=()):
    """Whether twice a number comes out, ``size`` times."""
    numbers = torch.rand(size)
    return torch.equal(captures(lambda x: (2 * x,), (numbers,), owner=owner, settings=settings)[0], 2 * numbers)


# --- when to record


def test_what_comes_once_is_not_recorded(captures, recorder):
    for size in range(1, 3 * RECENT):
        assert doubled(captures, size)
    assert not recorder.recorded
    assert recorder.turns == 0


def test_what_comes_again_is_recorded_once_and_replayed(captures, recorder):
    assert all(doubled(captures, 5) for _ in range(6))
    assert len(recorder.recorded) == len(captures) == 1
    assert recorder.replays == recorder.turns == 5


@pytest.mark.parametrize(("batches", "recorded"), [(RECENT - 1, 2), (RECENT, 1)])
def test_the_last_smaller_batch_of_an_epoch_is_not_recorded(captures, recorder, batches, recorded):
    """Unless epochs are so short that it comes all the time."""
    for _ in range(3):
        assert all(doubled(captures, 5) for _ in range(batches))
        assert doubled(captures, 3)
    assert len(recorder.recorded) == recorded


def test_what_is_in_use_is_not_given_up(captures, recorder):
    """Otherwise more kinds of batches than fit would all be recorded over and over."""
    for _ in range(4):
        assert all(doubled(captures, size) for size in range(1, MOST + 4))
    assert len(recorder.recorded) == len(captures) == MOST


def test_what_was_used_longest_ago_makes_room(captures, recorder):
    for size in range(1, MOST + 1):
        assert all(doubled(captures, size) for _ in range(2))
    before = recorder.replays
    assert all(doubled(captures, 2) for _ in range(RECENT))
    assert all(doubled(captures, 50) for _ in range(2))
    assert len(recorder.recorded) == MOST + 1
    assert len(captures) == MOST
    assert doubled(captures, 2)
    assert doubled(captures, 50)
    assert recorder.replays == before + RECENT + 3
    assert doubled(captures, 1)  # the first one of all: given up
    assert recorder.replays == before + RECENT + 3


def test_the_settings_and_all_that_arguments_hold_besides_tensors_tell_work_apart(captures, recorder):
    images, labels = torch.rand(4, 3, 2, 2), torch.zeros(4, 1, dtype=torch.int64)
    variants = [
        (torch.ones(4), ("a",)),
        (torch.ones(4), ("b",)),
        (torch.ones(4).double(), ("a",)),
        (torch.ones(4, 1), ("a",)),
    ]
    for tensor, settings in 2 * variants:
        captures(lambda x: (x + 1,), (tensor,), owner=OWNER, settings=settings)
    assert len(recorder.recorded) == len(variants) == MOST
    captures = Captures(recorder)
    for held in 2 * (None, Earlier(images, labels, 0.1), Earlier(images, labels, 0.2)):
        captures(lambda x, _: (x + 1,), (torch.ones(4), held), owner=OWNER, settings=())
    assert len(captures) == 3


class Refusing(Strict):
    def record(self, work, given):
        raise InputError("graph: expected this, got that.")


def test_what_cannot_be_recorded_is_an_error_or_a_warning_that_comes_once():
    captures = Captures(Refusing())
    assert doubled(captures, 5)
    with pytest.raises(InputError, match="expected this, got that"):
        doubled(captures, 5)
    captures = pickle.loads(pickle.dumps(Captures(Refusing(), optional=True)))
    assert doubled(captures, 5)
    with pytest.warns(UserWarning, match=r"kernel by kernel.* graph: expected this, got that\. \(graph=False: no"):
        assert doubled(captures, 5)
    assert all(doubled(captures, size) for size in (5, 6, 6, 6))
    assert not len(captures)


def test_owners_are_told_apart_and_kept_only_where_something_was_recorded(captures, recorder):
    first, second = Owner(), Owner()
    assert doubled(captures, 5, first)
    assert doubled(captures, 5, second)
    assert not recorder.recorded
    assert doubled(captures, 5, first)
    assert len(recorder.recorded) == 1


def test_an_owner_lives_as_long_as_what_was_recorded_with_it(captures):
    """A replay reads its memory."""
    once, again = Owner(), Owner()
    assert doubled(captures, 5, once)
    assert all(doubled(captures, 5, again) for _ in range(2))
    lost, kept = weakref.ref(once), weakref.ref(again)
    del once, again
    gc.collect()
    assert lost() is None
    assert kept() is not None


def test_an_owner_with_the_id_of_a_lost_one_is_another(captures, recorder, monkeypatch):
    monkeypatch.setattr("kornia_cag.scenes.capture.id", lambda _: 1, raising=False)
    assert doubled(captures, 5, Owner())
    second = Owner()
    assert doubled(captures, 5, second)
    assert not recorder.recorded
    assert doubled(captures, 5, second)
    assert len(recorder.recorded) == 1


# --- the hand-over


def test_results_are_kept_and_written_into_by_those_who_have_them(captures):
    numbers = [torch.rand(5) for _ in range(6)]
    made = [captures(lambda x: (x, x[::2], 2 * x), (each,), owner=OWNER, settings=()) for each in numbers]
    want = [(each.clone(), each[::2].clone(), 2 * each) for each in numbers]
    assert all(same(one, other, layout=False) for one, other in zip(made, want, strict=True))
    made[3][0].zero_()
    assert same(made[3][1:], want[3][1:], layout=False)
    assert same(made[2], want[2], layout=False)
    again = captures(lambda x: (x, x[::2], 2 * x), (numbers[0],), owner=OWNER, settings=())
    assert same(again, want[0], layout=False)


@dataclass(frozen=True)
class Parts:
    one: torch.Tensor
    other: torch.Tensor
    number: int
    rest: tuple[torch.Tensor | None, ...]


def test_a_copy_has_the_layout_of_the_original_and_shares_what_it_shared():
    images = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    parts = Parts(images, images, 7, (None, torch.ones(3, 0), torch.ones(1, 2).expand(3, 2), torch.rand(4, 5)[:, 1]))
    made = copied(parts)
    assert same(made, parts, layout=False)
    assert made.number == 7
    assert made.rest[0] is None
    assert made.one is made.other
    assert made.one.stride() == images.stride()
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors(parts)}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in tensors(made) if tensor.numel()}


def test_threads_take_turns(captures, recorder):
    """The recorder refuses a turn within a turn."""
    wrong = []

    def work():
        wrong.extend(size for _ in range(50) for size in (4, 5) if not doubled(captures, size))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(recorder.recorded) == 2
    assert recorder.replays >= 390


def test_what_fails_while_it_is_recorded_is_tried_again(captures, recorder, monkeypatch):
    assert doubled(captures, 5)
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "record", lambda *_: pickle.loads(b""))
        with pytest.raises(EOFError):
            doubled(captures, 5)
    assert all(doubled(captures, 5) for _ in range(2))
    assert len(recorder.recorded) == 1


# --- composition


def composer_of(name="all", **options):
    composer = make_composer(RANGES[name], SIZE)
    return Composer(composer.objects, composer.contexts, SIZE, composer.ranges, **options, warn=False)


def batches_of(count, b=5, layers=1, dtype=torch.float32):
    """Rows that differ in everything, and composites offered to some of them."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        table = rows(b, layers=layers).table.roll(number, 0) + number * torch.tensor(
            [0, 0, 100, 1, 9] + (layers - 1) * [0]
        )
        images = torch.rand(b, 3, *SIZE, generator=generator)
        images = (images * 255).byte() if dtype == torch.uint8 else images.to(dtype)
        labels = torch.where(torch.arange(b) % 2 == number % 2, 9, -1)
        yield Rows(table), Earlier(images, labels[:, None].expand(-1, layers))


def compare(composer, given, strength=1.0, *, recorded=1, targets=True, scene=True):
    """Hold every batch against that of eager composition, after all of them were made."""
    recorder = Strict()
    renderer, eager, made = Renderer(Captures(recorder)), Renderer(), []
    for table, earlier in given:
        options = {"targets": targets, "scene": scene}
        made.append(
            (
                renderer(composer, table, strength, earlier, **options),
                eager(composer, table, strength, earlier, **options),
            )
        )
    assert len(recorder.recorded) == recorded
    for one, other in made:
        assert same(one, other, layout=False)
        assert one.images.stride() == other.images.stride()
        assert (one.targets is not None, one.scene is not None) == (targets, scene)
    assert not torch.equal(made[-1][0].images, made[-2][0].images)


@pytest.mark.parametrize("name", RANGES)
def test_replayed_pictures_are_the_same_to_the_bit(name):
    compare(composer_of(name), list(batches_of(4)))


@pytest.mark.parametrize("scene", [True, False])
@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("chained", [True, False])
def test_replayed_batches_of_any_kind(chained, layers, targets, scene):
    given = [(table, earlier if chained else None) for table, earlier in batches_of(4, layers=layers)]
    compare(composer_of("all, hard"), given, targets=targets, scene=scene)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_replayed_batches_of_every_format(dtype, channels_last):
    compare(composer_of(dtype=dtype, channels_last=channels_last), list(batches_of(3, dtype=dtype)))


@pytest.mark.parametrize("strength", [0.3, Ramp(start=1, stop=7)])
def test_replayed_batches_of_any_strength(strength):
    compare(composer_of(), list(batches_of(4)), strength)


def test_kinds_of_batches_in_turns():
    """With and without a chain, of different sizes and numbers of objects: none reads what is another's."""
    whole, small, two = (list(batches_of(3, *kind)) for kind in ((5, 1), (3, 1), (5, 2)))
    plain = [(table, None) for table, _ in batches_of(3)]
    compare(
        composer_of(), [batch for kinds in zip(whole, small, two, plain, strict=True) for batch in kinds], recorded=4
    )


def test_what_is_asked_for_may_change_from_batch_to_batch():
    composer, recorder = composer_of(), Strict()
    renderer = Renderer(Captures(recorder))
    for table, earlier in batches_of(3):
        for strength, targets, scene in ((1.0, True, True), (1.0, False, True), (1.0, True, False), (0.5, True, True)):
            made = renderer(composer, table, strength, earlier, targets=targets, scene=scene)
            assert same(
                made, Renderer()(composer, table, strength, earlier, targets=targets, scene=scene), layout=False
            )
    assert len(recorder.recorded) == 4


def test_composers_are_told_apart(recorder):
    one, other = composer_of("pose"), composer_of("color")
    renderer = Renderer(Captures(recorder))
    for table, _ in batches_of(3):
        for composer in (one, other):
            made = renderer(composer, table, 1.0, None, targets=True, scene=True)
            assert same(made, composer(table), layout=False)
    assert len(recorder.recorded) == 2


def test_replayed_batches_need_no_gradient_and_may_be_written_into(recorder):
    composer, renderer = composer_of(), Renderer(Captures(recorder))
    for table, earlier in batches_of(4):
        made = renderer(composer, table, 1.0, earlier, targets=True, scene=True)
        assert not any(tensor.requires_grad for tensor in tensors(made))
        masks = made.targets.masks.clone()
        weight = torch.ones(3, 1, 1, requires_grad=True)
        loss = (made.images * weight).sum()
        made.scene.pose.angle.add_(1)  # not what autograd has saved
        made.targets.boxes.zero_()
        loss.backward()
        torch.testing.assert_close(weight.grad.flatten(), made.images.sum(dim=(0, 2, 3)))
        leaf = made.images.requires_grad_()
        leaf.sum().backward()
        assert (leaf.grad == 1).all()
        made.images.detach().add_(1)
        assert torch.equal(made.targets.masks, masks)


def test_a_stage_after_the_camera_is_called_for_every_batch(recorder):
    """It may draw from the global random state, or do what cannot be recorded."""
    seen = []

    def stage(images, keys):
        seen.append(float(images.mean()))
        return images * torch.rand(1)

    composer = composer_of()
    composer = Composer(
        composer.objects, composer.contexts, SIZE, replace(composer.ranges, finish=(stage,)), warn=False
    )
    renderer = Renderer(Captures(recorder))
    made = [renderer(composer, table, 1.0, None, targets=False, scene=False).images for table, _ in batches_of(4)]
    assert len(seen) == 4
    torch.manual_seed(0)
    table = next(batches_of(1))[0]
    one, other = (renderer(composer, table, 1.0, None, targets=False, scene=False).images for _ in range(2))
    assert not torch.equal(one, other)
    assert len(recorder.recorded) == 1
    assert made[0].isfinite().all()


def test_a_twin_shares_what_is_recorded_and_another_process_does_not(recorder, monkeypatch):
    composer, renderer = composer_of(), Renderer(Captures(recorder))
    given = list(batches_of(4))
    for table, earlier in given[:2]:
        renderer(composer, table, 1.0, earlier, targets=True, scene=True)
    twin = renderer.twin()
    assert len(twin._captures) == 1
    for table, earlier in given:
        one, other = (each(composer, table, 1.0, earlier, targets=True, scene=True) for each in (twin, renderer))
        assert same(one, other)
        assert one.images.data_ptr() != other.images.data_ptr()
    assert len(recorder.recorded) == 1
    monkeypatch.setattr(Strict, "__reduce__", lambda _: (Strict, ()))
    sent = pickle.loads(pickle.dumps(renderer))
    assert len(sent._captures) == 0
    table, earlier = given[0]
    one, other = (each(composer, table, 1.0, earlier, targets=True, scene=True) for each in (sent, renderer))
    assert same(one, other, layout=False)


@pytest.mark.compile
def test_compiled_graphs_are_captured_too(recorder):
    composer, given = make_composer(RANGES["pose"], SIZE), list(batches_of(4))
    captured, plain = Renderer(Captures(recorder)), Renderer()
    for table, earlier in given[:2]:
        captured(composer, table, 1.0, earlier, targets=True, scene=True)
    for renderer in (captured, plain):
        renderer.compile()
    for table, earlier in given:
        one, other = (each(composer, table, 1.0, earlier, targets=True, scene=True) for each in (captured, plain))
        assert same(one, other, layout=False)
    assert len(recorder.recorded) == 2  # eager and compiled are told apart
    assert recorder.replays == 1 + 3


# --- what can be recorded


class RefuseHost(TorchDispatchMode):
    """No tensor of the host may take part: to copy it to the device cannot be recorded."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, found))
        assert not any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in leaves), str(func)
        return found


class RefuseNumbers(TorchFunctionMode):
    """Nor may numbers of Python become a tensor: what copies these is no operator."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy), str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "layers"),
    [("all", 1), *((name, 2) for name in ("all", "all, hard", "all, average", "digits", "signs", "jpeg"))],
)
def test_composition_lives_on_the_device(name, layers, monkeypatch):
    """On one without numbers, reading one is an error. Kornia copies a quality from the host, so JPEG is refused."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no device without numbers
    ranges = {**RANGES, **{key: recipe.ranges for key, recipe in RECIPES.items()}}.get(name)
    ranges = ranges or SceneRange(camera=CameraRange(jpeg=(20, 90)))
    objects, contexts = make_objects(), make_contexts()
    objects = replace(objects, pyramid=objects.pyramid.to("meta"), labels=objects.labels.to("meta"))
    composer = Composer(objects, type(contexts)(contexts.pyramid.to("meta")), SIZE, ranges, warn=False)
    table, earlier = next(batches_of(1, layers=layers))
    given = (
        table.table.to("meta"),
        table.keys.to("meta"),
        Earlier(earlier.images.to("meta"), earlier.labels.to("meta"), 0.2),
    )

    @torch.no_grad()
    def compose():
        return composed(composer, Ramp(), *given[:2], composer.plan(layers), given[2], None, True, True).images

    compose()  # constants are copied to the device once
    with RefuseHost(), RefuseNumbers(), pytest.raises(AssertionError) if name == "jpeg" else nullcontext():
        assert compose().device.type == "meta"
    with RefuseNumbers(), pytest.raises(AssertionError):
        torch.tensor([1.0], device="meta")


# --- CUDA's recorder


class FakeCuda:
    """CUDA's calls on a CPU, as a log. A stream that a failed capture leaves current stays so, as in torch."""

    def __init__(self, patch):
        self.log, self.streams, self.broken = [], 0, False
        self.current = self.Stream("consumer", self)
        patch.setattr(torch.cuda, "Stream", lambda device: self.Stream("side", self))
        patch.setattr(torch.cuda, "Event", lambda: self.Event(self))
        patch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        patch.setattr(torch.cuda, "set_stream", lambda stream: setattr(self, "current", stream))
        patch.setattr(torch.cuda, "device", lambda device: self.on(self.current))
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self.Graph(self))
        patch.setattr(torch.cuda, "graph", self.graph)

    class Stream:
        def __init__(self, name, fake):
            self.name, self.fake = name, fake

        def wait_stream(self, other):
            self.fake.log.append(f"{self.name} waits for {other.name}")

        def wait_event(self, event):
            self.fake.log.append(f"{self.name} waits for the turn on {event.on}")

    class Event:
        def __init__(self, fake):
            self.on = "nothing"

        def record(self, stream):
            self.on = stream.name

    class Graph:
        def __init__(self, fake):
            self.fake = fake

        def pool(self):
            return f"pool {id(self)}"

        def replay(self):
            self.fake.log.append(f"replay on {self.fake.current.name}")

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        self.log.append(f"capture on {stream.name}, {'a pool of its own' if pool is None else 'a shared pool'}")
        before, self.current = self.current, stream
        try:
            yield
        except RuntimeError:
            if self.broken:
                raise RuntimeError("capture is broken")  # noqa: B904, as in torch
            raise
        self.current = before


@pytest.fixture
def fake(monkeypatch):
    return FakeCuda(monkeypatch)


def work(fake, error=None):
    def run(tensor):
        fake.log.append(f"work on {fake.current.name}")
        if error is not None and fake.log.count("work on side") == 2:
            raise error
        return (tensor + 1,)

    return run


@pytest.mark.parametrize("inference", [False, True])
def test_cuda_work_is_run_once_and_then_recorded_on_a_side_stream(fake, inference):
    recorder = CudaRecorder(torch.device("cuda"))
    with torch.inference_mode(inference):
        recording = recorder.record(work(fake), (torch.ones(3),))
    assert fake.log == [
        "side waits for consumer", "work on side", "consumer waits for side", "capture on side, a pool of its own",
        "work on side",
    ]  # fmt: skip
    assert fake.current.name == "consumer"
    assert not any(tensor.is_inference() for tensor in tensors((recording.given, recording.made)))
    recording.replay()
    assert fake.log[-1] == "replay on consumer"
    other = recorder.record(work(fake), (torch.ones(4),))
    assert "capture on side, a shared pool" in fake.log
    del recording, other
    gc.collect()
    recorder.record(work(fake), (torch.ones(5),))
    assert fake.log[-2] == "capture on side, a pool of its own"


def test_cuda_turns_follow_each_other_on_whichever_stream(fake):
    recorder = CudaRecorder(torch.device("cuda"))
    names = ["consumer", "ahead", "ahead", "consumer"]
    for name in names:
        with fake.on(fake.Stream(name, fake)), recorder.turn():
            fake.log.append(name)
    with pytest.raises(InputError), recorder.turn():
        raise InputError("memory is full")
    with recorder.turn():
        pass
    assert fake.log == [
        "consumer waits for the turn on nothing", "consumer", "ahead waits for the turn on consumer", "ahead",
        "ahead waits for the turn on ahead", "ahead", "consumer waits for the turn on ahead", "consumer",
        "consumer waits for the turn on consumer", "consumer waits for the turn on consumer",
    ]  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
def test_cuda_says_what_cannot_be_recorded(fake, broken):
    fake.broken = broken
    error = RuntimeError("Cannot copy between CPU and CUDA tensors\nCompile with TORCH_USE_CUDA_DSA.")
    with pytest.raises(
        InputError,
        match=r"graph: expected work .*, got 'Cannot copy between CPU and CUDA tensors'\. A blend .*graph=True",
    ):
        CudaRecorder(torch.device("cuda")).record(work(fake, error), (torch.ones(3),))
    assert fake.current.name == "consumer"


@pytest.mark.parametrize("broken", [False, True])
def test_cuda_says_that_memory_is_out_as_torch_does(fake, broken):
    fake.broken = broken
    with pytest.raises(torch.OutOfMemoryError, match="7 GiB"):
        CudaRecorder(torch.device("cuda")).record(work(fake, torch.OutOfMemoryError("7 GiB")), (torch.ones(3),))
    assert fake.current.name == "consumer"


def test_another_process_has_a_cuda_recorder_of_its_own(fake):
    recorder = CudaRecorder(torch.device("cuda", 1))
    other = pickle.loads(pickle.dumps(recorder))
    assert other._device == torch.device("cuda", 1)
    assert other._stream is not recorder._stream


# --- on a GPU


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


def on_gpu(name, gpu, layers=1, count=5):
    composer = make_composer(RANGES[name], SIZE, gpu)
    given = [(table.to(gpu), Earlier(held.images.to(gpu), held.labels.to(gpu), 0.2))
             for table, held in batches_of(count, layers=layers)]  # fmt: skip
    return composer, given


@pytest.mark.cuda
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", RANGES)
def test_cuda_pictures_are_the_same_to_the_bit(gpu, name, layers):
    composer, given = on_gpu(name, gpu, layers)
    renderer, made = Renderer(Captures(CudaRecorder(gpu))), []
    for table, held in given:
        made.append([each(composer, table, 1.0, held, targets=True, scene=True) for each in (renderer, Renderer())])
    assert len(renderer._captures) == 1
    assert all(same(one, other, layout=False) for one, other in made)


@pytest.mark.cuda
@pytest.mark.compile
def test_cuda_compiled_graphs_are_captured_too(gpu):
    composer, given = on_gpu("all", gpu)
    captured, plain, eager = Renderer(Captures(CudaRecorder(gpu))), Renderer(), Renderer()
    for renderer in (captured, plain):
        renderer.compile()
    for table, held in given:
        one, other, near = (each(composer, table, 1.0, held, targets=True, scene=True)
                            for each in (captured, plain, eager))  # fmt: skip
        assert same(one, other, layout=False)
        assert (one.images - near.images).abs().max() < 2 / 255
    assert len(captured._captures) == 1


@pytest.mark.cuda
def test_cuda_turns_follow_each_other(gpu):
    """Batches on several streams, each far behind the host, of kinds that share their memory."""
    composer, given = on_gpu("all", gpu, count=8)
    want = [Renderer()(composer, table, 1.0, held, targets=True, scene=True) for table, held in given]
    renderer = Renderer(Captures(CudaRecorder(gpu)))
    for table, held in given[:2]:
        for some in (held, None):
            renderer(composer, table, 1.0, some, targets=True, scene=True)
    assert len(renderer._captures) == 2
    torch.cuda.synchronize()
    streams, got = [torch.cuda.Stream() for _ in range(3)], []
    for place, (table, held) in enumerate(given):
        with torch.cuda.stream(streams[place % 3]):
            torch.cuda._sleep(5_000_000 * (3 - place % 3))
            got.append(renderer(composer, table, 1.0, held, targets=True, scene=True))
            renderer(composer, table, 1.0, None, targets=True, scene=True)
    torch.cuda.synchronize()
    assert all(same(one, other, layout=False) for one, other in zip(got, want, strict=True))


@pytest.mark.cuda
def test_cuda_leaves_the_random_state_alone_and_does_not_wait(gpu):
    composer, given = on_gpu("all", gpu)
    renderer = Renderer(Captures(CudaRecorder(gpu)))
    state = torch.cuda.get_rng_state()
    for table, held in given[:2]:
        renderer(composer, table, 1.0, held, targets=True, scene=True)
    with no_waiting():
        for table, held in given:
            renderer(composer, table, 1.0, held, targets=True, scene=True)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.cuda
def test_cuda_goes_on_after_what_cannot_be_recorded(gpu):
    @dataclass(frozen=True)
    class FromHost(Blend):
        def __call__(self, rgb, alpha, behind, edge=0.5):
            return rgb + (1 - alpha) * behind * torch.ones(1).to(rgb.device)

    composer, given = on_gpu("pose", gpu)
    bad = replace(composer, ranges=replace(composer.ranges, blend=FromHost()), warn=False)
    renderer = Renderer(Captures(CudaRecorder(gpu)))
    table, held = given[0]
    renderer(bad, table, 1.0, held, targets=True, scene=True)
    stream = torch.cuda.current_stream()
    with pytest.raises(InputError, match="graph: expected work that a CUDA graph can record"):
        renderer(bad, table, 1.0, held, targets=True, scene=True)
    assert torch.cuda.current_stream() == stream
    for table, held in given:
        made = renderer(composer, table, 1.0, held, targets=True, scene=True)
        assert same(made, Renderer()(composer, table, 1.0, held, targets=True, scene=True), layout=False)
    assert len(renderer._captures) == 1


@pytest.mark.cuda
def test_cuda_makes_room(gpu, monkeypatch):
    """A recording is given up, and another takes its memory."""
    monkeypatch.setattr(capture, "MOST", 1)
    monkeypatch.setattr(capture, "RECENT", 2)
    composer, given = on_gpu("all", gpu)
    renderer = Renderer(Captures(CudaRecorder(gpu)))
    for _ in range(3):
        for b in (5, 3, 4):
            for table, held in given:
                some = Earlier(held.images[:b], held.labels[:b], 0.2)
                made = renderer(composer, table[:b], 1.0, some, targets=True, scene=True)
                assert same(made, Renderer()(composer, table[:b], 1.0, some, targets=True, scene=True), layout=False)
            assert len(renderer._captures) == 1
