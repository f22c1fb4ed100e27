"""How many finished composites a second, beside the same scenes made one at a time with OpenCV and with Pillow?

Measured: batches out of a DataLoader, from rows of a PairSampler to float32 images in [0, 1] and labels on the device
(CUDA where there is one). ``kornia_cag`` is ``CAGCollate`` without chain and attack, eager and compiled, and on CUDA
also both as a captured graph; ``opencv`` and ``pillow`` are the collates of ``kornia_cag/bench/peers.py``. Same banks,
same ranges (those of rigid signs), same loader. None of them makes masks or boxes; ``CAGCollate`` alone draws its rows
while the clock runs. ``tests/bench/test_peers.py`` holds their pictures against the library's.

How: a loader with workers first runs off the clock: workers start, and what they prepared ahead is taken, so that what
is timed is what they can sustain. Workers have a core each, as far as there are any. ``threads`` are torch's in this
process: with 1, one core against the baselines' one core. To end in time, batches of other than 16 and 128 are left out
on a CPU above side 64, and the baselines on a GPU but at sides 64 and 224.
"""

import pytest
import torch
from common import BATCH, CUDA, SECONDS, Banks, Collate, elapsed, endless, from_workers, time_rounds, wait
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from kornia_cag.bench.peers import OpenCVCollate, PillowCollate
from kornia_cag.bench.timings import cores
from kornia_cag.training.recipes import RIGID_SIGNS

full = pytest.mark.full
SIDES = (32, 64, 128, 224)
BATCHES = (16, 64, 128, 512, 4096)
SETTINGS = [  # side, batch, threads
    pytest.param(side, batch, threads, marks=[] if (side, batch, threads) == (32, 64, None) else full,
                 id=f"{side}-batch={batch}-threads={threads or 'all'}")
    for side in SIDES
    for batch in BATCHES
    for threads in (None, 1)
    if (batch >= 64 if CUDA or side <= 64 else batch in (16, BATCH))
    and (threads is None or (not CUDA and (side, batch) == (64, BATCH)))
]  # fmt: skip
CAPTURED = ["eager graph", "compiled graph"] if CUDA else []
PATHS = ["eager", *(pytest.param(path, marks=full) for path in ["compiled", *CAPTURED])]
WORKERS = [0, *(pytest.param(count, marks=full) for count in sorted({cores()} if CUDA else {1, cores()}))]
BASELINE_SIDES = (64, 224) if CUDA else SIDES


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("side", "batch", "threads_used"), SETTINGS)
def test_kornia_cag(benchmark, banks, collates, threads, device, side, batch, threads_used, path):
    benchmark.group = f"compose {side}x{side}"
    used = threads(threads_used)
    compiled, options = path.startswith("compiled"), {"graph": True} if path in CAPTURED else {}
    batches = iter(endless(*banks(side), collates(side, compiled, **options), batch))
    for _ in range(3 if path in CAPTURED else 1):  # it is captured with the second batch
        images, _ = next(batches)
    assert images.shape == (batch, 3, side, side)
    assert images.dtype == torch.float32
    time_rounds(benchmark, device, lambda: next(batches), batch,
                what=f"kornia_cag {path}", side=side, batch=batch, threads=used)  # fmt: skip


@pytest.mark.parametrize("workers", WORKERS, ids=lambda count: f"workers={count}")
@pytest.mark.parametrize("side", [BASELINE_SIDES[0], *(pytest.param(s, marks=full) for s in BASELINE_SIDES[1:])])
@pytest.mark.parametrize("loader", [OpenCVCollate, PillowCollate], ids=["opencv", "pillow"])
def test_baseline(benchmark, banks, device, side, loader, workers):
    benchmark.group = f"compose {side}x{side}"
    if loader is OpenCVCollate:
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    collate = loader(*banks(side), side, RIGID_SIGNS)
    what = loader.__name__.removesuffix("Collate").lower()
    time_workers(benchmark, banks(side), collate, device, side=side, what=what, workers=workers)


def time_workers(
    benchmark: BenchmarkFixture, banks: Banks, collate: Collate,
    device: torch.device, *, workers: int, side: int, what: str,
) -> None:  # fmt: skip
    """Time what the workers sustain: as many batches as fill ``SECONDS``, known from one batch made here."""
    take, rounds, ahead = 1, 1, 4 * workers
    if benchmark.enabled:
        sampler = iter(endless(*banks, collate))
        next(sampler)
        once = elapsed(lambda: next(sampler), torch.device("cpu")) / max(workers, 1)
        rounds = min(max(3, int(SECONDS / (max(workers, 1) * once))), 12)
        take = max(workers, 1)
    loader = from_workers(*banks, collate, workers=workers, count=ahead + take * rounds)
    batches = iter(loader)
    for _ in range(ahead):
        next(batches)

    def round_of_batches() -> Tensor:
        for _ in range(take):
            images, _ = (part.to(device, non_blocking=True) for part in next(batches))
        wait(device)
        return images

    images = benchmark.pedantic(round_of_batches, rounds=rounds)
    assert images.dtype == torch.float32
    assert images.shape == (BATCH, 3, side, side)
    assert next(batches, None) is None
    benchmark.extra_info.update(
        device=device.type, images=take * BATCH, batch=BATCH, what=what, side=side, workers=workers
    )
