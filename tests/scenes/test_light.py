from dataclasses import fields, replace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.enhance import adjust_contrast, adjust_saturation_with_gray_subtraction
from stacked import illumination, recolor
from torch import Tensor

from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.core.records import mapped
from kornia_cag.scenes.light import LUMA, ColorRange, Tone, light, whole

STILL = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
WILD = ColorRange(
    brightness=(0.3, 1.8), exposure=(-2, 1), contrast=(0.2, 2), saturation=(0, 2), hue=(-180, 180), tint=(-0.4, 0.4),
    veil=(0, 0.5), illumination=(-0.9, 0.9), invert=0.4,
)  # fmt: skip


def keys(n: int) -> Tensor:
    index = torch.arange(n)
    return sample_keys(0 * index + 3, 0 * index + 1, index)


def pictures(n: int = 4, size: tuple[int, int] = (9, 12)) -> Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


def one(ranges: ColorRange, n: int = 4) -> Tone:
    return ranges.sample(keys(n)).tone()


def fixed(**values: float) -> ColorRange:
    """Everything neutral but the named values."""
    return replace(STILL, **{name: (value, value) for name, value in values.items()})  # type: ignore[arg-type]


def close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_saturation_is_kornias(factor: float) -> None:
    expected = adjust_saturation_with_gray_subtraction(pictures(), factor)
    close(recolor(pictures(), one(fixed(saturation=factor))), expected)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.6])
def test_brightness_is_a_factor(factor: float) -> None:
    """What kornia calls contrast: a product. (Its brightness is a sum, which lifts black.)"""
    close(recolor(pictures(), one(fixed(brightness=factor))), adjust_contrast(pictures(), factor))


@pytest.mark.parametrize("stops", [-3.0, -1.0, 0.5])
def test_exposure_is_in_stops(stops: float) -> None:
    close(recolor(pictures(), one(fixed(exposure=stops))), (pictures() * 2**stops).clamp(max=1))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.8])
def test_contrast_is_about_mid_grey(factor: float) -> None:
    close(recolor(pictures(), one(fixed(contrast=factor))), (0.5 + factor * (pictures() - 0.5)).clamp(0, 1))


def test_convention_hue_turns_red_to_green_to_blue() -> None:
    red, green, blue = (torch.eye(3)[i][None, :, None, None] for i in range(3))
    third = one(fixed(hue=120.0), 1)
    close(recolor(red, third), green)
    close(recolor(green, third), blue)
    close(recolor(blue, third), red)
    close(recolor(pictures(), one(fixed(hue=-120.0)))[:, [2, 0, 1]], pictures())


def test_hue_and_saturation_keep_greys() -> None:
    grey = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 3, 2, 2)
    close(recolor(grey, one(replace(STILL, hue=(-180, 180), saturation=(0, 2)))), grey)


def test_negative() -> None:
    close(recolor(pictures(), one(replace(STILL, invert=1.0))), 1 - pictures())
    drawn = replace(STILL, invert=0.3).sample(keys(4000)).inverted
    assert abs(drawn.float().mean() - 0.3) < 0.03
    assert torch.equal(one(replace(STILL, invert=0.3), 4000).matrix[:, 0, 0] < 0, drawn)


def test_veil_lifts_towards_a_light_grey() -> None:
    color = one(fixed(veil=0.25))
    out = recolor(pictures(), color)
    level = (out - 0.75 * pictures()) / 0.25
    close(level, level.mean((1, 2, 3), keepdim=True).expand_as(level))
    drawn = uniform(keys(4), "color.veil_level", 0.5, 1.0)
    close(level.mean((1, 2, 3)), drawn)
    close(fixed(veil=0.25).sample(keys(4)).veil_level, drawn)


def test_tint_changes_each_channel_by_itself() -> None:
    out = recolor(torch.full((500, 3, 1, 1), 0.5), one(replace(STILL, tint=(-0.2, 0.2)), 500))[:, :, 0, 0]
    assert out.min() >= 0.4 - 1e-6
    assert out.max() <= 0.6 + 1e-6
    assert (torch.corrcoef(out.T) - torch.eye(3)).abs().max() < 0.2


def test_illumination_is_a_plane() -> None:
    """1 in the middle, ``1 + slope`` at the edges: half a pixel beyond the outermost centres."""
    gain = illumination(torch.tensor([[0.4, 0.0], [0.0, -0.8], [1.0, 1.0]]), (4, 8))
    assert gain.shape == (3, 1, 4, 8)
    close(gain[0, 0], (1 + 0.4 * (torch.arange(8) - 3.5) / 4).expand(4, 8))
    close(gain[1, 0], (1 - 0.8 * (torch.arange(4) - 1.5) / 2)[:, None].expand(4, 8))
    assert gain[2].min() == 0  # never darker than black


def test_illumination_comes_from_anywhere() -> None:
    slope = one(fixed(illumination=0.5), 500).slope
    close(slope.norm(dim=1), torch.full((500,), 0.5))
    assert slope.mean(dim=0).abs().max() < 0.08


def test_matches_the_oracle(device: torch.device) -> None:
    for strength in (1.0, 0.4):
        color = WILD.sample(keys(24).to(device), torch.full((24,), strength, device=device), layer="layer")
        got = recolor(pictures(24).to(device), color.tone()).cpu()
        for row in range(24):
            picture = pictures(24)[row].permute(1, 2, 0).double().numpy()
            expected = oracle.recolor(picture, WILD, keys(24)[row : row + 1], strength, "layer")
            np.testing.assert_allclose(got[row].permute(1, 2, 0), expected, rtol=0, atol=1e-5)


def test_premultiplied_equals_straight_times_alpha() -> None:
    """And so stays at most its alpha."""
    alpha = torch.rand(4, 1, 9, 12, generator=torch.Generator().manual_seed(1))
    color = one(WILD)
    got = recolor(pictures() * alpha, color, alpha)
    close(got, recolor(pictures(), color) * alpha)
    assert (got <= alpha).all()
    assert (got >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.floats(0, 1, width=32))
def test_range(index: int, strength: float) -> None:
    key = sample_keys(torch.tensor([0]), torch.tensor([0]), torch.tensor([index]))
    color = WILD.sample(key, torch.tensor([strength])).tone()
    out = recolor(pictures(1), color)
    assert out.min() >= 0
    assert out.max() <= 1
    alpha = torch.linspace(0, 1, 9 * 12).reshape(1, 1, 9, 12)
    layer = recolor(pictures(1) * alpha, color, alpha)
    assert (layer >= 0).all()
    assert (layer <= alpha).all()


def test_strength_zero_is_the_identity() -> None:
    wild = replace(WILD, invert=0.0)
    close(recolor(pictures(), wild.sample(keys(4), torch.zeros(4)).tone()), pictures(), atol=1e-6)


def test_layers_draw_independently() -> None:
    one, other = (WILD.sample(keys(500), layer=layer) for layer in ("color", "object_color"))
    for name, value in vars(one).items():
        if value.is_floating_point() and value.ndim == 1:
            assert abs(torch.corrcoef(torch.stack([value, getattr(other, name)]))[0, 1]) < 0.2, name


CONVENTIONS = {
    "brightness": (0.7, [0.14, 0.35, 0.56]),
    "exposure": (-1.0, [0.1, 0.25, 0.4]),
    "contrast": (0.5, [0.35, 0.5, 0.65]),
    "saturation": (0.0, [0.4445] * 3),
    "hue": (120.0, [0.8, 0.2, 0.5]),
    "veil": (0.5, [0.1 + 0.3, 0.25 + 0.3, 0.4 + 0.3]),
    "inverted": (True, [0.8, 0.5, 0.2]),
    "tint": ([0.5, -0.5, 0.0], [0.3, 0.25, 0.8]),
    "illumination": (0.5, [0.2 * 1.25, 0.5 * 1.25, 0.8 * 1.25]),
}


@pytest.mark.parametrize("field", CONVENTIONS)
def test_convention_of_each_field(field: str) -> None:
    """What is drawn is in physical units: set by hand, on RGB (0.2, 0.5, 0.8), right of the canvas's centre."""
    value, expected = CONVENTIONS[field]
    still = STILL.sample(keys(1), torch.zeros(1))
    still = replace(still, veil_level=torch.tensor([0.6]), light_from=torch.tensor([0.0]))
    color = replace(still, **{field: torch.tensor([value])})
    picture = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None].expand(1, 3, 1, 2)
    lit = whole(light(picture.unbind(1), color.tone()))
    close(lit[0, :, 0, 1], torch.tensor(expected))


def test_convention_light_from_turns_clockwise() -> None:
    still = STILL.sample(keys(4), torch.zeros(4))
    turns = replace(still, illumination=torch.ones(4), light_from=torch.tensor([0.0, 0.25, 0.5, 0.75]))
    close(turns.tone().slope, torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))


def test_light_from_nowhere() -> None:
    """Illumination set by hand where light was even, without its direction: refused, not ignored."""
    even = STILL.sample(keys(2))
    with pytest.raises(InputError, match=r"^light_from: expected directions \(b,\) with illumination=\.\.\., got None"):
        replace(even, illumination=torch.ones(2)).tone()
    assert replace(even, light_from=torch.zeros(2)).tone().slope is None


def test_gradcheck_of_recolor() -> None:
    color = mapped(Tensor.double, one(replace(WILD, veil=(0.2, 0.4)), 2))
    picture = (0.3 + 0.2 * pictures(2, (3, 3))).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: recolor(x, color), picture)


def test_gradcheck_of_what_is_drawn() -> None:
    color = replace(WILD, invert=0.0).sample(keys(2))
    drawn = mapped(lambda value: value.double() if value.is_floating_point() else value, color)
    names = [field.name for field in fields(drawn) if field.name != "inverted"]
    picture = pictures(2, (2, 3)).double()

    def lit(*values: Tensor) -> Tensor:
        tone = replace(drawn, **dict(zip(names, values, strict=True))).tone()
        return whole(light(picture.unbind(1), tone))

    assert torch.autograd.gradcheck(lit, [getattr(drawn, name).requires_grad_() for name in names])


def test_luma_sums_to_one() -> None:
    assert sum(LUMA) == pytest.approx(1)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("brightness", (-1, 1)), ("exposure", (0, 6)), ("contrast", (1, 0)), ("saturation", 1.0), ("hue", (-200, 0)),
        ("tint", (-2, 0)), ("veil", (0, 1.5)), ("illumination", (0, 2)), ("invert", 1.5), ("invert", "often"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_bad_color_ranges(field: str, bad: object) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected .*, got "):
        ColorRange(**{field: bad})  # type: ignore[arg-type]
