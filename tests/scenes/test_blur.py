import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_cag.scenes.blur import MOST, PointSpread, _filter, _two_passes, blur, blurred_planes, box, gaussian, motion

TAPS = 7


def _planes(picture: Tensor, spread: PointSpread) -> Tensor:
    return torch.stack(blurred_planes(picture.unbind(1), spread), dim=1)


def spread(n: int = 12, dtype: torch.dtype = torch.float32) -> PointSpread:
    """Gaussians, boxes and paths in turn."""
    generator = torch.Generator().manual_seed(0)
    amount, angle = (torch.rand(n, generator=generator, dtype=dtype) for _ in range(2))
    path, lean, steep = motion(6 * amount, math.pi * angle, TAPS)
    kind, sharp = torch.arange(n) % 3, box(torch.ones(n, dtype=dtype), TAPS)
    bell, wide = gaussian(0.2 + amount, TAPS), box(1 + 4 * amount, TAPS)
    line = torch.stack([bell, wide, path])[kind, torch.arange(n)]
    column = torch.stack([bell, box(1 + 4 * angle, TAPS), sharp])[kind, torch.arange(n)]
    return PointSpread(line, torch.where(kind == 2, lean, 0.0), steep & (kind == 2), column)


def pictures(n: int = 12, size: tuple[int, int] = (11, 8), dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(("method", "error"), [(_two_passes, 2e-6), (_planes, 2.0**-16)])
@pytest.mark.parametrize("size", [(11, 8), (4, 20)])
def test_two_passes_equal_the_dense_filter(size: tuple[int, int], method, error: float, device: torch.device) -> None:
    one = PointSpread(*(getattr(spread(), name).to(device) for name in ("line", "lean", "steep", "column")))
    picture = pictures(size=size).to(device)
    torch.testing.assert_close(method(picture, one), _filter(picture, one), rtol=0, atol=error)


def test_numbers_in_words_are_those_that_light_takes() -> None:
    """Rounded twice, to 17 binary digits; from the highest on they are all alike."""
    dark = 2.0 ** torch.arange(-12, 17, dtype=torch.float32)
    picture = torch.stack([dark, 0.7 * dark, 3e4 * dark], dim=1)[:, :, None, None].expand(-1, -1, 3, 4)
    one = box(torch.ones(len(dark)), TAPS)
    still = PointSpread(one, torch.zeros(len(dark)), torch.zeros(len(dark), dtype=torch.bool), one)
    torch.testing.assert_close(_planes(picture, still), picture.clamp(max=MOST), rtol=2.0**-16, atol=0)


def test_kernels_sum_to_one_and_are_symmetric_about_the_middle() -> None:
    kernels = spread(300).kernels()
    assert kernels.min() >= 0
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(300))
    torch.testing.assert_close(kernels, kernels.flip(1, 2), rtol=0, atol=1e-6)  # so that no blur shifts the picture


def test_convention_angles_turn_clockwise() -> None:
    lines = {
        0.0: [(3, i) for i in range(1, 6)], 90.0: [(i, 3) for i in range(1, 6)],
        45.0: [(i, i) for i in range(1, 6)], 135.0: [(6 - i, i) for i in range(1, 6)],
    }  # fmt: skip
    for angle, expected in lines.items():
        length = torch.tensor([5.0 if angle % 90 == 0 else 5 * math.sqrt(2)])
        line, lean, steep = motion(length, torch.tensor([math.radians(angle)]), TAPS)
        kernel = PointSpread(line, lean, steep, box(torch.ones(1), TAPS)).kernels()[0]
        assert {(int(r), int(c)) for r, c in (kernel > 0.1).nonzero()} == set(expected)
        assert kernel[3, 3] == pytest.approx(0.2, abs=1e-5)  # five pixels long


@given(st.floats(0, 6), st.floats(0, math.pi))
def test_a_path_is_as_long_as_it_says(length: float, angle: float) -> None:
    line, lean, steep = motion(torch.tensor([length]), torch.tensor([angle]), TAPS)
    kernel = PointSpread(line, lean, steep, box(torch.ones(1), TAPS)).kernels()[0].double()
    tap = torch.arange(TAPS) - 3.0
    x, y = tap[None, :], tap[:, None]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.5)
    assert (kernel * across**2).sum() < 0.26  # a path between two pixels is shared by both


def test_a_path_of_no_length_is_sharp() -> None:
    line, lean, steep = motion(torch.zeros(9), torch.linspace(0, 3, 9), TAPS)
    picture = pictures(9)
    torch.testing.assert_close(blur(picture, PointSpread(line, lean, steep, box(torch.ones(9), TAPS))), picture)


@pytest.mark.parametrize("method", [_filter, _two_passes])
def test_gradcheck(method) -> None:
    one = spread(3, torch.float64)

    def blurred(picture: Tensor, line: Tensor, lean: Tensor, column: Tensor) -> Tensor:
        return method(picture, PointSpread(line, lean, one.steep, column))

    leaves = (pictures(3, (4, 5), torch.float64), one.line, 0.9 * one.lean + 0.013, one.column)
    assert torch.autograd.gradcheck(blurred, [leaf.detach().requires_grad_() for leaf in leaves])
