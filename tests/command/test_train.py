import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kornia_cag
from kornia_cag.command import measuring
from kornia_cag.command import train as train_module
from kornia_cag.core import progress
from kornia_cag.core.storage import read_json, write_torch
from kornia_cag.training.architectures import convnet
from kornia_cag.training.network import load_network
from kornia_cag.training.recipes import DIGITS, RECIPES
from kornia_cag.training.run import Training

pytestmark = pytest.mark.usefixtures("tiny")
FILES = ["checkpoint.pt", "config.json", "model.pt", "preview.png", "report.json"]


def names(folder):
    """Files of a folder, but for the lock that stays."""
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".lock")


def read(path):
    return read_json(path, "file", "one of a run")


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
    assert (saved["recipe"]["name"], saved["recipe"]["size"], saved["function"]) == ("digits", 16, None)
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
    assert (status, err) == (130, "kornia-cag: interrupted; repeat the command with --resume to continue\n")
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
        assert err.startswith("kornia-cag: moved the earlier run in 'o' to 'o/earlier-1'\n")
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
    assert "no real pictures to measure on; pass --real\n" in out
    assert json.loads(Path("runs/signs/report.json").read_text())["accuracy"] is None


def test_digits_train_without_scikit_learn_too(run, monkeypatch):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    status, out, err = run("train", "digits", "--images", 8, "--out", "o")
    assert (status, err) == (0, "")
    said = 'no real pictures to measure on; pass --real, or pip install "kornia_cag[demo]" for real handwriting'
    assert out.splitlines()[2] == said  # before the training, which may be long
    assert json.loads(Path("o/report.json").read_text())["accuracy"] is None
    status, out, err = run("evaluate", "o")
    want = "--real: expected an .npz file or a folder of class folders, got nothing"
    assert (status, out) == (2, "")
    assert err == f'kornia-cag: {want}. Or pip install "kornia_cag[demo]" for real handwriting.\n'


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
    height, width, _ = np.asarray(Image.open("o/preview.png")).shape
    assert width == 12 * 37 + 1
    assert height in (38 + 17, 38 + 17 + 23)  # the names of digits, and perhaps a line about insets
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
    assert saved["function"] == "ownnet:net"
    assert saved["state"]["2.weight"].shape == (10, 768)
    assert run(*train, "--resume")[0] == 0
    report = json.loads(Path("o/report.json").read_text())
    status, out, _ = run("evaluate", "o", "--model", "ownnet:net", "--json")
    assert (status, json.loads(out)["accuracy"]) == (0, report["accuracy"])
    Path("ownnet.py").write_text("from torch import nn\ndef net(c, s): return nn.Sequential(nn.Flatten(), nn.Lazy")
    status, _, err = run("train", "digits", "--steps", 2, "--out", "o", "--resume")
    assert status == 2
    assert "got model null (saved: ownnet:net)" in err


def test_progress_is_told_without_a_terminal(run):
    status, out, err = run("train", "digits", "--steps", 4, "--json")
    assert (status, err) == (0, "")
    json.loads(out)
    first, *lines = (
        line for line in run.progress if not line.startswith("measuring")
    )  # which a slow machine tells, too
    time = r"[\d.]+ (s|min)"
    assert re.fullmatch(
        rf"digits: a budget of 32 images, in batches of 8; about {time} on this machine, going by the first steps\n",
        first,
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
    assert run.progress[0] == "resuming with 2 threads, as the run started, instead of this machine's 1\n"
    status, _, err = run("train", "digits", "--steps", 2, "--resume", "--threads", 3)
    assert status == 2
    assert "threads 3 (saved: 2)" in err
    assert "--threads 2." in err
    assert run("train", "digits", "--steps", 2, "--resume", "--threads", 2)[0] == 0
    rows = ("ablate", "digits", "--images", 16, "--only", "baseline", "--seeds")
    assert run(*rows, 1, "--threads", 2)[0] == 0
    assert run(*rows, 2, "--resume")[0] == 0
    assert run.progress[0] == "resuming with 2 threads, as the run started, instead of this machine's 1\n"
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
    assert err == f"kornia-cag: {message}Repeat the options of the first run.\n"


def test_out_of_memory_is_a_hint(run, monkeypatch):
    def exhaust(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "run", exhaust)
    status, _, err = run("train", "digits")
    assert (status, err) == (2, "kornia-cag: CUDA out of memory. Try a smaller --batch-size.\n")


def test_catastrophic_overfitting_is_told(run, monkeypatch):
    looks = {"columns": [], "looks": [[100, 0.99, 0.9, 0.01]], "overfitted": True}
    monkeypatch.setattr("kornia_cag.evaluation.monitor.OverfittingMonitor.report", lambda self: looks)
    _, out, _ = run("train", "digits", "--images", 16, "--eps", 0.1)
    assert "a smaller --eps): 90% correct under the training's own attack, 1% under PGD" in out
    assert json.loads(Path("runs/digits/report.json").read_text())["overfitting"] == looks


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
    Path("ownnan.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x.flatten(1)) / 0\n\n\ndef net(c, s):\n    return Net(768, c)\n",
    )
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


def test_cutouts_are_the_recipe_of_whoever_names_none(run, signs):
    status, _, err = run("train", "--objects", signs, "--images", 16, "--threads", 1)
    assert status == 0, err
    assert Path("runs/cutouts/model.pt").is_file()
    assert json.loads(Path("runs/cutouts/config.json").read_text())["recipe"]["network"] == "pooled"
    assert load_network("runs/cutouts").classes == ("give way", "no entry", "stop")


@pytest.mark.filterwarnings("always::UserWarning")
def test_hints_on_pictures_are_given_once_and_not_again_when_resuming(run):
    Path("icons").mkdir()
    for name, side in (("a", 5), ("b", 6)):
        picture = Image.new("RGBA", (side, side), (0, 0, 255, 255))
        picture.putpixel((0, 0), (0, 0, 0, 0))
        picture.save(f"icons/{name}.png")
    Path("icons/notes.txt").touch()
    options = ("train", "--objects", "icons", "--images", 16, "--size", 64, "--on-error", "skip")
    status, _, err = run(*options)
    assert (status, err.count("They will look soft"), err.count("skipped 1 bad file(s)")) == (0, 1, 1), err
    assert "(expected a picture file, such as .png or .jpg, got another suffix)\n" in err
    status, _, err = run(*options, "--resume")
    assert (status, err.count("They will look soft"), err.count("skipped 1 bad file(s)")) == (0, 0, 1), err


def test_a_training_without_objects_says_what_to_pass(run):
    status, _, err = run("train")
    assert status == 2
    assert "Pass --objects FOLDER" in err
