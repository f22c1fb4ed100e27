import contextlib
import copy
import dataclasses
import pickle
import warnings
from typing import Any

import jaxtyping
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from devicewait import RefuseWaiting, Waited
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kornia_cag.adversary.ascent import pgd
from kornia_cag.adversary.frozen import frozen, unwrap
from kornia_cag.adversary.losses import dlr, kl, margin
from kornia_cag.adversary.pixels import BIM, FGSM, MIFGSM, PGD
from kornia_cag.adversary.recapture import Recapture
from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.scenes.camera import CameraRange

EPS = 8 / 255
HALF_ULP = {torch.float16: 2.0**-12, torch.bfloat16: 2.0**-9, torch.float32: 0.0, torch.float64: 0.0}  # just below 1


class Net(nn.Module):
    """Begins with an in-place operation, has a batch norm, a dropout and a parameter without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.tail = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(6, 5)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))
        self.register_buffer("gain", torch.full((1, 6, 1, 1), 1.5))
        self.mean: Tensor
        self.gain: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(F.gelu(self.norm(self.conv(x.sub_(self.mean)) * self.gain)))
        return self.head(self.drop(x.mean((2, 3))))


class Slope(nn.Module):
    """Two classes, and the loss of class 0 rises along ``sign(weight)`` everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Restless(nn.Module):
    """Draws random numbers, writes its buffers and raises on demand, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Net()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("swapped", torch.zeros(()))
        self.register_buffer("expanded", torch.ones(1).expand(4))
        self.count: Tensor
        self.seen: Tensor
        self.swapped: Tensor
        self.calls, self.raise_at = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        self.seen.data.copy_(x.detach().mean((0, 2, 3)))
        self.swapped = self.swapped + 1
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            out = self.body(F.dropout(x, 0.1, training=True))
            if self.calls == self.raise_at:
                raise RuntimeError("out of paper")
        return out.float()


@pytest.fixture
def untyped():
    """The errors are for those who run without shape checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make_keys(n: int, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
    index = torch.arange(n, device=device)
    return sample_keys(torch.full_like(index, seed), torch.zeros_like(index), index)


def make_batch(n: int = 4, size: int = 6, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    images, labels = torch.rand((n, 3, size, size), generator=generator), torch.randint(5, (n,), generator=generator)
    return {"images": images.to(device), "labels": labels.to(device), "keys": make_keys(n, device)}


def make_mixed(cls: type[nn.Module] = Net) -> Any:
    """A model in the middle of training, with flags and gradients of every kind."""
    torch.manual_seed(0)
    model = cls().train()
    net = model if isinstance(model, Net) else model.body
    net.norm.eval()
    net.conv.bias.requires_grad_(False)
    F.cross_entropy(net(torch.rand(4, 3, 6, 6)), torch.tensor([0, 1, 2, 3])).backward()
    net.head.bias.grad = None
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that an attack must leave as it was; tensors by value, gradients and buffers by identity too."""
    return {
        "training": {name: m.training for name, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "grad ids": {name: None if p.grad is None else id(p.grad) for name, p in model.named_parameters()},
        "values": {name: t.tolist() for name, t in model.state_dict().items()},
        "buffer ids": {name: id(b) for name, b in model.named_buffers()},
        "versions": {name: t._version for name, t in model.named_parameters()},
        "random": torch.get_rng_state().tolist(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "grad mode": torch.is_grad_enabled(),
    }


def linear(weight: Tensor) -> Any:
    return lambda x: (x * weight).sum((1, 2, 3))


def bits(x: Tensor) -> list[Any]:
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]).tolist()


# the budget


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from(list(HALF_ULP)),
    largest=st.sampled_from([0.0, 1e-9, 1e-3, EPS, 0.3, 1.0, 2.0]),
    steps=st.integers(1, 4),
    start=st.booleans(),
    schedule=st.sampled_from(["sign", "paper"]),
    seed=st.integers(0, 2**31),
)
def test_stays_in_the_box_and_in_range(shape, dtype, largest, steps, start, schedule, seed):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand(shape, generator=generator) - 0.2).clamp(0, 1).to(dtype)
    eps = largest * torch.rand((shape[0], 1, *shape[2:]), generator=generator)
    weight = torch.randn(shape, generator=generator).to(dtype)
    before, seen = images.clone(), []

    def loss(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return (x * weight).sum((1, 2, 3))

    out = pgd(loss, images, eps, make_keys(shape[0]), steps=steps, random_start=start, schedule=schedule)
    assert torch.equal(images, before)
    assert out.dtype == dtype
    assert out.shape == images.shape
    assert not out.requires_grad
    wide = torch.promote_types(dtype, torch.float32)
    assert len(seen) == (steps if shape[0] else 0)
    for x in (*seen, out):
        assert ((x.to(wide) - images.to(wide)).abs() <= eps.to(wide) + HALF_ULP[dtype]).all()
        assert ((x >= 0) & (x <= 1)).all()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from(list(HALF_ULP)),
    largest=st.sampled_from([0.0, 1e-6, 1e-3, 0.3, 1.0, 20.0]),
    steps=st.integers(1, 4),
    start=st.booleans(),
    momentum=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_stays_in_the_ellipsoid_and_in_range(shape, dtype, largest, steps, start, momentum, seed):
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand(shape, generator=generator) - 0.2).clamp(0, 1).to(dtype)
    eps = largest * torch.rand((shape[0], 1, *shape[2:]), generator=generator)
    eps = eps * (torch.rand(eps.shape, generator=generator) > 0.2)  # some pixels are not to change
    weight = torch.randn(shape, generator=generator).to(dtype)
    out = pgd(lambda x: (x * weight).sum((1, 2, 3)), images, eps, make_keys(shape[0]), steps=steps, norm="l2",
              random_start=start, momentum=momentum)  # fmt: skip
    wide = torch.promote_types(dtype, torch.float32)
    change = (out.to(wide) - images.to(wide)).abs()
    assert (change[(eps == 0).expand_as(change)] == 0).all()
    rounding = HALF_ULP[dtype] + torch.finfo(wide).eps
    relative = ((change - rounding).clamp(min=0) / eps.to(wide).clamp(min=1e-30)).flatten(1).norm(dim=1)
    assert (relative <= 1 + 1e-5).all()
    assert ((out >= 0) & (out <= 1)).all()


@pytest.mark.parametrize("dtype", list(HALF_ULP))
def test_zero_budget_keeps_every_bit(dtype, device):
    odd = torch.tensor([0.0, -0.0, 1.0, 0.3, -0.5, 1.5, float("nan"), float("inf"), 1e-8], dtype=dtype, device=device)
    images = odd.reshape(1, 1, 3, 3)
    eps = torch.zeros(1, 1, 3, 3, device=device)
    out = pgd(lambda x: x.sum((1, 2, 3)), images, eps, make_keys(1, device), steps=2, random_start=True)
    assert bits(out) == bits(images)
    assert out.data_ptr() != images.data_ptr()
    out = PGD(eps=0.0)(Slope(torch.ones(1, 3, 3)).to(device), images, torch.zeros(1, dtype=torch.int64, device=device),
                     keys=make_keys(1, device))  # fmt: skip
    assert bits(out) == bits(images)
    assert out.data_ptr() != images.data_ptr()


def test_the_budget_is_used_to_the_last_bit_where_sums_are_exact():
    images, weight = torch.arange(257).reshape(1, 1, 1, 257) / 256, torch.ones(1, 1, 1, 257)
    for sign in (1, -1):
        out = pgd(linear(sign * weight), images, torch.full((1, 1, 1, 1), 8 / 256), make_keys(1), steps=1)
        assert torch.equal(out, (images + sign * 8 / 256).clamp(0, 1))


def test_values_outside_the_range_are_not_moved_further_out():
    images = torch.tensor([-0.5, 1.5, -0.5, 1.5]).reshape(1, 1, 2, 2)
    weight = torch.tensor([-1.0, 1.0, 1.0, -1.0]).reshape(1, 1, 2, 2)
    out = pgd(linear(weight), images, torch.full((1, 1, 1, 1), 0.1), make_keys(1), steps=3)
    assert torch.allclose(out.flatten(), torch.tensor([-0.5, 1.5, -0.4, 1.4]))


# analytic results on a linear loss


def test_fgsm_on_a_linear_model_is_the_clipped_sign_step(device):
    batch = make_batch(device=device)
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1)).to(device)
    labels = torch.zeros_like(batch["labels"])
    out = FGSM(eps=EPS)(Slope(weight), batch["images"], labels, keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] + EPS * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)
    out = FGSM(eps=EPS)(Slope(weight), batch["images"], 1 - labels, keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] - EPS * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("start", [False, True])
def test_many_steps_reach_the_corner_of_the_box(start):
    batch = make_batch()
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    attack = PGD(eps=0.1, steps=10, random_start=start)
    out = attack(Slope(weight), batch["images"], torch.zeros_like(batch["labels"]), keys=batch["keys"])
    assert torch.allclose(out, (batch["images"] + 0.1 * weight.sign()).clamp(0, 1), rtol=0, atol=1e-7)


def test_l2_on_a_linear_model_goes_along_the_gradient_to_the_rim():
    images, labels = torch.full((2, 3, 6, 6), 0.5), torch.zeros(2, dtype=torch.int64)
    weight = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1))
    for alpha, moved in ((0.05, 0.1), (1.0, 0.2)):
        attack = PGD(eps=0.2, alpha=alpha, steps=2, norm="l2", random_start=False)
        out = attack(Slope(weight), images, labels, keys=make_keys(2))
        torch.testing.assert_close(out - images, (moved * weight / weight.norm()).expand(2, -1, -1, -1))


def test_l2_with_two_budgets_goes_along_the_scaled_gradient():
    """Half-axes of 0.1 and 0.4: the gain of a step along an axis grows with its square."""
    images, mask = torch.full((1, 1, 1, 2), 0.5), torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    attack = PGD(eps=0.4, eps_object=0.1, norm="l2", steps=1, alpha=0.4, random_start=False)
    out = attack(Slope(torch.ones(1, 1, 2)), images, torch.zeros(1, dtype=torch.int64), keys=make_keys(1), mask=mask)
    change = (out - images).flatten()
    torch.testing.assert_close(change, torch.tensor([0.01, 0.16]) / 0.17**0.5)
    torch.testing.assert_close((change / torch.tensor([0.1, 0.4])).norm(), torch.tensor(1.0))


def test_momentum_by_hand():
    """Gradients of mean size 1, 2 and 1: the directions are g1, g1 / 2 + g2 / 2, and half of that and g3."""
    images, eps = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 1), 0.4)
    gradients = iter(torch.tensor([[1.0, 1.0], [-0.8, -3.2], [-0.4, 1.6]]))
    out = pgd(lambda x: (x.flatten(1) * next(gradients)).sum(1), images, eps, make_keys(1), steps=3,
              relative_alpha=0.25, momentum=0.5)  # fmt: skip
    # signs of (1, 1), (0.5 - 0.4, 0.5 - 1.6), (0.05 - 0.4, -0.55 + 1.6)
    torch.testing.assert_close(out.flatten(), 0.5 + 0.1 * torch.tensor([1.0 + 1 - 1, 1.0 - 1 + 1]))


def test_an_image_stops_once_the_model_is_fooled():
    """Two logits, ``x - 0.5`` and 0: from 0.6 downwards in steps of 0.04, the third picture below 0.5 is the first."""

    class Threshold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            own = x.mean((1, 2, 3)) - 0.5
            return torch.stack([own, torch.zeros_like(own)], dim=1)

    images = torch.tensor([0.6, 0.45, 0.9]).reshape(3, 1, 1, 1)
    for momentum in (0.0, 1.0):
        attack = PGD(eps=0.3, alpha=0.04, steps=7, random_start=False, early_stop=True, momentum=momentum)
        out = attack(Threshold(), images, torch.zeros(3, dtype=torch.int64), keys=make_keys(3))
        torch.testing.assert_close(out.flatten(), torch.tensor([0.48, 0.45, 0.62]))


def test_alpha_is_the_step_where_the_larger_budget_holds():
    images, labels, keys = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.int64), make_keys(1)
    mask = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    for eps, eps_object, moved in ((0.2, 0.1, [0.06, 0.045, 0.03]), (0.1, 0.2, [0.03, 0.045, 0.06])):
        attack = PGD(eps=eps, eps_object=eps_object, alpha=0.02, steps=3, random_start=False)
        out = attack(Slope(torch.ones(1, 1, 3)), images, labels, keys=keys, mask=mask)
        assert torch.allclose(out.flatten() - 0.5, torch.tensor(moved), atol=1e-6)


def test_default_step_is_two_and_a_half_budgets_over_the_steps():
    images, eps = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.1)
    signs = iter([1.0, 1.0, -1.0, 1.0, -1.0])
    out = pgd(lambda x: next(signs) * x.sum((1, 2, 3)), images, eps, make_keys(1), steps=5)
    assert out.item() == pytest.approx(0.55)  # 0.55, 0.6, 0.55, 0.6, 0.55: the step is 0.05


def test_paper_schedule_by_hand():
    images, eps = torch.full((2, 1, 1, 3), 0.5), torch.full((2, 1, 1, 1), 0.16)
    weight = torch.tensor([[1.0, -0.5, 0.0], [1000.0, -500.0, 0.0]]).reshape(2, 1, 1, 3)
    out = pgd(linear(weight), images, eps, make_keys(2), steps=2, schedule="paper")
    # T = 2: first eps/2 * sign, then eps/2 * (sign + g/max)/2; the gradients' sizes do not matter between samples
    by_hand = torch.tensor([0.08 + 0.08, -0.08 - 0.08 * 0.75, 0.0])
    assert torch.allclose(out[0].flatten() - 0.5, by_hand, atol=1e-6)
    assert torch.allclose(out[1].flatten() - 0.5, by_hand, atol=1e-6)


def test_paper_schedule_leaves_small_gradients_nine_sixteenths():
    images, eps = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 1), 16 / 255)
    weight = torch.tensor([1.0, 1e-7]).reshape(1, 1, 1, 2)
    out = pgd(linear(weight), images, eps, make_keys(1), steps=8, schedule="paper")
    assert torch.allclose(255 * (out.flatten() - 0.5), torch.tensor([16.0, 9.0]), atol=1e-4)


def test_a_bad_gradient_is_a_zero_step_and_spoils_no_other_pixel():
    images, eps = torch.full((2, 1, 1, 3), 0.5), torch.full((2, 1, 1, 1), 0.1)
    weight = torch.tensor([[float("nan"), 1.0, -1.0], [float("inf"), 0.0, -float("inf")]]).reshape(2, 1, 1, 3)
    out = pgd(linear(weight), images, eps, make_keys(2), steps=1, relative_alpha=1.0)
    assert torch.allclose(out - 0.5, torch.tensor([[0.0, 0.1, -0.1], [0.1, 0.0, -0.1]]).reshape(2, 1, 1, 3))
    out = pgd(linear(weight), images, eps, make_keys(2), steps=4, schedule="paper")
    assert out.isfinite().all()
    assert out[0, 0, 0, 0] == 0.5


@pytest.mark.parametrize("options", [{"norm": "l2"}, {"momentum": 1.0}, {"norm": "l2", "momentum": 1.0}])
def test_a_bad_gradient_spoils_no_other_pixel_in_l2_and_with_momentum(options):
    images, eps = torch.full((2, 1, 1, 3), 0.5), torch.full((2, 1, 1, 1), 0.1)
    weight = torch.tensor([[float("nan"), 1.0, -1.0], [float("inf"), 0.0, -float("inf")]]).reshape(2, 1, 1, 3)
    out = pgd(linear(weight), images, eps, make_keys(2), steps=1, relative_alpha=1.0, **options)
    moved = 0.1 / 2**0.5 if options.get("norm") == "l2" else 0.1
    want = moved * torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, -1.0]]).reshape(2, 1, 1, 3)
    torch.testing.assert_close(out - 0.5, want)


@pytest.mark.parametrize("size", [1e-30, 1e-24, 1e-8, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_step_in_l2_does_not_depend_on_the_size_of_the_gradient(size, momentum):
    images, eps = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 1, 1, 1), 0.5)
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = pgd(linear(size * weight), images, eps, make_keys(2), steps=1, norm="l2", relative_alpha=0.1,
              momentum=momentum)  # fmt: skip
    torch.testing.assert_close(out - images, 0.05 * weight / weight.flatten(1).norm(dim=1)[:, None, None, None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", ["sign", "paper"])
def test_nan_gradients_are_zero_steps_wherever_they_lie(schedule, dtype, device):
    weight = torch.full((2, 1, 1, 37), float("nan"), dtype=dtype, device=device)  # beyond a vector, and in its tail
    images = torch.full_like(weight, 0.5)
    eps = torch.full((2, 1, 1, 1), 0.1, device=device)
    for bad in (weight, weight.neg()):  # either sign bit
        out = pgd(linear(bad), images, eps, make_keys(2, device), steps=2, schedule=schedule)
        assert torch.equal(out, images)


def test_small_losses_survive_half_precision():
    images, eps = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float16), torch.full((1, 1, 1, 1), 0.1)
    out = pgd(lambda x: 1e-8 * x.float().sum((1, 2, 3)), images, eps, make_keys(1), steps=1, relative_alpha=1.0)
    assert torch.allclose(out.float(), torch.tensor(0.6), atol=1e-3)


# budgets


def test_budget_is_exact_at_both_ends_of_the_mask_and_scales_per_sample(device):
    images, keys = torch.full((3, 2, 2, 2), 0.5, device=device), make_keys(3, device)
    mask = torch.tensor([0.0, 1.0, 0.5, 0.25], device=device).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1)
    attack = FGSM(eps=0.1, eps_object=0.03)
    eps, eps_object = torch.tensor([0.1, 0.03])
    budget = attack.budget(images, keys, mask=mask)
    assert budget.shape == (3, 1, 2, 2)
    assert (budget[:, 0, 0, 0] == eps).all()
    assert (budget[:, 0, 0, 1] == eps_object).all()
    assert torch.allclose(budget[:, 0, 1].cpu(), torch.tensor([0.065, 0.0825]))
    assert torch.equal(attack.budget(images, keys, mask=mask.half()), budget)
    assert torch.equal(
        attack.budget(images, keys, mask=mask > 0.4), attack.budget(images, keys, mask=(mask > 0.4) + 0.0)
    )
    scale = torch.tensor([0.0, 0.5, 2.0], device=device)
    assert torch.equal(attack.budget(images, keys, mask=mask, scale=scale), budget * scale.reshape(3, 1, 1, 1))
    labels = torch.zeros(3, dtype=torch.int64, device=device)
    out = attack(Slope(torch.ones(2, 2, 2, device=device)), images, labels, keys=keys, mask=mask, scale=scale)
    assert torch.allclose(out - images, (budget * scale.reshape(3, 1, 1, 1)).expand_as(out), rtol=0, atol=1e-7)
    assert torch.equal(out[0], images[0])


def test_budgets_are_drawn_evenly_in_the_logarithm():
    images, mask, keys = torch.zeros(2000, 1, 1, 2), torch.tensor([[[0.0, 1.0]]]).expand(2000, 1, 1, 2), make_keys(2000)
    attack = PGD(eps=0.64, eps_min=0.01, eps_object=0.16)
    eps = attack.budget(images, keys, mask=mask)
    torch.testing.assert_close(eps[..., 1], eps[..., 0] / 4)
    drawn = eps[..., 0].flatten()
    assert drawn.min() >= 0.01 * (1 - 1e-5)
    assert drawn.max() <= 0.64
    assert [(drawn < edge).float().mean().item() for edge in (0.02, 0.08, 0.32)] == pytest.approx(
        [1 / 6, 3 / 6, 5 / 6], abs=0.03
    )
    assert torch.equal(attack.budget(images[:3], keys[:3], mask=mask[:3]), eps[:3])


def test_object_budget_may_exceed_or_replace_that_of_the_context():
    images, keys, labels = torch.full((1, 1, 1, 2), 0.5), make_keys(1), torch.zeros(1, dtype=torch.int64)
    mask = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    out = PGD(eps=0.0, eps_object=0.1, steps=2)(Slope(torch.ones(1, 1, 2)), images, labels, keys=keys, mask=mask)
    assert torch.allclose(out.flatten(), torch.tensor([0.5, 0.6]))


def test_without_object_budget_the_mask_changes_nothing():
    batch, model = make_batch(), Net()
    mask = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    attack = PGD(eps=EPS, steps=2)
    assert torch.equal(attack(model, **batch), attack(model, **batch, mask=mask))


def test_fraction_attacks_a_share_and_leaves_the_others_untouched():
    n = 400
    images, labels, keys = torch.full((n, 1, 2, 2), 0.5), torch.zeros(n, dtype=torch.int64), make_keys(n)
    model = Slope(torch.ones(1, 2, 2))
    out = FGSM(eps=0.1, fraction=0.25)(model, images, labels, keys=keys)
    moved = (out != images).flatten(1)
    assert torch.equal(moved.all(1), moved.any(1))
    assert 70 <= moved.any(1).sum() <= 130  # binomial: 100, standard deviation 8.7
    assert torch.equal(
        out[100:200], FGSM(eps=0.1, fraction=0.25)(model, images[:100], labels[:100], keys=keys[100:200])
    )
    assert torch.equal(FGSM(eps=0.1, fraction=0.0)(model, images, labels, keys=keys), images)
    assert (FGSM(eps=0.1)(model, images, labels, keys=keys) != images).all()


# strength


def test_targeted_raises_the_target_and_untargeted_the_loss(device):
    """After a short training, but with room: over ten seeds the losses and the targets rise threefold and more."""
    torch.manual_seed(0)
    labels = torch.arange(40, device=device) % 4
    patterns = 0.4 + 0.2 * torch.rand(4, 3, 6, 6, device=device)
    images = (patterns[labels] + 0.02 * torch.randn(40, 3, 6, 6, device=device)).clamp(0, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    keys, targets = make_keys(40, device), (labels + 1) % 4
    hurt = PGD(eps=0.1, steps=5)(model, images, labels, keys=keys)
    fooled = PGD(eps=0.1, steps=5, target="given")(model, images, labels, keys=keys, targets=targets)
    paper = PGD(eps=0.1, steps=5, random_start=False, schedule="paper")(model, images, labels, keys=keys)
    model.eval()
    with torch.no_grad():
        clean = F.cross_entropy(model(images), labels, reduction="none")
        assert (F.cross_entropy(model(hurt), labels, reduction="none") > clean).all()
        assert (F.cross_entropy(model(paper), labels, reduction="none") > clean).all()
        rise = model(fooled).softmax(1).gather(1, targets[:, None]) > model(images).softmax(1).gather(
            1, targets[:, None]
        )
        assert rise.all()
        assert (model(images).argmax(1) == labels).float().mean() > 0.95
        assert (model(hurt).argmax(1) == labels).float().mean() < 0.5


def smooth_model(size: int) -> nn.Sequential:
    torch.manual_seed(size)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 16), nn.Softplus(), nn.Linear(16, 4)).eval()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.sampled_from([0.01, 0.05, 0.2]),
    norm=st.sampled_from(["linf", "l2"]),
    steps=st.integers(1, 6),
    momentum=st.sampled_from([0.0, 0.7]),
    start=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_larger_budget_or_more_steps_never_lower_the_loss(size, dtype, eps, norm, steps, momentum, start, seed):
    """On a smooth model, beyond what the place of a step costs; and what is aimed at becomes more probable."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((24, 3, size, size), generator=generator).to(dtype)
    labels, keys, model = torch.arange(24) % 4, make_keys(24, seed=seed), smooth_model(size).to(dtype)
    numbers = {"norm": norm, "momentum": momentum, "random_start": start}

    def loss(attack: PGD, aims: Tensor | None = None) -> float:
        found = attack(model, images, labels, keys=keys, targets=aims)
        with torch.no_grad():
            return float(F.cross_entropy(model(found), labels if aims is None else aims))

    with torch.no_grad():
        clean = float(F.cross_entropy(model(images), labels))
        other = float(F.cross_entropy(model(images), (labels + 1) % 4))
    small = loss(PGD(eps=eps, steps=steps, **numbers))
    slack = 0.1 * (small - clean) + 1e-6
    assert small >= clean - 1e-6
    assert loss(PGD(eps=2 * eps, steps=steps, **numbers)) >= small - slack
    assert loss(PGD(eps=eps, steps=2 * steps, **numbers)) >= small - slack
    assert loss(PGD(eps=eps, steps=steps, target="given", **numbers), (labels + 1) % 4) <= other + 1e-6


@pytest.mark.parametrize("random_start", [False, True])
def test_wrong_classes_are_drawn_or_asked_of_the_model(random_start):
    """The same pictures as with those classes given; every wrong class is drawn, the right one never."""
    batch, model = make_batch(40), Net().eval()
    keys, labels = batch["keys"], batch["labels"]
    with torch.no_grad():
        logits = model(batch["images"].clone())
    classes = logits.shape[1]
    drawn = (labels + 1 + (uniform(keys, "attack.target") * (classes - 1)).long()) % classes
    assert not (drawn == labels).any()
    assert {((d - y) % classes).item() for d, y in zip(drawn, labels, strict=True)} == set(range(1, classes))
    unlikely = torch.stack([row.scatter(0, y, torch.inf).argmin() for row, y in zip(logits, labels, strict=True)])
    for target, targets in (("random", drawn), ("least likely", unlikely)):
        attack = PGD(eps=0.1, steps=2, random_start=random_start, target=target)
        told = dataclasses.replace(attack, target="given")
        assert torch.equal(attack(model, **batch), told(model, **batch, targets=targets))


def test_custom_loss_is_climbed():
    batch, model = make_batch(), Net().eval()

    def margin(logits: Tensor, labels: Tensor) -> Tensor:
        return -logits.gather(1, labels[:, None])[:, 0]

    out = PGD(eps=0.2, steps=3, loss=margin)(model, **batch)
    with torch.no_grad():
        raised = margin(model(out), batch["labels"]) > margin(model(batch["images"].clone()), batch["labels"])
    assert raised.all()


def peers(peer: str, device: torch.device) -> Any:
    """A library, and a model and images that leave no sign to chance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they import names that scipy has deprecated
        library = pytest.importorskip(peer, reason=f"{peer} is not installed")
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 5)
    model, batch = nn.Sequential(*layers).double().to(device).eval(), make_batch(device=device)
    images = (256 * batch["images"].double()).round() / 256  # sums of whole 256ths are exact, so no sign is by chance
    return library, model, images, batch


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("peer", ["torchattacks", "foolbox"])
def test_equals_other_libraries(peer, steps, device):
    library, model, images, batch = peers(peer, device)
    eps, alpha = 8 / 256, (8 if steps == 1 else 3) / 256
    if peer == "foolbox":
        attack = library.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
        net = library.PyTorchModel(model, bounds=(0, 1), device=device)
        theirs = attack.run(net, images, batch["labels"], epsilon=eps)
    elif steps == 1:
        theirs = library.FGSM(model, eps=eps)(images, batch["labels"])
    else:
        theirs = library.PGD(model, eps, alpha, steps, random_start=False)(images, batch["labels"])
    ours = PGD(eps=eps, alpha=alpha, steps=steps, random_start=False)(model, **{**batch, "images": images})
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert (ours != images).any()


@pytest.mark.parametrize("peer", ["torchattacks", "foolbox"])
def test_equals_other_libraries_in_l2(peer, device):
    library, model, images, batch = peers(peer, device)
    eps, alpha, steps = 0.5, 0.2, 4
    if peer == "foolbox":
        attack = library.attacks.L2PGD(abs_stepsize=alpha, steps=steps, random_start=False)
        net = library.PyTorchModel(model, bounds=(0, 1), device=device)
        theirs = attack.run(net, images, batch["labels"], epsilon=eps)
    else:
        theirs = library.PGDL2(model, eps, alpha, steps, random_start=False)(images, batch["labels"])
    ours = BIM(eps=eps, alpha=alpha, steps=steps, norm="l2")(model, **{**batch, "images": images})
    assert (ours - images).flatten(1).norm(dim=1).max() > 0.4
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_equals_other_libraries_with_momentum(device):
    library, model, images, batch = peers("torchattacks", device)
    theirs = library.MIFGSM(model, eps=8 / 256, alpha=2 / 256, steps=4, decay=1.0)(images, batch["labels"])
    ours = MIFGSM(eps=8 / 256, steps=4)(model, **{**batch, "images": images})
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_fgsm_is_pgd_with_one_step():
    assert FGSM(eps=0.1) == PGD(eps=0.1, alpha=0.1, steps=1, random_start=False)
    assert FGSM(eps=0.1, random_start=True, fraction=0.5) == PGD(eps=0.1, alpha=0.125, steps=1, fraction=0.5)
    assert FGSM(eps=0.1, eps_object=0.2).alpha == 0.2
    assert FGSM(eps=0.1, alpha=0.02).alpha == MIFGSM(eps=0.1, alpha=0.02).alpha == 0.02
    assert BIM(eps=0.1) == PGD(eps=0.1, random_start=False)
    assert MIFGSM(eps=0.1, steps=4) == PGD(eps=0.1, alpha=0.025, steps=4, random_start=False, momentum=1.0)
    assert pickle.loads(pickle.dumps(FGSM(eps=0.1))) == FGSM(eps=0.1)


# randomness and independence


@pytest.mark.parametrize("schedule", ["sign", "paper"])
def test_a_sample_does_not_depend_on_its_neighbours(schedule, device):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 4, 4, generator=generator, dtype=torch.float64).to(device)
    images[3] = float("nan")
    weight = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64).to(device)
    eps, keys = torch.linspace(0.01, 0.1, 5, device=device).reshape(5, 1, 1, 1), make_keys(5, device)
    power = torch.tensor([1.0, 1e3, 1e-3, 1.0, 1e6], device=device)  # losses of very different size

    def attacked(rows: list[int]) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return power[rows] * (x.sin() * weight).sum((1, 2, 3))

        return pgd(loss, images[rows], eps[rows], keys[rows], steps=3, random_start=True, schedule=schedule)

    together, swapped = attacked([0, 1, 2, 3, 4]), attacked([4, 2, 0, 1])
    assert torch.allclose(swapped, together[[4, 2, 0, 1]], rtol=0, atol=1e-12)
    for row in (0, 1, 2, 4):
        assert torch.allclose(attacked([row])[0], together[row], rtol=0, atol=1e-12)
        assert (together[row] != images[row]).any()


def test_the_keys_decide_the_start():
    batch, model = make_batch(), Net()
    attack = PGD(eps=EPS, steps=1, alpha=EPS / 10)
    out = attack(model, **batch)
    torch.manual_seed(99)
    assert torch.equal(attack(model, **batch), out)
    other = {**batch, "keys": make_keys(4, seed=1)}
    assert (attack(model, **other) != out).flatten(1).any(1).all()
    plain = PGD(eps=EPS, steps=1, alpha=EPS / 10, random_start=False)
    assert torch.equal(plain(model, **other), plain(model, **batch))


def test_a_given_start_is_taken_as_near_as_the_budget_allows(device):
    generator = torch.Generator().manual_seed(0)
    images, other = (torch.rand(4, 3, 6, 5, generator=generator).to(device) for _ in range(2))
    mask = (torch.rand(4, 1, 6, 5, generator=generator) > 0.5).float().to(device)
    labels, keys = torch.zeros(4, dtype=torch.int64, device=device), make_keys(4).to(device)
    still = PGD(eps=0.2, eps_object=0.0, alpha=0.0, steps=2)
    started = still(Net().to(device), images, labels, keys=keys, mask=mask, start=other)
    near = torch.minimum(torch.maximum(other, images - 0.2), images + 0.2)
    torch.testing.assert_close(started, torch.where(mask > 0, images, near))
    free = PGD(eps=1.0, eps_object=0.0, alpha=0.0, steps=1)
    swapped = free(Net().to(device), images, labels, keys=keys, mask=mask, start=other)
    assert torch.equal(swapped, torch.where(mask > 0, images, other))


def test_the_start_is_uniform_in_the_ball_of_the_pixels_that_may_change():
    """The share of the radius, to the power of the number of free values, is uniform; no direction is preferred."""
    images, eps = torch.full((3000, 1, 1, 8), 0.5), torch.tensor([0.1, 0.1, 0.1, 0, 0, 0, 0, 0]).reshape(1, 1, 1, 8)
    flat = pgd(lambda x: 0 * x.sum((1, 2, 3)), images, eps.expand(3000, 1, 1, 8), make_keys(3000), steps=1, norm="l2",
               random_start=True)  # fmt: skip
    delta = (flat - images).flatten(1) / 0.1
    assert (delta[:, 3:] == 0).all()
    length = delta.norm(dim=1)
    share = (length**3).sort().values
    assert (share - (torch.arange(3000) + 0.5) / 3000).abs().max() < 0.04
    assert (delta / length[:, None])[:, :3].mean(dim=0).abs().max() < 0.04


def test_the_start_is_uniform_in_the_box():
    images, eps = torch.full((50, 3, 8, 8), 0.5), torch.full((50, 1, 1, 1), 0.1)
    flat = pgd(lambda x: 0 * x.sum((1, 2, 3)), images, eps, make_keys(50), steps=1, random_start=True)
    delta = (flat - images) / 0.1
    assert delta.abs().max() > 0.99
    assert delta.mean().abs() < 0.03
    assert delta.square().mean() == pytest.approx(1 / 3, abs=0.02)


# no trace


ATTACKS = {
    "fgsm": FGSM(eps=EPS),
    "pgd": PGD(eps=EPS, steps=3),
    "paper": PGD(eps=EPS, steps=2, random_start=False, schedule="paper"),
    "autocast": PGD(eps=EPS, steps=2, autocast=torch.bfloat16),
    "fraction": PGD(eps=EPS, steps=2, fraction=0.5),
    "l2": PGD(eps=0.5, steps=3, norm="l2", momentum=0.5),
    "random target, stopped early": PGD(eps=EPS, steps=3, target="random", early_stop=True, loss=dlr),
    "least likely": MIFGSM(eps=EPS, steps=2, target="least likely", loss=margin),
    "kl": PGD(eps=EPS, steps=2, loss=kl),
    "through a camera": PGD(eps=EPS, steps=2, transform=Recapture(camera=CameraRange(blur=0.5)), eot_samples=2),
    "two budgets, drawn": PGD(eps=0.5, eps_object=EPS, eps_min=0.1, steps=2),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("cls", [Net, Restless])
def test_the_model_is_left_as_it_was(cls, attack):
    model, batch = make_mixed(cls), make_batch()
    before = state(model)
    out = attack(model, **batch, mask=torch.full((4, 1, 6, 6), 0.5))
    assert (out != batch["images"]).any()
    assert state(model) == before


@pytest.mark.parametrize("raise_at", [1, 2])
def test_the_model_is_left_as_it_was_when_it_raises(raise_at):
    model, batch = make_mixed(Restless), make_batch()
    model.raise_at = raise_at
    before = state(model)
    with pytest.raises(RuntimeError, match="out of paper"):
        PGD(eps=EPS, steps=3, autocast=torch.bfloat16)(model, **batch)
    assert state(model) == before
    assert model.calls == raise_at


def test_the_model_is_left_as_it_was_when_the_loss_is_refused(untyped):
    model, batch = make_mixed(), make_batch()
    before = state(model)
    with pytest.raises(InputError, match=r"loss: expected .* \(4\), got float32 \(\)"):
        PGD(eps=EPS, loss=F.cross_entropy)(model, **batch)
    assert state(model) == before


def test_frozen_lends_the_model_in_eval_mode_without_gradients():
    model = make_mixed()
    model.train = model.eval = None  # models override these: they are not called
    with frozen(model) as net:
        assert net is model
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
    assert model.training
    assert not model.norm.training


def test_training_goes_on_as_if_nothing_had_happened():
    batch, losses = make_batch(), []
    for attack in (None, PGD(eps=EPS, steps=2)):
        model = make_mixed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        pending = F.cross_entropy(model(batch["images"].clone()), batch["labels"])  # its graph outlives the attack
        if attack is not None:
            attack(model, **batch)
        (pending + F.cross_entropy(model(batch["images"].clone()), batch["labels"])).backward()
        optimizer.step()
        losses.append([p.tolist() for p in model.parameters()])
    assert losses[0] == losses[1]


def test_no_graph_is_left_and_the_input_gets_no_gradient():
    batch, model = make_batch(), make_mixed()
    images = batch["images"].requires_grad_()
    out = PGD(eps=EPS, steps=2)(model, **batch)
    assert out.grad_fn is None
    assert not out.requires_grad
    assert images.grad is None
    assert images._version == 0


# wrappers, modes, formats


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own look
def test_a_compiled_model_gives_the_same_and_is_left_as_it_was():
    for cls in (Net, Restless):
        model = make_mixed(cls)
        compiled = torch.compile(model, backend="aot_eager")
        batch = make_batch()
        before = state(compiled)
        out = PGD(eps=EPS, steps=2)(compiled, **batch)
        assert state(compiled) == before
        if cls is Net:
            assert unwrap(compiled) is compiled
            assert torch.allclose(out, PGD(eps=EPS, steps=2)(model, **batch), atol=1e-6)
    torch.compiler.reset()


@pytest.mark.compile
def test_a_compiled_start_gives_the_same(device):
    torch.compiler.reset()
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).to(device)
    eps, weight = EPS * torch.rand(2, 1, 6, 6, device=device), torch.randn(3, 6, 6, device=device)
    torch._dynamo.utils.counters.clear()
    for graphs, start in enumerate((False, True), 1):
        arguments = linear(weight), images.to(memory_format=torch.channels_last), eps, make_keys(2, device)
        options = {"steps": 1, "relative_alpha": 0.1, "random_start": start}
        compiled = pgd(*arguments, **options, compile=True)
        assert torch.allclose(compiled, pgd(*arguments, **options), rtol=0, atol=1e-7)
        assert ((compiled - images).abs() <= eps).all()
        assert compiled.is_contiguous(memory_format=torch.channels_last)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    torch.compiler.reset()


@pytest.mark.compile
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_in_a_cuda_graph_gives_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 5))
    model, batch = model.double().cuda(), make_batch(device="cuda")
    batch["images"] = (256 * batch["images"].double()).round() / 256
    graph = torch.compile(model, mode="reduce-overhead")
    attack = PGD(eps=8 / 256, alpha=3 / 256, steps=3, random_start=False)
    expected = attack(model, **batch)
    for _ in range(4):  # warm up, record, replay
        assert torch.allclose(attack(graph, **batch), expected, rtol=0, atol=1e-9)
    torch.compiler.reset()


@pytest.fixture
def gloo(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_a_ddp_model_gives_the_same_and_no_collective_runs(gloo):
    model, batch, reduced = make_mixed(), make_batch(), []

    def count(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        reduced.append(1)
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped.register_comm_hook(None, count)
    wrapped.register_forward_pre_hook(lambda *_: reduced.append("forward"))
    before = state(wrapped)
    out = PGD(eps=EPS, steps=2)(wrapped, **batch)
    assert state(wrapped) == before
    assert reduced == []
    assert unwrap(wrapped) is model
    assert torch.equal(out, PGD(eps=EPS, steps=2)(copy.deepcopy(model), **batch))
    F.cross_entropy(wrapped(out), batch["labels"]).backward()
    assert reduced[0] == "forward"
    assert 1 in reduced


@pytest.mark.parametrize("start", [False, True])
def test_works_under_no_grad_and_refuses_inference_mode(start, untyped):
    batch, model = make_batch(), Net()
    attack = PGD(eps=EPS, steps=2, random_start=start)
    expected = attack(model, **batch)
    with torch.no_grad():
        assert torch.equal(attack(model, **batch), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        with pytest.raises(InputError, match=r"got torch\.inference_mode\(\)\. Evaluate under torch\.no_grad\(\)"):
            attack(model, **batch)
        inference = {name: value.clone() for name, value in batch.items()}
        with torch.inference_mode(False):
            assert torch.equal(attack(model, **inference), expected)
    assert inference["images"].is_inference()
    assert torch.equal(attack(model, **inference), expected)


def test_autocast_is_that_around_the_attack_or_its_own():
    batch, model, seen = make_batch(), Net(), []

    def spy(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits, labels, reduction="none")

    around = [contextlib.nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)]
    for context in around:
        for dtype in (None, torch.bfloat16, torch.float32):
            with context:
                before = state(model)
                out = PGD(eps=EPS, steps=1, loss=spy, autocast=dtype)(model, **batch)
                assert state(model) == before
            assert out.dtype == torch.float32
    wide, narrow = torch.float32, torch.bfloat16
    assert seen == [wide, narrow, wide, narrow, narrow, wide]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_format_is_kept(dtype):
    seen = []

    def loss(x: Tensor) -> Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x.float().square().sum((1, 2, 3))

    images, eps = (
        torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype),
        torch.full((2, 1, 4, 5), EPS),
    )
    plain = pgd(loss, images, eps, make_keys(2), steps=2, random_start=True)
    assert plain.is_contiguous()
    last = pgd(loss, images.to(memory_format=torch.channels_last), eps, make_keys(2), steps=2, random_start=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert seen == [False, False, True, True]
    assert torch.equal(plain, last)
    wide = torch.zeros(2, 3, 4, 9, dtype=dtype)
    wide[..., 2:7] = images
    assert torch.equal(pgd(loss, wide[..., 2:7], eps, make_keys(2), steps=2, random_start=True), plain)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_step_keeps_the_memory_format_whatever_that_of_the_start(norm):
    seen = []

    def loss(x: Tensor) -> Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x.square().sum((1, 2, 3))

    images = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    start = torch.rand(2, 3, 4, 5)
    out = pgd(loss, images, torch.full((2, 1, 4, 5), EPS), make_keys(2), steps=2, norm=norm, start=start)
    assert seen == [True, True]
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch_stays_empty():
    assert PGD(eps=EPS)(Net(), **make_batch(0)).shape == (0, 3, 6, 6)


# nothing waits for the device


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_waits_for_the_device(attack, untyped):
    batch, model = make_batch(), make_mixed(Restless)
    mask, scale = torch.full((4, 1, 6, 6), 0.5), torch.ones(4)
    with RefuseWaiting():
        attack(model, **batch, mask=mask, scale=scale)
        attack(model, **batch, mask=mask, start=batch["images"].flip(0))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: int(x.sum()),
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x > 0, x[:1]),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: torch.repeat_interleave(x, x.long()),
    ],
)
def test_waiting_is_seen(wait):
    with RefuseWaiting():
        ready = torch.ones(3)[torch.tensor([0, 1, 2])].where(torch.ones(3) > 0, 0.0)
        ready = torch.repeat_interleave(ready, torch.ones(3).long(), output_size=3)
        with pytest.raises(Waited):
            wait(ready)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_nothing_waits_on_cuda_and_its_random_state_is_kept(attack, untyped):
    device = torch.device("cuda", torch.cuda.current_device())
    batch, model = make_batch(device=device), make_mixed(Restless).to(device)
    mask, scale = torch.full((4, 1, 6, 6), 0.5, device=device), torch.ones(4, device=device)
    attack(model, **batch, mask=mask, scale=scale)  # libraries set themselves up in the first call
    before, random = state(model), torch.cuda.get_rng_state(device).tolist()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attack(model, **batch, mask=mask, scale=scale)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert state(model) == before
    assert torch.cuda.get_rng_state(device).tolist() == random


# errors


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"eps": 8}, r"eps: expected a number in \[0, 1\], got 8\. Budgets are in units of \[0, 1\]: write 8 / 255"),
        ({"eps": float("nan")}, "eps: expected a number"),
        ({"eps": 0.1, "eps_object": -0.1}, "eps_object: expected a number"),
        ({"eps": 0.1, "alpha": -0.1}, "alpha: expected a number"),
        ({"eps": 0.1, "alpha": 0.1, "schedule": "paper"}, "alpha: expected None with schedule='paper'"),
        ({"eps": 0.1, "steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"eps": 0.1, "schedule": "cosine"}, "schedule: expected one of 'sign', 'paper', got 'cosine'"),
        ({"eps": 0.1, "fraction": 1.5}, r"fraction: expected a number in \[0, 1\], got 1\.5"),
        ({"eps": 0.1, "autocast": torch.int8}, "autocast: expected one of None, torch.bfloat16"),
        ({"eps": 0.1, "eps_min": 0.2}, r"eps_min: expected a number in \[0, 0\.1\]"),
        ({"eps": 0.1, "eps_min": 0}, "eps_min: expected a number above 0"),
        ({"eps": 0.1, "norm": "l1"}, "norm: expected one of 'linf', 'l2', got 'l1'"),
        ({"eps": 0.1, "momentum": -1}, "momentum: expected a number"),
        ({"eps": 0.1, "norm": "l2", "schedule": "paper"}, "schedule: expected 'sign' in L2"),
        ({"eps": 0.1, "target": "likely"}, "target: expected one of None, 'given', 'random', 'least likely'"),
        ({"eps": 0.1, "loss": kl, "random_start": False}, "random_start: expected True with loss=kl"),
        ({"eps": 0.1, "loss": kl, "target": "random"}, "target: expected None with loss=kl"),
    ],
)
def test_wrong_numbers_are_refused(numbers, words, untyped):
    with pytest.raises(InputError, match=words):
        PGD(**numbers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"images": torch.zeros(4, 3, 6, 6, dtype=torch.uint8)},
            r"images: expected float16 or .*, got uint8 \(4, 3, 6, 6\)",
        ),
        ({"images": torch.zeros(3, 6, 6)}, r"images: expected .* \(b, c, h, w\), got float32 \(3, 6, 6\)"),
        ({"labels": torch.zeros(4)}, r"labels: expected int64 \(4\) on cpu, got float32 \(4,\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: expected int64 \(4\) on cpu, got int64 \(3,\)"),
        (
            {"keys": torch.zeros(5, dtype=torch.int64)},
            r"keys: expected int64 \(4\) on cpu, got int64 \(5,\)\. One key per image",
        ),
        ({"mask": torch.zeros(4, 6, 6)}, r"mask: expected .* \(4, 1, 6, 6\) on cpu, got float32 \(4, 6, 6\)"),
        ({"mask": None}, r"mask: expected the object's mask \(4, 1, 6, 6\), since eps_object is set, got None\."),
        ({"scale": torch.ones(4, 1)}, r"scale: expected .* \(4\) on cpu, got float32 \(4, 1\)"),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, "targets: expected None with target=None"),
        ({"model": lambda x: x}, r"model: expected a torch\.nn\.Module, got .*\. Attack another function with pgd\."),
        (
            {"model": nn.Flatten(0)},
            r"model output: expected .* \(4, classes\), got float32 \(432,\)\. Give another kind",
        ),
        (
            {"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 1))},
            "model output: expected logits of at least 2",
        ),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 9), nn.Unflatten(1, (3, 3)))}, "model output: expected"),
    ],
)
def test_wrong_arguments_are_refused(change, words, untyped):
    arguments = {"model": Net(), **make_batch(), "mask": torch.zeros(4, 1, 6, 6), **change}
    with pytest.raises(InputError, match=words):
        PGD(eps=0.1, eps_object=0.05, steps=1)(**arguments)


def test_a_targeted_attack_needs_targets(untyped):
    with pytest.raises(
        InputError, match=r"targets: expected int64 \(4\) on cpu, got None\. target='given' needs targets="
    ):
        PGD(eps=0.1, target="given")(Net(), **make_batch())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.1}, r"eps: expected a float budget map that broadcasts to float32 \(2, 1, 3, 3\), got 0\.1\."),
        ({"eps": torch.ones(2, 1, 2, 3)}, r"eps: expected .*, got float32 \(2, 1, 2, 3\)"),
        ({"eps": torch.ones(2)}, r"eps: expected .*, got float32 \(2,\)"),
        ({"steps": 1.5}, "steps: expected an integer"),
        ({"relative_alpha": -1.0}, "relative_alpha: expected a number"),
        ({"relative_alpha": 1.0, "schedule": "paper"}, "relative_alpha: expected None with schedule='paper'"),
        ({"loss": lambda x: x.sum()}, r"loss: expected .* \(2\), got float32 \(\)\. Return one loss per image"),
        ({"loss": lambda x: x.detach().sum((1, 2, 3))}, "loss: expected a differentiable function of the images"),
        ({"loss": lambda x: torch.ones(2, requires_grad=True)}, "loss: expected a differentiable function"),
    ],
)
def test_wrong_arguments_of_the_kernel_are_refused(change, words, untyped):
    arguments = {"loss": lambda x: x.sum((1, 2, 3)), "images": torch.zeros(2, 1, 3, 3), "eps": torch.ones(2, 1, 3, 3),
                 "keys": make_keys(2), "steps": 2, **change}  # fmt: skip
    with pytest.raises(InputError, match=words):
        pgd(**arguments)
