"""``preview --explain``: the words are those of the scene, and the picture is that sample's."""

import re

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from PIL import Image

from kornia_cag import CAGCollate, ContextChain, Rows, SceneRange
from kornia_cag.command.explain import explained
from kornia_cag.scenes.camera import CameraRange

pytestmark = pytest.mark.usefixtures("tiny")


def test_what_is_said_is_what_was_drawn():
    index = torch.arange(6)
    ranges = SceneRange(camera=CameraRange(blur=1.0, kinds=("box",), noise=(0.1, 0.1), jpeg=(40.0, 40.0)))
    collate = CAGCollate(make_objects(), make_contexts(), 32, ranges=ranges, returns="batch", chain=ContextChain(0.0))
    classes = collate.objects.classes
    batch = collate(Rows.of(index % 5, index % 7, index, seed=3, epoch=2))
    for place in range(6):
        said = " ".join(" ".join(explained(batch, place, classes)).split())
        assert f"sample {place} of epoch 2, seed 3: class '{place % 5}'" in said
        assert f"object {place % 5} on context {place % 7}" in said
        pose, light = batch.scene.pose, batch.scene.light
        assert float(re.search(r"angle (\S+)°", said)[1]) == pytest.approx(float(pose.angle[place]), rel=0.01)
        assert float(re.search(r"exposure (\S+) stops", said)[1]) == pytest.approx(float(light.exposure[place]))
        assert ("mirrored" in said) == bool(batch.scene.crop.mirrored[place])
        assert "box blur, width" in said
        assert "sigma" not in said
        assert "JPEG quality 40" in said
    later = collate(Rows.of((index + 1) % 5, index % 7, index + 6))
    said = explained(later, 0, classes)
    assert said[1] == "object 1 on an earlier composite"
    assert not any(line.strip().startswith("crop") for line in said)


def test_preview_explain(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3, "--zoom", 1)
    assert run(*options, "--out", "sheet.png")[0] == 0
    status, out, err = run(*options, "--explain", 4, "--out", "one.png")
    assert (status, err) == (0, "")
    assert out.startswith("sample ")
    assert out.endswith("wrote one.png\n")
    tile = np.asarray(Image.open("sheet.png"))[18:34, 18:34]
    whole = np.asarray(Image.open("one.png"))
    shown = whole[1 : 1 + 16 * 20 : 20, 1 : 1 + 16 * 20 : 20]
    apart = (shown.astype(int) != tile).any(axis=2)
    assert apart.mean() < 0.3  # the box
    assert (whole[:, 360:] < 128).any()  # the words


def test_preview_explain_refuses(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3)
    status, _, err = run(*options, "--explain", 6)
    assert (status, err) == (2, "kornia-cag: --explain: expected an integer of at least 0 and at most 5, got 6. "
                                "Composites are counted from 0, row by row.\n")  # fmt: skip
    status, _, err = run(*options, "--explain", 1, "--masks")
    assert status == 2
    assert "--masks: expected to be used without --explain" in err
