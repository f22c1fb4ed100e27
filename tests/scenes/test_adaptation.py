from dataclasses import replace

import pytest
import torch
from composing import RANGES, make_composer, rows, scene_of
from conftest import make_contexts
from devicewait import RefuseWaiting
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_cag import FourierMix, Histograms, InputError, LabStatistics, References
from kornia_cag.core.formats import to_float
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.lab import moments, rgb_to_lab
from kornia_cag.scenes.matching import shares_below

KINDS = [FourierMix, LabStatistics, Histograms]


def keys(count, seed=0, device="cpu"):
    index = torch.arange(count, device=device)
    return sample_keys(0 * index + seed, 0 * index, index)


def pictures(count=9, size=(32, 40), device="cpu"):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1)).to(device)


def photos(device="cpu", count=7):
    return References(make_contexts(device, count))


def level(photos, which):
    return to_float(photos.photos.pyramid.level(0))[which].contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_matched_to_itself_is_itself(kind, device):
    one = photos(device, 1)
    images = level(one, [0, 0, 0])
    found = kind(one, strength=(1, 1))(images, keys(3, device=device))
    torch.testing.assert_close(found, images, atol=2e-5, rtol=0)


def test_at_full_strength_amplitudes_are_those_of_the_photo(device):
    one = photos(device, 1)
    images = 0.2 + 0.6 * pictures(3, (32, 32), device)
    found = FourierMix(one, beta=(0.1, 0.1), strength=(1, 1))(images, keys(3, device=device))
    before, after, wanted = (torch.fft.rfft2(x, norm="forward") for x in (images, found, level(one, [0, 0, 0])))
    ring = torch.tensor([*range(17), *range(15, 0, -1)], device=device)[:, None].maximum(
        torch.arange(17, device=device)
    )
    inside = ring <= 3  # 0.1 of 32 is 3.2; of the next ring a fifth
    torch.testing.assert_close(after[..., inside].abs(), wanted[..., inside].abs(), atol=2e-5, rtol=0.02)
    part = before.abs() + 0.2 * (wanted.abs() - before.abs())
    torch.testing.assert_close(after[..., ring == 4].abs(), part[..., ring == 4], atol=2e-5, rtol=0.02)
    torch.testing.assert_close(after[..., ring > 4], before[..., ring > 4], atol=1e-6, rtol=0)
    same = (after * before.conj())[..., inside]
    assert same.imag.abs().max() < 1e-6  # phases
    torch.testing.assert_close(found.mean((2, 3)), level(one, [0, 0, 0]).mean((2, 3)), atol=1e-4, rtol=0)


def test_at_full_strength_statistics_are_those_of_the_photo(device):
    one = References((255 * (0.3 + 0.3 * pictures(1, (32, 32)))).byte(), device=device)
    images = 0.2 + 0.5 * pictures(3, device=device)
    found = LabStatistics(one, strength=(1, 1))(images, keys(3, device=device))
    assert 0 < found.amin() < found.amax() < 1
    known, want = moments(rgb_to_lab(found)), moments(rgb_to_lab(level(one, [0, 0, 0])))
    torch.testing.assert_close(known.mean, want.mean, atol=1e-2, rtol=0)
    torch.testing.assert_close(known.light, want.light, atol=0.3, rtol=0)
    torch.testing.assert_close(known.color, want.color, atol=0.3, rtol=0)


def test_at_full_strength_histograms_are_those_of_the_photo(device):
    one = References((255 * pictures(1, (64, 64)) ** 2).byte(), device=device)
    images = 0.2 + 0.5 * pictures(3, (64, 64), device)
    found = Histograms(one, strength=(1, 1))(images, keys(3, device=device))
    assert (shares_below(found) - shares_below(level(one, [0, 0, 0]))).abs().max() < 0.02
    assert (shares_below(images) - shares_below(level(one, [0, 0, 0]))).abs().max() > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_strength_is_the_share_of_the_way(kind):
    source, images = photos(count=1), pictures()
    none, half, full = (kind(source, strength=(s, s))(images, keys(9)) for s in (0, 0.5, 1))
    assert torch.equal(none, images)
    torch.testing.assert_close(half, (none + full) / 2)
    assert (full - images).abs().amax((1, 2, 3)).min() > 0.05
    drawn = kind(source)(images, keys(9))
    share = ((drawn - images) * (full - images)).sum((1, 2, 3)) / (full - images).square().sum((1, 2, 3))
    if kind is not FourierMix:  # which draws beta, too
        torch.testing.assert_close(drawn, images + share[:, None, None, None] * (full - images), atol=1e-5, rtol=0)
    assert share.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(32, 40), (31, 33)])  # odd ones end inside a vector of the CPU
def test_keys_decide_and_samples_do_not_depend_on_each_other(kind, dtype, size, device):
    images, stage = pictures(size=size, device=device).to(dtype), kind(photos(device))
    one, same, other = (stage(images, keys(9, seed, device)) for seed in (0, 0, 1))
    assert one.dtype == dtype
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    for few in (slice(2, 5), slice(8, 9)):
        part = stage(images[few], keys(9, device=device)[few])
        if device.type == "cpu":
            assert torch.equal(part, one[few])
        torch.testing.assert_close(part, one[few], atol=1e-5, rtol=1e-2 if dtype == torch.bfloat16 else 0)
    last = images.contiguous(memory_format=torch.channels_last)
    found = stage(last, keys(9, device=device))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, one)
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(stage(images, keys(9, device=device)), one)


@pytest.mark.parametrize("kind", KINDS)
def test_every_photo_is_drawn_equally_often(kind):
    images, fixed = pictures(1, (16, 16)).expand(600, 3, 16, 16), {"beta": (0, 0)} if kind is FourierMix else {}
    found = kind(photos(count=3), strength=(1, 1), **fixed)(images, keys(600))
    counts = found.flatten(1).unique(dim=0, return_counts=True)[1]
    assert len(counts) == 3
    assert counts.min() > 160


class RefuseCopies(TorchDispatchMode):
    """Inside, no tensor is made of the host's values, and none moves to another device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        assert name not in ("lift_fresh", "lift_fresh_copy", "_copy_from"), func
        assert name != "_to_copy" or kwargs.get("device") is None, func
        return func(*args, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_device(kind):
    images, source = pictures(), photos()
    with RefuseWaiting(), RefuseCopies():  # not even when photos are looked at
        kind(source)(images, keys(9))


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_stage_after_the_camera(kind):
    table = rows(6)
    stage = kind(photos())
    plain = make_composer(RANGES["default"], (20, 24))
    composer = make_composer(replace(RANGES["default"], finish=(stage, stage)), (20, 24))
    made = composer(table)
    once = stage(plain(table).images, table.keys).clamp(0, 1)
    assert not torch.equal(made.images, once)
    assert made.images.amin() >= 0
    assert made.images.amax() <= 1
    scene = scene_of(made)
    angle = scene.pose.angle.clone().requires_grad_()
    composer.render(scene.posed(angle=angle)).images.square().sum().backward()
    assert angle.grad.isfinite().all()
    assert (angle.grad != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_at_pictures_of_one_colour(kind):
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16), torch.full((3, 16, 16), 0.5)])
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(kind(photos())(images, keys(3)).square().sum(), images)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_none_and_pictures_of_a_pixel(kind):
    stage = kind(photos())
    assert stage(pictures(0), keys(0)).shape == (0, 3, 32, 40)
    assert stage(pictures(2, (1, 1)), keys(2)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("untyped")
def test_bad_input(kind):
    stage = kind(photos())
    with pytest.raises(InputError) as error:
        kind("photos/")
    assert str(error.value) == "references: expected References, got 'photos/'. Pass References(\"photos/\")."
    with pytest.raises(InputError, match=r"^strength: expected a pair \(low, high\) with 0 <= low <= high <= 1, got"):
        kind(photos(), strength=(0, 2))
    with pytest.raises(InputError, match=r"^images: expected float16 or .* \(b, 3, h, w\) on cpu, got uint8"):
        stage(pictures().byte(), keys(9))
    with pytest.raises(InputError, match=r"^images: .* on the device of the references\.$"):
        stage(pictures().to("meta"), keys(9).to("meta"))
    with pytest.raises(InputError, match=r"^keys: expected int64 \(9\) on cpu, got int64 \(4,\)"):
        stage(pictures(), keys(4))


@pytest.mark.usefixtures("untyped")
def test_photos_must_have_the_frequencies_that_are_asked_for():
    with pytest.raises(InputError, match=r"^beta: expected a pair \(low, high\) with 0 <= low <= high <= 0\.5, got"):
        FourierMix(photos(), beta=(0, 0.6))
    with pytest.raises(InputError, match=r"^references: expected photos of more than 62 texels per side .* got 32"):
        FourierMix(photos(), beta=(0, 0.5))(pictures(1, (64, 64)), keys(1))
