"""Recipes on the command line: listed, shown, edited, and trained from a file."""

import json
import re
from pathlib import Path

import pytest

from kornia_cag import PGD, Average, Framing, Hard, Ramp, ScenePGD, WorstOf
from kornia_cag.command import cli
from kornia_cag.command.options import chosen_recipe
from kornia_cag.command.usage import parsed
from kornia_cag.training.catalog import CATALOG
from kornia_cag.training.network import load_network
from kornia_cag.training.recipe_file import load_recipe
from kornia_cag.training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("tiny")


def chosen(*options, recipe="signs"):
    return chosen_recipe(parsed(["train", recipe, *options]))


def test_the_list_says_what_each_recipe_is_for(capsys):
    assert cli.main(["recipe", "list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["RECIPE", "NEEDS", "FOR"]
    assert [tuple(re.split(r" {2,}", line)) for line in lines] == [
        (name, about.needs, about.purpose) for name, about in CATALOG.items()
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_can_be_trained(name, capsys):
    assert cli.main(["recipe", "show", name]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert load_recipe("mine.yaml") == RECIPES[name]
    assert chosen(recipe="mine.yaml") == RECIPES[name]


def test_a_file_is_trained_resumed_measured_and_read_again(capsys):
    Path("my").mkdir()
    Path("my/own.yaml").write_text("base: digits\nname: own digits\nranges: {pose: {angle: [-30, 30]}}\n")
    train = ["train", "my/own.yaml", "--images", "16"]
    assert cli.main(train) == 0
    trained = load_network("runs/own")
    assert trained.recipe == load_recipe("my/own.yaml")
    assert json.loads(Path("runs/own/config.json").read_text())["recipe"]["ranges"]["pose"]["angle"] == [-30, 30]
    capsys.readouterr()
    assert cli.main([*train, "--resume", "--set", "ranges.pose.angle=-31,30", "--set", "dropout=0.5"]) == 2
    said = capsys.readouterr().err
    assert "expected the options of the saved run, got recipe.ranges.pose.angle [-31, 30] (saved: [-30, 30])" in said
    assert "recipe.dropout 0.5 (saved: 0.4)" in said


SETTINGS = [
    ("size=48", "size", 48),
    ("size = 48", "size", 48),
    ("name=mine", "name", "mine"),
    ("ranges.pose.angle=-30,30", "ranges.pose.angle", (-30, 30)),
    ("ranges.pose.angle=[-30, 30]", "ranges.pose.angle", (-30, 30)),
    ("ranges.pose.angle=-1/3, 8/255", "ranges.pose.angle", (-1 / 3, 8 / 255)),
    ("ranges.pose.waves=3", "ranges.pose.waves", 3),
    ("ranges.color.invert=1/4", "ranges.color.invert", 0.25),
    ("ranges.camera.jpeg=20,90", "ranges.camera.jpeg", (20, 90)),
    ("ranges.camera.kinds=box,motion", "ranges.camera.kinds", ("box", "motion")),
    ("ranges.camera.kinds=[box]", "ranges.camera.kinds", ("box",)),
    ("ranges.framing={}", "ranges.framing", Framing()),
    ("ranges.framing.side=0.5", "ranges.framing", Framing(side=0.5)),
    ("ranges.framing=null", "ranges.framing", None),
    ("ranges.blend=Hard", "ranges.blend", Hard()),
    ("ranges.blend.type=Hard", "ranges.blend", Hard()),
    ("ranges.blend={type: Average, opacity: 1/2}", "ranges.blend", Average(opacity=0.5)),
    ("ranges.object_color.hue=-5,5", "ranges.object_color.hue", (-5, 5)),
    ("ink=0,0,0", "ink", (0, 0, 0)),
    ("ink=null", "ink", None),
    ("thickness=[1]", "thickness", (1,)),
    ("thickness=1,2", "thickness", (1, 2)),
    ("thickness=[]", "thickness", ()),
    ("classes=abc", "classes", "abc"),
    ("classes='012'", "classes", "012"),
    ("reset=null", "reset", None),
    ("hard_pairing=true", "hard_pairing", True),
    ("scene_attack=null", "scene_attack", None),
    ("scene_attack=WorstOf", "scene_attack", WorstOf()),
    ("scene_attack.steps=2", "scene_attack", ScenePGD(steps=2, fraction=0.5)),
    ("attack.eps=8/255", "attack", PGD(eps=8 / 255)),
    ("attack={eps: 8/255, loss: margin}", "attack.loss.__name__", "margin"),
    ("strength=1/2", "strength", 0.5),
    ("strength={start: 1, stop: 3}", "strength", Ramp(start=1, stop=3)),
    ("images=1e6", "images", 1_000_000),
    ("images=900_000", "images", 900_000),
    ("learning_rate=1e-3", "learning_rate", 1e-3),
    ("grey=true", "grey", True),
    ("network=two layers", "network", "two layers"),
    ("samples_per_class=5", "samples_per_class", 5),
]


@pytest.mark.parametrize(("text", "path", "value"), SETTINGS, ids=[text for text, *_ in SETTINGS])
def test_any_field_is_set(text, path, value):
    found = chosen("--set", text)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_what_a_name_stands_for_is_set_further():
    worst = WorstOf(k=8)
    assert chosen("--set", "scene_attack=WorstOf", "--set", "scene_attack.k=8").scene_attack == worst
    assert chosen("--set", "scene_attack.type=WorstOf", "--set", "scene_attack.k=8").scene_attack == worst
    own = ("--no-attack", "--set", "scene_attack.k=8", "--set", "scene_attack.type=WorstOf")
    assert chosen(*own).scene_attack == worst
    blend = ("--set", "ranges.blend=Average", "--set", "ranges.blend.opacity=1/4")
    assert chosen(*blend).ranges.blend == Average(opacity=0.25)


def test_fields_are_set_after_the_options_and_checked_together(capsys):
    recipe = chosen("--eps", "0.1", "--size", "32", "--set", "attack.steps=3", "--set", "size=48", "--no-chain")
    assert (recipe.attack.eps, recipe.attack.steps, recipe.size, recipe.reset) == (0.1, 3, 48, None)
    taps = ("--set", "ranges.camera.box=1,9", "--set", "ranges.camera.taps=9")
    assert chosen(*taps).ranges.camera.box == (1, 9)
    assert cli.main(["train", "digits", *taps[:2]]) == 2
    assert "kornia-cag: --set ranges.camera.taps: expected a side that holds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train digits --set ranges.pose.angle=2.1rad", "--set ranges.pose.angle: expected a pair [low, high] of numb"),
        ("train digits --set ranges.pose.angel=1,2", "--set ranges.pose.angel: expected the name of a field, got ano"),
        ("train digits --set size=8", "--set size: expected an integer of at least 16"),
        ("train digits --set ink=#ff0000", "--set ink: expected a value in YAML, got '#ff0000', which is a comment th"),
        ("train digits --set attack=", "--set attack: expected a value, got nothing. Write null for none;"),
        ("train digits --size=", "--size: expected a value, got nothing."),
        ("train digits --set scene_attack.k=8", "--set scene_attack.type: expected one of WorstOf, ScenePGD, got noth"),
        ("train signs --set ranges.blend.x=1", "--set ranges.blend.x: expected no field, since Over has none, got o"),
        ("train digits --set size=[8", "--set size: expected a value in YAML, got text that is not YAML"),
        ("train digits --set ranges..angle=1", "--set ranges..angle: expected one of pose, layout, "),
        ("train digits --set attack.eps=8", "--set attack.eps: expected a number in [0, 1], got 8. Budgets"),
        ("train digits --set a.b.c=1", "--set a.b.c: expected one of name, size, ranges, "),
        ("train missing.yaml", "RECIPE: expected a file with a recipe, got 'missing.yaml', which is not there."),
        ("recipe show wrong.yaml", "wrong.yaml, line 2: ranges: expected the fields of SceneRange, got 3."),
        ("inspect wrong.yaml", "wrong.yaml, line 2: ranges: expected"),
        ("bench wrong.yaml", "wrong.yaml, line 2: ranges: expected"),
        ("preview wrong.yaml", "wrong.yaml, line 2: ranges: expected"),
        ("ablate wrong.yaml", "wrong.yaml, line 2: ranges: expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(command, said, capsys):
    Path("wrong.yaml").write_text("base: digits\nranges: 3\n")
    assert cli.main(command.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"kornia-cag: {said}")
    assert err.count("\n") == 1


def test_classes_are_not_chosen_from_a_folder_by_name(run, signs):
    status, _, err = run("inspect", "--objects", signs, "--set", "classes=stop")
    assert (status, err) == (
        2, "kornia-cag: --set classes: expected glyphs for a training without --objects, whose files are the classes, "
        "got both. For some of them, put those into a folder of their own.\n",
    )  # fmt: skip
