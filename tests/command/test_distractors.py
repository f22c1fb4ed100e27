"""A detector's training beside objects that it is not to find: made up, or from a folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import SceneRange
from kornia_cag.scenes.layout import Layout
from kornia_cag.training import recipe as recipe_module
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import RECIPES, STREET
from kornia_cag.training.run import Training

pytestmark = pytest.mark.usefixtures("tiny", "lamps")
NAMES = ("give way", "no entry", "stop")
TWO = ("--set", "distractors=2")


@pytest.fixture
def lamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of two objects that are none of ours, and a small recipe."""
    ranges = replace(STREET.ranges, layout=Layout(count=(1, 3), side=(0.2, 0.4)), camera=SceneRange().camera)
    small = replace(STREET, size=32, images=24, batch_size=8, width=4, procedural=6, ranges=ranges)
    monkeypatch.setitem(RECIPES, "street", small)
    monkeypatch.setattr(recipe_module, "MADE_UP", 6)
    (tmp_path / "lamps").mkdir()
    for place in range(2):
        picture = np.zeros((30, 30, 4), np.uint8)
        picture[4:26, 4 + 6 * place : 26] = (250, 250, 90 * place, 255)
        Image.fromarray(picture).save(tmp_path / f"lamps/{place}.png")


def test_a_run_beside_them_stops_and_resumes_exactly(run, signs, monkeypatch):
    train = ("train", "street", "--objects", signs, "--distractors", "lamps", *TWO)
    status, out, err = run(*train)
    assert (status, err) == (0, "")
    assert "ObjectBank(objects=5, classes=3, distractors=2" in out
    config = json.loads(Path("runs/street/config.json").read_text())
    assert (config["options"]["distractors"], config["recipe"]["distractors"]) == ("lamps", 2)
    assert config["classes"] == list(NAMES)
    trained = load_network("runs/street")
    assert (trained.names, trained.recipe.distractors) == (("sign",), 2)

    whole_run = Training.run

    def interrupted(self, *, save, **options):
        def stop(share, word):
            raise KeyboardInterrupt

        whole_run(self, save=save, save_every=0.0, log=stop, log_every=0.0)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        assert run(*train, "--out", "stopped")[0] == 130
    other = [*train, "--out", "stopped", "--resume"]
    other.remove("--distractors")
    other.remove("lamps")
    status, _, err = run(*other)
    assert (status, "--resume: expected the options of the saved run" in err) == (2, True)
    assert run(*train, "--out", "stopped", "--resume")[0] == 0
    one, two = (torch.load(f"{out}/model.pt", weights_only=True)["state"] for out in ("runs/street", "stopped"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_preview_and_counts_leave_them_unnamed(run, signs):
    preview = ("preview", "street", "--objects", signs, "--rows", 2, "--columns", 2, "--set", "detection.classes=all")
    assert run(*preview, *TWO)[0] == 0
    many = np.asarray(Image.open("preview.png"))
    assert run(*preview)[0] == 0
    assert (many != np.asarray(Image.open("preview.png"))).mean() > 0.05
    status, out, err = run("inspect", "street", "--objects", signs, *TWO, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["objects_per_class"] == dict.fromkeys(NAMES, 1)
    assert told["contexts_per_object"][0] == told["contexts_per_object"][1] > 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("street", "--distractors", "lamps"), "--distractors: expected a recipe that shows some, got one with distr"),
        (("street", "--distractors", "lamps"), "Pass --set distractors=2, too."),
        (("street", "--distractors", "nowhere", *TWO), "--distractors: expected a folder, got 'nowhere'"),
        (("street", "--distractors", "lamps", "--set", "distractors=3"), "distractors_per_scene: expected at most 2"),
        (("signs", *TWO), "--set distractors: expected 0, since the recipe's network is shown one object, got 2."),
        (("street", "--set", "distractors=-1"), "--set distractors: expected an integer of at least 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(run, signs, command, said):
    status, _, err = run("train", *command, "--objects", signs)
    assert (status, said in err) == (2, True), err
    assert not Path("runs").exists()
