"""Haze and defocus: none near, more with distance, and never less for what lies behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from composing import make_composer, rows, scene_of
from scipy import ndimage

from kornia_cag import DepthRange, InputError, Layout, PoseRange, SceneRange
from kornia_cag.scenes.depth import Depth

SIZE = (24, 30)


def test_haze_goes_from_the_light_s_own_tone_to_air() -> None:
    scene = SceneRange().sample(rows(5))
    tone, air = scene.light.tone(), scene.light.air()
    veiled = replace(scene.light, veil=torch.ones(5)).tone()
    torch.testing.assert_close(veiled.offset, air)  # the same flat light as that of a veil
    depth = Depth(torch.full((5,), 0.4), torch.zeros(5))
    near = depth.hazed(tone, air, torch.tensor([0.2, 0.5, 1.0, 1.0, 1.0]))
    assert torch.equal(near.matrix, tone.matrix)
    assert torch.equal(near.offset, tone.offset)
    half = depth.hazed(tone, air, torch.full((5,), 1 + np.log(2) / 0.4))
    torch.testing.assert_close(half.matrix, tone.matrix / 2)
    torch.testing.assert_close(half.offset, (tone.offset + air) / 2)
    far = depth.hazed(tone, air, torch.full((5,), 1e3))
    torch.testing.assert_close(far.offset, air)
    none = Depth(torch.zeros(5), torch.zeros(5)).hazed(tone, air, torch.full((5,), 1e3))
    assert torch.equal(none.matrix, tone.matrix)


def test_defocus_is_a_gaussian_of_all_four_planes() -> None:
    planes = tuple(torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(i)) for i in range(4))
    depth = Depth(torch.zeros(3), torch.tensor([1.6, 1.6, 0.0]))
    near, half, none = zip(*depth.defocused(planes, torch.tensor([1.0, 2.0, 5.0]), most=2.0), strict=True)
    for own, sharp, soft, still in zip(planes, near, half, none, strict=True):
        assert torch.equal(own[0], sharp)
        assert torch.equal(own[2], still)
        want = ndimage.gaussian_filter(own[1].numpy(), 0.8, mode="nearest", radius=4)
        np.testing.assert_allclose(soft.numpy(), want, atol=1e-5)


def test_larger_is_nearer_and_none_is_farther_than_what_it_covers() -> None:
    ranges = SceneRange(depth=DepthRange(size=(0.5, 2)), layout=Layout(count=(1, 4), side=(0.1, 0.5)))
    scene = make_composer(ranges, SIZE).sample(rows(200, layers=4))
    found = torch.stack(scene.distances(0.5), dim=1)
    own = torch.stack([0.5 * layer.size / layer.pose.scale for layer in scene.layers], dim=1)
    shown = torch.stack([layer.shown for layer in scene.layers], dim=1)
    assert (found[:, 1:] <= found[:, :-1]).all()
    assert (found <= own)[shown].all()
    for sample, here, far in zip(own.tolist(), shown.tolist(), found.tolist(), strict=True):
        nearest = 1e3
        for one, there, distance in zip(sample, here, far, strict=True):
            nearest = min(nearest, one) if there else nearest
            assert distance == pytest.approx(nearest)
    assert len(shown.sum(dim=1).unique()) == 4


def test_distant_objects_are_paler_and_softer_in_the_picture() -> None:
    pose = PoseRange(scale=(0.2, 0.8), perspective=(0, 0))
    clear = SceneRange(pose=pose)
    hazy = replace(clear, depth=DepthRange(size=(1, 1), haze=(0.5, 0.5), defocus=(1.5, 1.5)))
    table = rows(60)
    made, plain = make_composer(hazy, SIZE)(table), make_composer(clear, SIZE)(table)
    (far,) = scene_of(made).distances(0.8)
    assert far is not None
    change = (made.images - plain.images).abs().sum(dim=(1, 2, 3)) / plain.targets.masks.sum(dim=(1, 2, 3))
    assert np.corrcoef(far.numpy(), change.numpy())[0, 1] > 0.7
    near = far < 1.05
    assert near.any()
    assert change[near].max() < change.median()
    still = make_composer(hazy, SIZE)(table, torch.zeros(60))
    assert torch.equal(still.images, make_composer(clear, SIZE)(table, torch.zeros(60)).images)


def test_errors() -> None:
    for name, wrong in (("size", (0, 1)), ("haze", (-1, 0)), ("defocus", (0, 21))):
        with pytest.raises(InputError, match=f"{name}: expected"):
            DepthRange(**{name: wrong})
