"""Shadows darken, lie on the side away from the light, and touch neither their object nor what is in front."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from kornia_cag import InputError, SunRange
from kornia_cag.core.draws import Draws
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.shadows import Sun, shadow
from kornia_cag.scenes.spots import spots

SIZE = (40, 52)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> Tensor:
    row, column = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return (radius + 0.5 - ((column - x) ** 2 + (row - y) ** 2).sqrt()).clamp(0, 1)[None]


def sun(count: int = 1, **changes: float) -> Sun:
    numbers = {"direction": 0.5, "elevation": 45.0, "lift": 0.3, "softness": 0.05, "darkness": 0.5, "shading": 0.0}
    return Sun(*(torch.full((count,), float(value)) for value in {**numbers, **changes}.values()))


def test_spots_are_moments() -> None:
    alpha = torch.cat([disc(20, 14, 8), disc(30, 25, 5)])
    spot = spots(alpha)
    for name, want in (("x", [20, 30]), ("y", [14, 25]), ("size", [16, 10])):
        torch.testing.assert_close(getattr(spot, name), torch.tensor(want).float(), rtol=0.06, atol=0.02)
    wide = spots(torch.ones(1, 12, 60))
    torch.testing.assert_close(torch.stack([wide.wide, wide.high]), torch.tensor([[60.0], [12.0]]) / math.sqrt(12))
    out = spots(torch.zeros(1, 8, 8))
    assert all(value.isfinite().all() for value in out)


@pytest.mark.parametrize("most", [2.0, 5.5, 13.0])
def test_a_shadow_is_the_alpha_moved_and_blurred(most: float) -> None:
    """Held against SciPy, far from the border. Wide edges are computed on larger cells, which blur a little more."""
    times = math.ceil(most / 3)
    discs = [disc(26 * times, 20 * times, radius * times, (40 * times, 52 * times)) for radius in (9, 6)]
    alpha, shift = torch.cat(discs), torch.tensor([[4.0, -3.0], [-2.5, 1.25]]) * times
    sigma = torch.tensor([0.4, 1.0]) * most
    found = shadow(alpha, shift, sigma, most=most)
    for i in range(2):
        moved = ndimage.shift(alpha[i].numpy(), shift[i].flip(0).tolist(), order=1)
        want = ndimage.gaussian_filter(moved, float(sigma[i]))
        assert np.abs(found[i].numpy() - want).max() < (0.03 if most < 3 else 0.12)
        assert abs(found[i].sum() / want.sum() - 1) < 0.01
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("direction", [0.0, 0.125, 0.25, 0.5, 0.75, 0.9])
def test_it_lies_on_the_side_away_from_the_light(direction: float) -> None:
    alpha, behind = disc(26, 20, 7), torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2
    light = sun(direction=direction)
    (dark,) = light.shadowed((behind,), alpha, spots(alpha), most=3.0)
    assert (dark <= behind).all()
    share = 1 - (dark / behind).mean(dim=1)
    assert 0.45 < share.max() <= 0.5
    where = spots(share)
    away = torch.stack([where.x - 26, where.y - 20], dim=1)[0]
    want = -0.3 * 14 * torch.tensor([math.cos(2 * math.pi * direction), math.sin(2 * math.pi * direction)])
    torch.testing.assert_close(away, want, atol=0.25, rtol=0.05)


def test_low_light_casts_long_shadows_and_light_from_the_viewer_none_to_the_side() -> None:
    alpha = disc(26, 20, 7)
    moved = []
    for elevation in (90, 60, 35):
        (dark,) = sun(elevation=elevation).shadowed((torch.ones(1, 1, *SIZE),), alpha, spots(alpha), most=3.0)
        moved.append(float(spots(1 - dark[:, 0]).x) - 26)
    assert abs(moved[0]) < 0.05
    assert 2 < moved[1] < moved[2]


def test_no_darkness_changes_nothing_to_the_bit() -> None:
    alpha, behind = disc(26, 20, 7), torch.rand(1, 3, *SIZE)
    assert torch.equal(sun(darkness=0).shadowed((behind,), alpha, spots(alpha), most=3.0)[0], behind)
    assert torch.equal(sun(shading=0).shaded(None, spots(alpha), SIZE), torch.ones(1, *SIZE))
    out = torch.zeros(1, *SIZE)
    assert torch.equal(sun().shadowed((behind,), out, spots(out), most=3.0)[0], behind)


def test_shading_is_a_plane_that_rises_towards_the_light() -> None:
    alpha = disc(26.5, 20.5, 7)
    spot, light = spots(alpha), sun(direction=0.75, elevation=60, shading=0.4)
    gain = light.shaded(None, spot, SIZE)
    torch.testing.assert_close(gain[0, 20], torch.ones(SIZE[1]))
    radius = float(spot.size) / 2
    torch.testing.assert_close(float(gain[0, 13, 26]), 1 + 0.4 * 0.5 * 7 / radius, rtol=1e-4, atol=0)
    assert (gain[0, :-1] >= gain[0, 1:]).all()
    assert torch.equal(light.shaded(torch.full_like(gain, 2), spot, SIZE), 2 * gain)


def test_gradients() -> None:
    numbers = [value.double().requires_grad_() for value in
               (torch.tensor([0.55]), torch.tensor([50.0]), torch.tensor([0.31]), torch.tensor([0.11]),
                torch.tensor([0.4]), torch.tensor([0.2]))]  # fmt: skip
    alpha = (0.9 * disc(6.2, 5.1, 3, (9, 12)) + 0.03).double().requires_grad_()

    def call(alpha: Tensor, *numbers: Tensor) -> Tensor:
        light, spot = Sun(*numbers), spots(alpha)
        (dark,) = light.shadowed((torch.ones(1, 1, 9, 12).double(),), alpha, spot, most=2.5)
        return dark + light.shaded(None, spot, (9, 12))[:, None]

    assert torch.autograd.gradcheck(call, (alpha, *numbers), atol=1e-3, rtol=1e-2, eps=1e-5)


def test_draws() -> None:
    ranges = SunRange(direction=(0.6, 0.9), darkness=(0.2, 0.4))
    draws = Draws(sample_keys(torch.zeros(300).long(), torch.zeros(300).long(), torch.arange(300)))
    found = ranges.read(draws.of(ranges.draws(), torch.ones(300)))
    for name in ("direction", "elevation", "lift", "softness", "darkness", "shading"):
        values, (low, high) = getattr(found, name), getattr(ranges, name)
        assert values.min() >= low - 1e-5
        assert values.max() <= high + 1e-5
        assert values.std() > 0.2 * (high - low)
    still = ranges.read(draws.of(ranges.draws(), torch.zeros(300)))
    assert torch.equal(still.direction, found.direction)
    assert torch.stack([still.darkness, still.shading]).abs().max() == 0
    assert replace(ranges, softness=(0, 0)).widest(100) == 0
    for name, wrong in (("elevation", (0, 90)), ("darkness", (0, 1.1)), ("lift", (-1, 0))):
        with pytest.raises(InputError, match=f"{name}: expected"):
            replace(ranges, **{name: wrong})
