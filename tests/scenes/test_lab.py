import kornia
import pytest
import torch

from kornia_cag.scenes.lab import Moments, lab_to_rgb, moments, rgb_to_lab, with_moments


def pictures(count=5, size=(12, 10), seed=1, dtype=torch.float32):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_lab_is_that_of_kornia_and_comes_back():
    images = torch.cat([pictures(), 0.04 * pictures(seed=2)])
    lab = rgb_to_lab(images)
    torch.testing.assert_close(lab, kornia.color.rgb_to_lab(images), atol=0.02, rtol=0)
    torch.testing.assert_close(lab_to_rgb(lab), images, atol=2e-5, rtol=0)


def test_convention_of_lab():
    """White is 100, 0, 0; greys have no colour; red has a above 0, blue b below 0."""
    grey = torch.tensor([0.0, 0.02, 0.5, 1.0]).expand(3, 4).T.reshape(4, 3, 1, 1)
    lab = rgb_to_lab(grey)[..., 0, 0]
    torch.testing.assert_close(lab[[0, 3], 0], torch.tensor([0.0, 100.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(lab[:, 1:], torch.zeros(4, 2), atol=1e-4, rtol=0)
    red, _, blue = rgb_to_lab(torch.eye(3)[:, :, None, None])[..., 0, 0]
    assert red[1] > 70
    assert blue[2] < -90


def test_colours_beyond_srgb_are_finite():
    lab = torch.tensor([[120.0, 90, -90], [-10, -90, 90], [50, 200, 200]])[:, :, None, None]
    rgb = lab_to_rgb(lab)
    assert rgb.isfinite().all()
    assert rgb.amin() < 0 < 1 < rgb.amax()


def test_moments_are_numpys():
    lab = rgb_to_lab(pictures())
    found = moments(lab)
    for i, picture in enumerate(lab.flatten(2)):
        covariance = torch.cov(picture.double(), correction=0)
        torch.testing.assert_close(found.mean[i].double(), picture.double().mean(1), atol=1e-4, rtol=1e-5)
        want = covariance[[0, 1, 1, 2], [0, 1, 2, 2]]
        torch.testing.assert_close(
            torch.cat([found.light[i : i + 1], found.color[i]]).double(), want, rtol=1e-4, atol=0
        )


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_wanted_moments_are_met(floor):
    lab, other = (rgb_to_lab(pictures(seed=seed, dtype=torch.float64)) for seed in (1, 2))
    other = torch.stack([0.5 * other[:, 0], other[:, 1] + 0.7 * other[:, 2], other[:, 2] - 3], dim=1)
    wanted, close = moments(other), 1e-9 if floor == 0 else 3 * floor
    found = moments(with_moments(lab, wanted, floor))
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.light, wanted.light, atol=close, rtol=0)
    torch.testing.assert_close(found.color, wanted.color, atol=close, rtol=0)
    torch.testing.assert_close(with_moments(lab, moments(lab), floor), lab)


def test_the_map_of_colours_turns_nothing():
    """It is symmetric: where both covariances have the same axes, it only stretches along them."""
    lab = rgb_to_lab(pictures(dtype=torch.float64))
    own = moments(lab)
    found = with_moments(lab, Moments(own.mean, own.light, 4 * own.color), 0.0)
    middle = own.mean[:, :, None, None]
    torch.testing.assert_close(found[:, 1:], (middle + 2 * (lab - middle))[:, 1:])
    torch.testing.assert_close(found[:, 0], lab[:, 0])


def test_greys_are_not_blown_up():
    grey = rgb_to_lab(0.5 + 0.002 * (pictures() - 0.5))
    colourful = moments(rgb_to_lab(pictures(seed=2)))
    found = with_moments(grey, colourful, 0.25)
    deviation = colourful.color[:, 0].sqrt()
    assert (moments(found).color[:, 0].sqrt() < 0.25 * deviation).all()
    same = with_moments(torch.full_like(grey, 50.0), colourful, 0.25)
    torch.testing.assert_close(same, colourful.mean[:, :, None, None].expand_as(same))


def test_gradients():
    images = (0.2 + 0.6 * pictures(2, (3, 4), dtype=torch.float64)).requires_grad_()
    wanted = moments(rgb_to_lab(pictures(2, (8, 8), seed=2, dtype=torch.float64)))
    assert torch.autograd.gradcheck(lambda x: lab_to_rgb(with_moments(rgb_to_lab(x), wanted, 0.25)), images)
    flat = torch.zeros(1, 3, 4, 4, requires_grad=True)  # black, all alike
    one = Moments(wanted.mean[:1].float(), wanted.light[:1].float(), wanted.color[:1].float())
    (gradient,) = torch.autograd.grad(lab_to_rgb(with_moments(rgb_to_lab(flat), one, 0.25)).sum(), flat)
    assert gradient.isfinite().all()
