"""Softer edges: exact limits, nothing added, gradients, and the same when compiled."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_cag.core.compiling import program
from kornia_cag.scenes.soft import eroded, feathered, smeared

Soften = Callable[[Tensor, Tensor], Tensor]
WAYS: dict[str, Soften] = {
    "eroded": lambda alpha, amount: eroded(alpha, amount, most=4.0),
    "gaussian": lambda alpha, amount: feathered(alpha, amount, "gaussian", most=4.0),
    "box": lambda alpha, amount: feathered(alpha, amount, "box", most=4.0),
    "smeared": lambda alpha, amount: smeared(alpha, amount, 0.7 + amount, most=4.0),
}


def blobs(b: int = 5, dtype: torch.dtype = torch.float32, size: tuple[int, int] = (19, 23)) -> Tensor:
    """Antialiased discs, some cut off by the canvas, half of them translucent."""
    generator = torch.Generator().manual_seed(1)
    y, x = (torch.arange(0.5, n, dtype=dtype) for n in size)
    middle = torch.rand(b, 2, generator=generator, dtype=dtype) * torch.tensor([size[1], size[0]], dtype=dtype)
    away = ((x - middle[:, :1, None]) ** 2 + (y[:, None] - middle[:, 1:, None]) ** 2).sqrt()
    opacity = torch.where(torch.arange(b) % 2 == 0, 1.0, 0.6)[:, None, None].to(dtype)
    return (7.5 - away).clamp(0, 1) * opacity


def step(at: float, n: int = 24, axis: int = 2) -> Tensor:
    """An object that covers everything beyond a line across the picture, antialiased: (1, n, n)."""
    line = (torch.arange(1.0, n + 1) - at).clamp(0, 1)
    return (line if axis == 2 else line[:, None]).expand(1, n, n).contiguous()


@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_added_and_no_amount_changes_nothing(name: str, device: torch.device) -> None:
    alpha, amount = blobs().to(device), torch.tensor([0.0, 0.3, 1.0, 2.5, 4.0], device=device)
    soft = WAYS[name](alpha, amount)
    assert (soft <= alpha).all()
    assert (soft >= 0).all()
    assert torch.equal(soft[0], alpha[0])
    left = [float(soft[i].sum() / alpha[i].sum()) for i in range(5)]
    assert 1 > left[1] > 0.8
    assert left[4] < left[3] < left[2] < 0.98


@pytest.mark.parametrize("name", WAYS)
def test_a_batch_equals_its_samples_and_twice_the_opacity_is_twice_the_result(name: str) -> None:
    alpha, amount = blobs(), torch.tensor([0.0, 0.3, 1.0, 2.5, 4.0])
    soft = WAYS[name](alpha, amount)
    for i in range(5):
        assert torch.equal(soft[i : i + 1], WAYS[name](alpha[i : i + 1], amount[i : i + 1]))
    torch.testing.assert_close(WAYS[name](0.5 * alpha, amount), 0.5 * soft)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("most", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_it_takes_any_largest_amount(name: str, most: float) -> None:
    """More than the largest is as good as the largest, but for erosion by whole pixels."""
    ways: dict[str, Soften] = {
        "eroded": lambda alpha, amount: eroded(alpha, amount.clamp(max=most), most=most),
        "gaussian": lambda alpha, amount: feathered(alpha, amount.clamp(max=most), "gaussian", most=most),
        "box": lambda alpha, amount: feathered(alpha, amount.clamp(max=most), "box", most=most),
        "smeared": lambda alpha, amount: smeared(alpha, amount, 0.7 + amount.clamp(max=most), most=most),
    }
    alpha, amount = blobs(20), torch.linspace(0, 4, 20)
    soft = ways[name](alpha, amount)
    torch.testing.assert_close(soft, WAYS[name](alpha, amount.clamp(max=most)), rtol=0, atol=0.02)
    for part in (slice(0, 1), slice(7, 8), slice(3, 14)):
        assert torch.equal(soft[part], ways[name](alpha[part], amount[part]))


@pytest.mark.parametrize("name", WAYS)
def test_a_full_canvas_has_no_edge(name: str) -> None:
    full = torch.full((2, 12, 9), 0.75)
    torch.testing.assert_close(WAYS[name](full, torch.tensor([1.0, 4.0])), full, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", WAYS)
def test_gradcheck(name: str) -> None:
    alpha = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    amount = torch.tensor([0.7, 1.3], dtype=torch.float64)
    inputs = alpha.requires_grad_(), amount.requires_grad_()
    assert torch.autograd.gradcheck(WAYS[name], inputs, nondet_tol=1e-9)


@pytest.mark.parametrize("pixels", [0.25, 1.0, 1.5, 3.25])
@pytest.mark.parametrize("axis", [1, 2])
def test_an_edge_is_eroded_by_its_pixels(pixels: float, axis: int) -> None:
    for at in (10.0, 10.4):
        alpha = step(at, axis=axis)
        lost = (alpha - eroded(alpha, torch.tensor([pixels]), most=4)).sum(dim=axis)
        torch.testing.assert_close(lost, torch.full_like(lost, pixels), rtol=0, atol=1e-5)


def test_whole_pixels_are_eroded_as_opencv_does() -> None:
    """By an octagon: a cross at first, then a square, pixel by pixel."""
    mask = (blobs(1)[0] > 0.5).float()
    got = eroded(mask[None], torch.tensor([2.0]), most=2)[0] > 0.5
    cross = cv2.erode(mask.numpy(), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), iterations=2)
    square = cv2.erode(mask.numpy(), np.ones((3, 3)), iterations=2)
    assert (got.numpy() <= (cross > 0.5)).all()
    assert (got.numpy() >= (square > 0.5)).all()


def test_a_box_fades_linearly_over_its_width() -> None:
    alpha = step(8.0)
    soft = feathered(alpha, torch.tensor([4.0]), "box", most=4)[0, 5]
    torch.testing.assert_close(soft[7:13], torch.tensor([0.0, 0.125, 0.375, 0.625, 0.875, 1.0]))


def test_a_gaussian_fades_as_its_integral() -> None:
    alpha = step(8.0)
    soft = feathered(alpha, torch.tensor([8.0]), "gaussian", most=8)[0, 5]
    for place in range(8, 16):
        expected = 0.5 * (1 + math.erf((place + 0.5 - 12) / 2 / math.sqrt(2)))
        assert abs(float(soft[place]) - expected) < 0.02
    assert float(soft[7]) == 0
    assert float(soft[18]) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("turns", "axis"), [(0.0, 2), (0.25, 1), (0.5, 2)])
def test_convention_of_motion(turns: float, axis: int) -> None:
    """Edges across the path fade over its length; edges along it stay as they are."""
    amount, angle = torch.tensor([4.0]), torch.tensor([2 * math.pi * turns])
    across, along = step(8.4, axis=axis), step(8.4, axis=3 - axis)
    torch.testing.assert_close(smeared(along, amount, angle, most=4), along, rtol=0, atol=1e-5)
    soft = smeared(across, amount, angle, most=4).select(3 - axis, 5)[0]
    lost = float((across.select(3 - axis, 5)[0] - soft).sum())
    assert lost == pytest.approx(2, abs=0.05)  # half of its length, as a ramp
    assert ((soft > 0.02) & (soft < 0.98)).sum() in (4, 5)


@pytest.mark.compile
@pytest.mark.parametrize("name", WAYS)
def test_compiled(name: str) -> None:
    torch._dynamo.reset()
    alpha, amount = blobs(), torch.tensor([0.0, 0.3, 1.0, 2.5, 4.0])
    fast = program(WAYS[name], alpha.device)(alpha, amount)
    torch.testing.assert_close(fast, WAYS[name](alpha, amount), rtol=0, atol=1e-5)
