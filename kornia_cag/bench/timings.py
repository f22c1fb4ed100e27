"""``kornia-cag bench``: does composing pay off here, compared with a CPU loader and with the training step?"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_cag.adversary.presets import FGSM
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.bench.peers import OpenCVCollate, PillowCollate
from kornia_cag.core.checks import InputError
from kornia_cag.core.precision import autocast_dtype
from kornia_cag.core.progress import Log
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.sampling.passes import PairRows
from kornia_cag.sampling.rows import Rows
from kornia_cag.training.recipe import Recipe

EPS = 8 / 255  # of the attack to time if the recipe has none; its size does not affect speed
GLYPHS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"  # 43 objects to time, one per GTSRB class
SCENES = ("ScenePGD", "WorstOf")  # lines for recipes that choose scenes


@dataclass(frozen=True)
class Line:
    """One line of the report: what was timed, and how long a batch takes."""

    name: str
    seconds: float | None  # median per batch; None if not possible
    note: str = ""


def timings(
    recipe: Recipe, objects: ObjectBank, contexts: ContextBank, *, compiled: bool = True, seconds: float = 2.0,
    log: Log | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Time composing, CPU loaders that make the same scenes, and a training step with and without attack.

    Args:
        recipe: ranges, canvas, batch size, network.
        objects: prepared by :meth:`Recipe.objects`.
        contexts: prepared by :meth:`Recipe.contexts`.
        compiled: also time compiled composing, which compiles first.
        seconds: approximate time per line.
        log: takes the share done and what comes next.

    Returns:
        Ready for JSON: lines with milliseconds per batch and images per second, and the compile time in seconds.
    """
    rows = _rows(objects, contexts, recipe.batch_size)
    eager = CAGCollate(objects, contexts, recipe.size, ranges=recipe.ranges, returns="batch")
    tell = log or (lambda share, word: None)
    lines = []
    compiling = None
    if compiled:
        tell(0.0, "compiling, about a minute")
        quick = CAGCollate(objects, contexts, recipe.size, ranges=recipe.ranges, compile=True)
        start = time.perf_counter()
        quick(next(rows))
        compiling = round(time.perf_counter() - start, 1)
        lines.append(Line("composition, compiled", _median(lambda: quick(next(rows)), objects.device, seconds)))
    tell(0.4, "composition")
    lines.append(Line("composition, eager", _median(lambda: eager(next(rows)), objects.device, seconds)))
    workers = min(16, cores())
    for name, loader in (("OpenCV", OpenCVCollate), ("Pillow", PillowCollate)):
        tell(0.6, f"{name} loader")
        lines.append(_loader(f"{name} loader, {workers} workers", loader, recipe, objects, contexts, workers, seconds))
    tell(0.8, "training step")
    lines += _training(recipe, eager, next(rows), seconds)
    tell(1.0, "")
    report = [
        {"name": line.name, "note": line.note}
        | ({} if line.seconds is None else {"ms": round(1e3 * line.seconds, 2),
                                            "images_per_second": round(recipe.batch_size / line.seconds)})
        for line in lines
    ]  # fmt: skip
    return {"batch_size": recipe.batch_size, "size": recipe.size, "compile_seconds": compiling, "lines": report}


def table(report: dict[str, Any]) -> list[str]:
    """The report as lines of text, with a conclusion at the end."""
    found = [f"{report['batch_size']} images of {report['size']} x {report['size']} pixels in a batch", ""]
    found.append(f"{'':34}{'ms per batch':>14}{'images/s':>12}")
    for line in report["lines"]:
        numbers = f"{line['ms']:14.2f}{line['images_per_second']:12,}" if "ms" in line else f"{'-':>14}{'-':>12}"
        found.append(f"{line['name']:34}{numbers}  {line['note']}".rstrip())
    if report["compile_seconds"] is not None:
        found += ["", f"Compiling took {report['compile_seconds']} s; later processes reuse inductor's cache."]
    ms = {line["name"]: line["ms"] for line in report["lines"] if "ms" in line}
    return [*found, "", _answer(ms), *_with_scenes(ms)]


def cores() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answer(ms: dict[str, float]) -> str:
    mine = min(time for name, time in ms.items() if name.startswith("composition"))
    loaders = {name: time for name, time in ms.items() if "loader" in name}
    share = f"Composition takes {mine / ms['training step']:.0%} of the time of a training step"
    if not loaders:
        return f"{share}; no CPU loader makes these scenes."
    best = min(loaders, key=lambda name: loaders[name])
    ratio = loaders[best] / mine
    than = f"{ratio:.1f} times as fast as" if ratio >= 1 else f"{1 / ratio:.1f} times slower than"
    return f"{share}, and is {than} the {best}."


def _with_scenes(ms: dict[str, float]) -> list[str]:
    """Extra lines if the recipe chooses its scenes against the model."""
    return [f"With its {name} a batch takes {ms[name] / ms['training step']:.0%} of the time of a training step."
            for name in SCENES if name in ms]  # fmt: skip


def _rows(objects: ObjectBank, contexts: ContextBank, batch_size: int) -> Iterator[Rows]:
    pairs = PairSampler(objects.labels.cpu(), len(contexts), batch_size=batch_size)
    while True:
        yield from (rows for rows in pairs if len(rows) == min(batch_size, pairs.samples))


def _median(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median time of a call, including device synchronisation, after two warm-up calls."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _loader(
    name: str, loader: Callable[..., Any], recipe: Recipe, objects: ObjectBank, contexts: ContextBank, workers: int,
    seconds: float,
) -> Line:  # fmt: skip
    try:
        collate = loader(objects, contexts, recipe.size, recipe.ranges)
    except InputError as error:
        return Line(name, None, str(error))
    rows = _rows(objects, contexts, recipe.batch_size)
    start = time.perf_counter()
    collate(next(rows))
    once = time.perf_counter() - start
    ahead = 3 * workers  # first take what workers prepared before the clock starts
    count = ahead + 5 + int(seconds * workers / once)
    sampler: Any = [next(rows) for _ in range(count)]
    batches = iter(DataLoader(PairRows(samples=count * recipe.batch_size), batch_sampler=sampler, collate_fn=collate,
                              num_workers=workers, multiprocessing_context="spawn"))  # fmt: skip
    for _ in range(ahead):
        next(batches)
    start = time.perf_counter()
    for images, _ in batches:
        images.to(objects.device)
    return Line(name, (time.perf_counter() - start) / (count - ahead))


def _training(recipe: Recipe, collate: CAGCollate[Batch], rows: Rows, seconds: float) -> list[Line]:
    device, batch = collate.device, collate(rows)
    model = recipe.model(len(collate.objects.classes)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    dtype = autocast_dtype(device)
    keys = rows.to(device).keys
    attack = replace(recipe.attack or FGSM(eps=EPS), autocast=dtype)
    name = "FGSM" if attack.steps == 1 else f"PGD, {attack.steps} steps"

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(model(batch.images.contiguous(memory_format=torch.channels_last)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def hardened() -> Tensor:
        return attack(model, batch.images, batch.labels, keys=keys, mask=batch.masks)

    lines = [
        Line("training step", _median(step, device, seconds), "the recipe's network, on a ready batch"),
        Line(name, _median(hardened, device, seconds)),
    ]
    if recipe.scene_attack is not None:
        chosen = CAGCollate(collate.objects, collate.composer.contexts, recipe.size, ranges=recipe.ranges, model=model,
                            adversaries=(replace(recipe.scene_attack, autocast=dtype),))  # fmt: skip
        share = f"of {recipe.scene_attack.fraction:.0%} of the scenes, including composing all"
        lines.append(Line(type(recipe.scene_attack).__name__, _median(lambda: chosen(rows), device, seconds), share))
    return lines
