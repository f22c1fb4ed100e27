"""How does the time of an image grow with batch size, resolution, objects and contexts, and what memory does it take?

Measured: ``CAGCollate`` on rows made ahead, so composition alone, at side 64 and batch 128 (512 on a GPU) unless the
question is about them; eager and compiled. Banks of many pictures are the 43 glyphs and the procedural contexts
repeated: what a cache holds depends on addresses, not on what stands there. Rows name pictures at random, all over the
bank. Large banks are measured in turn with the smallest of their kind, and how many times its time they take is noted.
Beside the time stands the memory: of the banks, and how far one batch raises the peak above what was held before
(the allocator's on a GPU, the process's resident set on a CPU).

``growth by batch`` should fall or stay level, ``growth by objects`` and ``growth by contexts`` stay level; ``growth by
side`` should be about the pixels.
"""

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest
import torch
from common import BATCH, CUDA, make_collate, time_rounds, wait

from kornia_cag import ContextBank, ObjectBank, Rows
from kornia_cag.banks.pyramid import Pyramid

full = pytest.mark.full
USUAL = 512 if CUDA else BATCH
COUNTS = [("batch", count) for count in (16, 64, 256, 1024, 4096, *((16384,) if CUDA else ()))]
COUNTS += [("side", count) for count in (32, 64, 128, 224)]
COUNTS += [("objects", count) for count in (10, 100, 1_000, 10_000)]
COUNTS += [("contexts", count) for count in (100, 1_000, 10_000, 100_000)]
SETTINGS = [pytest.param(*pair, marks=[] if pair[1] in (16, 32, 10, 100) else full) for pair in COUNTS]
SMALLEST = {"objects": 10, "contexts": 100}
PATHS = ["eager", pytest.param("compiled", marks=full)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("by", "count"), SETTINGS, ids=lambda value: str(value))
def test_growth(benchmark, banks, collates, smallest, objects, contexts, device, by, count, path):
    benchmark.group = f"growth by {by}"
    if by == "side":
        objects, contexts = banks(count)
    if by in GROW:
        objects, contexts = GROW[by](objects, contexts, count)
    batch, side = count if by == "batch" else USUAL, count if by == "side" else 64
    compiled = path == "compiled"
    collate = make_collate(objects, contexts, side, compiled=compiled) if by in GROW else collates(side, compiled)
    rows = random_rows(len(objects), len(contexts), batch)
    collate(next(rows))
    beside = smallest(by, compiled) if by in GROW else None
    banks = (objects.pyramid.atlas.numel() + contexts.pyramid.atlas.numel()) >> 20
    extra = raised(lambda: collate(next(rows)), device)
    time_rounds(benchmark, device, lambda: collate(next(rows)), batch, batch=batch, side=side, what=path, by=by,
                count=count, banks_mib=banks, batch_mib=extra, beside=beside)  # fmt: skip
    assert collate(next(rows))[0].shape == (batch, 3, side, side)


@pytest.fixture(scope="module")
def smallest(objects, contexts) -> Callable[[str, bool], Callable[[], object]]:
    """What composes a batch from the smallest bank of a kind, with the path to go."""

    def make(by: str, compiled: bool) -> Callable[[], object]:
        few_objects, few_contexts = GROW[by](objects, contexts, SMALLEST[by])
        rows = random_rows(len(few_objects), len(few_contexts), USUAL)
        collate = make_collate(few_objects, few_contexts, 64, compiled=compiled)
        collate(next(rows))
        return lambda: collate(next(rows))

    return cache(make)


def random_rows(objects: int, contexts: int, batch: int) -> Iterator[Rows]:
    """Eight batches of rows, over and over, with ids all over the banks."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for epoch in range(8):
        drawn, behind = (torch.randint(count, (batch,), generator=draw) for count in (objects, contexts))
        made.append(Rows.of(drawn, behind, torch.arange(batch), epoch=epoch))
    return cycle(made)


def with_objects(objects: ObjectBank, contexts: ContextBank, count: int) -> tuple[ObjectBank, ContextBank]:
    """``count`` objects, a class each."""
    labels = torch.arange(count, device=objects.device)
    return ObjectBank(repeated(objects.pyramid, count), labels, tuple(map(str, range(count)))), contexts


def with_contexts(objects: ObjectBank, contexts: ContextBank, count: int) -> tuple[ObjectBank, ContextBank]:
    """``count`` contexts."""
    return objects, ContextBank(repeated(contexts.pyramid, count))


def repeated(pyramid: Pyramid, count: int) -> Pyramid:
    """The pictures of a pyramid over and over, each at a place of its own; skips what half the memory cannot hold."""
    atlas = pyramid.atlas
    if count * atlas[0].numel() > 0.5 * free_memory(atlas.device):
        pytest.skip(f"{count} pictures do not fit into half the free memory")
    return replace(pyramid, atlas=atlas[torch.arange(count, device=atlas.device) % len(atlas)])


def free_memory(device: torch.device) -> int:
    """Bytes that could be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def raised(work: Callable[[], object], device: torch.device) -> int | None:
    """MiB by which ``work`` raises the peak of memory over what was held before; None where that cannot be known."""
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) >> 20
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        return None
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # what was freed before would serve again, and not be counted
    forget.write_text("5")  # resets the peak, see proc(5)
    before = status("VmRSS")
    work()
    return (status("VmHWM") - before) >> 10


def status(field: str) -> int:
    """KiB of this process, from Linux."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0])


GROW = {"objects": with_objects, "contexts": with_contexts}
