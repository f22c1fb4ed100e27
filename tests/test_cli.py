import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kornia_cag
from kornia_cag import cli
from kornia_cag.models import convnet
from kornia_cag.recipes import DIGITS, SIGNS


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Both recipes in small, and a folder to work in."""
    for recipe in (DIGITS, SIGNS):
        small = replace(recipe, size=16, images=48, batch_size=8, width=4, procedural=6)
        monkeypatch.setitem(cli.RECIPES, recipe.name, small)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def signs(tmp_path):
    """Three classes of cut-outs."""
    for i, name in enumerate(("stop", "give way", "no entry")):
        picture = np.zeros((40, 40, 4), np.uint8)
        picture[5 + 5 * i : 35, 5:35] = (80 * i, 200, 50, 255)
        (tmp_path / "signs").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "signs" / f"{name}.png")
    return "signs"


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.new("RGB", (50, 40), (9, 100 * i, 200)).save(tmp_path / "photos" / f"{i}.jpg")
    return "photos"


@pytest.fixture
def run(capsys):
    """Run the command in this process: status, standard output, standard error."""

    def call(*arguments):
        try:
            status = cli.main(list(map(str, arguments)))
        except SystemExit as stopped:  # argparse's way
            status = stopped.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


# --- what works


def test_train_digits_end_to_end_and_resume(run, tmp_path):
    status, out, err = run("train", "digits", "--images", 40)
    assert (status, err) == (0, "")
    assert "ObjectBank(objects=10, classes=10, variants=5" in out
    assert "of 1,797 real pictures" in out
    folder = tmp_path / "runs" / "digits"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "model.pt", "report.json"]
    report = json.loads((folder / "report.json").read_text())
    assert report["images"] >= 40
    assert 0 <= report["accuracy"] <= 1
    assert len(report["per_class"]) == 10
    shown = float(re.search(r": (\d+\.\d+)% of", out)[1])
    assert shown == pytest.approx(100 * report["accuracy"], abs=0.01)

    saved = torch.load(folder / "model.pt", weights_only=True)
    assert saved["classes"] == tuple("0123456789")
    convnet(10, 16, width=4, grey=DIGITS.grey).load_state_dict(saved["model"])

    status, out, err = run("train", "digits", "--images", 40, "--resume")  # nothing is left: only measured again
    assert (status, err) == (0, "")
    assert json.loads((folder / "report.json").read_text())["accuracy"] == report["accuracy"]
    again = torch.load(folder / "model.pt", weights_only=True)["model"]
    assert all(torch.equal(again[name], value) for name, value in saved["model"].items())


def test_an_interrupted_run_goes_on_bit_for_bit(run, tmp_path, monkeypatch):
    def interrupted(self, *, save, **options):
        train(self, save=save, save_every=0.0, log=stop)

    def stop(line):
        raise KeyboardInterrupt

    assert run("train", "digits", "--out", "straight")[0] == 0
    train = cli.Training.run
    with monkeypatch.context() as patch:
        patch.setattr(cli.Training, "run", interrupted)
        status, _, err = run("train", "digits", "--out", "stopped")
    assert (status, err) == (130, "kornia-cag: interrupted; go on with --resume\n")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["checkpoint.pt"]
    assert run("train", "digits", "--out", "stopped", "--resume")[0] == 0
    one, other = (torch.load(Path(out) / "model.pt", weights_only=True)["model"] for out in ("straight", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_train_signs_on_photographs_with_real_pictures(run, signs, photos, tmp_path):
    for name in ("stop", "no entry"):
        (tmp_path / "real" / name).mkdir(parents=True)
        Image.new("RGB", (30, 30), (200, 100, 50)).save(tmp_path / "real" / name / "1.png")
    status, out, err = run("train", "signs", "--objects", signs, "--contexts", photos, "--real", "real", "--out", "o")
    assert (status, err) == (0, "")
    assert "ContextBank(contexts=8" in out
    assert "accuracy on real: " in out
    report = json.loads(Path("o/report.json").read_text())
    assert report["real"] == {"name": "real", "pictures": 2}
    assert torch.load("o/model.pt", weights_only=True)["classes"] == ("give way", "no entry", "stop")


def test_train_without_real_pictures_says_so(run, signs):
    status, out, _ = run("train", "signs", "--objects", signs, "--images", 8)
    assert status == 0
    assert "no real pictures to measure on; pass --real" in out
    assert json.loads(Path("runs/signs/report.json").read_text())["accuracy"] is None


@pytest.mark.parametrize("recipe", ["digits", "signs"])
def test_preview(run, recipe, signs):
    objects = () if recipe == "digits" else ("--objects", signs)
    options = ("--rows", 2, "--columns", 3, "--zoom", 2, "--boxes")
    status, out, err = run("preview", recipe, *objects, *options, "--out", "sheet.png")
    assert (status, out, err) == (0, "wrote sheet.png\n", "")
    picture = np.asarray(Image.open("sheet.png"))
    assert picture.shape == (2 * 33 + 1, 3 * 33 + 1, 3)
    assert (picture == (255, 220, 0)).all(axis=2).any()  # a box
    run("preview", recipe, *objects, *options, "--out", "again.png")
    assert (np.asarray(Image.open("again.png")) == picture).all()
    run("preview", recipe, *objects, *options, "--seed", 1, "--out", "other.png")
    assert (np.asarray(Image.open("other.png")) != picture).any()


def test_version_and_help(run):
    assert run("--version") == (0, f"kornia-cag {kornia_cag.__version__}\n", "")
    status, out, _ = run("train", "--help")
    assert status == 0
    assert "--resume" in out


# --- what does not: status 2, one line, no traceback


def opaque():
    Path("opaque").mkdir()
    Image.new("RGB", (20, 20)).save("opaque/a.png")


def both_layouts():
    opaque()
    Path("opaque/b").mkdir()


def damaged():
    Path("damaged").mkdir()
    Path("damaged/a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")


def occupied():
    Path("occupied").write_text("a file")


def damaged_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    Path("runs/digits/checkpoint.pt").write_bytes(b"damaged\ntwo lines")


def pickled_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    torch.save({"plan": Path("x")}, "runs/digits/checkpoint.pt")


def other_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    torch.save({"plan": {"seed": 5}}, "runs/digits/checkpoint.pt")


def bad_npz():
    Path("bad.npz").write_bytes(b"PK\3\4")


def other_classes():
    np.savez("bad.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 10]))


def other_folders():
    Path("real/eleven").mkdir(parents=True)


MISTAKES = [
    ("train digits --objects missing", None, "missing: expected a folder"),
    ("train digits --objects empty", lambda: Path("empty").mkdir(), "empty: expected pictures"),
    ("train digits --objects occupied", occupied, "occupied: expected a folder"),
    ("train digits --objects opaque", opaque, "a.png: expected a picture with transparency"),
    ("train digits --objects opaque --key white", opaque, "no white pixel on the border"),
    ("train digits --objects opaque", both_layouts, "either one picture per class or one sub-folder per class"),
    ("train digits --objects damaged", damaged, "damaged/a.png: "),
    ("train signs", None, "--objects: expected a folder with one clean picture per class"),
    ("train digits --contexts missing", None, "missing: expected a folder"),
    ("train digits --contexts damaged", damaged, "damaged/a.png: "),
    ("train digits --real missing.npz", None, "real: expected an .npz file or a folder"),
    ("train digits --real bad.npz", bad_npz, "real: expected an .npz file with arrays 'images' and 'labels'"),
    ("train digits --real bad.npz", other_classes, "real labels: expected class ids 0 to 9, got 0 to 10"),
    ("train digits --real real", other_folders, "real: expected sub-folders named as the classes"),
    ("train digits --images 0", None, "--images: expected an integer of at least 1, got 0"),
    ("train digits --images -5", None, "--images: expected an integer of at least 1, got -5"),
    ("train digits --seed -1", None, "--seed: expected an integer of at least 0, got -1"),
    ("train digits --seed 99999999999999999999", None, "seed: expected an integer"),
    ("train digits --device tpu", None, "--device: expected a device of this machine"),
    ("train digits --device meta", None, "--device: expected a device of this machine"),
    ("train digits --device cuda:99", None, "--device: expected a device of this machine"),
    ("train digits --resume", None, "--resume: expected a saved run in 'runs/digits', got none"),
    ("train digits --resume", damaged_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", pickled_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", other_checkpoint, "--resume: expected a run with"),
    ("train digits --out occupied", occupied, "occupied"),
    ("train digits --out occupied/deeper", occupied, "occupied/deeper"),
    ("preview digits --rows 0", None, "--rows: expected an integer of at least 1, got 0"),
    ("preview digits --columns -1", None, "--columns: expected an integer of at least 1"),
    ("preview digits --zoom 99", None, "--zoom: expected an integer of at least 1 and at most 16, got 99"),
    ("preview digits --seed -1", None, "--seed: expected an integer of at least 0"),
    ("preview digits --device tpu", None, "--device: expected a device of this machine"),
    ("preview digits --out missing/x.png", None, "missing/x.png"),
    ("preview digits --out sheet.text", None, "path: expected a picture file, such as preview.png, got 'sheet.text'"),
    ("preview signs", None, "--objects: expected a folder"),
]


@pytest.mark.parametrize(("command", "prepare", "message"), MISTAKES, ids=[f"{c[:40]}" for c, _, _ in MISTAKES])
def test_a_mistake_is_said_in_one_line(run, command, prepare, message):
    if prepare is not None:
        prepare()
    status, _, err = run(*command.split())
    assert status == 2
    assert err.startswith("kornia-cag: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "required: COMMAND"),
        ("paint", "invalid choice: 'paint'"),
        ("train", "required: RECIPE"),
        ("train cats", "invalid choice: 'cats'"),
        ("train digits --images many", "--images: invalid int value: 'many'"),
        ("train digits --seed 1.5", "--seed: invalid int value"),
        ("train digits --key black", "--key: invalid choice: 'black'"),
        ("train digits --fast", "unrecognized arguments: --fast"),
        ("preview digits --rows x", "--rows: invalid int value"),
    ],
)
def test_a_command_line_that_cannot_be_read(run, command, message):
    status, out, err = run(*command.split())
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_to_is_found_before_the_training(run, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(cli.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(cli.Training, "run", lambda *_, **__: pytest.fail("trained in vain"))
    status, _, err = run("train", "digits", "--out", "locked")
    assert (status, err) == (2, "kornia-cag: [Errno 13] Permission denied: 'locked'\n")


def test_a_saved_run_of_other_options_is_not_resumed(run):
    assert run("train", "digits", "--images", 8)[0] == 0
    status, _, err = run("train", "digits", "--images", 16, "--resume")
    assert status == 2
    assert "Repeat the options of the first start." in err


def test_out_of_memory_is_a_hint(run, monkeypatch):
    def exhaust(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cli.Training, "run", exhaust)
    status, _, err = run("train", "digits")
    assert status == 2
    assert "CUDA out of memory" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["train", "digits", "--objects", "missing"], 2), (["preview", "digits", "--rows", "1"], 0)],
)
def test_the_process_itself(arguments, status):
    """Exit status and silence on standard error, warnings included, of the real thing."""
    root = str(Path(kornia_cag.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "kornia_cag", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == status
    assert done.stderr.count("\n") == (1 if status else 0)
    assert "Traceback" not in done.stderr
