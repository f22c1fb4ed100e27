import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import EPS, HALF_ULP, Slope, bits, linear, make_keys
from torch import Tensor

from kornia_cag.adversary.ascent import pgd
from kornia_cag.adversary.pixels import PGD
from kornia_cag.core.checks import InputError


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


def test_momentum_by_hand():
    """Gradients of mean size 1, 2 and 1: the directions are g1, g1 / 2 + g2 / 2, and half of that and g3."""
    images, eps = torch.full((1, 1, 1, 2), 0.5), torch.full((1, 1, 1, 1), 0.4)
    gradients = iter(torch.tensor([[1.0, 1.0], [-0.8, -3.2], [-0.4, 1.6]]))
    out = pgd(lambda x: (x.flatten(1) * next(gradients)).sum(1), images, eps, make_keys(1), steps=3,
              relative_alpha=0.25, momentum=0.5)  # fmt: skip
    # signs of (1, 1), (0.5 - 0.4, 0.5 - 1.6), (0.05 - 0.4, -0.55 + 1.6)
    torch.testing.assert_close(out.flatten(), 0.5 + 0.1 * torch.tensor([1.0 + 1 - 1, 1.0 - 1 + 1]))


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
