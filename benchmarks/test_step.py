"""What does a training step cost when its images are made while it runs?

Measured: whole steps (forward, backward, optimizer) of the ``signs`` recipe's network at side 40, batch 128, under the
autocast of the recipe; on a GPU also of a ResNet-18 at side 224, bfloat16, channels last, batch 512. The images of a
step are

``resident``: one fixed batch on the device, which costs nothing and is the ideal;
``eager``, ``compiled``: composed in the loop, by a DataLoader's ``collate_fn``;
``graph``: compiled, and captured as a CUDA graph;
``overlap``: the same, a batch ahead on a side stream, by ``Prefetcher``; on a CPU it composes when asked, so this is
``compiled`` again;
``opencv``: from the OpenCV loader in as many workers as there are cores, pinned and copied on a GPU.

How: each round is one step, or more where a step is short, with a device synchronisation at its end; the peak of memory
is that of the GPU's allocator. Steps with workers begin when what they prepared ahead is taken. On a CPU workers,
composition and model share the same cores.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import BATCH, CUDA, Banks, endless, from_workers, time_rounds
from resnet import resnet18
from torch import Tensor, nn

from kornia_cag import CAGCollate, Prefetcher
from kornia_cag.bench.peers import OpenCVCollate
from kornia_cag.bench.timings import cores
from kornia_cag.core.precision import autocast_dtype
from kornia_cag.loading.batch import Pair
from kornia_cag.training.recipes import RIGID_SIGNS, SIGNS

full = pytest.mark.full
STEPS = 20  # timed with workers, which must be left no work
AHEAD = ["compiled", *(["graph"] if CUDA else []), "overlap", "opencv"]
SOURCES = ["resident", "eager", *(pytest.param(name, marks=full) for name in AHEAD)]
NETWORKS = [pytest.param("convnet", 40, BATCH, id="convnet-40")]
NETWORKS += [pytest.param("resnet18", 224, 512, marks=full, id="resnet18-224")] if CUDA else []


def make_network(name: str, side: int, classes: int, device: torch.device) -> nn.Module:
    """Untrained, channels last."""
    torch.manual_seed(0)
    network = resnet18(classes) if name == "resnet18" else replace(SIGNS, size=side).model(classes)
    return network.to(device, memory_format=torch.channels_last)


def make_step(network: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """One step of AdamW, without waiting for the device."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=device.type == "cuda")
    dtype = autocast_dtype(device)

    def step(images: Tensor, labels: Tensor) -> None:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def make_source(source: str, banks: Banks, collate: CAGCollate[Pair], batch: int) -> Iterator[Any]:
    """Batches of images and labels, without end."""
    if source == "overlap":
        return iter(Prefetcher(endless(*banks, collate.compose, batch), collate))
    batches = iter(endless(*banks, collate, batch))
    return repeat(next(batches)) if source == "resident" else batches


def from_opencv(banks: Banks, side: int, batch: int, device: torch.device, count: int) -> Iterator[Any]:
    """``count`` batches that workers made while ``count`` batches were wanted."""
    workers = cores()
    collate = OpenCVCollate(*banks, side, RIGID_SIGNS)
    batches = iter(from_workers(*banks, collate, workers=workers, count=count + 4 * workers, batch=batch))
    for _ in range(4 * workers):
        next(batches)
    return ([part.to(device, non_blocking=True) for part in pair] for pair in batches)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("network", "side", "batch"), NETWORKS)
def test_step(benchmark, banks, collates, device, network, side, batch, source):
    benchmark.group = f"training step, {network} {side}x{side}"
    options = {"dtype": torch.bfloat16, "channels_last": True} if network == "resnet18" else {}
    step = make_step(make_network(network, side, len(banks(side)[0].classes), device), device)
    rounds = None
    if source == "opencv":
        rounds = STEPS if benchmark.enabled else 1
        batches = from_opencv(banks(side), side, batch, device, rounds + 1)
        step(*next(batches))
    else:
        options |= {"graph": True} if CUDA and source in ("graph", "overlap") else {}
        collate = collates(side, source in AHEAD, **options)
        batches = make_source(source, banks(side), collate, batch)
    work = lambda: step(*next(batches))  # noqa: E731
    time_rounds(benchmark, device, work, batch, batch=batch, rounds=rounds, what=source, side=side, network=network)
    if source == "opencv":
        assert next(batches, None) is None
