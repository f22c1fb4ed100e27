import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.command.columns import width
from kornia_cag.core.storage import write_json, write_torch
from kornia_cag.training.network import load_network, save_network
from kornia_cag.training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("tiny")


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
    assert lines[12:] == [f"expected calibration error: {report['calibration_error']:.2%}"]
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


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """A network of digits, and three sets of real pictures: two of the same name, and one in folders."""
    recipe = RECIPES["digits"]
    torch.manual_seed(0)
    save_network(Path("m.pt"), recipe.model(10), recipe, tuple("0123456789"), None)
    rng = np.random.default_rng(0)
    paths = ["day/set.npz", "night/set.npz"]
    for path, count in zip(paths, (20, 1100), strict=True):
        (tmp_path / path).parent.mkdir()
        images = rng.integers(0, 255, (count, 8, 8), dtype=np.uint8)
        np.savez(path, images=images, labels=np.arange(count) % 10)
    for name in "037":
        (tmp_path / "漢字 rain" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(tmp_path / "漢字 rain" / name / "1.png")
    return [*paths, "漢字 rain"]


def test_several_sets_make_one_table(run, sets):
    given = [word for path in sets for word in ("--real", path)]
    status, out, err = run("evaluate", "m.pt", *given, "--json")
    assert (status, err) == (0, "")
    table = json.loads(out)
    for path, told in zip(sets, table, strict=True):
        status, alone, _ = run("evaluate", "m.pt", "--real", path, "--json")
        assert status == 0
        name = path if path.endswith("npz") else "漢字 rain"  # two are called set.npz
        assert told == {**json.loads(alone), "real": {**json.loads(alone)["real"], "name": name}}
    status, out, err = run("evaluate", "m.pt", *given)
    assert (status, err) == (0, "")
    head, *lines = out.splitlines()
    assert re.split("  +", head) == ["set", "pictures", "accuracy", "mean per class", "calibration error"]
    for path, told, line in zip(sets, table, lines, strict=True):
        assert line.startswith(path)
        assert width(line) == width(head)  # columns
        numbers = [told[name] for name in ("accuracy", "mean_per_class", "calibration_error")]
        pictures, *shares = line.removeprefix(path).split()
        assert pictures == f"{told['real']['pictures']:,}"
        assert [float(share.rstrip("%")) for share in shares] == pytest.approx([100 * n for n in numbers], abs=0.006)


def test_several_sets_say_which_cannot_be_used(run, sets):
    np.savez("other.npz", images=np.zeros((1, 8, 8), np.uint8), labels=np.array([10]))
    np.savez("float.npz", images=np.zeros((1, 8, 8)), labels=np.array([1]))
    Path("some folder/eleven").mkdir(parents=True)
    for bad, said in (
        ("other.npz", "--real other.npz, labels: expected class ids 0 to 9, got 10 to 10."),
        ("float.npz", "--real float.npz, images: expected uint8 (n, h, w) or (n, h, w, 3), got"),
        ("some folder", "--real 'some folder': expected sub-folders named after the classes 0, 1, 2, 3, 4 …, got"),
        ("missing.npz", "--real missing.npz: expected an .npz file or a folder, got 'missing.npz'"),
    ):
        status, out, err = run("evaluate", "m.pt", "--real", sets[0], "--real", bad)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"kornia-cag: {said}")
        alone = run("evaluate", "m.pt", "--real", bad)[2]  # as it always was
        assert said.partition(": ")[2] in alone


def test_only_a_table_takes_several_sets(run, sets):
    two = ("evaluate", "m.pt", "--real", sets[0], "--real", sets[2])
    for other, when in ((("--errors", "errors.png"), "--errors"), (("--attack", "pgd"), "--attack")):
        assert run(*two, *other) == (
            2, "", f"kornia-cag: --real: expected one set with {when}, got 2. Take them one at a time.\n",
        )  # fmt: skip
    status, _, err = run(*two, "--errors", f"{sets[2]}/3/errors.png")  # a folder that is only read
    assert (status, "--errors: expected a place outside of --real" in err) == (2, True)


def test_a_network_without_an_answer_has_no_accuracy(run):
    recipe = RECIPES["digits"]
    network = recipe.model(10)
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(1e30)
    save_network(Path("m.pt"), network, recipe, tuple("0123456789"), None)
    np.savez("real.npz", images=np.eye(8, dtype=np.uint8)[None].repeat(10, 0) * 255, labels=np.arange(10))
    for attack in ((), ("--attack", "pgd")):
        assert run("evaluate", "m.pt", "--real", "real.npz", "--views", 1, *attack) == (
            2, "", "kornia-cag: model: expected finite logits, got others for 10 of 10 pictures. Train it again.\n",
        )  # fmt: skip


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


def test_evaluate_against_an_attack(run, signs, photos, tmp_path):
    for i in range(8):
        Image.new("RGB", (50, 40), (30 * i, 100, 200)).save(tmp_path / "photos" / f"more{i}.jpg")
    trained = ("train", "signs", "--objects", signs, "--contexts", photos, "--images", 16, "--hold-out", 0.3)
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


def test_photographs_that_were_trained_on_are_no_test(run, signs, photos):
    assert run("train", "signs", "--objects", signs, "--contexts", photos, "--images", 8)[0] == 0
    status, _, err = run("evaluate", "runs/signs", "--attack", "context", "--objects", signs, "--contexts", photos)
    assert status == 2
    assert "--hold-out" in err
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
        assert "to be used with --attack" in err


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
