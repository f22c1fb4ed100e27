"""The compiled graph makes the pictures of eager mode and of the oracle, and is compiled once."""

import itertools
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from composing import LENS, WARPED, WILD_COLOR, compare, make_composer
from conftest import make_contexts
from torch import Tensor
from torch._dynamo.utils import counters

from kornia_cag import CAGCollate, ContextChain, PairSampler, Ramp
from kornia_cag.banks.pyramid import Pyramid, build_pyramid, sample_pyramid
from kornia_cag.core import memory
from kornia_cag.core.compiling import _in_pairs, fusing, kept, once, options
from kornia_cag.core.randomness import sample_keys
from kornia_cag.core.records import cut, tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes import chunks
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.pose import PoseRange, axes, homographies
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.targets import Composites
from kornia_cag.scenes.warp import warp
from kornia_cag.training.recipes import DIGITS, RIGID_SIGNS, SIGNS

MOST = SceneRange(pose=WARPED, framing=Framing(), crop=(0.2, 0.9), color=WILD_COLOR, camera=LENS)


def collate(ranges: SceneRange, size: tuple[int, int], compile: bool, chain: ContextChain | None = None) -> CAGCollate:
    objects = make_composer(ranges, size).objects
    return CAGCollate(objects, make_contexts(), size, ranges=ranges, chain=chain, strength=Ramp(start=0, stop=4),
                      returns="batch", compile=compile)  # fmt: skip


def batches(labels: Tensor, sizes: list[int], epochs: int) -> list[Rows]:
    """Rows of several epochs, each cut to batches of these sizes."""
    sampler, found = PairSampler(labels, 7, batch_size=sum(sizes), samples_per_class=7, seed=3), []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += cut(next(iter(sampler)), list(itertools.accumulate(sizes))[:-1])
    return found


@pytest.fixture(autouse=True)
def own_counters() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize(
    ("ranges", "size", "chained"),
    [
        pytest.param(replace(SIGNS.ranges, camera=replace(SIGNS.ranges.camera, jpeg=None)), (16, 16), False,
                     marks=pytest.mark.compile, id="signs"),
        pytest.param(MOST, (14, 18), True, marks=pytest.mark.compile, id="most"),
    ],
)  # fmt: skip
def test_compiled_equals_eager_equals_oracle_without_compiling_anew(
    ranges: SceneRange, size: tuple[int, int], chained: bool
) -> None:
    """More than 100 batches of 2 to 9 samples over several epochs, with rising strength and a chain."""
    quick, plain = (collate(ranges, size, compile, ContextChain(0.3) if chained else None) for compile in (True, False))
    rows = batches(quick.objects.labels, [9, 2, 5, 3, 7, 4, 5], 15)
    assert len(rows) > 100
    checked = 0
    for number, table in enumerate(rows):
        behind = None
        if chained:
            plain.chain.load_state_dict(quick.chain.state_dict())  # type: ignore[union-attr]
            behind = quick.chain.offered(quick.composer, table).images.clone()  # type: ignore[union-attr]
        fast, slow = quick(table), plain(table)
        assert torch.equal(fast.chained, slow.chained)
        for name in ("images", "masks"):
            one, other = getattr(fast, name), getattr(slow, name)
            assert one.shape == other.shape
            assert one.stride() == other.stride()
            # a rounding tie of a level or of the frame may fall to either side in one picture of many
            close = (one - other).abs().flatten(1).amax(dim=1) < 1 / 255
            assert close.float().mean() > 0.8, (number, name)
            checked += int(close.sum())
        apart = (fast.boxes.nan_to_num(-9) - slow.boxes.nan_to_num(-9)).abs().amax(dim=1)
        assert (apart <= 1).float().mean() > 0.6, number
        assert torch.equal(fast.labels, slow.labels)
        for one, other in zip(tensors(fast.scene), tensors(slow.scene), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        if number % 9 == 5 and not 0 < fast.chained.sum() < len(table):
            made = Composites(fast.images, fast.labels[:, None], table.keys, fast.chained, fast.targets, fast.scene)
            strength = float(Ramp(start=0, stop=4)(table.epoch[:1]))
            compare(quick.composer, table, made, strength, behind if fast.chained.all() else None)
    assert checked > 0.99 * 2 * sum(map(len, rows))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.compile
def test_canvases_of_several_sizes_are_compiled_in_one_process() -> None:
    """The second program's sizes differ from the first's, which torch would take for numbers that vary."""
    for size in ((8, 8), (12, 16)):
        fast, slow = (collate(SceneRange(), size, compile) for compile in (True, False))
        rows = batches(fast.objects.labels, [5, 3], 1)
        for part in rows:
            torch.testing.assert_close(fast(part).images, slow(part).images, atol=1e-4, rtol=0)


@pytest.mark.compile
def test_chunks_memory_used_again_and_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures to the bit, whole or in chunks; earlier batches stay as they are; one graph; it can be sent."""
    quick = collate(SIGNS.ranges, (16, 16), compile=True)
    rows = batches(quick.objects.labels, [11], 5)
    whole = [quick(table) for table in rows]
    monkeypatch.setattr(chunks, "PIXELS", 16 * 16 * 4)
    monkeypatch.setattr(memory, "LARGE", 1)
    for table, one in zip(rows, whole, strict=True):
        other = quick(table)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)
    assert counters["stats"]["unique_graphs"] == 1
    sent = pickle.loads(pickle.dumps(quick))
    assert torch.equal(sent(rows[0]).images, whole[0].images)


@pytest.mark.compile
def test_a_second_process_finds_the_kernels() -> None:
    script = (
        "import torch\n"
        "from torch._dynamo.utils import counters\n"
        "from kornia_cag import CAGCollate, ContextBank, ObjectBank, Rows\n"
        "torch.set_num_threads(1)\n"
        "objects, contexts = ObjectBank.from_glyphs('01', size=16), ContextBank.procedural('mix', count=2, size=16)\n"
        "collate = CAGCollate(objects, contexts, 8, compile=True)\n"
        "collate(Rows.of(*[torch.arange(2)] * 3))\n"
        "print(counters['inductor']['fxgraph_cache_hit'], counters['inductor']['fxgraph_cache_miss'])\n"
    )
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "0"]


@pytest.mark.compile
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs two widths of vectors")
def test_boxes_are_right_with_narrower_vectors_and_one_cache(tmp_path: Path) -> None:
    script = (
        "import torch\n"
        "from kornia_cag.core.compiling import program\n"
        "from kornia_cag.scenes.warp import outline\n"
        "torch.set_num_threads(1)\n"
        "alpha = torch.zeros(2, 16, 16)\n"
        "alpha[:, 2:12, 3:13] = 1\n"
        "print(program(outline, alpha.device)(alpha, torch.ones(2)).boxes.tolist())\n"
    )
    for setting in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}):
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **setting}
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert run.stdout.split("\n")[0] == str([[3.0, 2.0, 13.0, 12.0]] * 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_loads_of_whole_texels_equal_grid_sample(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (3, channels, 16, 16), generator=generator, dtype=torch.uint8)
    pyramid = build_pyramid(pictures, replicate=False)
    equal_reads(pyramid, torch.tensor([2, 0, 1]), 3 * torch.rand(3, 2, 9, 7, generator=generator) - 1.5, monkeypatch)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_loads_stay_inside_the_bank_at_every_level(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From far outside the last picture on all sides: eagerly, a load from beyond the bank raises."""
    pyramid = build_pyramid(torch.full((2, 4, size, size), 255, dtype=torch.uint8), replicate=False)
    places = torch.tensor([-18.0, -1.2, 0.0, 1.0, 1.2, 18.0])
    points = torch.stack(torch.meshgrid(places, places, indexing="xy")).expand(pyramid.levels, -1, -1, -1)
    equal_reads(pyramid, torch.ones(pyramid.levels, dtype=torch.int64), points, monkeypatch)


def equal_reads(pyramid: Pyramid, ids: Tensor, points: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    level = torch.arange(len(ids)) % pyramid.levels
    slow = sample_pyramid(pyramid, ids, points, level)
    monkeypatch.setattr("kornia_cag.banks.pyramid.fusing", lambda: True)
    for one, other in zip(sample_pyramid(pyramid, ids, points, level), slow, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_eager_mode_takes_no_notice_of_the_compiler() -> None:
    one, other = torch.rand(3), torch.rand(3)
    assert kept(one) is one
    assert all(a is b for a, b in zip(once(one, other), (one, other), strict=True))


@pytest.mark.parametrize("count", [2, 5, 8])
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_numbers_read_in_pairs_are_the_same(count: int, dtype: torch.dtype) -> None:
    numbers = (torch.randn(count, 7, generator=torch.Generator().manual_seed(0)) * 1e9).to(dtype)
    assert torch.equal(torch.stack(_in_pairs(numbers)), numbers)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("pose", [RIGID_SIGNS.pose, SIGNS.ranges.pose, DIGITS.ranges.pose])
def test_a_compiled_warp_draws_the_same_pictures(gpu: bool, pose: PoseRange, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    pyramid = build_pyramid(torch.rand(3, 4, 16, 16, generator=generator), replicate=False)
    drawn = pose.sample(sample_keys(*torch.arange(3 * 20).view(3, 20)))
    given = homographies(drawn, (24, 31), axes(drawn, (24, 31))), drawn.waves, drawn.holes, torch.zeros(20), (24, 31)
    slow = warp(pyramid, torch.arange(20) % 3, *given)
    for place in ("scenes.warp.fusing", "banks.pyramid.fusing", *(("banks.loads.threads",) if gpu else ())):
        monkeypatch.setattr(f"kornia_cag.{place}", lambda *_: True)
    for one, other in zip(warp(pyramid, torch.arange(20) % 3, *given), slow, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.compile
def test_a_batch_compiled_for_a_gpu_has_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph, by this CPU's compiler."""
    for place in ("core.compiling", "core.randomness", "banks.loads", "scenes.camera", "scenes.sensor"):
        monkeypatch.setattr(f"kornia_cag.{place}.threads", lambda like: fusing())
    hints = options(torch.device("cuda")).keys() & {"force_pointwise_cat"}
    both = options(torch.device("cpu")) | dict.fromkeys(hints, True)
    monkeypatch.setattr("kornia_cag.core.compiling.options", lambda device: both)
    ranges = replace(SIGNS.ranges, camera=replace(SIGNS.ranges.camera, jpeg=None))
    quick, plain = (collate(ranges, (14, 18), compile) for compile in (True, False))
    for table in batches(quick.objects.labels, [12, 7], 1):
        torch.testing.assert_close(quick(table).images, plain(table).images, rtol=0, atol=1e-4)
