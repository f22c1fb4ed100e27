"""How many finished composites a second, beside the same scenes made one at a time with OpenCV and NumPy?

Measured: the time of ``TAKE`` batches of 128 out of a DataLoader, from given rows of a PairSampler to float32 images in
[0, 1] and labels on the device (CUDA where there is one). ``kornia_cag`` is ``CAGCollate`` without chain and attack, in
eager mode; ``opencv`` is the collate of ``baseline.py``. Same banks, same ranges (those of the ``signs`` recipe), same
loader; the baseline returns no masks and boxes, though ``CAGCollate`` makes them all the same. Sides 32 and 64.

How: the loader runs before the clock does: workers start, caches fill, and what they prepared ahead is taken, so that
what is timed is what they can sustain. Then ``ROUNDS`` rounds, a device synchronisation inside each; the table gives
median and interquartile range. ``threads`` are torch's in this process: with 1, one core against the baseline's one
core; workers have a core each, as far as there are any.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from baseline import Array, OpenCVCollate
from common import BATCH, cores, rows, wait
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate
from kornia_cag.pairing import PairRows
from kornia_cag.randomness import normals, sample_keys, uniform
from kornia_cag.recipes import SIGNS

ROUNDS = 12
TAKE = 4
SIZES = (32, 64)
THREADS = (None,) if torch.cuda.is_available() else tuple(sorted({1, cores()}))
WORKERS = (0, *sorted({1, 2, cores()}))


def measure(
    benchmark: BenchmarkFixture, rows: Iterator[Tensor], collate: Callable[[Tensor], tuple[Tensor, Tensor]],
    device: torch.device, workers: int = 0,
) -> None:  # fmt: skip
    """Time ``TAKE`` batches after those that the workers had time to prepare, and note what they were."""
    warmup, ahead = 2, 4 * workers
    # As many rows as are taken and no more: a worker that is stopped in its work may abort.
    count = ahead + TAKE * (ROUNDS + warmup if benchmark.enabled else 1)
    loader: DataLoader[Tensor] = DataLoader(
        PairRows(count * BATCH), batch_sampler=list(islice(rows, count)), collate_fn=collate, num_workers=workers,
        pin_memory=workers > 0 and device.type == "cuda", multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip
    batches = iter(loader)
    for _ in range(ahead):
        next(batches)

    def take() -> Tensor:
        for _ in range(TAKE):
            images, _ = (part.to(device, non_blocking=True) for part in next(batches))
        wait(device)
        return images

    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    images = benchmark.pedantic(take, rounds=ROUNDS, warmup_rounds=warmup)
    assert images.dtype == torch.float32
    assert images.shape[:2] == (BATCH, 3)
    assert next(batches, None) is None
    peak = torch.cuda.max_memory_allocated(device) >> 20 if cuda else None
    benchmark.extra_info.update(images=TAKE * BATCH, batch=BATCH, device=device.type, peak_mib=peak)


@pytest.fixture
def threads() -> Iterator[Callable[[int | None], None]]:
    before = torch.get_num_threads()
    yield lambda count: torch.set_num_threads(count or before)
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", THREADS, ids=lambda count: f"threads={count or 'all'}")
@pytest.mark.parametrize("size", SIZES)
def test_kornia_cag(benchmark, objects, contexts, threads, device, size, count):
    benchmark.group = f"compose {size}x{size}"
    threads(count)
    measure(benchmark, rows(objects, contexts), CAGCollate(objects, contexts, size, ranges=SIGNS.ranges), device)


@pytest.mark.parametrize("workers", WORKERS, ids=lambda count: f"workers={count}")
@pytest.mark.parametrize("size", SIZES)
def test_opencv(benchmark, objects, contexts, device, size, workers):
    benchmark.group = f"compose {size}x{size}"
    collate = OpenCVCollate(objects, contexts, size, SIGNS.ranges)
    measure(benchmark, rows(objects, contexts), collate, device, workers)


@pytest.mark.parametrize("size", SIZES)
def test_both_make_the_same_scenes(objects, contexts, device, size):
    """Without this the two would not be worth comparing.

    OpenCV's uint8 warps know 1/32 of a pixel and 8 bits. Overexposure is left out: the library clamps each layer, the
    baseline their composite, which differs on an overexposed object's rim.
    """
    ranges = replace(SIGNS.ranges, color=replace(SIGNS.ranges.color, exposure=(-3.5, -0.7)))
    index = torch.arange(43, device=device)
    table = torch.stack([index, index, index, 0 * index, 0 * index], dim=1)
    images, _ = CAGCollate(objects, contexts, size, ranges=ranges)(table)
    keys = sample_keys(0 * index, 0 * index, index).cpu()
    baseline = OpenCVCollate(objects, contexts, size, ranges)
    fields = normals(keys, "camera.noise_field", 3 * size * size).reshape(-1, 3, size, size).permute(0, 2, 3, 1)
    for i, image in enumerate(images.cpu().permute(0, 2, 3, 1).numpy()):

        def draw(slot: str, bounds: tuple[float, float], row: int = i) -> float:
            return float(uniform(keys[row : row + 1], slot, *bounds))

        def noise(_: tuple[int, int, int], row: int = i) -> Array:
            return fields[row].clone().numpy()

        difference = np.abs(image - baseline.scene(i, i, draw, noise))
        assert difference.mean() < 0.5 / 255
        assert np.quantile(difference, 0.99) < 3 / 255
