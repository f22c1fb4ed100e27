import pickle
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.bench.opencv import opencv
from kornia_cag.bench.peers import OpenCVCollate, PillowCollate
from kornia_cag.core.checks import InputError
from kornia_cag.core.fields import noise as noise_field
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Hard
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.recipes import DIGITS, RIGID_SIGNS

LOADERS = (OpenCVCollate, PillowCollate)
SIZE = 40
# Pillow has no value above 1 between two operations, so it is held against darker scenes.
DARK = replace(RIGID_SIGNS, color=replace(RIGID_SIGNS.color, exposure=(-3.5, -0.7), saturation=(0.2, 1.0)))
RANGES = {OpenCVCollate: RIGID_SIGNS, PillowCollate: DARK}
CAMERAS = {
    "all": RIGID_SIGNS.camera,
    "sharp": replace(RIGID_SIGNS.camera, blur=0.0),
    "blurred": replace(
        RIGID_SIGNS.camera, blur=1.0, gaussian=(1.0, 1.5), box=(2.0, 4.0), motion=(3.0, 4.0), noise=(0.0, 0.0)
    ),
}
# mean and 99 % quantile of the difference, in 255ths; older versions of OpenCV know 1/32 of a texel
LOOSE = {OpenCVCollate: (0.5, 3), PillowCollate: (0.8, 7)}


def scenes(loader, ranges, count=60):
    """The same scenes from the library and from a loader that is given its draws, (n, h, w, 3) both."""
    objects = ObjectBank.from_glyphs("0123456789ABCDEFGHIJ", size=64).with_ink((220, 60, 40))
    contexts = ContextBank.procedural("mix", count=count, size=64)
    index = torch.arange(count)
    keys = sample_keys(0 * index, 0 * index, index)
    rows = Rows.of(index % len(objects), index % len(contexts), index)
    images = Composer(objects, contexts, (SIZE, SIZE), ranges)(rows).images
    fields = noise_field(keys, "camera.noise_field", (3, SIZE, SIZE)).permute(0, 2, 3, 1)
    collate, made = loader(objects, contexts, SIZE, ranges), np.empty((count, SIZE, SIZE, 3), np.float32)
    for i in range(count):

        def draw(slot, bounds, row=i):
            return float(uniform(keys[row : row + 1], slot, *bounds))

        def noise(field, row=i):
            field[:] = fields[row].reshape(SIZE, -1)

        collate.scene(i % len(objects), i % len(contexts), draw, noise, made[i])
    return images.permute(0, 2, 3, 1).numpy(), made


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("camera", CAMERAS)
def test_makes_the_scenes_of_the_library(loader, camera):
    mean, quantile = LOOSE[loader]
    difference = 255 * np.abs(np.subtract(*scenes(loader, replace(RANGES[loader], camera=CAMERAS[camera]))))
    assert difference.mean() < mean
    assert np.quantile(difference, 0.99) < quantile


@pytest.mark.parametrize("loader", LOADERS)
def test_is_a_collate_of_rows(loader):
    objects = make_objects()
    collate = loader(objects, make_contexts(), SIZE, RIGID_SIGNS)
    rows = Rows.of(torch.tensor([4, 1]), torch.tensor([0, 2]), torch.tensor([0, 1]))
    images, labels = collate(rows)
    assert images.shape == (2, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert labels.tolist() == [4, 1]


@pytest.mark.parametrize("loader", LOADERS)
def test_every_scene_of_every_worker_has_noise_of_its_own(loader):
    still = PoseRange(
        **dict.fromkeys(("angle", "shear", "translate", "perspective"), (0, 0)), aspect=(1, 1), scale=(0.5, 0.5)
    )
    plain = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
    ranges = SceneRange(pose=still, color=plain, crop=(1, 1), camera=CameraRange(noise=(0.1, 0.1)))
    grey = ContextBank.from_tensors(torch.full((1, 3, 32, 32), 0.5), size=32)
    sent = pickle.dumps(loader(make_objects(), grey, SIZE, ranges))
    rows = Rows(torch.zeros(2, 5, dtype=torch.int64))
    images = []
    for _ in range(2):  # as if in two processes
        cv2.setRNGSeed(0)
        images.append(pickle.loads(sent)(rows)[0])
    images = torch.cat(images)[..., :3]  # beside the object
    assert images.mean() == pytest.approx(0.5, abs=0.02)
    for i in range(4):
        assert images[i].std() == pytest.approx(0.1, rel=0.25)
        assert all((images[i] - images[k]).std() == pytest.approx(0.1 * 2**0.5, rel=0.25) for k in range(i))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "ranges",
    [DIGITS.ranges, SceneRange(camera=CameraRange(jpeg=(50, 90))), SceneRange(blend=Hard())],
    ids=["digits", "jpeg", "hard"],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_it_cannot_make(loader, ranges):
    with pytest.raises(InputError, match="ranges: expected only what RIGID_SIGNS varies"):
        loader(make_objects(), make_contexts(), SIZE, ranges)


def test_says_how_to_get_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        OpenCVCollate(make_objects(), make_contexts(), SIZE, RIGID_SIGNS)
