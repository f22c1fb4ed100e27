import numpy as np
import pytest
import torch
from devicewait import RefuseWaiting
from PIL import Image, ImageOps
from torch import nn

from kornia_cag.training.architectures import (
    Equalize,
    LocalContrast,
    Pooled,
    Standardize,
    convnet,
    dcgan_encoder,
    pooled,
    two_layers,
)


@pytest.fixture
def images(device):
    return torch.rand(4, 3, 20, 24, generator=torch.Generator().manual_seed(0)).to(device)


def test_standardised_pictures_have_mean_0_and_deviation_1(images):
    out = Standardize(floor=0.0)(images)
    assert out.shape == images.shape
    assert out.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(out.std(dim=(1, 2, 3), correction=0), torch.ones(4, device=images.device))


def test_standardised_grey(images):
    out = Standardize(grey=True)(images)
    assert out.shape == (4, 1, 20, 24)
    torch.testing.assert_close(out, Standardize()(images.mean(dim=1, keepdim=True)))


def test_exposure_and_haze_fall_away(images):
    """Up to the floor, a darker and hazier picture looks the same."""
    exact, seen = Standardize(floor=0.0), Standardize()
    torch.testing.assert_close(exact(0.3 * images + 0.4), exact(images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen(0.3 * images + 0.4), seen(images), atol=0.1, rtol=0.1)


def test_a_flat_picture_stays_flat_and_has_a_gradient(device):
    flat = torch.full((2, 3, 8, 8), 0.7, device=device, requires_grad=True)
    out = Standardize()(flat)
    assert out.abs().max() < 1e-4
    out.square().sum().backward()
    assert flat.grad.isfinite().all()


def test_half_precision_is_standardised_in_float32(images):
    out = Standardize()(images.half())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, Standardize()(images), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("size", [16, 28, 32, 33])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("local", [0, 5])
@pytest.mark.parametrize("kind", [convnet, pooled])
def test_a_network_takes_its_canvas(size, grey, local, kind, device):
    net = (convnet(7, size, width=4, grey=grey, local=local) if kind is convnet else
           pooled(7, width=4, grey=grey, local=local)).to(device)  # fmt: skip
    first = next(m for m in net if isinstance(m, nn.Conv2d))
    assert first.in_channels == (1 if grey else 3) + (local > 0)
    with RefuseWaiting():
        logits = net(torch.rand(2, 3, size, size, device=device))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_convnet_width_and_dropout():
    def channels(net):
        return [m.out_channels for m in net if isinstance(m, nn.Conv2d)]

    assert channels(convnet(3, 16, width=8)) == [8, 16, 16, 32, 32, 64]
    assert next(m for m in convnet(3, 16, dropout=0.7) if isinstance(m, nn.Dropout)).p == 0.7


def test_a_pooled_network_sees_the_same_wherever_the_object_lies(device):
    torch.manual_seed(0)
    net = pooled(5, width=4).to(device).eval()
    thing, images = torch.rand(3, 8, 8, device=device), torch.full((3, 3, 96, 96), 0.4, device=device)
    for image, (top, left) in zip(images, [(40, 40), (48, 40), (40, 48)], strict=True):  # apart by whole strides
        image[:, top : top + 8, left : left + 8] = thing
    first, *others = net(images)
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-5, rtol=1e-4)
    flat = convnet(5, 96, width=4).to(device).eval()(images)
    assert (flat[1:] - flat[:1]).abs().max() > 1e-3


def test_convnet_can_learn(device):
    """Four flat-coloured quadrants: a network that works has them by heart in a few steps, all 32 for twelve seeds."""
    torch.manual_seed(0)
    labels = torch.arange(32, device=device) % 4
    images = 0.1 * torch.rand(32, 3, 16, 16, device=device)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 8 * (label // 2) :, 8 * (label % 2) :][:, :8, :8] += 0.8
    net = convnet(4, 16, width=4, dropout=0.0).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(25):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(images).argmax(dim=1) == labels).float().mean() > 0.9


def test_equalize_is_pillows_but_for_rounding():
    generator = torch.Generator().manual_seed(0)
    image = (0.2 + 0.3 * torch.rand(3, 24, 24, generator=generator) ** 2).mul(255).round()
    picture = Image.fromarray(image.byte().permute(1, 2, 0).numpy())
    wanted = ImageOps.equalize(ImageOps.autocontrast(picture, cutoff=1))
    got = Equalize()(image[None] / 255)[0]
    difference = (got - torch.from_numpy(np.array(wanted)).permute(2, 0, 1) / 255).abs()
    assert difference.mean() < 0.02
    assert difference.max() < 0.1


def test_equalize_lets_gradients_pass():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    weight = torch.rand(2, 3, 8, 8)
    (Equalize()(images) * weight).sum().backward()
    torch.testing.assert_close(images.grad, weight)


@pytest.mark.parametrize(("net", "size"), [(lambda: dcgan_encoder(7, 8), 64), (lambda: two_layers(7), 28)])
def test_the_papers_networks(net, size):
    model = net()
    assert model(torch.rand(3, 3, size, size)).shape == (3, 7)
    if size == 28:
        assert sum(p.numel() for p in model.parameters()) == (
            32 * 10 + 128 * 32 * 9 + 2 * 128 + 128 * 196 * 256 + 2 * 256 + 257 * 7
        )


def test_local_contrast_takes_shade_away(images):
    shade = torch.linspace(0.3, 1.0, images.shape[-1], device=images.device)
    one, other = (LocalContrast(5)(picture) for picture in (images, 0.2 * images))
    assert (one - other).abs().mean() < 0.01  # exposure is gone but for the floor
    shaded = LocalContrast(5)(images * shade)
    assert (one - shaded).abs().mean() < 0.25 * one.abs().mean()
    assert LocalContrast(5)(torch.full_like(images, 0.4)).abs().max() < 1e-2


def test_local_contrast_is_that_of_a_box():
    image = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    window = image[0, 0, 2:7, 2:7]
    usual = (LocalContrast(5)._around(image**2) - LocalContrast(5)._around(image) ** 2).mean()
    expected = (image[0, 0, 4, 4] - window.mean()) / (window.var(correction=0) + 0.1 * usual + 1e-5).sqrt()
    torch.testing.assert_close(LocalContrast(5)(image)[0, 0, 4, 4], expected)
    assert convnet(3, 16, local=5)(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_a_feature_counts_by_its_strongest_place_and_its_mean():
    maps = torch.zeros(1, 2, 3, 4)
    maps[0, 0, 1, 2], maps[0, 1] = 6.0, -1.0
    assert Pooled()(maps).tolist() == [[6.0, -1.0, 0.5, -1.0]]


@pytest.mark.parametrize("network", [convnet(3, 32, width=4, map_dropout=0.1), pooled(3, width=4, map_dropout=0.1)])
def test_maps_are_dropped_after_every_convolution(network):
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(nn.Dropout2d) == kinds.count(nn.Conv2d) == 6
