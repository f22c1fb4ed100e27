"""The road of a user who wants boxes: preview, train, stop, resume, evaluate, predict."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_contexts, make_objects
from PIL import Image

from kornia_cag import SceneRange
from kornia_cag.command.columns import width
from kornia_cag.command.finding import _print_classes
from kornia_cag.command.preview import boxes_and_names
from kornia_cag.evaluation.detection import DetectionAccuracy, Precision
from kornia_cag.loading.detections import Detections
from kornia_cag.scenes.layout import Layout
from kornia_cag.training.detector import Detector
from kornia_cag.training.network import load_network, save_network
from kornia_cag.training.recipes import RECIPES, SIGNS, STREET
from kornia_cag.training.run import Training

pytestmark = pytest.mark.usefixtures("tiny")
FINDS = "expected a recipe that names pictures, got 'street', which finds objects. Leave it out."
NAMES = ("give way", "no entry", "stop")
SMALL = replace(
    STREET, size=32, images=48, batch_size=8, width=4, procedural=6,
    ranges=replace(STREET.ranges, layout=Layout(count=(0, 3), side=(0.3, 0.7)), camera=SceneRange().camera),
)  # fmt: skip


@pytest.fixture(autouse=True)
def road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four photographs of a road, the boxes of two signs in each of three, and a small recipe."""
    monkeypatch.setitem(RECIPES, "street", SMALL)
    (tmp_path / "road").mkdir()
    lines = ["file,x1,y1,x2,y2,label"]
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 100, (60, 80, 3), dtype=np.uint8)
        for left in (8, 44) if i else ():
            pixels[20:44, left : left + 24] = (200, 30, 30)
            lines.append(f"{i}.png,{left},20,{left + 24},44,{NAMES[i - 1]}")
        Image.fromarray(pixels).save(tmp_path / f"road/{i}.png")
    (tmp_path / "road.csv").write_text("\n".join(lines) + "\n")


def certain(path: str, recipe=SMALL) -> None:
    """A model that finds something in every cell, as large as a sign."""
    torch.manual_seed(0)
    network = recipe.model(len(recipe.names(NAMES)))
    assert isinstance(network, Detector)
    with torch.no_grad():
        network.get_parameter("heat.1.bias").fill_(2.0)
    Path(path).mkdir(parents=True)
    save_network(Path(path) / "model.pt", network, recipe, NAMES, None)


def test_train_measures_boxes_and_goes_on_where_it_was_stopped(run, signs, monkeypatch):
    status, out, err = run("train", "street", "--objects", signs, "--real", "road")
    assert (status, err) == (0, "")
    assert re.search(r"mAP@\.5 \d+\.\d\d%, mAP \d+\.\d\d% on road: 6 boxes in 4 real pictures", out)
    report = json.loads(Path("runs/street/report.json").read_text())
    assert report["real"] == {"name": "road", "pictures": 4}
    assert report["detection"].keys() == {"mean", "at50", "by_size", "by_class"}
    assert list(report["detection"]["by_class"]) == ["sign"]
    assert load_network("runs/street").names == ("sign",)

    train = Training.run

    def interrupted(self, *, save, **options):
        def stop(share, word):
            raise KeyboardInterrupt

        train(self, save=save, save_every=0.0, log=stop, log_every=0.0)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", interrupted)
        status, _, err = run("train", "street", "--objects", signs, "--out", "stopped")
    assert (status, err) == (130, "kornia-cag: interrupted; repeat the command with --resume to continue\n")
    assert run("train", "street", "--objects", signs, "--out", "stopped", "--resume")[0] == 0
    whole, parts = (torch.load(f"{folder}/model.pt", weights_only=True) for folder in ("runs/street", "stopped"))
    assert all(torch.equal(whole["state"][name], parts["state"][name]) for name in whole["state"])


def test_each_by_its_class(run, signs):
    train = ("train", "street", "--objects", signs, "--set", "detection.classes=all")
    status, out, err = run(*train, "--real", "road", "--annotations", "road.csv")
    assert (status, err) == (0, "")
    assert load_network("runs/street").names == NAMES
    status, out, err = run("evaluate", "runs/street", "--real", "road")
    assert (status, err) == (0, "")
    assert all(re.search(rf"^{name} +AP@\.5 ", out, re.MULTILINE) for name in NAMES)


def test_a_preview_has_boxes_and_names(run, signs):
    preview = ("preview", "street", "--objects", signs, "--rows", 2, "--columns", 3, "--zoom", 2)
    assert run(*preview, "--masks")[0] == 0
    sheet = np.asarray(Image.open("preview.png"))
    assert (sheet == (255, 220, 0)).all(axis=2).sum() > 100  # no option asked for boxes
    assert sheet.shape[1] == 3 * 65 + 1
    status, _, err = run(*preview, "--explain", 0)
    assert (status, "--explain: expected a recipe that names pictures, got 'street'" in err) == (2, True)


def test_a_preview_shows_what_training_asks_for():
    task = replace(SMALL.detection, min_visible=0.8)
    recipe = replace(
        SMALL,
        detection=task,
        ranges=replace(SMALL.ranges, layout=Layout(count=(3, 3), side=(0.6, 0.9), visible=0.3, overlap=0.7)),
    )
    run = Training(recipe, make_objects(size=64), make_contexts(size=64))
    batch = run.collate(next(iter(run.pairs)))
    classes = run.objects.classes
    boxes, names = boxes_and_names(recipe, batch, classes)
    wanted = task.targets(batch).present
    assert 0 < int(wanted.sum()) < int(Detections.of(batch).present.sum())
    assert torch.equal(boxes.isfinite().all(dim=2), wanted)
    assert [len(name.split(", ")) if name else 0 for name in names] == wanted.sum(dim=1).tolist()


def test_evaluate_counts_and_shows_what_is_missed(run):
    certain("found")
    status, out, err = run("evaluate", "found", "--real", "road", "--threshold", 0.5, "--errors", "errors.png")
    assert (status, err) == (0, "")
    assert re.search(r"^(medium|small) +AP@\.5", out, re.MULTILINE)
    assert re.search(r"from a probability of 0\.5 on: \d of 6 found, [\d,]+ false alarms", out)
    assert out.endswith("wrote errors.png\n")
    sheet = np.asarray(Image.open("errors.png"))
    assert (sheet == (0, 200, 255)).all(axis=2).any()  # a true box
    assert (sheet == (255, 220, 0)).all(axis=2).any()  # a found one
    status, out, _ = run("evaluate", "found", "--real", "road", "--json")
    told = json.loads(out)
    assert (told["boxes"], told["threshold"]) == (6, 0.5)
    assert 0 <= told["hits"] <= 6
    assert told["real"] == {"name": "road", "pictures": 4}


def test_a_detector_takes_one_set(run):
    certain("found")
    assert run("evaluate", "found", "--real", "road", "--real", "road") == (
        2, "",
        "kornia-cag: --real: expected one set for a network that finds objects, got 2. Take them one at a time.\n",
    )  # fmt: skip


def test_a_crowd_is_not_among_the_boxes_to_find(run):
    certain("found")
    Path("road.csv").unlink()
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [8 + 36 * i, 20, 24, 24], "iscrowd": i}
             for i in range(2)]  # fmt: skip
    told = {"images": images, "categories": [{"id": 1, "name": "sign"}], "annotations": boxes}
    Path("road.json").write_text(json.dumps(told))
    status, out, err = run("evaluate", "found", "--real", "road")
    assert (status, err) == (0, "")
    assert " on road: 1 boxes in 4 real pictures" in out
    assert " of 1 found" in out


def test_wide_names_of_classes_are_aligned(capsys):
    none = Precision(0.5, 0.75)
    by_class = {"stop": none, "\u6b62\u307e\u308c": none, "no entry": none}
    _print_classes(DetectionAccuracy(none, {}, by_class, ()))
    places = {width(line.partition("AP@")[0]) for line in capsys.readouterr().out.splitlines()}
    assert places == {10}


def test_predict_prints_boxes_and_draws_them(run):
    certain("found")
    status, out, err = run("predict", "found", "road", "--threshold", 0.5, "--draw", "drawn")
    assert (status, err) == (0, "")
    line = re.compile(r"road/\d\.png  sign +\d+\.\d%   from \(\d+, \d+\) to \(\d+, \d+\)")
    assert all(line.fullmatch(text) for text in out.splitlines())
    assert sorted(path.name for path in Path("drawn").iterdir()) == [f"{i}.png" for i in range(4)]
    picture = np.asarray(Image.open("drawn/1.png"))
    assert picture.shape == (60, 80, 3)
    assert (picture == (255, 220, 0)).all(axis=2).any()
    status, out, _ = run("predict", "found", "road", "--json")
    told = [json.loads(text) for text in out.splitlines()]
    assert [one["path"] for one in told] == [f"road/{i}.png" for i in range(4)]
    (first, *_) = told[0]["objects"]
    assert first.keys() == {"name", "probability", "box"}
    assert told[0]["size"] == [60, 80]
    assert run("predict", "found", "road", "--threshold", 1)[1].count("nothing found") == 4


def test_pictures_of_one_name_are_drawn_apart(run):
    certain("found")
    Path("other").mkdir()
    Image.new("RGB", (40, 40)).save("other/1.jpg")
    assert run("predict", "found", "road", "other/1.jpg", "--draw", "drawn")[0] == 0
    assert {"1.png", "1-2.png"} <= {path.name for path in Path("drawn").iterdir()}
    for given, place in (("road", "road"), ("road", "road/drawn"), ("road/1.png", "road")):
        status, _, err = run("predict", "found", given, "--draw", place)
        assert (status, "--draw: expected a folder outside of that of the photographs" in err) == (2, True)
    assert not Path("road/drawn").exists()


@pytest.mark.parametrize(
    ("photos", "draw"),
    [("p/h*/*.png", "p/h2"), ("p/h*/*.png", "p/h3"), ("p/*", "p/h2"), ("p/*", "p/h2/drawn"), ("p/*", "p/drawn"),
     ("p/**/*.png", "p/drawn"), ("p/**", "p/h1/drawn"), ("h*/*.png", "h3"), ("p/h1/*.png", "to/h1"),
     ("links/*.png", "p/h2"), ("p/h1/[01].png", "p/h1")],
)  # fmt: skip
def test_photographs_of_a_pattern_are_never_drawn_over(run, monkeypatch, photos, draw):
    certain("found")
    for place in ("p/h1", "p/h2"):
        Path(place).mkdir(parents=True)
        for name in "01":
            Path(place, f"{name}.png").write_bytes(Path(f"road/{name}.png").read_bytes())
    Path("links").mkdir()
    Path("links/a.png").symlink_to(Path("p/h2/0.png").resolve())
    Path("to").symlink_to(Path("p").resolve())
    found = Path("found").resolve()
    if photos.startswith("h"):
        monkeypatch.chdir("p")
    status, _, err = run("predict", found, photos, "--draw", draw)
    assert (status, "--draw: expected a folder outside of that of the photographs" in err) == (2, True)
    assert Path(found.parent, "p/h2/1.png").read_bytes() == Path(found.parent, "road/1.png").read_bytes()


def test_a_link_to_a_photograph_is_not_drawn_over(run):
    certain("found")
    Path("drawn").mkdir()
    Path("drawn/1.png").symlink_to(Path("road/1.png").resolve())
    before = Path("road/1.png").read_bytes()
    status, _, err = run("predict", "found", "road", "--draw", "drawn")
    assert (status, "--draw: expected a folder without links to the photographs, got 'drawn/1.png'" in err) == (2, True)
    assert Path("road/1.png").read_bytes() == before


@pytest.mark.parametrize(("photos", "draw"), [("*.png", "drawn"), ("../road/[0-9].png", "drawn"), ("?.png", "../h2")])
def test_a_folder_that_a_pattern_does_not_mean_may_be_drawn_to(run, monkeypatch, photos, draw):
    certain("found")
    monkeypatch.chdir("road")
    assert run("predict", "../found", photos, "--draw", draw)[0] == 0
    assert len(list(Path(draw).iterdir())) == 4


def test_another_run_names_what_is_found(run):
    certain("found")
    Path("named").mkdir()
    recipe = replace(SIGNS, size=16, width=4)
    save_network(Path("named/model.pt"), recipe.model(3), recipe, NAMES, None)
    status, out, err = run("predict", "found", "road", "--classifier", "named", "--threshold", 0.1, "--json")
    assert (status, err) == (0, "")
    names = {one["name"] for text in out.splitlines() for one in json.loads(text)["objects"]}
    assert names
    assert names <= set(NAMES)
    status, out, _ = run("evaluate", "found", "--real", "road", "--classifier", "named", "--json")
    assert set(json.loads(out)["detection"]["by_class"]) == set(NAMES)
    status, _, err = run("predict", "found", "road", "--classifier", "found")
    assert (status, "--classifier: expected a network that names pictures" in err) == (2, True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("evaluate", "found"), "--real: expected a folder of photographs with boxes, got nothing"),
        (("evaluate", "found", "--annotations", "road.csv"), "--annotations: expected to be used with --real"),
        (("evaluate", "found", "--real", "signs"), "Pass them by --annotations."),
        (("evaluate", "found", "--real", "road", "--attack", "pgd"), "--attack: expected a network that names"),
        (("evaluate", "found", "--real", "road", "--eps", 0.1), "--eps: expected to be used with --attack"),
        (("evaluate", "found", "--real", "road", "--views", 2), "--views: expected 1 in a recipe of detection, got 2"),
        (("predict", "found", "road", "--top", 2), "--top: expected a network that names pictures"),
        (("predict", "found", "road", "--threshold", 2), "--threshold: expected"),
        (("export", "found", "--out", "a.onnx"), "expected one that names pictures, got one that finds objects"),
        (("ablate", "street", "--objects", "signs"), "RECIPE: expected a recipe that names pictures, got 'street'"),
        (("bench", "street"), "RECIPE: expected a recipe that names pictures, got 'street'"),
        (("predict", "named", "road", "--draw", "drawn"), "--draw: expected a network that finds objects"),
        (("evaluate", "named", "--real", "road", "--threshold", 0.2), "--threshold: expected a network that finds"),
        (("train", "signs", "--objects", "signs", "--annotations", "road.csv"), "--annotations: expected a network"),
        (("train", "street", "--objects", "signs", "--hard-pairing"), f"--hard-pairing: {FINDS}"),
        (("train", "street", "--set", "grey=true"), "grey: expected false in a recipe of detection, got true. Leave"),
        (("train", "street", "--set", "fit=cover"), "fit: expected squash in a recipe of detection, got cover. Leave"),
        (("train", "street", "--set", "detection=null"), "Without detection, set network, too, such as to pooled."),
        (("train", "street", "--set", "detection.classes=all", "--set", "detection.name=icon"),
         "--set detection.name: expected detection.classes to be one, which it names, got all. Leave it out."),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_refused(run, signs, command, said):
    certain("found")
    Path("named").mkdir()
    recipe = replace(SIGNS, size=16, width=4)
    save_network(Path("named/model.pt"), recipe.model(3), recipe, NAMES, None)
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("hardening", [("--scene-attack", "worst"), ("--eps", "8/255", "--attack-steps", 2)])
def test_a_detector_is_hardened(run, signs, hardening):
    """Both commands raise the detector's own loss."""
    few = ("--objects", signs, "--set", "ranges.layout.count=1,2", "--size", 32, *hardening)
    status, _, err = run("preview", "street", *few, "--rows", 2, "--columns", 2, "--out", "hard.png")
    assert (status, Path("hard.png").is_file()) == (0, True), err
    status, _, err = run("train", "street", *few, "--images", 16, "--batch-size", 8, "--out", "hard")
    assert (status, Path("hard/model.pt").is_file()) == (0, True), err


def test_inspect_counts_edges(run, signs):
    status, out, err = run("inspect", "street", "--objects", signs, "--json")
    assert (status, err) == (0, "")
    low, high = json.loads(out)["contexts_per_object"]
    assert 0 < low == high


def test_anyone_s_network(run, signs):
    Path("mine.py").write_text(
        "from kornia_cag.training.detector import Detector\n"
        "from torch import nn\n"
        "def build(classes, size):\n    return Detector(classes, width=2)\n"
        "def names(classes, size):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, classes))\n"
    )
    status, _, err = run("train", "street", "--objects", signs, "--model", "mine:build", "--real", "road")
    assert (status, err) == (0, "")
    status, _, err = run("predict", "runs/street", "road", "--model", "mine:build", "--threshold", 0)
    assert (status, err) == (0, "")
    status, _, err = run("train", "street", "--objects", signs, "--model", "mine:names")
    assert (status, "--model: expected a network with the methods loss" in err) == (2, True)
