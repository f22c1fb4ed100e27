import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_cag.core.randomness import chance, fold_in, host_keys, mix, normals, sample_keys, uniform, uniforms

N = 1 << 16

PINNED_KEYS = [7176127370980292460, 5651962114700332598, 3675066618446185344]
PINNED_UNIFORM = [0.24750304222106934, 0.49112266302108765, 0.7778823971748352]
PINNED_UNIFORMS = [
    0.09278219938278198,
    0.6518226265907288,
    0.15822499990463257,
    0.12008506059646606,
    0.13010472059249878,
    0.928542971611023,
]
PINNED_NORMALS = [-0.5085650682449341, -1.5963428020477295, -0.17594845592975616]


def keys_of(seed: int = 0, epoch: int = 0, start: int = 0, count: int = N, device: str = "cpu") -> Tensor:
    index = torch.arange(start, start + count, device=device)
    return sample_keys(torch.full_like(index, seed), torch.full_like(index, epoch), index)


def excess(counts: Tensor) -> float:
    """Chi-square of equal cells in standard deviations from its mean."""
    expected = counts.double().mean()
    freedom = counts.numel() - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def joint(a: Tensor, b: Tensor, cells: int = 16) -> float:
    """The same, of a two-dimensional histogram."""
    return excess(torch.bincount((a * cells).long() * cells + (b * cells).long(), minlength=cells**2))


def test_known_values(device: torch.device) -> None:
    keys = sample_keys(*(torch.tensor(v, device=device) for v in ([0, 0, 7], [0, 1, 2], [0, 5, 2**40 + 3])))
    assert keys.tolist() == PINNED_KEYS
    assert uniform(keys, "pose.angle").tolist() == PINNED_UNIFORM
    assert uniforms(keys, "pose.waves", 2).flatten().tolist() == PINNED_UNIFORMS
    torch.testing.assert_close(normals(keys, "field", 1)[:, 0].cpu(), torch.tensor(PINNED_NORMALS))


@pytest.mark.parametrize("slot", ["pose.angle", "camera.noise", "a", ""])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 3), (2**61, 2**33)])
def test_uniform(slot: str, seed: int, epoch: int) -> None:
    u = uniform(keys_of(seed, epoch), slot)
    assert u.dtype == torch.float32
    assert ((u >= 0) & (u < 1)).all()
    assert abs(excess(torch.bincount((u * 1024).long(), minlength=1024))) < 4.5
    ordered = u.sort().values.double()
    steps = torch.arange(N + 1, dtype=torch.float64) / N
    kolmogorov = max((steps[1:] - ordered).max().item(), (ordered - steps[:-1]).max().item())
    assert kolmogorov * math.sqrt(N) < 1.95
    low_bits = (u * 2**24).long() & 0xFF
    assert abs(excess(torch.bincount(low_bits, minlength=256))) < 4.5


@pytest.mark.parametrize("stride", [1, 2, 3, 256, 2**20, 2**32, 2**40])
def test_uniform_over_strided_indices(stride: int) -> None:
    index = torch.arange(N) * stride
    u = uniform(sample_keys(0 * index, 0 * index, index), "slot")
    assert abs(excess(torch.bincount((u * 256).long(), minlength=256))) < 4.5


def test_bounds() -> None:
    u = uniform(keys_of(), "slot", -3.0, 5.0)
    assert u.min() >= -3
    assert u.max() < 5
    assert (u.min() - -3.0) < 1e-2
    assert (5 - u.max()) < 1e-2
    assert (uniform(keys_of(count=9), "slot", 2.0, 2.0) == 2).all()


def test_independence_of_slots() -> None:
    keys = keys_of()
    slots = ["pose.x", "pose.y", "pose.tilt_x", "color.tint0", "color.tint1", "camera.blur", "chain", "a", "b"]
    for a, b in itertools.combinations(slots, 2):
        assert abs(joint(uniform(keys, a), uniform(keys, b))) < 4.5, (a, b)


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({"start": 1}, id="next index"),
        pytest.param({"start": 2}, id="second next index"),
        pytest.param({"start": N}, id="far index"),
        pytest.param({"epoch": 1}, id="next epoch"),
        pytest.param({"seed": 1}, id="next seed"),
        pytest.param({"seed": 1, "epoch": 1}, id="next seed and epoch"),
        pytest.param({"seed": 2**32}, id="high bits of the seed"),
        pytest.param({"epoch": 2**32}, id="high bits of the epoch"),
        pytest.param({"start": 2**32}, id="high bits of the index"),
    ],
)
def test_independence_of_keys(others: dict[str, int]) -> None:
    for slot in ("pose.angle", "context.x"):
        assert abs(joint(uniform(keys_of(), slot), uniform(keys_of(**others), slot))) < 4.5
        assert abs(joint(uniform(keys_of(), slot), uniform(keys_of(**others), "another"))) < 4.5


def test_seed_and_epoch_do_not_swap() -> None:
    assert abs(joint(uniform(keys_of(seed=3, epoch=5), "s"), uniform(keys_of(seed=5, epoch=3), "s"))) < 4.5


def test_independence_of_counts() -> None:
    u = uniforms(keys_of(), "field", 8)
    for a, b in itertools.combinations(range(8), 2):
        assert abs(joint(u[:, a], u[:, b])) < 4.5
    assert abs(joint(u[:, 0], uniform(keys_of(), "field"))) < 4.5
    row = uniforms(keys_of(count=1), "field", N)[0]
    assert abs(excess(torch.bincount((row * 256).long(), minlength=256))) < 4.5
    assert abs(joint(row[:-1], row[1:])) < 4.5


def test_more_draws_leave_the_first_as_they_were() -> None:
    torch.testing.assert_close(
        uniforms(keys_of(count=5), "s", 9)[:, :4], uniforms(keys_of(count=5), "s", 4), rtol=0, atol=0
    )


def test_normals() -> None:
    z = normals(keys_of(count=1 << 14), "field", 7).double()
    assert z.shape == (1 << 14, 7)
    assert z.abs().max() < 5.8
    n = z.numel()
    assert abs(z.mean()) < 4.5 / math.sqrt(n)
    assert abs(z.var() - 1) < 4.5 * math.sqrt(2 / n)
    cdf = 0.5 * (1 + torch.erf(z.flatten().sort().values / math.sqrt(2)))
    assert (cdf - (torch.arange(n) + 0.5) / n).abs().max() * math.sqrt(n) < 1.95
    correlation = torch.corrcoef(z.T) - torch.eye(7)
    assert correlation.abs().max() < 4.5 / math.sqrt(len(z))


@pytest.mark.parametrize("p", [0.0, 0.171, 0.5, 1.0])
def test_chance(p: float) -> None:
    hit = chance(keys_of(), "slot", p)
    assert hit.dtype == torch.bool
    assert abs(hit.double().mean().item() - p) <= 4.5 * math.sqrt(p * (1 - p) / N)


def test_mix_is_one_to_one() -> None:
    x = torch.cat([torch.arange(1 << 18), torch.arange(1 << 18) << 14, (1 << 32) - 1 - torch.arange(1 << 14)]).unique()
    y = mix(x)
    assert len(y.unique()) == len(x)
    assert y.min() >= 0
    assert y.max() < 1 << 32


def test_mix_avalanche() -> None:
    """One flipped bit in, half of all bits out."""
    x = torch.arange(4096) * 0x9E3779B9 & 0xFFFFFFFF
    for bit in range(32):
        flipped = mix(x) ^ mix(x ^ (1 << bit))
        share = torch.stack([(flipped >> i) & 1 for i in range(32)]).double().mean(dim=1)
        assert (share - 0.5).abs().max() < 0.06, bit


def test_keys_do_not_collide() -> None:
    seeds = torch.tensor([0, 1, 2, 1000, 2**40, 2**61])
    epochs = torch.tensor([0, 1, 2, 3, 100, 2**35])
    index = torch.cat([torch.arange(20_000), 2**32 + torch.arange(5_000), 2**50 + torch.arange(5_000)])
    keys = sample_keys(*torch.broadcast_tensors(seeds[:, None, None], epochs[None, :, None], index[None, None, :]))
    assert keys.min() >= 0
    assert keys.max() > 2**62  # all 63 bits are in use
    assert len(keys.flatten().unique()) == keys.numel()


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1), st.lists(st.integers(0, 2**32 - 1), min_size=2, unique=True)
)
def test_indices_of_one_epoch_never_collide(seed: int, epoch: int, index: list[int]) -> None:
    rows = torch.tensor(index)
    keys = sample_keys(torch.full_like(rows, seed), torch.full_like(rows, epoch), rows)
    assert len(set(keys.tolist())) == len(index)
    assert all(0 <= key < 2**63 for key in keys.tolist())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-(2**62), 2**62 - 1)] * 3), max_size=5))
def test_the_host_computes_the_same_keys(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    wanted = sample_keys(*torch.from_numpy(table).unbind(1))
    assert torch.equal(torch.from_numpy(host_keys(*table.T)), wanted)
    table[:, :2] = table[:1, :2]
    wanted = sample_keys(*torch.from_numpy(table).unbind(1))
    assert torch.equal(torch.from_numpy(host_keys(*table[:1, :2].T, table[:, 2])), wanted)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_same_draws_whatever_the_batch(device: torch.device, rows: int) -> None:
    keys = keys_of(count=48, device=str(device))
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0)).to(device)
    for fn in (lambda k: uniform(k, "s", -2, 3), lambda k: uniforms(k, "s", 37), lambda k: normals(k, "s", 37)):
        parts = torch.cat([fn(part) for part in keys[order].split(rows)])
        assert torch.equal(parts, fn(keys)[order])


@pytest.mark.parametrize("number", [1, 2, 3, 2**40])
def test_folded_keys_draw_apart(number: int) -> None:
    """From the keys themselves, and from those folded with another number; they are seeds as well."""
    keys = keys_of()
    folded, other = fold_in(keys, number), fold_in(keys, number + 1)
    assert len(torch.cat([keys, folded, other]).unique()) == 3 * N
    assert folded.min() >= 0
    assert folded.max() < 2**62
    drawn = [uniform(each, "pose.angle") for each in (keys, folded, other)]
    assert abs(excess(torch.bincount((drawn[1] * 1024).long(), minlength=1024))) < 4.5
    for one, another in itertools.combinations(drawn, 2):
        assert abs(joint(one, another)) < 4.5
    assert torch.equal(fold_in(keys[5:9], number), folded[5:9])


def test_same_keys_whatever_the_batch() -> None:
    zero = torch.tensor(0)
    one_by_one = [sample_keys(zero + 3, zero + 4, torch.tensor(i)).item() for i in range(50)]
    assert one_by_one == keys_of(3, 4, count=50).tolist()


@pytest.mark.usefixtures("untyped")
def test_global_random_state_untouched() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    keys = keys_of(count=9)
    uniform(keys, "s"), uniforms(keys, "s", 3), normals(keys, "s", 3), chance(keys, "s", 0.5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_device_does_not_matter(device: torch.device) -> None:
    here, there = keys_of(count=99), keys_of(count=99, device=str(device))
    assert torch.equal(here, there.cpu())
    assert torch.equal(uniforms(here, "s", 5), uniforms(there, "s", 5).cpu())


@pytest.mark.compile
def test_compiled_draws_are_the_same() -> None:
    """One full graph from seed, epoch and index to draws; logarithm and cosine of the normals may round differently."""

    def draws(index: Tensor, epoch: Tensor) -> tuple[Tensor, ...]:
        keys = sample_keys(0 * index + 3, 0 * index + epoch, index)
        return (
            keys,
            uniform(keys, "a", -2.0, 3.0),
            uniforms(keys, "b", 7),
            chance(keys, "c", 0.3),
            normals(keys, "n", 6),
        )

    index, epoch = torch.arange(1000), torch.tensor(5)
    eager, compiled = draws(index, epoch), torch.compile(draws, fullgraph=True)(index, epoch)
    for one, other in zip(eager[:-1], compiled[:-1], strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(eager[-1], compiled[-1], rtol=0, atol=2e-6)
