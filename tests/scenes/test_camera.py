import io
import math
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from counting import Counts
from kornia.filters import box_blur, gaussian_blur2d
from PIL import Image
from torch import Tensor

from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.scenes.camera import KINDS, CameraRange, photograph
from kornia_cag.scenes.jpeg import jpeg

ALWAYS = CameraRange(blur=1.0, gaussian=(0.4, 1.5), box=(1, 5), motion=(1, 7), taps=9)


def keys(n: int) -> Tensor:
    index = torch.arange(n)
    return sample_keys(0 * index + 3, 0 * index + 1, index)


def pictures(n: int = 4, size: tuple[int, int] = (9, 12)) -> Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


def close(got: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def psf(ranges: CameraRange, n: int, strength: float = 1.0) -> Tensor:
    drawn = ranges.sample(keys(n), torch.full((n,), strength)).blur
    assert drawn is not None
    return drawn.spread().kernels()


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


def test_kind_says_which_amount_counts() -> None:
    """Of a blur set by hand only the amounts of its kind change anything; none is sharp."""
    still = ALWAYS.sample(keys(4)).blur
    assert still is not None
    blur = replace(still, kind=torch.tensor([-1, 0, 1, 2]))
    kernels = blur.spread().kernels()
    assert kernels[0, 4, 4] == 1
    uses = {"sigma": 1, "width": 2, "height": 2, "length": 3, "direction": 3}
    for name, row in uses.items():
        change = 0.2 * torch.ones(4) if name == "direction" else 0.3 + getattr(blur, name)
        apart = (replace(blur, **{name: change}).spread().kernels() - kernels).abs().amax((1, 2)) > 1e-3
        assert apart.tolist() == [place == row for place in range(4)], name


def test_convention_direction_turns_clockwise() -> None:
    """0 is a line to the right, a quarter of a turn is one downwards."""
    still = replace(ALWAYS, kinds=("motion",), motion=(5, 5)).sample(keys(2)).blur
    assert still is not None
    across, down = replace(still, direction=torch.tensor([0.0, 0.25])).spread().kernels()
    assert (across > 0.1).nonzero().tolist() == [[4, place] for place in range(2, 7)]
    assert (down > 0.1).nonzero().tolist() == [[place, 4] for place in range(2, 7)]


def test_kinds_are_numbered_as_in_the_list_of_all() -> None:
    for number, kind in enumerate(KINDS):
        blur = replace(ALWAYS, kinds=(kind,), blur=0.5).sample(keys(200)).blur
        assert blur is not None
        assert set(blur.kind.tolist()) == {-1, number}


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


def test_a_device_gets_the_tables_of_jpeg_once() -> None:
    """With each batch comes a single number: the quality that kornia checks on the host."""
    there, quality = pictures().to("meta"), torch.empty(4, device="meta")
    jpeg(there, quality)
    with Counts() as counts:
        jpeg(there, quality)
    assert counts.copies == 1


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
    with pytest.raises(InputError, match=r"taps: expected a side .* Raise taps to \d*[13579], or blur less"):
        CameraRange(blur=1.0, kinds=("box",), box=(1, 30))
