import pytest
import torch

from kornia_cag.banks import procedural
from kornia_cag.banks.procedural import KINDS, render
from kornia_cag.core.checks import InputError

ALL = (*KINDS, "mix")


def neighbour_correlation(images):
    """Per image: the correlation of horizontal neighbours, over all channels, each about its own mean."""
    centred = images.double() - images.double().mean(dim=(2, 3), keepdim=True)
    variance = (centred**2).mean(dim=(1, 2, 3))
    return (centred[..., 1:] * centred[..., :-1]).mean(dim=(1, 2, 3)) / variance.clamp(min=1e-9)


def spread(images):
    return images.double().std(dim=(2, 3)).mean(dim=1)


@pytest.mark.parametrize("kind", ALL)
def test_shape_type_and_replay(kind, device):
    images = render(kind, 11, 24, 5, device)
    assert images.shape == (11, 3, 24, 24)
    assert images.dtype == torch.uint8
    assert images.device.type == device.type
    assert torch.equal(images, render(kind, 11, 24, 5, device))
    assert images.flatten(1).unique(dim=0).shape[0] == 11


@pytest.mark.parametrize("kind", ALL)
def test_more_images_extend_fewer(kind, device):
    assert torch.equal(render(kind, 23, 20, 1, device)[:7], render(kind, 7, 20, 1, device))


@pytest.mark.parametrize("kind", ALL)
def test_chunks_do_not_show(kind, device, monkeypatch):
    whole = render(kind, 13, 17, 2, device)
    monkeypatch.setattr(procedural, "CHUNK", 2 * 64 * 64)
    assert torch.equal(whole, render(kind, 13, 17, 2, device))


@pytest.mark.parametrize("kind", ALL)
def test_seeds_differ_and_global_randomness_is_left_alone(kind):
    state = torch.get_rng_state()
    first, second = render(kind, 8, 16, 0), render(kind, 8, 16, 2**40)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first != second).flatten(1).any(dim=1).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", ALL)
def test_devices_agree(kind):
    here, there = render(kind, 20, 32, 3).int(), render(kind, 20, 32, 3, "cuda").cpu().int()
    assert ((here - there).abs() > 1).double().mean() < 1e-3  # rounding may fall to either side of an edge


def test_mix_takes_its_kinds_in_turn(device):
    mixed = render("mix", 12, 16, 4, device)
    for place, kind in enumerate(KINDS):
        assert torch.equal(mixed[place::5], render(kind, 12, 16, 4, device)[place::5])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_tiny_pictures(kind, size):
    assert render(kind, 6, size, 0).shape == (6, 3, size, size)


def test_solid_is_constant_within_and_covers_the_colours():
    images = render("solid", 500, 4, 0)
    assert (images == images[:, :, :1, :1]).all()
    rgb = images[:, :, 0, 0].double() / 255
    value, least = rgb.amax(dim=1), rgb.amin(dim=1)
    saturation = (value - least) / value.clamp(min=1e-6)
    for share in (value < 0.15, least > 0.8, (value > 0.8) & (saturation > 0.8), saturation < 0.1):
        assert 0.03 < share.double().mean() < 0.4
    assert (rgb.mean(dim=0) - rgb.mean()).abs().max() < 0.05  # no hue is preferred


def test_gradients_are_smooth():
    images = render("gradient", 200, 64, 0)
    assert (images[..., 1:].int() - images[..., :-1].int()).abs().max() <= 40
    lively = spread(images) > 3
    assert lively.double().mean() > 0.8
    assert neighbour_correlation(images)[lively].min() > 0.9


def test_gradients_go_every_way():
    images = render("gradient", 300, 32, 0).double()
    across = (images[..., -1] - images[..., 0]).mean(dim=(1, 2))
    down = (images[..., -1, :] - images[..., 0, :]).mean(dim=(1, 2))
    for change in (across, down):
        assert 0.35 < (change > 0).double().mean() < 0.65
        assert change.abs().mean() > 20


def test_smooth_noise_is_correlated_and_pixel_noise_is_not():
    smooth, pixel = render("noise", 150, 64, 0), render("pixel", 150, 64, 0)
    smooth = neighbour_correlation(smooth)[spread(smooth) > 3]
    pixel = neighbour_correlation(pixel)[spread(pixel) > 3]
    assert min(len(smooth), len(pixel)) > 100
    assert smooth.min() > 0.15
    assert smooth.median() > 0.8
    assert pixel.abs().max() < 6 / 64
    assert pixel.mean().abs() < 0.01


def test_noise_has_no_place_of_its_own():
    mean = render("noise", 400, 16, 0).double().mean(dim=(0, 1))
    assert (mean - mean.mean()).abs().max() < 20


def test_pixel_noise_comes_in_all_sorts():
    images = render("pixel", 300, 16, 0)
    levels = torch.tensor([len(image.flatten(1).unique(dim=1).T) for image in images])
    assert 0.05 < (levels == 2).double().mean() < 0.4  # two colours for all channels together
    assert 0.3 < (levels > 50).double().mean() < 0.95


def test_stripes_repeat_or_check():
    images = render("stripes", 300, 64, 0).double()
    lively = spread(images) > 3
    assert lively.double().mean() > 0.8
    power = torch.fft.fft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().square().sum(dim=1).flatten(1)
    strongest = power.topk(40, dim=1).values.sum(dim=1) / power.sum(dim=1).clamp(min=1e-9)
    assert strongest[lively].median() > 0.75  # a noise of 4096 frequencies would have about a twentieth there
    colours = torch.tensor([len(image.flatten(1).unique(dim=1).T) for image in images.to(torch.uint8)])
    assert colours[lively].min() >= 2


def test_stripes_are_antialiased():
    images = render("stripes", 100, 64, 0)
    assert sum(len(image.flatten(1).unique(dim=1).T) > 4 for image in images) > 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("marble", 4, 8, 0), "kind: expected one of 'solid', 'gradient', 'noise', 'pixel', 'stripes', 'mix'"),
        (("solid", 0, 8, 0), "count: expected an integer of at least 1, got 0"),
        (("solid", 4, 0, 0), "size: expected an integer of at least 1, got 0"),
        (("solid", 4, 8, -1), "seed: expected an integer of at least 0"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(InputError, match=words):
        render(*arguments)
