"""A training that was stopped answers from its checkpoint, in every command that takes a trained network."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from kornia_cag.training.run import Training

pytestmark = pytest.mark.filterwarnings("always::UserWarning")
TOLD = (
    "kornia-cag: warning: runs/digits: an unfinished training, of which 33 % is done; the answers are those of its "
    "last checkpoint. Resume it: repeat its kornia-cag train with --resume.\n"
)


@pytest.fixture(autouse=True)
def stopped(tiny, run, monkeypatch):
    """Stopped by Ctrl-C after 16 of 48 images."""
    train = Training.run

    def interrupted(self, *, save, **options):
        train(self, save=save, stop=lambda: self.seen >= 16)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        status, _, err = run("train", "digits")
    assert (status, err) == (130, "kornia-cag: interrupted; repeat the command with --resume to continue\n")
    assert not Path("runs/digits/model.pt").exists()
    Image.effect_noise((40, 40), 90).convert("RGB").save("photo.png")


def test_every_command_answers_and_says_how_far_the_training_is(run):
    status, out, err = run("predict", "runs/digits", "photo.png")
    assert (status, err) == (0, TOLD)
    assert out.startswith("photo.png")
    status, out, err = run("evaluate", "runs/digits", "--json")
    assert (status, err) == (0, TOLD)
    assert 0 <= json.loads(out)["accuracy"] <= 1
    assert run("export", "runs/digits", "--out", "digits.pt2")[::2] == (0, TOLD)
    assert run("preview", "digits", "--eps", 0.1, "--model-from", "runs/digits", "--rows", 1)[::2] == (0, TOLD)


def test_its_numbers_are_those_of_the_finished_network(run):
    """A budget that is reached, but whose model was not written: killed in between, or on a full disk."""
    assert run("train", "digits", "--resume")[0] == 0
    finished = run("predict", "runs/digits", "photo.png", "--json")
    Path("runs/digits/model.pt").unlink()
    assert run("predict", "runs/digits", "photo.png", "--json") == finished


def test_a_run_without_a_checkpoint_has_no_answers_yet(run):
    Path("runs/digits/checkpoint.pt").unlink()
    for command in ("predict", "evaluate", "export"):
        status, _, err = run(
            command, "runs/digits", *{"predict": ["photo.png"], "export": ["--out=a.pt2"]}.get(command, [])
        )
        assert status == 2
        assert err == (
            "kornia-cag: model: expected a training that has saved something, got 'runs/digits', which has no "
            "checkpoint yet. Wait for its first, after some 20 seconds; if it was stopped before, train again.\n"
        )


def test_an_export_does_not_overwrite_the_checkpoint_it_reads(run):
    shutil.copy("runs/digits/checkpoint.pt", "before.pt")
    status, _, err = run("export", "runs/digits", "--out", "runs/digits/checkpoint.pt", "--format", "torch")
    assert status == 2
    assert "--out: expected another file than" in err
    assert Path("runs/digits/checkpoint.pt").read_bytes() == Path("before.pt").read_bytes()
