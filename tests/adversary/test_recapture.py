from dataclasses import replace

import pytest
import torch
from devicewait import RefuseWaiting
from torch import nn

from kornia_cag import PGD, ColorRange, InputError, PoseRange, Recapture
from kornia_cag.core.draws import Draws
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.scenes.camera import CameraRange

SAME = PoseRange(scale=(1, 1), aspect=(1, 1), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0))
PLAIN = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
STILL = Recapture(SAME, PLAIN, CameraRange())


def keys(count, seed=0, device="cpu"):
    index = torch.arange(count, device=device)
    return sample_keys(0 * index + seed, 0 * index, index)


def pictures(count=6, size=(16, 20), device="cpu"):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1)).to(device)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12)])
def test_a_still_camera_gives_the_picture_itself(size, device):
    images = pictures(size=size, device=device)
    torch.testing.assert_close(STILL(images, keys(6, device=device)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (20, 12)])
def test_convention_of_a_shift_and_a_scale(size):
    """A shift of a quarter of the short side moves every pixel so far; a scale of 2 shows the middle half."""
    images, short = pictures(size=size), min(size)
    moved = replace(STILL, pose=replace(SAME, translate=(0.25, 0.25)))(images, keys(6))
    step = short // 4
    torch.testing.assert_close(moved[:, :, step:, step:], images[:, :, :-step, :-step], atol=1e-4, rtol=0)
    larger = replace(STILL, pose=replace(SAME, scale=(2, 2)))(images, keys(6))
    middle = images[:, :, size[0] // 4 : 3 * size[0] // 4, size[1] // 4 : 3 * size[1] // 4]
    want = nn.functional.interpolate(middle, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(larger[:, :, 2:-2, 2:-2], want[:, :, 2:-2, 2:-2], atol=1e-4, rtol=0)


def test_keys_decide_and_samples_do_not_depend_on_each_other(device):
    images, shot = pictures(device=device), Recapture()
    one, same, other = (shot(images, keys(6, seed, device)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    jpegless = replace(shot, camera=replace(shot.camera, jpeg=None))
    whole = jpegless(images, keys(6, device=device))
    torch.testing.assert_close(jpegless(images[2:5], keys(6, device=device)[2:5]), whole[2:5], atol=1e-6, rtol=0)
    assert one.amin() >= 0
    assert one.amax() <= 1


def test_the_picture_may_be_half_precision():
    images = pictures().bfloat16()
    assert Recapture()(images, keys(6)).dtype == torch.bfloat16


def test_a_photograph_is_differentiable_in_the_picture():
    images = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad((Recapture()(images, keys(6)) ** 2).sum(), images)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.5


def test_what_no_print_can_show_is_refused(untyped):
    with pytest.raises(InputError, match=r"hole: expected \(0, 0\) in a photograph of a picture"):
        Recapture(pose=PoseRange(hole=(0, 0.5)))
    with pytest.raises(InputError, match=r"low_resolution: expected \(0, 0\) in a photograph"):
        Recapture(camera=CameraRange(low_resolution=(0, 1)))
    with pytest.raises(InputError, match="images: expected"):
        Recapture()(torch.zeros(2, 1, 8, 8), keys(2))
    with pytest.raises(InputError, match="keys: expected int64"):
        Recapture()(pictures(), keys(2))


def test_nothing_waits_for_the_device(monkeypatch):
    monkeypatch.setattr("kornia_cag.scenes.jpeg.jpeg_codec_differentiable", lambda picture, *_: picture)
    images, k = pictures(), keys(6)
    net = nn.Sequential(nn.Flatten(), nn.Linear(960, 4))
    with RefuseWaiting():
        Recapture()(images, k)
        PGD(eps=0.1, steps=2, transform=Recapture(), eot_samples=2)(net, images, torch.arange(6) % 4, keys=k)


# --- attacks through it


def test_the_gradient_is_the_mean_over_the_draws():
    """One step in L2 goes along it; the transform scales each image by a number that the key decides."""
    torch.manual_seed(0)
    images, labels, k = pictures(size=(4, 4)), torch.arange(6) % 3, keys(6)
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), []

    def transform(x, keys):
        seen.append(keys)
        return x * (keys % 7).float()[:, None, None, None] / 7

    attack = PGD(eps=0.1, steps=1, norm="l2", alpha=0.05, random_start=False, transform=transform, eot_samples=3)
    moved = attack(net, images, labels, keys=k) - images
    leaf = images.clone().requires_grad_()
    total = 0
    for part in seen[0].split(6):
        total = total + nn.functional.cross_entropy(net(transform(leaf, part)), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(total / 3, leaf)
    want = 0.05 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    inside = ((images + want >= 0) & (images + want <= 1)).all(dim=(1, 2, 3))
    assert inside.any()
    torch.testing.assert_close(moved[inside], want[inside], atol=1e-5, rtol=1e-3)
    assert len(set(seen[0].tolist())) == 18


def test_every_step_draws_anew_and_the_same_keys_give_the_same_attack():
    images, labels, k = pictures(), torch.arange(6) % 4, keys(6)
    torch.manual_seed(0)
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(960, 4)), []

    def transform(x, keys):
        seen.append(keys)
        return x

    attack = PGD(eps=0.1, steps=3, transform=transform)
    attack(net, images, labels, keys=k)
    assert len({tuple(keys.tolist()) for keys in seen}) == 3
    seen.clear()
    replace(attack, eot_samples=2)(net, images, labels, keys=k)
    assert len({int(key) for keys in seen for key in keys}) == 3 * 2 * 6  # no draw of any step is another's
    camera = PGD(eps=0.1, steps=3, transform=Recapture(), eot_samples=2)
    assert torch.equal(camera(net, images, labels, keys=k), camera(net, images, labels, keys=k))


@pytest.mark.parametrize("options", [{"target": "random"}, {"target": "least likely"}, {"early_stop": True}, {}])
def test_an_attack_through_the_camera_survives_it_better(options):
    torch.manual_seed(0)
    images, k = pictures(40, (12, 12)), keys(40)
    labels = torch.arange(40) % 3
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3))
    shots = Recapture(pose=PoseRange(translate=(-0.2, 0.2), angle=(-40, 40)))
    plain = PGD(eps=0.1, steps=10, **options)
    through = replace(plain, transform=shots, eot_samples=4)
    losses = []
    for attack in (plain, through):
        found = attack(net, images, labels, keys=k)
        assert (found - images).abs().max() <= 0.1 + 1e-6
        with torch.no_grad():
            photos = [net(shots(found, keys(40, seed))) for seed in range(8)]
            losses.append(sum(nn.functional.cross_entropy(photo, labels) for photo in photos))
    assert losses[1] > losses[0]  # over five networks by 0.3 to 2.4 %, of which rounding changes 0.004


def test_a_photograph_draws_apart_from_the_scene_of_its_key(monkeypatch):
    drawn, sample = [], PoseRange.sample

    def watch(ranges, source):
        drawn.append(Draws(source))
        return sample(ranges, drawn[-1])

    monkeypatch.setattr(PoseRange, "sample", watch)
    Recapture()(pictures(), keys(6))
    (angle,) = (numbers for (_, _, slot), numbers in drawn[0].numbers.items() if slot == "pose.angle")
    assert not torch.equal(angle, uniform(keys(6), "pose.angle"))


def test_channels_last_stays():
    images = pictures().to(memory_format=torch.channels_last)
    assert Recapture()(images, keys(6)).is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch_stays_empty():
    assert Recapture()(pictures()[:0], keys(0)).shape == (0, 3, 16, 20)


def test_transforms_are_checked(untyped):
    with pytest.raises(InputError, match="transform: expected a function of images and keys"):
        PGD(eps=0.1, transform=3)
    with pytest.raises(InputError, match=r"eot_samples: expected 1 without a transform, got 4\. Pass transform="):
        PGD(eps=0.1, eot_samples=4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(960, 4))
    with pytest.raises(InputError, match=r"transform: expected float32 .*It must keep shape, dtype and device"):
        PGD(eps=0.1, transform=lambda x, keys: x[:1])(net, pictures(), torch.zeros(6).long(), keys=keys(6))
