"""What do whole scenes of several objects cost, with boxes and masks, beside OpenCV in workers?

Measured: batches of 16 scenes of K = 1, 2, 4 and 8 objects on a canvas of 256x256, out of a DataLoader, with a layout
whose limits on what is covered and cut off are tried for each object. ``kornia_cag`` is
``CAGCollate(returns="batch")``, eager and compiled: visible and full masks of every object in float32, and boxes. The
opponent is ``OpenCVScenes`` (``kornia_cag/bench/several.py``) in as many workers as there are cores, with visible masks
in 8 bits and boxes, and once more with boxes alone, which is all that a detector needs, and less than we make. Same
banks, ranges and limits; it judges limits by boxes, and ``shown`` notes how many objects find a place.
``tests/bench/test_opencv_scenes.py`` holds its pictures, boxes and masks against the library's.

How: in turns, first OpenCV, then we, and the ratios of the turns are noted. Workers are kept, but idle while we are
timed: each turn is a pass of its own, and its clock starts when every worker has handed over its first batch.

``scenes by objects``: all four K in turns, and time = a + b K fitted to each round. ``scenes cold``: the first compiled
batch, in a process of its own with an empty inductor cache, as in ``test_compile.py``. ``scenes memory``: how far one
batch of 16 or 32 scenes of 8 objects raises the peak, in a process of its own that composed 4 scenes before.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import Banks, elapsed, endless, from_workers, make_banks, make_collate, quartiles, rows, wait
from test_growth import raised
from torch.utils.data import DataLoader

from kornia_cag import Batch, CAGCollate, Layout
from kornia_cag.bench.several import OpenCVScenes
from kornia_cag.bench.timings import cores
from kornia_cag.training.recipes import RIGID_SIGNS

full = pytest.mark.full
SIDE, BATCH, COUNTS = 256, 16, (1, 2, 4, 8)
ROUNDS, TURN = 9, 12  # batches of a turn of each worker, after its first
RANGES = replace(RIGID_SIGNS, layout=Layout(side=(0.1, 0.5), visible=0.5, overlap=0.5, inside=0.75))
PATHS = ["eager", pytest.param("compiled", marks=full)]


@pytest.fixture(scope="module")
def ours(banks) -> dict[str, CAGCollate[Batch]]:
    """Eager and compiled composition, which learns nothing new when the number of objects changes."""
    return {path: composing(banks(SIDE), path) for path in ("eager", "compiled")}


def composing(banks: Banks, path: str) -> CAGCollate[Batch]:
    """What composes scenes with masks and boxes."""
    return make_collate(*banks, SIDE, compiled=path == "compiled", ranges=RANGES, returns="batch")


@pytest.fixture(scope="module", params=[2, *(pytest.param(count, marks=full) for count in COUNTS if count != 2)])
def opponents(request, banks) -> Iterator[tuple[int, dict[str, DataLoader[Any]]]]:
    """The number of objects, and OpenCV's loaders with masks and with boxes alone, whose workers have started."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    enabled = request.config.getoption("benchmark_enable")
    workers = cores() if enabled else 1
    turn = workers * (1 + (TURN if enabled else 1))
    loaders = {}
    for name in ("masks", "boxes"):
        collate = OpenCVScenes(*banks(SIDE), SIDE, RANGES, masks=name == "masks")
        loaders[name] = from_workers(*banks(SIDE), collate, workers=workers, count=turn, batch=BATCH,
                                     per_scene=request.param, persistent=True)  # fmt: skip
        list(loaders[name])
    yield request.param, loaders
    for loader in loaders.values():
        del loader._iterator  # ends its workers


@pytest.mark.parametrize("path", PATHS)
def test_scenes(benchmark, banks, device, ours, opponents, path):
    objects, loaders = opponents
    benchmark.group = f"scenes {SIDE}x{SIDE}, {objects} objects"
    batches = iter(endless(*banks(SIDE), ours[path], BATCH, objects))
    batch, (theirs, *_) = next(batches), loaders["masks"]
    assert batch.targets.masks.shape == theirs.masks.shape == (BATCH, objects, SIDE, SIDE)
    took: dict[str, list[float]] = {"ours": [], "masks": [], "boxes": []}

    def first() -> None:
        for name, loader in loaders.items():
            took[name].append(turn_of(loader, device))

    def work() -> None:
        took["ours"].append(elapsed(lambda: next(batches), device))

    benchmark.pedantic(work, setup=first, rounds=ROUNDS if benchmark.enabled else 1)
    over = {f"over_{name}": quartiles([a / b for a, b in zip(took[name], took["ours"], strict=True)])
            for name in loaders}  # fmt: skip
    benchmark.extra_info.update(
        device=device.type, images=BATCH, batch=BATCH, what=path, objects=objects, workers=loaders["masks"].num_workers,
        shown=shown(batch.targets.labels), shown_by_opencv=shown(theirs.labels), **over,
        **{f"opencv_{name}_ms": 1e3 * statistics.median(took[name]) for name in loaders},
    )  # fmt: skip


def turn_of(loader: DataLoader[Any], device: torch.device) -> float:
    """Seconds of a batch that workers sustain, from when each has handed over one until they have nothing left."""
    batches = iter(loader)
    for _ in range(loader.num_workers):
        next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        for part in batch:
            if part is not None:
                part.to(device, non_blocking=True)
        count += 1
    wait(device)
    return (time.perf_counter() - start) / count


def shown(labels: torch.Tensor) -> float:
    """Objects of a scene that found a place, on average."""
    return float((labels >= 0).sum(dim=1).float().mean())


@pytest.mark.parametrize("path", PATHS)
def test_by_objects(benchmark, banks, device, ours, path):
    benchmark.group = "scenes by objects"
    counts = COUNTS if benchmark.enabled else COUNTS[:2]
    batches = {count: iter(endless(*banks(SIDE), ours[path], BATCH, count)) for count in counts}
    for made in batches.values():
        next(made)
    fits = []

    def work() -> None:
        times = [elapsed(lambda made=made: next(made), device) / BATCH for made in batches.values()]
        slope, start = np.polyfit(counts, times, 1).tolist()
        fits.append((start, slope))

    benchmark.pedantic(work, rounds=ROUNDS if benchmark.enabled else 1)
    starts, slopes = ([1e3 * value for value in values] for values in zip(*fits, strict=True))
    benchmark.extra_info.update(
        device=device.type, images=len(counts) * BATCH, batch=BATCH, what=path, fixed_ms=statistics.median(starts),
        object_ms=statistics.median(slopes),
        fixed_over_object=quartiles([a / b for a, b in zip(starts, slopes, strict=True)]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inductor")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("objects", [1, pytest.param(8, marks=full)])
def test_cold(benchmark, cache, device, objects, path):
    benchmark.group = "scenes cold"
    seconds = benchmark.pedantic(elsewhere, args=("cold", path, objects, BATCH, cache / str(objects)), rounds=1)
    benchmark.extra_info.update(device=device.type, what=path, objects=objects, images=BATCH, batch=BATCH, **seconds)
    assert seconds["first_batch_s"] > 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [BATCH, pytest.param(2 * BATCH, marks=full)])
def test_memory(benchmark, cache, device, batch, path):
    benchmark.group = "scenes memory"
    found = benchmark.pedantic(elsewhere, args=("memory", path, 8, batch, cache / "8"), rounds=1)
    benchmark.extra_info.update(device=device.type, what=path, objects=8, images=batch, batch=batch, **found)
    assert found["batch_mib"] is None or found["batch_mib"] >= found["handed_out_mib"]


def elsewhere(what: str, path: str, objects: int, batch: int, cache: Path) -> dict[str, float]:
    """What another process measures."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, __file__, what, path, str(objects), str(batch)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


def cold(banks: Banks, path: str, objects: int, batch: int, device: torch.device) -> dict[str, float]:
    """Seconds from building a collate to its first batch, and of a second batch of another size."""
    start = time.perf_counter()
    collate = composing(banks, path)
    collate(next(rows(*banks, batch, objects)))
    wait(device)
    first = time.perf_counter()
    collate(next(rows(*banks, 2 * batch, objects)))
    wait(device)
    return {"first_batch_s": first - start, "other_size_s": time.perf_counter() - first}


def memory(banks: Banks, path: str, objects: int, batch: int, device: torch.device) -> dict[str, float | None]:
    """MiB by which a batch raises the peak, and those of what it hands out."""
    collate = composing(banks, path)
    collate(next(rows(*banks, 4, objects)))
    made, given = [], next(rows(*banks, batch, objects))
    grown = raised(lambda: made.append(collate(given)), device)
    out = sum(part.untyped_storage().nbytes() for part in (made[0].images, made[0].targets.masks, made[0].targets.full))
    return {"batch_mib": grown, "handed_out_mib": out >> 20, "banks_mib": sum(
        bank.pyramid.atlas.numel() for bank in banks) >> 20}  # fmt: skip


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    banks = make_banks(SIDE, device)
    wait(device)
    what, path, objects, batch = sys.argv[1:]
    print(json.dumps({"cold": cold, "memory": memory}[what](banks, path, int(objects), int(batch), device)))
