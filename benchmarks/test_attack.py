"""What do hardening and chaining a batch cost, as multiples of what has to be paid anyway?

Measured, for a batch of 128 composites of the ``signs`` recipe and its (untrained) network, at sides 32 and 64:

``attack``: FGSM, and PGD of four steps, beside the *bare* cost of one gradient with respect to the images: forward pass
and input backward pass of the same network, in eval mode, without parameter gradients, under the same autocast. The
ideal is 1 for FGSM and 4 for PGD; what is above is borrowing the model, budget map, box and step.

``chain``: a batch from ``CAGCollate`` with a ContextChain, beside one without.

How: every round times the bare thing and then the whole, so that a busy machine slows both; the note ``multiple`` of a
result is the median of the rounds' ratios, with their quartiles. A device synchronisation lies inside each time.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from common import BATCH, rows, wait
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from kornia_cag import FGSM, PGD, CAGCollate, ContextChain
from kornia_cag.models import autocast_dtype
from kornia_cag.randomness import sample_keys
from kornia_cag.recipes import SIGNS

ROUNDS = 7
SIZES = (32, 64)
EPS = 8 / 255
DTYPE = autocast_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
ATTACKS = {"fgsm": FGSM(eps=EPS, autocast=DTYPE), "pgd4": PGD(eps=EPS, steps=4, autocast=DTYPE)}


def compare(
    benchmark: BenchmarkFixture, device: torch.device, bare: Callable[[], object], whole: Callable[[], Tensor]
) -> Tensor:
    """Time ``whole``, and ``bare`` before each round of it; note the multiple."""
    bare_seconds: list[float] = []
    whole_seconds: list[float] = []

    def before() -> None:
        wait(device)
        start = time.perf_counter()
        bare()
        wait(device)
        bare_seconds.append(time.perf_counter() - start)

    def timed() -> Tensor:
        start = time.perf_counter()
        result = whole()
        wait(device)
        whole_seconds.append(time.perf_counter() - start)
        return result

    images: Tensor = benchmark.pedantic(timed, setup=before, rounds=ROUNDS, warmup_rounds=2)
    ratios = [w / b for w, b in zip(whole_seconds[-ROUNDS:], bare_seconds[-ROUNDS:], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else 3 * ratios
    benchmark.extra_info.update(
        images=BATCH, batch=BATCH, device=device.type, autocast=str(DTYPE),
        bare_ms=round(1e3 * statistics.median(bare_seconds[-ROUNDS:]), 3),
        multiple=round(middle, 3), multiple_quartiles=[round(low, 3), round(high, 3)],
    )  # fmt: skip
    return images


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("size", SIZES)
def test_attack(benchmark, objects, contexts, device, size, name):
    benchmark.group = f"attack {size}x{size}"
    torch.manual_seed(0)
    collate = CAGCollate(objects, contexts, size, ranges=SIGNS.ranges, returns="batch")
    batch = collate(next(rows(objects, contexts)))
    keys = sample_keys(*(batch.rows[:, column] for column in (4, 3, 2)))
    model = replace(SIGNS, size=size).model(len(objects.classes)).to(device)
    borrowed = copy.deepcopy(model).eval().requires_grad_(False)

    def bare() -> Tensor:
        images = batch.images.detach().requires_grad_()
        with torch.autocast(device.type, DTYPE, enabled=DTYPE is not None):
            loss = F.cross_entropy(borrowed(images), batch.labels)
        return torch.autograd.grad(loss, images)[0]

    def whole() -> Tensor:
        return ATTACKS[name](model, batch.images, batch.labels, keys=keys)

    hard = compare(benchmark, device, bare, whole)
    assert 0 < (hard - batch.images).abs().max() <= torch.tensor(EPS)  # in float32, both


@pytest.mark.parametrize("size", SIZES)
def test_chain(benchmark, objects, contexts, device, size):
    benchmark.group = f"chain {size}x{size}"
    plain = CAGCollate(objects, contexts, size, ranges=SIGNS.ranges)
    chained = CAGCollate(objects, contexts, size, ranges=SIGNS.ranges, chain=ContextChain())
    for_plain, for_chained = rows(objects, contexts), rows(objects, contexts)
    images = compare(benchmark, device, lambda: plain(next(for_plain)), lambda: chained(next(for_chained))[0])
    assert images.shape == (BATCH, 3, size, size)
