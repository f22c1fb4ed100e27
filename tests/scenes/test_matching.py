import numpy as np
import pytest
import torch

from kornia_cag.scenes.matching import low_pass, shares_below, with_amplitudes, with_histograms

SIZES = [(16, 16), (15, 20), (21, 14), (9, 9)]


def pictures(count=4, size=(16, 20), seed=1, dtype=torch.float32):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def published(image, reference, radius):
    """FDA of one channel in NumPy, with a window of whole frequencies, centred and symmetric."""
    own, other = (np.fft.fftshift(np.fft.fft2(picture)) for picture in (image, reference))
    amplitude, (y, x) = np.abs(own), (side // 2 for side in image.shape)
    window = slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1)
    amplitude[window] = np.abs(other)[window]
    found = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(own))))
    assert np.abs(found.imag).max() < 1e-9
    return found.real


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_amplitudes_as_published_but_for_the_window(size, radius):
    images, others = pictures(size=size, dtype=torch.float64), pictures(size=size, seed=2, dtype=torch.float64)
    spectrum = torch.fft.fft2(others, norm="forward").abs()
    rows = [*range(radius + 1), *range(-radius, 0)]
    amplitudes = spectrum[:, :, rows, : radius + 1]
    found = with_amplitudes(images, amplitudes, low_pass(radius, torch.full((4,), float(radius), dtype=torch.float64)))
    for i, c in np.ndindex(4, 3):
        want = published(images[i, c].numpy(), others[i, c].numpy(), radius)
        np.testing.assert_allclose(found[i, c].numpy(), want, atol=2e-3)


def test_the_window_is_symmetric_and_takes_rings_in_part():
    window = low_pass(3, torch.tensor([0.0, 1.25, 3.0]))[:, 0]
    ring = torch.tensor([0, 1, 2, 3, 3, 2, 1])[:, None].maximum(torch.arange(4))
    assert torch.equal(window[0], (ring == 0).float())
    assert torch.equal(window[1], torch.tensor([1.0, 1.0, 0.25, 0.0])[ring])
    assert window[2].eq(1).all()
    assert torch.equal(window[:, 1:4], window[:, 4:].flip(1))  # opposite rows


def test_a_wave_gets_another_height_and_keeps_its_place():
    x = torch.arange(32) / 32
    waves = torch.stack([0.5 + 0.1 * torch.sin(2 * torch.pi * (2 * x + 0.3)), 0.4 + 0.3 * torch.cos(4 * torch.pi * x)])
    image, other = (wave.expand(1, 3, 24, 32).contiguous() for wave in waves)
    amplitudes = torch.zeros(1, 3, 5, 3)
    amplitudes[..., 0, 0], amplitudes[..., 0, 2] = 0.4, 0.15  # half of a wave's height is in its mirror image
    found = with_amplitudes(image, amplitudes, low_pass(2, torch.tensor([2.0])))
    want = 0.4 + 0.3 * torch.sin(2 * torch.pi * (2 * x + 0.3))
    torch.testing.assert_close(found, want.expand_as(found), atol=1e-4, rtol=0)
    assert (found - other).abs().max() > 0.05


def test_shares_count_pixels():
    image = torch.tensor([0.0, 0.0, 1 / 255, 200.4 / 255, 1.0, 1.0, 1.0, 1.0]).view(1, 1, 2, 4).expand(2, 3, 2, 4)
    shares = shares_below(image)
    assert shares.shape == (2, 3, 257)
    want = torch.zeros(257)
    want[1:] = 0.25
    want[2:] = 0.375
    want[201:] = 0.5
    want[256] = 1
    assert torch.equal(shares, want.expand(2, 3, 257))


def test_histograms_of_8_bit_pictures_as_by_quantiles():
    """The value in the middle of a bin goes to the photo's quantile there: NumPy's interpolation says the same."""
    images = (pictures(seed=3) * 255).round() / 255
    others = (pictures(size=(17, 19), seed=4) ** 2 * 255).round() / 255  # 323 pixels: no share is met exactly
    shares = shares_below(others)
    found = with_histograms(images, shares)
    for i, c in np.ndindex(4, 3):
        below = shares_below(images)[i, c].double().numpy()
        level = (images[i, c] * 255).round().long().numpy()
        middle = 0.5 * (below[:-1] + below[1:])[level]
        want = np.interp(middle, shares[i, c].double().numpy(), (np.arange(257) - 0.5) / 255)
        np.testing.assert_allclose(found[i, c].numpy(), want, atol=1e-4)
    assert (shares_below(found) - shares).abs().max() < 0.015
    assert (shares_below(images) - shares).abs().max() > 0.2


def test_histograms_of_one_level_and_of_a_curve():
    images = (torch.arange(256).view(1, 1, 16, 16) / 255).expand(1, 3, 16, 16).contiguous()
    grey = with_histograms(images, shares_below(torch.full((1, 3, 8, 8), 100 / 255)))
    assert (grey * 255 - 100).abs().max() <= 0.5
    dark = with_histograms(images, shares_below(images.view(1, 3, 1, 256) / 2))
    torch.testing.assert_close(dark, images / 2, atol=0.6 / 255, rtol=0)
    flat = with_histograms(torch.full((1, 3, 4, 4), 0.2), shares_below(images))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.5), atol=1e-5, rtol=0)  # the median


@pytest.mark.parametrize("size", SIZES)
def test_pictures_matched_to_themselves(size):
    images = pictures(size=size)
    spectrum = torch.fft.rfft2(images, norm="forward").abs()
    amplitudes = torch.cat([spectrum[:, :, :4, :4], spectrum[:, :, -3:, :4]], dim=2)
    assert torch.equal(with_amplitudes(images, amplitudes, low_pass(3, torch.full((4,), 3.0))), images)
    torch.testing.assert_close(with_histograms(images, shares_below(images)), images, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_change():
    images = pictures(2, (7, 8), dtype=torch.float64).requires_grad_()
    amplitudes = pictures(2, (5, 3), seed=5, dtype=torch.float64)
    window = low_pass(2, torch.tensor([0.5, 2.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: with_amplitudes(x, amplitudes, window), images)
    shares = shares_below(pictures(2, (32, 32), seed=6, dtype=torch.float64))
    off = (((images.detach() * 255).floor() + 0.2) / 255).requires_grad_()  # away from the corners of the curve
    counted = shares_below(off.detach())
    (gradient,) = torch.autograd.grad(with_histograms(off, shares).sum(), off)
    step = 0.05 / 255
    assert torch.equal(shares_below(off.detach() + step), counted)  # no pixel leaves its bin
    slope = (with_histograms(off.detach() + step, shares) - with_histograms(off.detach(), shares)) / step
    torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-6)
    assert (gradient > 0).all()
