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
from kornia_cag import PGD, InputError
from kornia_cag.command import cli
from kornia_cag.command import train as train_module
from kornia_cag.command.options import chosen_recipe
from kornia_cag.core import progress
from kornia_cag.core.storage import read_json, write_json, write_torch
from kornia_cag.training.architectures import convnet
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import DIGITS, RECIPES, SIGNS
from kornia_cag.training.run import Training

FILES = ["checkpoint.pt", "config.json", "model.pt", "preview.png", "report.json"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Both recipes in small, and a folder to work in."""
    for recipe in (DIGITS, SIGNS):
        small = replace(recipe, size=16, images=48, batch_size=8, width=4, procedural=6)
        monkeypatch.setitem(RECIPES, recipe.name, small)
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


def names(folder):
    """Files of a folder, but for the lock that stays."""
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".lock")


def read(path):
    return read_json(path, "file", "one of a run")


@pytest.fixture
def run(capsys):
    """Run the command in this process: status, standard output, and what standard error says but for progress."""

    def call(*arguments):
        try:
            status = cli.main(list(map(str, arguments)))
        except SystemExit as stopped:  # argparse's way
            status = stopped.code
        said = capsys.readouterr()
        lines = said.err.splitlines(keepends=True)
        call.progress = [line for line in lines if not line.startswith(("kornia-cag:", "usage:"))]
        return status, said.out, "".join(line for line in lines if line not in call.progress)

    return call


# --- what works


def test_train_digits_end_to_end_and_resume(run, tmp_path):
    status, out, err = run("train", "digits", "--images", 40)
    assert (status, err) == (0, "")
    assert "ObjectBank(objects=10, classes=10, variants=5" in out
    assert "of 1,797 real pictures" in out
    folder = tmp_path / "runs" / "digits"
    assert names(folder) == FILES
    report = json.loads((folder / "report.json").read_text())
    assert report["images"] >= 40
    assert 0 <= report["accuracy"] <= 1
    assert list(report["per_class"]) == list("0123456789")
    shown = float(re.search(r": (\d+\.\d+)% of", out)[1])
    assert shown == pytest.approx(100 * report["accuracy"], abs=0.01)

    saved = torch.load(folder / "model.pt", weights_only=True)
    assert saved["classes"] == tuple("0123456789")
    assert (saved["recipe"], saved["size"], saved["model"]["function"]) == ("digits", 16, None)
    convnet(10, 16, width=4, grey=DIGITS.grey, map_dropout=DIGITS.map_dropout).load_state_dict(saved["state"])

    status, out, err = run("train", "digits", "--images", 40, "--resume")  # nothing is left: only measured again
    assert (status, err) == (0, "")
    assert json.loads((folder / "report.json").read_text())["accuracy"] == report["accuracy"]
    again = torch.load(folder / "model.pt", weights_only=True)["state"]
    assert all(torch.equal(again[name], value) for name, value in saved["state"].items())


def test_an_interrupted_run_goes_on_bit_for_bit(run, tmp_path, monkeypatch):
    def interrupted(self, *, save, **options):
        train(self, save=save, save_every=0.0, log=stop, log_every=0.0)

    def stop(share, word):
        raise KeyboardInterrupt

    assert run("train", "digits", "--out", "straight")[0] == 0
    train = Training.run
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        status, _, err = run("train", "digits", "--out", "stopped")
    assert (status, err) == (130, "kornia-cag: interrupted; repeat the command with --resume to go on\n")
    assert names("stopped") == FILES[:2] + FILES[3:4]
    assert run("train", "digits", "--out", "stopped", "--resume")[0] == 0
    one, other = (torch.load(Path(out) / "model.pt", weights_only=True)["state"] for out in ("straight", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fresh_start_forgets_the_run_before(run, monkeypatch):
    assert run("train", "digits", "--out", "o")[0] == 0

    def interrupted(self, **options):
        raise KeyboardInterrupt

    before = {name: (Path("o") / name).read_bytes() for name in FILES}
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        status, _, err = run("train", "digits", "--out", "o", "--seed", 1)
        assert status == 130
        assert err.startswith("kornia-cag: 'o' held a run, which is now in 'o/earlier-1'\n")
    assert {name: (Path("o/earlier-1") / name).read_bytes() for name in FILES} == before  # not lost
    status, _, err = run("train", "digits", "--out", "o", "--seed", 1, "--resume")
    assert (status, err) == (2, "kornia-cag: --resume: expected a saved run in 'o', got none. Leave --resume out to "
                             "start afresh.\n")  # fmt: skip


def test_one_class_cannot_be_told_apart(run, signs):
    for path in sorted(Path(signs).iterdir())[1:]:
        path.unlink()
    status, _, err = run("train", "signs", "--objects", signs)
    assert status == 2
    assert err.startswith("kornia-cag: --objects: expected at least two classes to tell apart, got one, 'give way'")


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


def test_configuration_report_and_preview_are_written(run, photos):
    options = ("--steps", 3, "--batch-size", 6, "--size", 18, "--contexts", photos, "--eps", 0.05, "--eps-object", 0.01,
               "--attack-steps", 2, "--no-chain", "--no-balanced", "--device", "cpu")  # fmt: skip
    status, out, err = run("train", "digits", *options, "--out", "o", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report == read("o/report.json")
    assert (report["steps"], report["images"]) == (3, 18)
    text = Path("o/config.json").read_text()
    assert "0x" not in text
    config = json.loads(text)
    assert (config["images"], config["balanced"], config["model"]) == (18, False, None)
    assert (config["recipe"]["size"], config["recipe"]["reset"]) == (18, None)
    attack = config["recipe"]["attack"]
    assert (attack["eps"], attack["eps_object"], attack["steps"]) == (0.05, 0.01, 2)
    assert config["contexts"]["count"] == 8
    assert config["options"]["contexts"] == photos
    assert config["versions"]["torch"] == torch.__version__
    assert np.asarray(Image.open("o/preview.png")).shape == (38, 12 * 37 + 1, 3)
    run("train", "digits", *options, "--out", "o", "--resume")
    assert Path("o/config.json").read_text() == text


def test_procedural_contexts_and_no_attack(run, monkeypatch):
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], attack=kornia_cag.PGD(eps=0.1)))
    assert run("train", "digits", "--contexts", "procedural", "--steps", 1, "--no-attack")[0] == 0
    config = json.loads(Path("runs/digits/config.json").read_text())
    assert (config["contexts"]["count"], config["recipe"]["attack"]) == (6, None)


def test_anyone_s_model_is_trained_resumed_and_evaluated(run):
    Path("ownnet.py").write_text(
        "from torch import nn\n"
        "def net(classes, size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * size * size, classes))\n"
    )
    train = ("train", "digits", "--model", "ownnet:net", "--steps", 2, "--out", "o")
    assert run(*train)[0] == 0
    saved = torch.load("o/model.pt", weights_only=True)
    assert saved["model"]["function"] == "ownnet:net"
    assert saved["state"]["2.weight"].shape == (10, 768)
    assert run(*train, "--resume")[0] == 0
    report = json.loads(Path("o/report.json").read_text())
    status, out, _ = run("evaluate", "o", "--model", "ownnet:net", "--json")
    assert (status, json.loads(out)["accuracy"]) == (0, report["accuracy"])
    Path("ownnet.py").write_text("from torch import nn\ndef net(c, s): return nn.Sequential(nn.Flatten(), nn.Lazy")
    status, _, err = run("train", "digits", "--steps", 2, "--out", "o", "--resume")
    assert status == 2
    assert "got model null (saved: ownnet:net)" in err


@pytest.mark.filterwarnings("default:real.npz")
def test_evaluate_measures_as_the_training_did(run):
    assert run("train", "digits", "--steps", 2, "--out", "o")[0] == 0
    report = json.loads(Path("o/report.json").read_text())
    for place in ("o", "o/model.pt"):
        status, out, err = run("evaluate", place, "--json", "--device", "cpu")
        assert (status, err) == (0, "")
        measured = json.loads(out)
        assert {name: report[name] for name in measured} == measured
    status, out, _ = run("evaluate", "o")
    assert status == 0
    lines = out.splitlines()
    assert [line[0] for line in lines[:10]] == list("0123456789")
    assert lines[10].startswith("most frequent errors: ")
    share = round(1797 * report["accuracy"]) / 1797  # the report rounds it
    assert lines[11] == f"accuracy on {report['real']['name']}: {share:.2%} of 1,797 real pictures"
    status, out, _ = run("evaluate", "o", "--errors", "errors.png")
    assert status == 0
    assert out.endswith("wrote errors.png\n")
    for bad in ("errors.txt", "errors.psd", "errors.ico", "missing/errors.png"):
        status, out, err = run("evaluate", "o", "--errors", bad)
        assert (status, out) == (2, "")
        assert err.startswith("kornia-cag: --errors: expected a")
    with Image.open("errors.png") as errors:
        assert errors.height == len(report["confusions"]) * (2 * RECIPES["digits"].size + 2)
    np.savez("real.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.array([0, 0, 4]))
    _, out, err = run("evaluate", "o", "--real", "real.npz")
    assert err == "kornia-cag: warning: real.npz: no picture of 8 of 10 classes: 1, 2, 3, 5, 6 …\n"
    assert [line[0] for line in out.splitlines()[:2]] == ["0", "4"]  # recalls where there are pictures
    assert "accuracy on real.npz" in out


def test_evaluate_needs_real_pictures(run, signs):
    assert run("train", "signs", "--objects", signs, "--steps", 1, "--out", "o")[0] == 0
    status, _, err = run("evaluate", "o")
    assert (status, err) == (
        2,
        "kornia-cag: --real: expected an .npz file or a folder of class folders, got nothing.\n",
    )
    saved = torch.load("o/model.pt", weights_only=True)
    write_torch("o/model.pt", {**saved, "state": {}})
    status, _, err = run("evaluate", "o", "--real", "x.npz")
    assert status == 2
    assert err.count("\n") == 1
    assert "weights that fit the network of 'signs'" in err


def test_preview_of_masks_and_perturbation(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3, "--zoom", 1, "--out", "sheet.png")
    attack = ("--eps", 0.1, "--eps-object", 0, "--masks", "--perturbation")
    status, _, err = run(*options, *attack)
    assert (status, err) == (0, "")
    picture = np.asarray(Image.open("sheet.png"))
    side = 2 * 17 + 1
    assert picture.shape == (3 * side, 3 * 17 + 1, 3)
    masks, delta = picture[side : 2 * side], picture[2 * side :]
    on, off = (masks == 255).all(axis=2), (masks == 0).all(axis=2)
    assert on.any()
    assert np.abs(delta[on].astype(int) - 128).max() <= 1  # the object has no budget, up to the mask's rounding
    assert (delta[off] != 128).any(axis=1).mean() > 0.5
    assert run("train", "signs", "--objects", signs, "--steps", 1, "--out", "o")[0] == 0
    assert run(*options, *attack, "--model-from", "o")[0] == 0
    assert (np.asarray(Image.open("sheet.png"))[2 * side :] != delta).any()
    assert run(*options, "--perturbation")[0] == 0
    assert np.asarray(Image.open("sheet.png")).shape == (2 * side, 3 * 17 + 1, 3)
    status, _, err = run("preview", "digits", "--perturbation", "--model-from", "o")
    assert status == 2
    assert "--model-from: expected a model of 10 classes, those of the objects, at size 16" in err


@pytest.mark.parametrize("balanced", [True, False])
def test_inspect_reports_bank_and_balance(run, signs, photos, balanced):
    options = ("--objects", signs, "--contexts", photos, "--batch-size", 6, *(() if balanced else ("--no-balanced",)))
    status, out, err = run("inspect", *options, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["objects_per_class"] == {"give way": 1, "no entry": 1, "stop": 1}
    assert "contexts=8" in told["contexts"]
    spread = {name: value[1] - value[0] for name, value in told.items() if isinstance(value, list)}
    assert spread.keys() == {"contexts_per_object", "objects_per_context", "samples_per_class",
                             "samples_per_class_and_batch"}  # fmt: skip
    assert (set(spread.values()) == {0}) == balanced
    status, out, _ = run("inspect", "signs", *options)
    assert status == 0
    assert "PairSampler(3 objects of 3 classes, 8 contexts" in out
    assert "objects per class: give way 1, no entry 1, stop 1" in out
    if balanced:
        assert "samples per class and batch: 2 to 2" in out


def test_progress_is_told_without_a_terminal(run):
    status, out, err = run("train", "digits", "--steps", 4, "--json")
    assert (status, err) == (0, "")
    json.loads(out)
    first, *lines = (
        line for line in run.progress if not line.startswith("measuring")
    )  # which a slow machine tells, too
    time = r"[\d.]+ (s|min)"
    assert re.fullmatch(
        rf"digits: a budget of 32 images, in batches of 8; about {time} on this machine, by its first steps\n", first
    )
    assert all(
        re.fullmatch(rf"digits: +\d+%  loss \d+\.\d+  [\d,]+ images/s  ({time} left|took {time})\n", line)
        for line in lines
    )
    assert "100%" in lines[-1]
    assert run("train", "digits", "--steps", 4, "--resume")[0] == 0
    assert not any("budget" in line for line in run.progress)  # nothing was left to do
    assert run("ablate", "digits", "--steps", 2, "--seeds", 2, "--only", "baseline")[0] == 0
    assert re.search(r"paper: baseline, seed 0: a budget.*; 1 more trainings, [\d.]+ (s|min) if each", run.progress[0])


def test_a_resumed_run_takes_up_the_threads_of_its_start(run):
    assert run("train", "digits", "--steps", 2, "--threads", 2)[0] == 0
    assert json.loads(Path("runs/digits/config.json").read_text())["threads"] == 2
    assert "2 threads" in json.loads(Path("runs/digits/report.json").read_text())["hardware"]
    assert torch.get_num_threads() == 1  # as before the command
    assert run("train", "digits", "--steps", 2, "--resume")[0] == 0
    assert run.progress[0] == "going on with 2 threads, as the run began, in place of this machine's 1\n"
    status, _, err = run("train", "digits", "--steps", 2, "--resume", "--threads", 3)
    assert status == 2
    assert "threads 3 (saved: 2)" in err
    assert "--threads 2." in err
    assert run("train", "digits", "--steps", 2, "--resume", "--threads", 2)[0] == 0
    rows = ("ablate", "digits", "--images", 16, "--only", "baseline", "--seeds")
    assert run(*rows, 1, "--threads", 2)[0] == 0
    assert run(*rows, 2, "--resume")[0] == 0
    assert run.progress[0] == "going on with 2 threads, as the run began, in place of this machine's 1\n"
    status, _, err = run(*rows, 3, "--resume", "--threads", 1)
    assert status == 2
    assert "got threads 1 (saved: 2)" in err


def test_a_bar_is_drawn_on_a_terminal(run, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    _, out, _ = run("train", "digits", "--steps", 2)
    assert re.search(r"\rdigits: 100%\|.{20}\|, loss \d+\.\d+  [\d,]+ images/s  took [\d.]+ s\n", "".join(run.progress))
    assert "images/s" not in out
    np.savez("real.npz", images=np.random.default_rng(0).integers(0, 255, (10, 20, 20), dtype=np.uint8),
             labels=np.arange(10))  # fmt: skip
    attack = ("evaluate", "runs/digits", "--attack", "pgd", "--real", "real.npz", "--eps", 0, 0.1, "--attack-steps", 1)
    run(*attack)
    assert re.search(r"\rattack:  50%\|.{20}\|, budget 0.1000, 2 of 2 .*\rattack: 100%", "".join(run.progress))


# --- what does not: status 2, one line, no traceback


def opaque():
    Path("opaque").mkdir()
    Image.new("RGB", (20, 20)).save("opaque/a.png")


def both_layouts():
    opaque()
    Path("opaque/b").mkdir()


def text_among_pictures():
    opaque()
    Path("opaque").rename("mixed")
    Path("mixed/notes.txt").write_text("no picture")


def damaged():
    Path("damaged").mkdir()
    Path("damaged/a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")


def occupied():
    Path("occupied").write_text("a file")


def pipe():
    os.mkfifo("pipe.png")


def damaged_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    Path("runs/digits/checkpoint.pt").write_bytes(b"damaged\ntwo lines")


def pickled_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    torch.save({"plan": Path("x")}, "runs/digits/checkpoint.pt")


def other_checkpoint():
    Path("runs/digits").mkdir(parents=True)
    write_torch("runs/digits/checkpoint.pt", {"plan": {"seed": 5}})


def bad_npz():
    Path("bad.npz").write_bytes(b"PK\3\4")


def other_classes():
    np.savez("bad.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 10]))


def other_folders():
    Path("real/eleven").mkdir(parents=True)


def unfinished():
    Path("unfinished").mkdir()
    Path("unfinished/checkpoint.pt").touch()


def own(source, name="mine"):
    return lambda: Path(f"{name}.py").write_text(source)


MISTAKES = [
    ("train digits --objects missing", None, "--objects: expected a folder, got 'missing', which is not there"),
    ("train digits --objects empty", lambda: Path("empty").mkdir(), "empty: expected pictures"),
    ("train digits --objects occupied", occupied, "--objects: expected a folder, got 'occupied', which is a file"),
    ("train digits --objects opaque", opaque, "a.png: expected a picture with transparency"),
    ("train digits --objects opaque --key white", opaque, "no white pixel on the border"),
    ("train digits --objects opaque", both_layouts, "either one picture per class or one sub-folder per class"),
    ("train digits --objects damaged", damaged, "damaged/a.png: "),
    ("train signs", None, "--objects: expected a folder with one clean picture per class"),
    ("train digits --contexts missing", None, "--contexts: expected a folder, got 'missing', which is not"),
    ("train digits --contexts damaged", damaged, "damaged/a.png: "),
    ("train digits --real missing.npz", None, "real: expected an .npz file or a folder"),
    ("train digits --real bad.npz", bad_npz, "real: expected an .npz file with arrays 'images' and 'labels'"),
    ("train digits --real bad.npz", other_classes, "real labels: expected class ids 0 to 9, got 0 to 10"),
    ("train digits --real real", other_folders, "real: expected sub-folders named as the classes"),
    ("train digits --images 0", None, "--images: expected an integer of at least 1, got 0"),
    ("train digits --images -5", None, "--images: expected an integer of at least 1, got -5"),
    ("train digits --steps 0", None, "--steps: expected an integer of at least 1, got 0"),
    ("train digits --steps 3 --images 40", None, "--steps: expected either --steps or --images, got both"),
    ("train digits --batch-size 0", None, "--batch-size: expected an integer of at least 1, got 0"),
    ("train digits --size 8", None, "--size: expected an integer of at least 16, got 8"),
    ("train digits --eps 8", None, "eps: expected a number in [0, 1], got 8.0"),
    ("train digits --eps nan", None, "eps: expected a number in [0, 1], got nan"),
    ("train digits --eps 0.1 --attack-steps 0", None, "--attack-steps: expected an integer of at least 1, got 0"),
    ("train digits --eps-object 0.1", None, "--eps-object: expected to come with --eps, got no --eps"),
    ("train digits --attack-steps 2", None, "--attack-steps: expected to come with --eps, got no --eps"),
    ("train digits --eps 0.1 --no-attack", None, "--eps: expected to come without --no-attack, got both"),
    ("train digits --scene-attack worst --no-attack", None, "--scene-attack: expected to come without --no-attack"),
    ("train digits --hard-pairing --no-chain", None, "--hard-pairing: expected to come without --no-chain"),
    (
        "train photo-digits --hard-pairing",
        None,
        "--hard-pairing: expected a recipe with a chain, whose slots it orders",
    ),
    ("train digits --model mine", own("mine = 1"), "--model: expected module:function, such as mymodels:small"),
    ("train digits --model a/b:c", None, "--model: expected module:function"),
    ("train digits --model own_missing:net", None, "--model: expected a function that can be imported"),
    ("train digits --model own1:other", own("", "own1"), "has no attribute 'other'"),
    ("train digits --model own2:net", own("1 / 0", "own2"), "ZeroDivisionError"),
    ("train digits --model own3:net", own("net = 3", "own3"), "--model: expected a function, got 'own3:net'"),
    (
        "train digits --model own4:net",
        own("def net(): pass", "own4"),
        "--model: expected a function of (classes, size)",
    ),
    ("train digits --model own5:net", own("def net(c, s): return 7", "own5"), "a function that returns a torch.nn.Mod"),
    (
        "train digits --model own6:net",
        own("from torch.nn import Flatten\ndef net(c, s): return Flatten()", "own6"),
        "--model: expected a network with parameters to train, got that of 'own6:net', which has none",
    ),
    (
        "train digits --model own7:net",
        own("from torch import nn\ndef net(c, s): return nn.Linear(7, 7)", "own7"),
        "--model: expected a network that takes pictures (b, 3, 16, 16), got that of 'own7:net', which raised Runtime",
    ),
    (
        "train digits --model own8:net",
        own("from torch import nn\ndef net(c, s): return nn.Sequential(nn.Flatten(), nn.Linear(768, 7))", "own8"),
        "a network that gives logits (b, 10), also in train mode, got float32 (2, 7) for two pictures, from 'own8:net'",
    ),
    ("train digits --out opaque/a.png", opaque, "--out: expected a folder, got 'opaque/a.png', which is a file"),
    ("evaluate unfinished", unfinished, "model: expected a training that is done, got 'unfinished', which holds one"),
    ("evaluate missing", None, "model: expected a folder with a model.pt, or such a file, got 'missing'"),
    ("evaluate empty", lambda: Path("empty").mkdir(), "model: expected a folder with a model.pt"),
    ("evaluate damaged/a.png", damaged, "model: expected a model saved by kornia-cag train"),
    ("evaluate x.pt", lambda: write_torch("x.pt", {"a": 1}), "model: expected a model saved by kornia-cag train"),
    ("preview digits --model-from missing --eps 0.1", None, "model: expected a folder with a model.pt"),
    ("preview digits --perturbation --no-attack", None, "--perturbation: expected to come without --no-attack"),
    ("inspect", None, "inspect: expected a RECIPE or --objects, got neither"),
    ("inspect signs", None, "--objects: expected a folder"),
    ("inspect digits --batch-size 0", None, "--batch-size: expected an integer of at least 1, got 0"),
    ("train digits --seed -1", None, "--seed: expected an integer of at least 0, got -1"),
    ("train digits --seed 99999999999999999999", None, "seed: expected an integer"),
    ("train digits --device tpu", None, "--device: expected auto, or a device of this machine"),
    ("train digits --device meta", None, "--device: expected auto, or a device of this machine"),
    ("train digits --device cuda:99", None, "--device: expected auto, or a device of this machine"),
    ("train digits --resume", None, "--resume: expected a saved run in 'runs/digits', got none"),
    ("train digits --resume", damaged_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", pickled_checkpoint, "--resume: expected a run saved by kornia-cag train"),
    ("train digits --resume", other_checkpoint, "--resume: expected the options of the saved run, got recipe"),
    ("train digits --out occupied", occupied, "occupied"),
    ("train digits --out occupied/deeper", occupied, "occupied/deeper"),
    ("preview digits --rows 0", None, "--rows: expected an integer of at least 1 and at most 100, got 0"),
    ("preview digits --columns -1", None, "--columns: expected an integer of at least 1"),
    ("preview digits --zoom 99", None, "--zoom: expected an integer of at least 1 and at most 16, got 99"),
    ("preview digits --seed -1", None, "--seed: expected an integer of at least 0"),
    ("preview digits --device tpu", None, "--device: expected auto, or a device of this machine"),
    ("preview digits --out missing/x.png", None, "missing/x.png"),
    ("preview digits --out pipe.png", pipe, "--out: expected a file in a folder that exists, got 'pipe.png'"),
    (
        "preview digits --out sheet.text",
        None,
        "--out: expected a picture file that Pillow can write, such as preview.png",
    ),
    ("preview signs", None, "--objects: expected a folder"),
    ("preview digits --model-from x", None, "--model-from: expected to come with something that looks at a model"),
    ("train signs --objects opaque", opaque, "Give it an alpha channel, or pass --key white if it stands on white"),
    ("train signs --objects mixed", text_among_pictures, "Take it out of the folder.\n"),
    ("train paper-digits --size 32", None, "--size: expected 28, which the network of 'paper-digits' takes, got 32"),
    ("train paper-digits --batch-size 1 --size 28", None, "--batch-size: expected at least 2"),
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
        ("train digits --eps little", "--eps: invalid fraction value: 'little'"),
        ("evaluate", "required: OUT"),
        ("inspect cats", "invalid choice: 'cats'"),
    ],
)
def test_a_command_line_that_cannot_be_read(run, command, message):
    status, out, err = run(*command.split())
    assert (status, out) == (2, "")
    assert err.startswith("kornia-cag: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_folder_that_cannot_be_written_to_is_found_before_the_training(run, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(train_module.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(Training, "run", lambda *_, **__: pytest.fail("trained in vain"))
    status, _, err = run("train", "digits", "--out", "locked")
    assert (status, err) == (2, "kornia-cag: [Errno 13] Permission denied: 'locked'\n")


def test_a_saved_run_of_other_options_is_not_resumed(run):
    assert run("train", "digits", "--images", 8)[0] == 0
    status, _, err = run("train", "digits", "--images", 16, "--resume")
    assert status == 2
    message = "--resume: expected the options of the saved run, got images 16 (saved: 8). "
    assert err == f"kornia-cag: {message}Repeat the options of the first start.\n"


def test_out_of_memory_is_a_hint(run, monkeypatch):
    def exhaust(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "run", exhaust)
    status, _, err = run("train", "digits")
    assert (status, err) == (2, "kornia-cag: CUDA out of memory. Try a smaller --batch-size.\n")


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
    assert done.stderr.count("kornia-cag: ") == (1 if status else 0)
    assert "Traceback" not in done.stderr


# --- bench


def test_bench_prints_a_table_with_an_answer(run):
    status, out, _ = run("bench", "--no-compile", "--seconds", "0.01")
    assert status == 0
    for name in ("composition, eager", "OpenCV loader, ", "Pillow loader, ", "training step", "FGSM"):
        assert name in out
    answer, scenes = out.rstrip().splitlines()[-2:]
    assert answer.startswith("Composition takes ")
    assert scenes.startswith("With its ScenePGD a batch takes ")


def test_bench_in_json_on_objects_of_ones_own(run, signs, photos):
    options = ["--batch-size", "3", "--size", "24", "--no-compile", "--seconds", "0.01", "--json"]
    status, out, _ = run("bench", "signs", "--objects", signs, "--contexts", photos, *options)
    assert status == 0
    report = json.loads(out)
    assert (report["batch_size"], report["size"], report["recipe"]) == (3, 24, "signs")
    assert "torch" in report["versions"]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_bench_refuses_a_time_that_is_none(run, seconds):
    status, _, error = run("bench", "--no-compile", "--seconds", seconds)
    assert status == 2
    assert "--seconds: expected a number in [0.01, 600]" in error


# --- ablation and attacks


def test_ablate_keeps_what_is_done(run, tmp_path):
    few = ("ablate", "digits", "--images", 16, "--seeds", 2, "--only", "baseline", "holes")
    status, out, err = run(*few)
    assert (status, err) == (0, "")
    file = tmp_path / "runs" / "ablation-digits" / "ablation.json"
    report = json.loads(file.read_text())
    assert [(r["row"], r["seed"]) for r in report["runs"]] == [
        ("paper: baseline", 0), ("without holes", 0), ("paper: baseline", 1), ("without holes", 1),
    ]  # fmt: skip
    assert [line["seeds"] for line in report["summary"]] == [2, 2]
    assert re.search(r"without holes +\| +\d+\.\d+% ± \d+\.\d+%", out)
    assert (file.parent / "ablation.md").read_text() in out
    assert (file.parent / "ablation.svg").is_file() == ("no plot" not in out)
    before = report["runs"]
    status, out, err = run(*few[:-2], "baseline", "--seeds", 1, "--seed", 2, "--resume")
    assert (status, err) == (0, "")
    runs = json.loads(file.read_text())["runs"]
    assert runs[:4] == before
    assert [(r["row"], r["seed"]) for r in runs[4:]] == [("paper: baseline", 2)]
    Path("pictures").mkdir()
    for i in range(10):
        picture = np.zeros((20, 20, 4), np.uint8)
        picture[4:16, 2 : 8 + i] = 255
        Image.fromarray(picture).save(f"pictures/{i}.png")
    status, _, err = run(*few, "--resume", "--objects", "pictures")
    assert status == 2
    assert "--resume: expected the options of the saved ablation, got objects.crc" in err
    assert run(*few[:-2], "baseline", "--seeds", 1)[2].startswith(
        "kornia-cag: 'runs/ablation-digits' held a run, which is"
    )
    assert json.loads((file.parent / "earlier-1/ablation.json").read_text())["runs"][:4] == before
    for text in ("[]", "{", '{"plan": {}}', None):
        file.write_text(text) if text else write_json(file, {"plan": {}})
        status, _, err = run(*few, "--resume")
        assert status == 2
        assert "--resume: expected results that ablate wrote, got " in err
    assert run(*few[:-2], "baseline", "--seeds", 1)[0] == 0
    status, _, err = run("ablate", "digits", "--images", 32, "--resume")
    assert status == 2
    assert "--resume: expected the options of the saved ablation, got images 32 (saved: 16)" in err


def test_ablate_trains_nothing_twice(run, tmp_path):
    assert run("ablate", "digits", "--images", 16, "--seeds", 1, "--only", "random", "chain")[0] == 0
    first, second = json.loads((tmp_path / "runs/ablation-digits/ablation.json").read_text())["runs"]
    assert second == {**first, "row": "without chain", "same_run_as": "paper: random context"}


def test_ablate_says_which_rows_there_are(run):
    status, _, err = run("ablate", "digits", "--only", "unicorns")
    assert status == 2
    assert "paper: baseline" in err


def test_evaluate_against_an_attack(run, signs, photos, tmp_path):
    for i in range(8):
        Image.new("RGB", (50, 40), (30 * i, 100, 200)).save(tmp_path / "photos" / f"more{i}.jpg")
    trained = ("train", "signs", "--objects", signs, "--contexts", photos, "--images", 16, "--hold-back", 0.3)
    assert run(*trained)[0] == 0
    attack = ("evaluate", "runs/signs", "--attack", "context", "--eps", 0, 0.5, "--attack-steps", 2, "--count", 12)
    status, out, err = run(*attack, "--objects", signs, "--contexts", photos, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["on"] == "composites over 3 unseen photographs"
    assert [eps for eps, _ in report["curve"]] == [0, 0.5]
    assert report["curve"][0][1] >= report["curve"][1][1]

    np.savez("real.npz", images=np.random.default_rng(0).integers(0, 255, (9, 20, 20, 3), dtype=np.uint8),
             labels=np.arange(9) % 3)  # fmt: skip
    status, out, err = run("evaluate", "runs/signs", "--attack", "pgd", "--real", "real.npz", "--eps", 0, 1)
    assert (status, err) == (0, "")
    assert "9 pictures of real.npz; linf, 20 steps from each start (random), on cross-entropy and on margin" in out
    assert "1.0000" in out
    status, out, err = run("evaluate", "runs/signs", "--attack", "pgd", "--real", "real.npz", "--norm", "l2",
                           "--restarts", 2, "--attack-steps", 2)  # fmt: skip
    assert (status, err) == (0, "")
    assert "l2, 2 steps from each start (random, 2 times at random)" in out
    assert re.findall(r"\n +(\d\.\d+) ", out) == ["0.0000", "0.1250", "0.2500", "0.5000", "1.0000", "2.0000", "4.0000"]


def test_scenes_and_pairs_chosen_against_the_model(run, monkeypatch):
    train = ("train", "digits", "--images", 32, "--hard-pairing", "--scene-attack")
    for name, kind in (("gradient", "steps"), ("worst", "k"), ("none", None)):
        assert run(*train, name)[0] == 0
        recipe = json.loads(Path("runs/digits/config.json").read_text())["recipe"]
        assert recipe["hard_pairing"] is True
        assert recipe["scene_attack"] is None if kind is None else kind in recipe["scene_attack"]
    sheets = []
    for options in ((), ("--scene-attack", "gradient"), ("--scene-attack", "worst")):
        assert run("preview", "digits", "--out", "p.png", *options)[0] == 0
        sheets.append(Path("p.png").read_bytes())
    assert len(set(sheets)) == 3  # each shows
    seen = []
    monkeypatch.setattr("kornia_cag.loading.confusion.HardPairing.observe", lambda *given: seen.append(given))
    assert run("preview", "digits", "--out", "p.png", "--hard-pairing")[0] == 0
    assert len(seen) == 4  # batches that come before the one that is shown have something to say


def test_catastrophic_overfitting_is_told(run, monkeypatch):
    looks = {"columns": [], "looks": [[100, 0.99, 0.9, 0.01]], "overfitted": True}
    monkeypatch.setattr("kornia_cag.evaluation.monitor.OverfittingMonitor.report", lambda self: looks)
    _, out, _ = run("train", "digits", "--images", 16, "--eps", 0.1)
    assert "a smaller --eps: 90% right under the training's own attack, 1% under PGD" in out
    assert json.loads(Path("runs/digits/report.json").read_text())["overfitting"] == looks


def test_evaluate_by_autoattack(run, monkeypatch):
    pytest.importorskip("torchattacks")
    assert run("train", "digits", "--images", 16)[0] == 0
    np.savez("real.npz", images=np.random.default_rng(0).integers(0, 255, (10, 20, 20), dtype=np.uint8),
             labels=np.arange(10))  # fmt: skip
    attack = ("evaluate", "runs/digits", "--attack", "auto", "--real", "real.npz", "--views", 1)
    monkeypatch.setattr("torchattacks.AutoAttack", lambda model, eps, **_: lambda images, labels: images)
    status, out, err = run(*attack)
    assert (status, err) == (0, "")
    assert "10 pictures of real.npz; AutoAttack" in out
    assert re.findall(r"\n +(\d\.\d+) ", out) == ["0.0000", "0.0314"]
    for own in (("--attack-steps", 5), ("--norm", "l2"), ("--restarts", 2)):
        assert run(*attack, *own)[0] == 2


def test_a_resume_of_an_incomplete_save_is_refused(run):
    assert run("train", "digits", "--images", 16)[0] == 0
    path = Path("runs/digits/checkpoint.pt")
    state = torch.load(path)
    for name in ("model", "monitor", "steps"):
        write_torch(path, {key: value if key != name else {} for key, value in state.items() if key != "steps"})
        status, _, err = run("train", "digits", "--images", 16, "--resume")
        assert status == 2
        assert err.count("\n") == 1
        assert "--resume: expected a run saved by this version" in err


def test_a_loss_that_is_not_a_number_is_told(run):
    own(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x.flatten(1)) / 0\n\n\ndef net(c, s):\n    return Net(768, c)\n",
        "ownnan",
    )()
    status, _, err = run("train", "digits", "--images", 16, "--model", "ownnan:net")
    assert status == 1
    assert re.fullmatch(
        r"kornia-cag: digits: training: expected finite numbers, got a loss that is not, at step 1\. Try a recipe with "
        r"a learning_rate below 0\.002(, or --float32)?, and look for log\(0\), 0 / 0 and overflow in 'ownnan:net'\.\n",
        err,
    )
    assert names("runs/digits") == ["config.json", "preview.png"]


def test_a_resume_names_another_kind_of_attack(run):
    train = ("train", "digits", "--images", 32, "--scene-attack")
    assert run(*train, "worst")[0] == 0
    status, _, err = run(*train, "gradient", "--resume")
    assert status == 2
    assert "recipe.scene_attack.class ScenePGD (saved: WorstOf)" in err


def test_a_recipes_step_stays_the_same_share_of_the_larger_budget(monkeypatch):
    monkeypatch.setitem(RECIPES, "signs", replace(RECIPES["signs"], attack=PGD(eps=0.1, eps_object=0.05, alpha=0.05)))
    parse = cli._parser().parse_args
    assert chosen_recipe(parse(["train", "signs", "--eps-object", "0.2"])).attack.alpha == pytest.approx(0.1)
    assert chosen_recipe(parse(["train", "signs", "--eps", "0.2"])).attack.alpha == pytest.approx(0.1)
    assert chosen_recipe(parse(["train", "signs", "--eps", "8/255"])).attack.eps == 8 / 255
    assert chosen_recipe(parse(["train", "signs", "--attack-steps", "3"])).attack.alpha == pytest.approx(0.05)


def test_photographs_that_were_trained_on_are_no_test(run, signs, photos):
    assert run("train", "signs", "--objects", signs, "--contexts", photos, "--images", 8)[0] == 0
    status, _, err = run("evaluate", "runs/signs", "--attack", "context", "--objects", signs, "--contexts", photos)
    assert status == 2
    assert "--hold-back" in err
    Path(photos).rename("moved")
    assert run("evaluate", "runs/signs", "--attack", "context", "--objects", signs, "--contexts", "moved")[0] == 2
    for other in ("{}", "[1]", "no JSON", None):
        file = Path("runs/signs/config.json")
        file.write_text(other) if other else write_json(file, {"trained_on": ["1"]})
        status, _, err = run("evaluate", "runs/signs", "--attack", "context", "--objects", signs, "--contexts", "moved")
        assert status == 2
        assert "--attack context: expected a config.json as train writes it, got 'runs/signs/config.json'" in err
    Path("runs/signs/config.json").unlink()
    status, _, err = run("evaluate", "runs/signs", "--attack", "context", "--objects", signs, "--contexts", "moved")
    assert status == 2
    assert "config.json" in err
    for given in (("--eps", 0.1), ("--count", 5), ("--objects", signs), ("--attack", "pgd", "--contexts", "moved")):
        status, _, err = run("evaluate", "runs/signs", "--real", "real.npz", *given)
        assert status == 2
        assert "to come with --attack" in err


def test_a_network_says_which_pictures_it_takes(run):
    assert run("train", "digits", "--images", 16)[0] == 0
    network = load_network("runs/digits").network
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    with pytest.raises(InputError, match=r"images: expected .*\(b, 3, 16, 16\), got float32 \(2, 3, 20, 20\)\. Scale"):
        network(torch.rand(2, 3, 20, 20))


def test_views_are_kept_with_the_model(run, monkeypatch):
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], views=3))
    assert run("train", "digits", "--images", 16)[0] == 0
    status, out, _ = run("evaluate", "runs/digits", "--json")
    assert status == 0
    assert json.loads(out)["accuracy"] == json.loads(Path("runs/digits/report.json").read_text())["accuracy"]
    assert run("evaluate", "runs/digits", "--views", 1)[0] == 0


@pytest.mark.parametrize("name", ["paper-digits", "paper-signs"])
def test_the_papers_recipes_train_and_are_read_again(run, signs, monkeypatch, name):
    recipe = RECIPES[name]
    small = replace(recipe, batch_size=12, width=4, attack=replace(recipe.attack, steps=2))
    monkeypatch.setitem(RECIPES, name, small)
    objects = ("--objects", signs) if name == "paper-signs" else ()
    status, out, err = run("train", name, *objects, "--steps", 2)
    assert (status, err) == (0, "")
    count = len(torch.load(f"runs/{name}/model.pt", weights_only=True)["classes"])
    np.savez("real.npz", images=np.zeros((count, 20, 20, 3), np.uint8), labels=np.arange(count))
    status, out, _ = run("evaluate", f"runs/{name}", "--real", "real.npz", "--json")
    assert status == 0
    assert json.loads(out)["real"]["pictures"] == count
