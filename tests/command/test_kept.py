"""A run's last two saves, and its folder: what is lost is told, and the run goes on."""

import shutil
from pathlib import Path

import pytest
import torch

from kornia_cag.core.storage import read_torch
from kornia_cag.training.run import Training

pytestmark = pytest.mark.filterwarnings("always::UserWarning")


def weights():
    return read_torch("runs/digits/model.pt", "path", "a model")["state"]


@pytest.fixture
def stopped(tiny, run, monkeypatch):
    """Stopped after 32 of 48 images, saved twice; what the weights of the whole run are."""
    assert run("train", "digits")[0] == 0
    whole = weights()
    shutil.rmtree("runs")
    train = Training.run

    def interrupted(self, *, save, **options):
        for images in (16, 32):
            train(self, save=save, stop=lambda images=images: self.seen >= images)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        assert run("train", "digits")[0] == 130
    return whole


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_run_goes_on_from_the_save_before(stopped, run, how):
    last = Path("runs/digits/checkpoint.pt")
    last.write_bytes(b"PK") if how == "damaged" else last.unlink()
    status, _, err = run("train", "digits", "--resume")
    assert status == 0
    assert "Going on from 'runs/digits/checkpoint.previous.pt', the save before.\n" in err
    assert all(torch.equal(one, other) for one, other in zip(weights().values(), stopped.values(), strict=True))


def test_an_unfinished_run_answers_from_the_save_before(stopped, run):
    Path("runs/digits/checkpoint.pt").unlink()
    status, _, err = run("evaluate", "runs/digits", "--json")
    assert (status, "33 % is done" in err) == (0, True)


def test_a_new_run_sets_both_saves_aside(stopped, run):
    assert run("train", "digits")[0] == 0
    assert Path("runs/digits/earlier-1/checkpoint.previous.pt").is_file()


def test_a_folder_that_vanishes_in_a_run_is_made_again(tiny, run, monkeypatch):
    train = Training.run

    def vanishing(self, *, save, **options):
        train(self, save=save, stop=lambda: self.seen >= 16)
        shutil.rmtree("runs")
        train(self, save=save)

    monkeypatch.setattr(Training, "run", vanishing)
    status, _, err = run("train", "digits")
    assert status == 0
    assert "warning: runs/digits: it was removed while it was in use; it is made again, without its files\n" in err
    names = {file.name for file in Path("runs/digits").iterdir()}
    assert {"checkpoint.pt", "model.pt", "config.json", "report.json", "preview.png"} <= names
