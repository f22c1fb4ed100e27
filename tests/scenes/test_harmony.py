"""Moments of an object move to those of its surroundings, along straight lines."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_cag import HarmonyRange, InputError
from kornia_cag.core.draws import Draws
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.harmony import FLOOR, Harmony, harmonised
from kornia_cag.scenes.light import LUMA
from kornia_cag.scenes.spots import spots

SIZE = (20, 26)


def scenes(count: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Objects of noise on noise of another colour and contrast: premultiplied colour, alpha, picture behind."""
    generator = torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    middle = 6 + torch.rand(count, 2, 1, 1, generator=generator) * 8
    alpha = (6 - ((x - middle[:, 0]) ** 2 + (y - middle[:, 1]) ** 2).sqrt()).clamp(0, 1)
    tint = 0.2 + 0.5 * torch.rand(2, count, 3, 1, 1, generator=generator)
    colors = (
        tint
        + (torch.rand(2, count, 3, *SIZE, generator=generator) - 0.5)
        * tint
        * torch.tensor([1.5, 0.5])[:, None, None, None, None]
    )
    return (colors[0] * alpha[:, None]).to(dtype), alpha.to(dtype), colors[1].to(dtype)


def changed(strengths: tuple[float, float, float], dtype: torch.dtype = torch.float32) -> Tensor:
    front, alpha, behind = scenes(dtype=dtype)
    amounts = torch.tensor(strengths, dtype=dtype).expand(len(front), 3)
    (found,) = harmonised((front,), alpha, (behind,), spots(alpha), Harmony(*amounts.unbind(1)))
    return found


def moments(front: Tensor, alpha: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour and standard deviation of luma, sample by sample in NumPy."""
    means, deviations = [], []
    for color, mask in zip(front.double().numpy(), alpha.double().numpy(), strict=True):
        mean = color.sum(axis=(1, 2)) / mask.sum()
        grey = np.tensordot(LUMA, color, 1)
        means.append(mean)
        deviations.append(np.sqrt(((grey - np.dot(LUMA, mean) * mask) ** 2).sum() / (mask**2).sum()))
    return np.array(means), np.array(deviations)


def surroundings() -> tuple[np.ndarray, np.ndarray]:
    """Mean colour and standard deviation of luma in a Gaussian window twice as wide as the object."""
    _, alpha, behind = scenes()
    means, deviations = [], []
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for mask, picture in zip(alpha.double().numpy(), behind.double().numpy(), strict=True):
        window = 1.0
        for place in (x, y):
            middle = (mask * place).sum() / mask.sum()
            variance = (mask * (place - middle) ** 2).sum() / mask.sum() + 1 / 12
            window = window * np.exp(-((place - middle) ** 2) / (2 * 4 * variance))
        window /= window.sum()
        grey = np.tensordot(LUMA, picture, 1)
        means.append((picture * window).sum(axis=(1, 2)))
        deviations.append(np.sqrt((window * (grey - (window * grey).sum()) ** 2).sum()))
    return np.array(means), np.array(deviations)


def test_at_full_strength_the_moments_are_those_of_the_surroundings() -> None:
    mean, deviation = moments(changed((1, 1, 1)), scenes()[1])
    want_mean, want_deviation = surroundings()
    np.testing.assert_allclose(mean, want_mean, atol=2e-4)
    np.testing.assert_allclose(deviation, want_deviation, rtol=0.05)  # flat surroundings count as not quite flat


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_strength_moves_its_own_moment_along_a_straight_line(which: int) -> None:
    _, alpha, _ = scenes()
    want_mean, want_deviation = surroundings()
    steps = []
    for strength in np.linspace(0, 1, 5):
        mean, deviation = moments(changed(tuple(strength * np.eye(3)[which])), alpha)
        luma = mean @ np.array(LUMA)
        goal = want_mean / (want_mean @ np.array(LUMA))[:, None]
        steps.append([abs(luma - want_mean @ np.array(LUMA)), np.abs(mean / luma[:, None] - goal).sum(1),
                      abs(deviation - want_deviation)][which])  # fmt: skip
        if which == 1:
            np.testing.assert_allclose(luma, moments(scenes()[0], alpha)[0] @ np.array(LUMA), atol=1e-5)
        if which == 2:
            np.testing.assert_allclose(mean, moments(scenes()[0], alpha)[0], atol=1e-5)
    apart = np.array(steps)
    assert (np.diff(apart, axis=0) <= 1e-6).all()
    assert (apart[-1] < 0.2 * apart[0] + 1e-3).all()
    np.testing.assert_allclose(
        np.diff(apart, axis=0), np.diff(apart, axis=0).mean(axis=0)[None].repeat(4, 0), atol=1e-4
    )


def test_at_no_strength_it_is_the_object_to_the_bit() -> None:
    assert torch.equal(changed((0, 0, 0)), scenes()[0])


def test_black_stays_black_unless_contrast_falls_and_nothing_appears_outside() -> None:
    _, alpha, _ = scenes()
    found = changed((1, 1, 1))
    assert (found * (alpha == 0)[:, None]).abs().max() == 0
    front, behind = torch.zeros(6, 3, *SIZE), scenes()[2]
    full = torch.ones(6)
    (black,) = harmonised((front,), alpha, (behind,), spots(alpha), Harmony(full, full, 0 * full))
    assert black.abs().max() == 0


@pytest.mark.parametrize("alpha", [torch.zeros(2, *SIZE), torch.ones(2, *SIZE), torch.eye(SIZE[0], SIZE[1])[None]])
def test_odd_objects_on_odd_pictures_stay_finite(alpha: Tensor) -> None:
    for level in (0.0, FLOOR / 10, 1.0, 5.0):
        b = len(alpha)
        front, behind = level * alpha[:, None].expand(b, 3, *SIZE), torch.full((b, 3, *SIZE), 1.0 - min(level, 1))
        front.requires_grad_()
        full = torch.ones(b)
        (found,) = harmonised((front,), alpha, (behind,), spots(alpha), Harmony(full, full, full))
        assert found.isfinite().all()
        (gradient,) = torch.autograd.grad(found.sum(), front)
        assert gradient.isfinite().all()


def test_gradients() -> None:
    front, alpha, behind = (value[:1, ..., 3:9, 3:10].contiguous() for value in scenes(dtype=torch.float64))
    alpha = alpha.clamp(0.05, 0.95)
    values = [value.requires_grad_() for value in (front, alpha, behind, torch.tensor([[0.4, 0.3, 0.6]]).double())]

    def call(front: Tensor, alpha: Tensor, behind: Tensor, strengths: Tensor) -> Tensor:
        return harmonised((front,), alpha, (behind,), spots(alpha), Harmony(*strengths.unbind(1)))[0]

    assert torch.autograd.gradcheck(call, values, atol=1e-4)


def test_draws() -> None:
    ranges = HarmonyRange(brightness=(0.2, 0.4), color=(0, 0.1), contrast=(0.5, 1))
    draws = Draws(sample_keys(torch.zeros(400).long(), torch.zeros(400).long(), torch.arange(400)))
    found = ranges.read(draws.of(ranges.draws(), torch.ones(400)))
    for name in ("brightness", "color", "contrast"):
        values, (low, high) = getattr(found, name), getattr(ranges, name)
        assert values.min() >= low
        assert values.max() <= high
        assert values.std() > 0.2 * (high - low)
    still = ranges.read(draws.of(ranges.draws(), torch.zeros(400)))
    assert torch.stack([still.brightness, still.color, still.contrast]).abs().max() == 0
    with pytest.raises(InputError, match="contrast: expected"):
        HarmonyRange(contrast=(0, 1.5))
