"""``preview --explain``: the words are those of the scene, and the pictures are that sample's."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from PIL import Image

from kornia_cag import (
    PGD,
    CAGCollate,
    CameraRange,
    ColorRange,
    ContextChain,
    DepthRange,
    Feather,
    OneOf,
    Over,
    PoseRange,
    Rows,
    SceneRange,
)
from kornia_cag.command.explain import explained, in_text
from kornia_cag.scenes.blends import Hard
from kornia_cag.scenes.scene import Crop

pytestmark = pytest.mark.usefixtures("tiny")


def said_of(collate, batch, place, **options):
    return " ".join(" ".join(in_text(explained(collate.composer, batch, place, **options))).split())


def test_what_is_said_is_what_was_drawn():
    index = torch.arange(6)
    camera = CameraRange(blur=1.0, kinds=("box",), noise=(0.1, 0.1), jpeg=(40.0, 40.0))
    ranges = SceneRange(color=ColorRange(exposure=(-1.0, -0.1)), camera=camera)
    collate = CAGCollate(make_objects(), make_contexts(), 32, ranges=ranges, returns="batch", chain=ContextChain(0.0))
    batch = collate(Rows.of(index % 5, index % 7, index, seed=3, epoch=2))
    for place in range(6):
        said = said_of(collate, batch, place)
        assert said.startswith(f"sample {place} of epoch 2, seed 3: class '{place % 5}' cut-out: object {place % 5}, ")
        assert f"context: context {place % 7}, share" in said
        pose, light = batch.scene.pose, batch.scene.light
        assert float(re.search(r"angle (\S+)°", said)[1]) == pytest.approx(float(pose.angle[place]), rel=0.01)
        assert float(re.search(r"exposure (\S+) stops", said)[1]) == pytest.approx(
            float(light.exposure[place]), rel=0.01
        )
        assert ("mirrored" in said) == bool(batch.scene.crop.mirrored[place])
        assert "box blur, width" in said
        assert "sigma" not in said
        assert "JPEG quality 40" in said
        assert "variant" not in said  # there is one
    later = collate(Rows.of((index + 1) % 5, index % 7, index + 6))
    sample = explained(collate.composer, later, 0)
    assert sample.said["earlier composite"] == [f"with '{int(later.earlier.labels[0, 0])}'"]
    assert "context" not in sample.said
    assert sample.boxes.keys() == {"pasted"}


def test_the_blend_that_was_drawn_is_said_and_how_far_away_an_object_is():
    blends = OneOf((Over(), Feather(width=(2.0, 3.0)), Hard()))
    ranges = SceneRange(blend=blends, depth=DepthRange())
    collate = CAGCollate(make_objects(), make_contexts(), 32, ranges=ranges, returns="batch")
    index = torch.arange(12)
    batch = collate(Rows.of(index % 5, index % 7, index))
    which = batch.scene.layers[0].blend.which
    (distances,) = batch.scene.distances(ranges.scale[1])
    assert set(which.tolist()) == {0, 1, 2}
    for place in range(12):
        said = said_of(collate, batch, place)
        name = ("Over()", "Feather, width", "Hard()")[which[place]]
        assert f"pasted: {name}" in said
        assert float(re.search(r"distance (\S+)", said)[1]) == pytest.approx(float(distances[place]), rel=0.01)
    width = float(batch.scene.layers[0].blend.parts[1].width[int((which == 1).nonzero()[0])])
    assert f"Feather, width {width:.3g}" in said_of(collate, batch, int((which == 1).nonzero()[0]))


def test_what_changes_nothing_is_not_said():
    still = PoseRange(angle=(0, 0), shear=(0, 0), perspective=(0, 0), aspect=(1, 1))
    color = ColorRange(brightness=(1, 1), contrast=(1, 1), exposure=(0, 0), saturation=(1, 1), hue=(0, 0), tint=(0, 0))
    ranges = SceneRange(pose=still, color=color)
    collate = CAGCollate(make_objects(), make_contexts(), 32, ranges=ranges, returns="batch")
    batch = collate(Rows.of(torch.tensor([1]), torch.tensor([2]), torch.tensor([0])))
    sample = explained(collate.composer, batch, 0)
    assert sample.said["lit"] == ["as they are"]
    assert sample.said["photographed"] == ["sharp and without noise"]
    assert re.fullmatch(
        r"scale \S+ of the short side, x \S+ of .* side, y \S+ of .* side", " ".join(sample.said["warped"])
    )


def test_an_attack_adds_two_rows():
    attack = PGD(eps=8 / 255, eps_object=0.0, steps=2)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 5))
    collate = CAGCollate(make_objects(), make_contexts(), 32, returns="batch", model=model, adversaries=(attack,))
    batch = collate(Rows.of(torch.tensor([1]), torch.tensor([2]), torch.tensor([0])))
    sample = explained(collate.composer, batch, 0, attack)
    assert list(sample.pictures)[-2:] == list(sample.said)[-2:] == ["perturbation", "attacked"]
    assert torch.equal(sample.pictures["attacked"], batch.images[0])
    assert sample.said["perturbation"] == ["15.9 times as strong; grey is none"]
    assert sample.said["attacked"] == ["PGD(eps=8/255, eps_object=0, steps=2)"]


def test_boxes_are_those_of_crop_and_object():
    collate = CAGCollate(make_objects(), make_contexts(), (20, 40), returns="batch")
    batch = collate(Rows.of(torch.tensor([1]), torch.tensor([2]), torch.tensor([0])))
    crop = Crop(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([False]))
    sample = explained(collate.composer, batch._replace(scene=replace(batch.scene, crop=crop)), 0)
    assert sample.boxes["context"].tolist() == [20, 0, 40, 5]  # half as wide, and a quarter as high, as the context
    assert torch.equal(sample.boxes["pasted"], batch.boxes[0])


def test_preview_explain(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3, "--zoom", 1, "--eps", "8/255")
    assert run(*options, "--no-names", "--out", "sheet.png")[0] == 0
    status, out, err = run(*options, "--explain", 4, "--out", "one.png")
    assert (status, err) == (0, "")
    assert out.startswith("sample ")
    assert out.endswith("wrote one.png\n")
    stages = [line.split(":")[0].strip() for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert stages[0] == "cut-out"
    assert stages[-3:] == ["photographed", "perturbation", "attacked"]
    whole, zoom, tall = np.asarray(Image.open("one.png")), 8, 16 * 8 + 12
    tile = np.asarray(Image.open("sheet.png"))[18:34, 18:34]
    top = 43 + tall * stages.index("attacked")
    shown = whole[top : top + 16 * zoom : zoom, 12 : 12 + 16 * zoom : zoom]
    dark = np.quantile(tile.max(axis=2), 0.95) < 0.2 * 255
    assert (shown[:8, :8] == tile[:8, :8]).all()  # the other quarters, where an inset would not be
    assert dark or (shown == tile).all()
    assert (whole[:, 160:] < 128).any()  # the words
    assert whole.shape[0] == 43 + tall * len(stages)


def test_preview_explain_of_any_name(run, signs):
    (Path(signs) / "stop.png").rename(Path(signs) / ("停" * 80 + ".png"))
    status, _, err = run("preview", "signs", "--objects", signs, "--rows", 1, "--columns", 3, "--explain", 0)
    assert (status, err) == (0, "")
    assert np.asarray(Image.open("preview.png")).shape[1] < 900


def test_preview_explain_refuses(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3)
    status, _, err = run(*options, "--explain", 6)
    assert (status, err) == (2, "kornia-cag: --explain: expected an integer of at least 0 and at most 5, got 6. "
                                "Composites are counted from 0, row by row.\n")  # fmt: skip
    status, _, err = run(*options, "--explain", 1, "--masks")
    assert status == 2
    assert "--masks: expected to be used without --explain" in err
    assert "--no-names: expected to be used without" in run(*options, "--explain", 1, "--no-names")[2]
