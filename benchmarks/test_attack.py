"""What do hardening and chaining a batch cost, as multiples of what has to be paid anyway?

Measured, for a batch of 128 composites of the ``signs`` recipe and its (untrained) network, at sides 32 and 64:

``attack``: FGSM, and PGD of four steps in L-infinity and in L2, beside the *bare* cost of one gradient with respect to
the images: forward pass and input backward pass of the same network, in eval mode, without parameter gradients, under
the same autocast. What is above 1 for FGSM and above 4 for PGD is borrowing the model, budget map, box and step;
``per_pass`` is the multiple over the number of steps.

``peer``: the same by torchattacks and foolbox, where installed, on the same images and under the same autocast, with
the network already in eval mode and without parameter gradients. Their results are held against ours: images, budget
and step are whole 256ths, so that all sums are exact and no gradient's sign depends on the order of an addition; in L2
in float32, and most images within a hundredth of the budget, since the last bit may decide which units are on
(`tests/adversary/test_pixels.py` has them within 1e-5 on a smooth network in float64). On a CPU at side 32 only.

``scene``: a batch from ``CAGCollate`` whose scenes are chosen against the network, beside one as drawn; both eager.

``chain``: a batch from ``CAGCollate`` with a ContextChain, beside one without.

How: every round times the bare thing, ours where it is a peer's turn, and then the whole, so that a busy machine slows
all alike; the note ``multiple`` of a result is the median of the rounds' ratios, with their quartiles, and
``over_ours`` the median of a peer's time over ours. A device synchronisation lies inside each time.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import BATCH, CUDA, SECONDS, elapsed, make_collate, quartiles, rows
from peers_attack import PEERS
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from kornia_cag import PGD, ContextChain, ScenePGD, WorstOf
from kornia_cag.core.precision import autocast_dtype
from kornia_cag.training.recipes import SIGNS

SIZES = (32, 64)
EPS = 8 / 256
ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {"eps": EPS, "alpha": EPS, "steps": 1},
    "pgd4": {"eps": EPS, "alpha": 3 / 256, "steps": 4},
    "pgd4 l2": {"eps": 0.5, "alpha": 0.2, "steps": 4, "norm": "l2"},
}
SCENES: dict[str, ScenePGD | WorstOf] = {
    "scene gradient": ScenePGD(steps=1),
    "scene gradient of half a batch": ScenePGD(steps=1, fraction=0.5),
    "worst of 4 scenes": WorstOf(k=4),
}
DTYPE = autocast_dtype(torch.device("cuda" if CUDA else "cpu"))

Work = Callable[[], Any]


def compare(
    benchmark: BenchmarkFixture,
    device: torch.device,
    bare: Work,
    whole: Work,
    *,
    steps: int = 1,
    ours: Work | None = None,
) -> None:
    """Time ``whole``, with ``bare`` and perhaps ``ours`` before each round of it, and note the ratios."""
    before: dict[str, list[float]] = {"bare": [], "ours": []}
    seconds: list[float] = []

    def others() -> None:
        before["bare"].append(elapsed(bare, device))
        if ours is not None:
            before["ours"].append(elapsed(ours, device))

    once = sum(elapsed(work, device) for work in (bare, whole, ours) if work is not None)
    rounds = min(max(5, int(SECONDS / once)), 40)
    benchmark.pedantic(lambda: seconds.append(elapsed(whole, device)), setup=others, rounds=rounds)
    low, middle, high = quartiles([all_of_it / part for all_of_it, part in zip(seconds, before["bare"], strict=True)])
    benchmark.extra_info.update(
        images=BATCH, batch=BATCH, device=device.type, autocast=str(DTYPE),
        bare_ms=round(1e3 * statistics.median(before["bare"]), 3), per_pass=round(middle / steps, 3),
        multiple=round(middle, 3), multiple_quartiles=[round(low, 3), round(high, 3)],
    )  # fmt: skip
    if ours is not None:
        ratios = [peer / our for peer, our in zip(seconds, before["ours"], strict=True)]
        benchmark.extra_info["over_ours"] = round(statistics.median(ratios), 3)


@pytest.fixture(scope="module")
def case(objects, contexts, device) -> Callable[[int], tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """Network in training, images in whole 256ths, labels and keys, for a side."""

    def make(size: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        drawn = next(rows(objects, contexts)).to(device)
        images, labels = make_collate(objects, contexts, size)(drawn)
        network = replace(SIGNS, size=size).model(len(objects.classes)).to(device)
        return network, (256 * images).round() / 256, labels, drawn.keys

    return make


def make_bare(network: nn.Module, images: Tensor, labels: Tensor) -> Work:
    """One gradient of the loss with respect to the images."""

    def bare() -> Tensor:
        leaf = images.detach().requires_grad_()
        with torch.autocast(images.device.type, DTYPE, enabled=DTYPE is not None):
            loss = F.cross_entropy(network(leaf), labels)
        return torch.autograd.grad(loss, leaf)[0]

    return bare


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("size", SIZES)
def test_attack(benchmark, case, device, size, name):
    benchmark.group = f"attack {size}x{size}"
    network, images, labels, keys = case(size)
    bare = make_bare(copy.deepcopy(network).eval().requires_grad_(False), images, labels)
    attack = PGD(**ATTACKS[name], random_start=False, autocast=DTYPE)
    compare(benchmark, device, bare, lambda: attack(network, images, labels, keys=keys), steps=attack.steps)
    change = attack(network, images, labels, keys=keys) - images
    assert change.abs().max() == EPS if attack.norm == "linf" else change.flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
    benchmark.extra_info.update(what=f"kornia_cag {name}", side=size)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("size", SIZES if CUDA else SIZES[:1])
@pytest.mark.parametrize("peer", PEERS)
def test_peer(benchmark, case, device, size, name, peer):
    benchmark.group = f"attack {size}x{size}"
    attack, other = PGD(**ATTACKS[name], random_start=False, autocast=DTYPE), PEERS[peer](**ATTACKS[name])
    network, images, labels, keys = case(size)
    borrowed = copy.deepcopy(network).eval().requires_grad_(False)

    def ours() -> Tensor:
        return attack(network, images, labels, keys=keys)

    def theirs() -> Tensor:
        with torch.autocast(device.type, DTYPE, enabled=DTYPE is not None):
            return other(borrowed, images, labels)

    compare(benchmark, device, make_bare(borrowed, images, labels), theirs, steps=attack.steps, ours=ours)
    if attack.norm == "linf":
        assert ((ours() - theirs()).abs() > 1e-6).float().mean() < 1e-3  # a convolution on a GPU may round as it likes
    else:
        exact = replace(attack, autocast=None)(network, images, labels, keys=keys)
        gap = (exact - other(borrowed, images, labels)).flatten(1).norm(dim=1)
        assert gap.median() < 0.01 * attack.eps
    benchmark.extra_info.update(what=f"{peer} {name}", side=size)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("size", SIZES)
def test_scene(benchmark, objects, contexts, device, case, size, name):
    benchmark.group = f"scene {size}x{size}"
    network = case(size)[0]
    attack = replace(SCENES[name], autocast=DTYPE)
    plain = make_collate(objects, contexts, size)
    hard = make_collate(objects, contexts, size, model=network, adversaries=(attack,))
    for_plain, for_hard = rows(objects, contexts), rows(objects, contexts)
    with torch.no_grad():
        images, labels = plain(next(for_plain))
        worse, _ = hard(next(for_hard))
        before, after = (F.cross_entropy(network.eval()(x), labels) for x in (images, worse))
    assert after > before  # the same samples
    compare(benchmark, device, lambda: plain(next(for_plain)), lambda: hard(next(for_hard)))
    benchmark.extra_info.update(what=name, side=size)


@pytest.mark.parametrize("size", SIZES)
def test_chain(benchmark, objects, contexts, device, size):
    benchmark.group = f"chain {size}x{size}"
    plain = make_collate(objects, contexts, size)
    chained = make_collate(objects, contexts, size, chain=ContextChain())
    for_plain, for_chained = rows(objects, contexts), rows(objects, contexts)
    assert chained(next(for_chained))[0].shape == (BATCH, 3, size, size)
    compare(benchmark, device, lambda: plain(next(for_plain)), lambda: chained(next(for_chained)))
    benchmark.extra_info.update(what="kornia_cag with ContextChain", side=size)
