import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag.command import predict as command
from kornia_cag.core import memory
from kornia_cag.core.progress import progress
from kornia_cag.evaluation.real import load_real
from kornia_cag.training.network import load_network, save_network
from kornia_cag.training.recipes import SIGNS

CLASSES = ("stop", "give way", "no entry")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A model, and six photographs."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    recipe = replace(SIGNS, size=16, width=4)
    network = recipe.model(3)
    with torch.no_grad():  # so that it has opinions
        for _ in range(50):
            network.train()(torch.rand(32, 3, 16, 16) * torch.rand(32, 3, 1, 4).repeat_interleave(4, dim=3))
        network[-1].weight.mul_(20)
    save_network(Path("model.pt"), network, recipe, CLASSES, None)
    Path("photos/below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (*rng.integers(9, 60, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{'below/' if i > 3 else ''}a photo{10**i}.png")


def test_a_line_for_every_picture_in_columns(run):
    status, out, err = run("predict", "model.pt", "photos")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 6
    form = r"(photos/.*\.png) +(stop|give way|no entry) +(\d+\.\d)%   then (.*) \d+\.\d%, (.*) \d+\.\d%"
    found = [re.fullmatch(form, line) for line in lines]
    assert [one[1].strip() for one in found] == sorted(one[1].strip() for one in found)
    assert len({one.start(2) for one in found}) == len({one.end(3) for one in found}) == 1
    assert {(one[2], one[4], one[5]) for one in found} <= {
        (a, b, c) for a in CLASSES for b in CLASSES for c in CLASSES if len({a, b, c}) == 3
    }
    _, one, _ = run("predict", "model.pt", "photos", "--top", 1)
    assert one.splitlines() == [line.partition("   then")[0] for line in lines]


def test_a_quoted_pattern_is_what_a_shell_would_make_of_it(run):
    expanded = sorted(map(str, Path("photos").glob("*.png")))
    assert run("predict", "model.pt", "photos/*.png") == run("predict", "model.pt", *expanded)
    assert len(run("predict", "model.pt", "photos/*.png")[1].splitlines()) == 4


def test_json_lines_say_the_same_as_the_library(run):
    status, out, err = run("predict", "model.pt", "photos", "--json", "--top", 2)
    assert (status, err) == (0, "")
    said = [json.loads(line) for line in out.splitlines()]
    for one, found in zip(said, load_network("model.pt").predict("photos", top=2), strict=True):
        assert one["path"] == found.path
        assert [(entry["name"], entry["probability"]) for entry in one["predictions"]] == [
            (name, round(share, 6)) for name, share in found.ranked
        ]


@pytest.mark.filterwarnings("default:skipped")
def test_what_cannot_be_read_is_named_and_the_rest_predicted(run):
    Path("photos/notes.txt").write_text("text")
    Path("photos/a.png").write_bytes(b"no picture")
    status, out, err = run("predict", "model.pt", "photos", "gone.png")
    lines = out.splitlines()
    assert status == 2
    assert len(lines) == 9
    assert [line.split()[0] for line in lines if "not read: expected a picture" in line] == [
        "photos/a.png", "photos/notes.txt", "gone.png",
    ]  # fmt: skip
    assert err.startswith(
        "kornia-cag: PHOTO: expected pictures that can be read, got 3 of 9 that cannot: photos/a.png ("
    )
    assert err.endswith("Take them out, or pass --on-error skip.\n")
    assert err.count("\n") == 1
    status, said, again = run("predict", "model.pt", "photos", "gone.png", "--json")
    assert (status, again) == (2, err)
    assert [list(json.loads(line)) for line in said.splitlines()].count(["path", "error"]) == 3

    status, rest, err = run("predict", "model.pt", "photos", "gone.png", "--on-error", "skip")
    assert status == 0
    assert rest.splitlines() == [line for line in lines if "not read" not in line]
    assert err.startswith("kornia-cag: warning: skipped 3 of 9 pictures: photos/a.png (expected a picture (")
    status, _, err = run("predict", "model.pt", "gone.png", "--on-error", "skip")
    assert status == 2
    assert err == (
        "kornia-cag: PHOTO: expected pictures that can be read, got 1 of 1 that cannot: gone.png (expected a picture "
        "file that can be opened, got no such file or directory).\n"
    )


@pytest.mark.filterwarnings("default:skipped", "default:no file that")
def test_a_pattern_that_nothing_matches_is_no_picture(run):
    for pattern in ("nope/*.png", "nope/**"):
        for skip in ((), ("--on-error", "skip")):
            status, _, err = run("predict", "model.pt", pattern, *skip)
            assert (status, err) == (
                2, f"kornia-cag: PHOTO: expected pictures that exist, got no file that matches {pattern!r}. Check the "
                "pattern.\n",
            )  # fmt: skip
    status, out, err = run("predict", "model.pt", "photos", "nope/**", "--on-error", "skip")
    assert (status, len(out.splitlines()), err) == (0, 6, "kornia-cag: warning: no file that matches 'nope/**'\n")
    Path("photos/notes.txt").write_text("text")
    status, _, err = run("predict", "model.pt", "photos", "nope/**")
    assert status == 2
    assert ", got 1 of 7 that cannot: photos/notes.txt (" in err
    assert err.endswith("; and no file that matches 'nope/**'. Take them out, or pass --on-error skip.\n")
    assert err.count("--on-error skip") == 1
    status, _, err = run("predict", "model.pt", "photos", "nope/**", "--on-error", "skip")
    assert err.startswith("kornia-cag: warning: skipped 1 of 7 pictures: photos/notes.txt (")
    assert err.endswith("; and no file that matches 'nope/**'\n")
    assert "--on-error" not in err


def test_progress_is_told_beside_the_lines(run, monkeypatch):
    shown = run("predict", "model.pt", "photos")
    assert run.progress == []  # done in less than a few seconds
    monkeypatch.setattr(command, "progress", lambda name, **_: progress(name))
    assert run("predict", "model.pt", "photos") == shown
    assert [line.split("%")[0] for line in run.progress] == ["predicting:  16", "predicting: 100"]
    run("predict", "model.pt", "photos", "--json")
    assert run.progress == []


def test_names_that_a_terminal_cannot_show(run):
    name = "photos/a\nb\x1b[31m.png"
    Path("photos/below/a photo100000.png").rename(name)
    status, out, _ = run("predict", "model.pt", name)
    assert status == 0
    assert out.startswith(r"photos/a\nb\x1b[31m.png  ")
    _, out, _ = run("predict", "model.pt", name, "--json")
    assert json.loads(out)["path"] == name


def test_classes_that_a_terminal_cannot_show(run):
    recipe = replace(SIGNS, size=16, width=4)
    save_network(Path("model.pt"), recipe.model(2), recipe, ("a\nb", "c\x1b[31m"), None)
    _, out, _ = run("predict", "model.pt", "photos/a photo1.png")
    assert out.count("\n") == 1
    assert r"a\nb" in out
    assert r"c\x1b[31m" in out


@pytest.mark.parametrize("command", ["predict photos", "export --out m.pt2", "evaluate --real photos"])
def test_pictures_too_large_for_the_machine_are_refused_before_the_work(run, monkeypatch, command):
    recipe = replace(SIGNS, size=2**15, width=4, network="pooled")
    save_network(Path("model.pt"), recipe.model(3), recipe, CLASSES, None)
    monkeypatch.setattr(memory, "machine_memory", lambda: 12_000_000_000)
    name, *rest = command.split()
    status, out, err = run(name, "model.pt", *rest)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "GB" in err or "GiB" in err
    if name == "predict":
        assert err == (
            "kornia-cag: model: expected a batch that fits this machine's 12 GB of memory, got 1 image of "
            "32768 x 32768 pixels, which takes 39 GB or more. Use a network of smaller pictures.\n"
        )


def test_wrong_commands_end_in_one_line(run):
    for wrong in (("--top", 0), ("--views", 0), ("--device", "gpu"), ("--model", "os")):
        status, out, err = run("predict", "model.pt", "photos", *wrong)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"kornia-cag: {wrong[0]}: expected ")
    assert run("predict", "model.pt")[0] == 2
    assert run("predict", "nothing", "photos")[2].startswith("kornia-cag: model: expected a folder with a model.pt")
    assert run("predict", "model.pt", "")[0] == 2


def test_all_three_ways_agree_on_real_signs(run, data):
    """The classes of predict are those that evaluate counts, from an .npz and from a folder."""
    with np.load(data / "real" / "gtsrb_dev.npz") as arrays:
        images, labels = arrays["images"][::40], arrays["labels"][::40] % 3
    np.savez("real.npz", images=images, labels=labels)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = Path(f"real/{CLASSES[label]}/{i:04}.png")
        place.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(place)
    trained = load_network("model.pt")
    found = list(trained.predict("real", top=1))
    assert {one.name for one in found} == set(CLASSES)
    right = sum(one.name == Path(one.path).parent.name for one in found)
    for place in ("real", "real.npz"):
        status, out, _ = run("evaluate", "model.pt", "--real", place, "--json")
        assert status == 0
        assert json.loads(out)["accuracy"] == round(right / len(images), 5)
    stored = load_real("real.npz", CLASSES, 16).images[[int(Path(one.path).stem) for one in found]]
    assert torch.equal(stored, load_real("real", CLASSES, 16).images)  # both sorted by path


def test_an_attack_sees_whole_pictures(run):
    recipe = replace(SIGNS, size=16, width=4, fit="cover")
    save_network(Path("model.pt"), recipe.model(3), recipe, CLASSES, None)
    np.savez("real.npz", images=np.zeros((3, 9, 20, 3), np.uint8), labels=np.arange(3))
    assert run("evaluate", "model.pt", "--real", "real.npz")[0] == 0
    status, _, err = run("evaluate", "model.pt", "--real", "real.npz", "--attack", "pgd")
    assert (status, err) == (
        2, "kornia-cag: --real: expected pictures that a network takes whole, nearly square ones, got long ones, of "
        "several views each. Cut squares out of them.\n",
    )  # fmt: skip


def test_the_page_in_python(capsys):
    page = (Path(__file__).parents[2] / "docs/how-to/predict.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block.replace('"runs/signs"', '"model.pt"'), "predict.md", "exec"), {})
    found = list(load_network("model.pt").predict("photos"))
    assert capsys.readouterr().out.splitlines() == [f"{one.path} {one.name} {one.probability}" for one in found]
