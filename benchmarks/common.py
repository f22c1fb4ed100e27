"""What the benchmarks share beside fixtures: rows, collates, and how long a thing is timed."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, ContextBank, ObjectBank, PairSampler, Rows, SceneRange
from kornia_cag.bench.timings import GLYPHS
from kornia_cag.sampling.passes import PairRows
from kornia_cag.training.recipes import RIGID_SIGNS

BATCH = 128
CUDA = torch.cuda.is_available()
SECONDS = 0.5 if CUDA else 2.0  # of rounds, about

Banks = tuple[ObjectBank, ContextBank]
Collate = Callable[[Any], Any]  # rows to a batch


def wait(device: torch.device) -> None:
    """Let the device finish, so that a clock reads its time and not that of the launches."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_banks(side: int, device: torch.device | str = "cpu") -> Banks:
    """43 glyphs and 512 procedural contexts of 64 texels; of 256 texels, and 128 contexts, for sides above 64."""
    texels, count = (64, 512) if side <= 64 else (256, 128)
    objects = ObjectBank.from_glyphs(GLYPHS, size=texels, device=device).with_ink((220, 60, 40))
    return objects, ContextBank.procedural("mix", count=count, size=texels, device=device)


def make_collate(
    objects: ObjectBank, contexts: ContextBank, size: int, *, compiled: bool = False, ranges: SceneRange = RIGID_SIGNS,
    **options: Any,
) -> CAGCollate[Any]:  # fmt: skip
    """Composition of rigid signs, or of other ranges, eager or compiled."""
    if compiled:
        options["compile"] = True
    return CAGCollate(objects, contexts, size, ranges=ranges, **options)


def rows(objects: ObjectBank, contexts: ContextBank, batch: int = BATCH, per_scene: int = 1) -> Iterator[Rows]:
    """Rows of whole batches without end, of ``per_scene`` objects each."""
    pairs = PairSampler(objects.labels, len(contexts), batch_size=batch, drop_last=True, objects_per_scene=per_scene)
    while True:
        yield from pairs


def endless(
    objects: ObjectBank, contexts: ContextBank, collate: Collate, batch: int = BATCH, per_scene: int = 1
) -> DataLoader[Any]:
    """A loader without workers; the sampler draws its rows while it runs."""
    drawn = rows(objects, contexts, batch, per_scene)
    return DataLoader(PairRows(samples=2**40), batch_sampler=drawn, collate_fn=collate)


def from_workers(
    objects: ObjectBank, contexts: ContextBank, collate: Collate, *, workers: int, count: int, batch: int = BATCH,
    per_scene: int = 1, persistent: bool = False,
) -> DataLoader[Any]:  # fmt: skip
    """A loader of ``count`` batches. Workers that have work left when they are stopped may abort: take them all."""
    return DataLoader(
        PairRows(samples=count * batch), batch_sampler=list(islice(rows(objects, contexts, batch, per_scene), count)),
        collate_fn=collate, num_workers=workers, pin_memory=workers > 0 and CUDA,
        multiprocessing_context="spawn" if workers else None, persistent_workers=persistent,
    )  # fmt: skip


def time_rounds(
    benchmark: BenchmarkFixture, device: torch.device, work: Callable[[], object], images: int, *,
    batch: int, rounds: int | None = None, beside: Callable[[], object] | None = None, **notes: Any,
) -> None:  # fmt: skip
    """Time rounds of ``work``, which makes ``images`` images: as many as given, or 3 to 40 in about ``SECONDS``.

    What runs before the clock decides how often ``work`` is repeated within a round (so that a round lasts 20 ms or
    more, and the host may run ahead of a GPU as it does in training) and how many rounds there are. ``beside`` is
    repeated as often before every round, and how many times its time a round takes is noted: two things measured in
    turn meet the same moods of a machine.
    """
    repeats = 1
    if benchmark.enabled and rounds is None:
        once = elapsed(work, device)
        once = elapsed(work, device) if once < 1 else once
        repeats = max(1, math.ceil(0.02 / max(once, 1e-6)))
        rounds = min(max(3, int(SECONDS / (repeats * once))), 40)
    theirs: list[float] = []
    ours: list[float] = []

    def first() -> None:
        if beside is not None:
            theirs.append(elapsed(lambda: [beside() for _ in range(repeats)], device))

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    benchmark.pedantic(
        lambda: ours.append(elapsed(lambda: [work() for _ in range(repeats)], device)), setup=first, rounds=rounds or 1
    )
    if device.type == "cuda":
        notes["peak_mib"] = torch.cuda.max_memory_allocated(device) >> 20
    if beside is not None:
        notes["beside"] = [round(ratio, 3) for ratio in quartiles([a / b for a, b in zip(ours, theirs, strict=True)])]
    benchmark.extra_info.update(device=device.type, images=repeats * images, batch=batch, **notes)


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device's part included."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else 3 * values
