import io
import math
from dataclasses import fields, replace

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.enhance import adjust_contrast, adjust_saturation_with_gray_subtraction
from kornia.filters import box_blur, gaussian_blur2d
from PIL import Image
from stacked import illumination, recolor
from torch import Tensor

from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.scenes.camera import CameraRange, photograph
from kornia_cag.scenes.light import LUMA, Color, ColorRange

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


def one(ranges: ColorRange, n: int = 4) -> Color:
    return ranges.sample(keys(n), torch.ones(n), "color")


def fixed(**values: float) -> ColorRange:
    """Everything neutral but the named values."""
    return replace(STILL, **{name: (value, value) for name, value in values.items()})  # type: ignore[arg-type]


def close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


# ---- colour


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
    share = (one(replace(STILL, invert=0.3), 4000).matrix[:, 0, 0] < 0).float().mean()
    assert abs(share - 0.3) < 0.03


def test_veil_lifts_towards_a_light_grey() -> None:
    color = one(fixed(veil=0.25))
    out = recolor(pictures(), color)
    level = (out - 0.75 * pictures()) / 0.25
    close(level, level.mean((1, 2, 3), keepdim=True).expand_as(level))
    drawn = uniform(keys(4), "color.veil_level", 0.5, 1.0)
    close(level.mean((1, 2, 3)), drawn)


def test_tint_changes_each_channel_by_itself() -> None:
    out = recolor(torch.full((500, 3, 1, 1), 0.5), one(replace(STILL, tint=(-0.2, 0.2)), 500))[:, :, 0, 0]
    assert out.min() >= 0.4 - 1e-6
    assert out.max() <= 0.6 + 1e-6
    assert (torch.corrcoef(out.T) - torch.eye(3)).abs().max() < 0.2


def test_illumination_is_a_plane() -> None:
    """1 in the middle, ``1 + slope`` at the edges: half a pixel beyond the outermost centres."""
    light = illumination(torch.tensor([[0.4, 0.0], [0.0, -0.8], [1.0, 1.0]]), (4, 8))
    assert light.shape == (3, 1, 4, 8)
    close(light[0, 0], (1 + 0.4 * (torch.arange(8) - 3.5) / 4).expand(4, 8))
    close(light[1, 0], (1 - 0.8 * (torch.arange(4) - 1.5) / 2)[:, None].expand(4, 8))
    assert light[2].min() == 0  # never darker than black


def test_illumination_comes_from_anywhere() -> None:
    slope = one(fixed(illumination=0.5), 500).slope
    close(slope.norm(dim=1), torch.full((500,), 0.5))
    assert slope.mean(dim=0).abs().max() < 0.08


def test_matches_the_oracle(device: torch.device) -> None:
    for strength in (1.0, 0.4):
        color = WILD.sample(keys(24).to(device), torch.full((24,), strength, device=device), "layer")
        got = recolor(pictures(24).to(device), color).cpu()
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
    color = WILD.sample(key, torch.tensor([strength]), "color")
    out = recolor(pictures(1), color)
    assert out.min() >= 0
    assert out.max() <= 1
    alpha = torch.linspace(0, 1, 9 * 12).reshape(1, 1, 9, 12)
    layer = recolor(pictures(1) * alpha, color, alpha)
    assert (layer >= 0).all()
    assert (layer <= alpha).all()


def test_strength_zero_is_the_identity() -> None:
    wild = replace(WILD, invert=0.0)
    color = wild.sample(keys(4), torch.zeros(4), "color")
    close(recolor(pictures(), color), pictures(), atol=1e-6)


def test_layers_draw_independently() -> None:
    a, b = (WILD.sample(keys(500), torch.ones(500), layer).offset[:, 0] for layer in ("color", "object_color"))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.2


def test_gradcheck_of_recolor() -> None:
    color = Color(*(getattr(one(replace(WILD, veil=(0.2, 0.4)), 2), f.name).double() for f in fields(Color)))
    picture = (0.3 + 0.2 * pictures(2, (3, 3))).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: recolor(x, color), picture)


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


# ---- camera


ALWAYS = CameraRange(blur=1.0, gaussian=(0.4, 1.5), box=(1, 5), motion=(1, 7), taps=9)


def psf(ranges: CameraRange, n: int, strength: float = 1.0) -> Tensor:
    spread = ranges.sample(keys(n), torch.full((n,), strength)).spread
    assert spread is not None
    return spread.kernels()


def test_psf_sums_to_one_and_is_centred() -> None:
    kernel = psf(replace(ALWAYS, blur=0.7), 300)
    assert kernel.min() >= 0
    close(kernel.sum((1, 2)), torch.ones(300))
    close(kernel, kernel.flip(1, 2), atol=1e-6)  # so that no blur shifts the picture


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_psf_matches_the_oracle(strength: float) -> None:
    ranges = replace(ALWAYS, blur=0.8)
    kernel = psf(ranges, 60, strength)
    for row in range(60):
        expected = oracle.psf(ranges, keys(60)[row : row + 1], strength)
        np.testing.assert_allclose(kernel[row], expected, rtol=0, atol=1e-5)


def test_kinds_are_equally_likely() -> None:
    n = 3000
    kernel = psf(replace(ALWAYS, blur=0.6), n)
    sharp = kernel[:, 4, 4] == 1
    assert abs(sharp.float().mean() - 0.4) < 0.05  # a narrow box is nearly sharp, but not exactly
    kind = uniform(keys(n), "camera.blur_kind", 0.0, 3.0).long()
    for k in range(3):
        assert abs((kind[~sharp] == k).float().mean() - 1 / 3) < 0.05


def test_gaussian_is_kornias() -> None:
    camera = replace(ALWAYS, kinds=("gaussian",), gaussian=(0.8, 0.8)).sample(keys(1), torch.ones(1))
    got = photograph(pictures(1, (12, 12)), camera, keys(1))
    close(got, gaussian_blur2d(pictures(1, (12, 12)), (9, 9), (0.8, 0.8), border_type="replicate"))


def test_box_of_odd_width_is_kornias() -> None:
    camera = replace(ALWAYS, kinds=("box",), box=(3, 3)).sample(keys(1), torch.ones(1))
    close(photograph(pictures(1), camera, keys(1)), box_blur(pictures(1), (3, 3), border_type="replicate"))


def test_motion_is_a_line() -> None:
    kernel = psf(replace(ALWAYS, kinds=("motion",), motion=(7, 7)), 99)
    angle = math.pi * uniform(keys(99), "camera.motion_angle")
    tap = torch.arange(9) - 4.0
    along = tap[None, None] * angle.cos()[:, None, None] + tap[None, :, None] * angle.sin()[:, None, None]
    across = -tap[None, None] * angle.sin()[:, None, None] + tap[None, :, None] * angle.cos()[:, None, None]
    assert ((kernel * along**2).sum((1, 2)) > 2.5).all()  # a segment of length 7 has variance 49 / 12
    assert ((kernel * across**2).sum((1, 2)) < 0.35).all()


def test_blur_is_a_convolution_by_hand() -> None:
    camera, kernels = ALWAYS.sample(keys(6), torch.ones(6)), psf(ALWAYS, 6)
    got = photograph(pictures(6), camera, keys(6))
    for row in range(6):
        expected = oracle.blur(pictures(6)[row].permute(1, 2, 0).double().numpy(), kernels[row].double().numpy())
        np.testing.assert_allclose(got[row].permute(1, 2, 0), expected, rtol=0, atol=1e-5)


def test_noise() -> None:
    camera = CameraRange(noise=(0.1, 0.1)).sample(keys(64), torch.ones(64))
    grey = torch.full((64, 3, 16, 16), 0.5)
    field = (photograph(grey, camera, keys(64)) - grey).double()
    assert abs(field.std().item() - 0.1) < 0.002
    assert abs(field.mean().item()) < 0.002
    assert torch.corrcoef(field.permute(1, 0, 2, 3).flatten(1)).fill_diagonal_(0).abs().max() < 0.03  # channels
    assert torch.corrcoef(field.flatten(1)).fill_diagonal_(0).abs().max() < 0.2  # scenes
    assert torch.equal(photograph(grey[:5], CameraRange(noise=(0.1, 0.1)).sample(keys(5), torch.ones(5)), keys(5)),
                       photograph(grey, camera, keys(64))[:5])  # fmt: skip


def test_grain() -> None:
    """Neighbours are alike as in noise that was enlarged by linear interpolation, coarser grains more so."""
    grey, near = torch.full((64, 3, 32, 32), 0.5), []
    for size in (1.0, 2.0, 4.0):
        camera = CameraRange(grain=(0.1, 0.1), grain_size=(size, size)).sample(keys(64), torch.ones(64))
        field = (photograph(grey, camera, keys(64)) - grey).double()
        assert abs(field.mean().item()) < 0.003
        near.append(float(torch.corrcoef(torch.stack([field[..., 1:].flatten(), field[..., :-1].flatten()]))[0, 1]))
        if size == 1:
            assert abs(field.std().item() - 0.1 * common_share(64)) < 0.003
    assert abs(near[0]) < 0.02
    assert 0.3 < near[1] < 0.85 < near[2] < 0.97
    shares = uniform(keys(64), "camera.grain_grey")
    for share, one in zip(shares.tolist(), field, strict=True):
        between = torch.corrcoef(one.flatten(1))[0, 1].item()
        assert between > 0.8 if share > 0.9 else between < 0.6 if share < 0.1 else True


def common_share(count: int) -> float:
    """Standard deviation of a mix of own and common noise, over the drawn shares."""
    g = uniform(keys(count), "camera.grain_grey").double()
    return float(((1 - g) ** 2 + g**2 + 2 * g * (1 - g) / math.sqrt(3)).mean().sqrt())


def test_clamped() -> None:
    camera = CameraRange(noise=(0.8, 0.8), blur=1.0, jpeg=(5, 20)).sample(keys(4), torch.ones(4))
    out = photograph(pictures(), camera, keys(4))
    assert out.min() == 0
    assert out.max() <= 1


def test_jpeg_is_much_like_the_real_one() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 6, 32), torch.linspace(0, 5, 32), indexing="ij")
    smooth = torch.stack([0.5 + 0.4 * torch.sin(x + c) * torch.cos(y - c) for c in range(3)])[None]
    worse = 0.0
    for quality in (90, 50, 10):
        camera = CameraRange(jpeg=(quality, quality)).sample(keys(1), torch.ones(1))
        got = photograph(smooth, camera, keys(1))[0].permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray((smooth[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file), dtype=np.float64) / 255
        assert np.abs(got - expected).mean() < 0.025
        error = np.abs(got - smooth[0].permute(1, 2, 0).numpy()).mean()
        assert error > worse
        worse = error


def test_camera_at_strength_zero_is_perfect() -> None:
    ranges = CameraRange(
        low_resolution=(0, 3), blur=1.0, gaussian=(1, 2), box=(2, 4), motion=(3, 6), noise=(0, 0.3),
        grain=(0, 0.3), jpeg=(5, 50),
    )  # fmt: skip
    camera = ranges.sample(keys(24), torch.zeros(24))
    assert (camera.coarser == 0).all()
    close(photograph(pictures(24), camera, keys(24)), pictures(24))


def test_batched_equals_looped() -> None:
    ranges = replace(ALWAYS, noise=(0, 0.1), grain=(0, 0.1), jpeg=(20, 95), blur=0.7)
    n = 33
    whole = photograph(pictures(n), ranges.sample(keys(n), torch.ones(n)), keys(n))
    for rows in (1, 3, 16):
        for i in range(0, n, rows):
            k = keys(n)[i : i + rows]
            part = photograph(pictures(n)[i : i + rows], ranges.sample(k, torch.ones(len(k))), k)
            assert torch.equal(part, whole[i : i + rows])


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("low_resolution", (-1, 0)), ("blur", 2), ("gaussian", (0, 1)), ("box", (0.5, 2)), ("motion", (3, 1)),
        ("taps", 4), ("taps", 1), ("taps", 3.0), ("noise", (0, 2)), ("grain", (0, 2)),
        ("grain_size", (0.5, 2)), ("jpeg", (0, 50)), ("jpeg", 50),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_bad_camera_ranges(field: str, bad: object) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected .*, got "):
        CameraRange(**{field: bad})  # type: ignore[arg-type]


def test_luma_sums_to_one() -> None:
    assert sum(LUMA) == pytest.approx(1)


@pytest.mark.parametrize("blur", [{"motion": (1, 9)}, {"box": (1, 8)}, {"gaussian": (1, 4)}])
@pytest.mark.usefixtures("untyped")
def test_a_blur_that_its_taps_would_cut_off_is_refused(blur: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(InputError, match=r"^taps: expected a side that holds"):
        CameraRange(blur=0.5, **blur)


@pytest.mark.parametrize("kinds", [(), ("gaussian", "bokeh")])
@pytest.mark.usefixtures("untyped")
def test_unknown_kinds_of_blur_are_refused(kinds) -> None:
    with pytest.raises(InputError, match="kinds: expected some of gaussian, box, motion"):
        CameraRange(kinds=kinds)


def test_taps_need_to_hold_the_kinds_that_are_drawn() -> None:
    CameraRange(blur=1.0, kinds=("gaussian",), box=(1, 30))
    with pytest.raises(InputError, match="taps: expected a side"):
        CameraRange(blur=1.0, kinds=("box",), box=(1, 30))
