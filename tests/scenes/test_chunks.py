import pickle
from dataclasses import replace

import pytest
import torch
from composing import RANGES, make_composer, rows, same
from hypothesis import given, settings
from hypothesis import strategies as st

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core import memory
from kornia_cag.core.records import tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes import chunks
from kornia_cag.scenes.chunks import Renderer, cuts
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp

SIZE = (18, 22)


@pytest.fixture
def small(monkeypatch):
    """Chunks of about three samples, and memory of its own for every tensor."""
    monkeypatch.setattr(chunks, "PIXELS", SIZE[0] * SIZE[1] * 3)
    monkeypatch.setattr(memory, "LARGE", 1)


def composer_of(name="all", dtype=torch.float32, channels_last=False):
    composer = make_composer(RANGES[name], SIZE)
    return Composer(composer.objects, composer.contexts, SIZE, composer.ranges, dtype, channels_last, warn=False)


def earlier_of(table, dtype=torch.float32):
    """Offered to every other sample."""
    images = torch.rand(len(table), 3, *SIZE, generator=torch.Generator().manual_seed(0))
    images = (images * 255).byte() if dtype == torch.uint8 else images.to(dtype)
    labels = torch.where(torch.arange(len(table)) % 2 == 0, 9, -1)
    return Earlier(images, labels[:, None].expand(-1, table.layers.shape[1]))


@pytest.mark.parametrize("scene", [True, False])
@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["all", "all, hard"])
def test_chunks_are_the_same_to_the_bit(small, name, layers, targets, scene):
    composer, table = composer_of(name), rows(11, layers=layers)
    earlier = earlier_of(table)
    assert len(cuts(composer, len(table))) >= 2
    made = Renderer()(composer, table, 1.0, earlier, targets=targets, scene=scene)
    whole = composer(table, earlier=earlier, targets=targets)
    assert (made.targets is not None) == targets
    assert (made.scene is not None) == scene
    assert made.chained.tolist() == [place % 2 == 0 for place in range(11)]
    assert torch.equal(made.images, whole.images)
    assert torch.equal(made.labels, whole.labels)
    assert torch.equal(made.keys, whole.keys)
    assert torch.equal(made.chained, whole.chained)
    if targets:
        assert same(made.targets, whole.targets)
    if scene:
        assert same(made.scene, whole.scene, layout=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_chunks_of_every_format(small, dtype, channels_last, monkeypatch):
    composer, table = composer_of(dtype=dtype, channels_last=channels_last), rows(10, layers=2)
    earlier = earlier_of(table, dtype)
    made = Renderer()(composer, table, 1.0, earlier, targets=True, scene=True)
    assert made.images.dtype == dtype
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert made.images.is_contiguous(memory_format=layout)
    assert same(made.images, composer(table, earlier=earlier).images)
    monkeypatch.setattr(chunks, "PIXELS", 2**18)
    assert cuts(composer, 10) == []
    assert same(Renderer()(composer, table, 1.0, earlier, targets=True, scene=True), made, layout=False)
    assert made.images.float().std() > 0.05


@pytest.mark.parametrize("b", [1, 2, 3, 4, 7, 16])
def test_batches_of_any_size(small, b):
    composer, table = composer_of(), rows(b)
    made = Renderer()(composer, table, 1.0, None, targets=True, scene=True)
    assert same(made, composer(table), layout=False)


def test_strength_follows_the_epoch_of_each_row(small):
    composer, index = composer_of(), torch.arange(9)
    table = Rows.of(index % 5, index % 7, index, epoch=index)
    ramp = Ramp(start=2, stop=6)
    strength = torch.tensor([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    made = Renderer()(composer, table, ramp, None, targets=True, scene=True)
    assert same(made, composer(table, strength), layout=False)
    weak = Renderer()(composer, table, 0.3, None, targets=True, scene=True)
    assert same(weak, composer(table, torch.full((9,), 0.3)), layout=False)


SOME = make_composer(SceneRange(), SIZE)


@settings(deadline=None)
@given(b=st.integers(1, 5000), h=st.integers(1, 900), w=st.integers(1, 900), threads=st.integers(1, 64))
def test_where_a_batch_is_cut(b, h, w, threads):
    """Every row is in one chunk, none of which is a single row; threads have alike many; chunks are about alike."""
    composer = replace(SOME, size=(h, w), warn=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        ends = cuts(composer, b)
    sizes = [end - start for start, end in zip([0, *ends], [*ends, b], strict=True)]
    assert sum(sizes) == b
    assert min(sizes) >= min(b, 2)
    assert all(size % threads == 0 or size == 2 for size in sizes[:-1])
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0] + 1
    if ends and sizes[0] > 2:
        assert sizes[0] * h * w < 2 * chunks.PIXELS + threads * h * w
        assert b * h * w > chunks.PIXELS


def test_a_gpu_makes_a_batch_in_one_piece(monkeypatch):
    large = replace(SOME, size=(512, 512), warn=False)
    assert cuts(large, 4096) != []
    monkeypatch.setattr(ObjectBank, "device", property(lambda bank: torch.device("cuda")))
    assert cuts(large, 4096) == []


def made_by(renderer, composer, table):
    return renderer(composer, table, 1.0, None, targets=True, scene=True)


def test_memory_that_is_held_is_not_written_again(small):
    composer, renderer = composer_of(), Renderer()
    held = [made_by(renderer, composer, rows(9, layers=2)) for _ in range(3)]
    first = [tensor.clone() for tensor in tensors(held[0])]
    view = held[1].targets.masks[3, 1, ::2]
    kept = view.clone()
    del held[1]
    other = rows(9, layers=2).replaced(seed=torch.full((9,), 5))
    assert not torch.equal(made_by(renderer, composer, other).images, first[-1])
    more = [made_by(renderer, composer, other) for _ in range(3)]
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(tensors(held[0]), first, strict=True))
    assert torch.equal(view, kept)
    places = [made.images.data_ptr() for made in (*held, *more)]
    assert len(set(places)) == len(places)


def test_memory_is_used_again_once_nobody_holds_it(small):
    composer, renderer = composer_of(), Renderer()
    places = set()
    for _ in range(5):
        made = made_by(renderer, composer, rows(9, layers=2))
        places.add((made.images.data_ptr(), made.targets.masks.data_ptr(), made.targets.full.data_ptr()))
        assert len(set(places.copy().pop())) == 3  # images and masks do not share memory
        del made
    assert len(places) == 1


def test_batches_may_be_written_into_and_need_no_gradient(small):
    composer, table = make_composer(SceneRange(), SIZE), rows(9)
    made = Renderer()(composer, table, 1.0, None, targets=True, scene=True)
    assert not any(tensor.requires_grad for tensor in tensors(made))
    before = made.targets.masks.clone()
    leaf = made.images.requires_grad_()
    leaf.sum().backward()
    assert (leaf.grad == 1).all()
    made.images.detach().add_(1)
    assert torch.equal(made.targets.masks, before)


def test_what_is_small_is_not_kept_with_the_memory_of_images(small):
    """A box that somebody holds does not hold the images."""
    composer, renderer = composer_of(), Renderer()
    made = made_by(renderer, composer, rows(9, layers=2))
    place, boxes = made.images.data_ptr(), made.targets.boxes
    scene, keys = made.scene, made.keys
    del made
    assert made_by(renderer, composer, rows(9, layers=2)).images.data_ptr() == place
    assert len(boxes) == len(keys) == len(scene.keys)


def test_another_process_gets_a_renderer_of_its_own(small):
    composer, renderer = composer_of(), Renderer()
    made = made_by(renderer, composer, rows(9))
    sent, twin = pickle.loads(pickle.dumps(renderer)), renderer.twin()
    assert not sent.compiled
    assert not twin.compiled
    for other in (sent, twin):
        again = made_by(other, composer, rows(9))
        assert again.images.data_ptr() != made.images.data_ptr()
        assert same(again, made)


def test_to_compile_is_remembered():
    """Without compiling anything: that takes a first batch."""
    renderer = Renderer()
    assert not renderer.compiled
    renderer.compile()
    kept = renderer._programs
    renderer.compile()
    assert renderer.compiled
    assert renderer._programs is kept
    assert renderer.twin()._programs is kept
    assert pickle.loads(pickle.dumps(renderer)).compiled
