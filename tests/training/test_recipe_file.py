"""Recipes are files, and files are recipes: nothing is lost on the way, and what is wrong is said by field and line."""

import importlib
import os
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kornia_cag import (
    PGD,
    Average,
    Blend,
    CameraRange,
    ColorRange,
    DepthRange,
    Difference,
    Eroded,
    Feather,
    Framing,
    Hard,
    HarmonyRange,
    InputError,
    MultiBand,
    OneOf,
    Over,
    Poisson,
    Ramp,
    Recapture,
    SceneRange,
    Smeared,
    SunRange,
    WorstOf,
)
from kornia_cag.adversary.losses import kl, margin
from kornia_cag.core.notes import notes
from kornia_cag.core.storage import read_torch, write_torch
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipe_data import changed, recipe_data, recipe_from
from kornia_cag.training.recipe_file import load_recipe, recipe_text, save_recipe
from kornia_cag.training.recipes import DIGITS, RECIPES, SIGNS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def again(recipe, path="again.yaml"):
    save_recipe(recipe, path)
    return load_recipe(path)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_recipe_comes_back_as_it_was(recipe):
    assert again(recipe) == recipe
    assert recipe_text(again(recipe)) == recipe_text(recipe)
    write_torch("data.pt", recipe_data(recipe))
    assert recipe_from(read_torch("data.pt", "file", "data"), {}) == recipe
    assert max(map(len, recipe_text(recipe).splitlines())) <= 120


def test_so_does_one_with_all_that_files_can_hold():
    ranges = SceneRange(blend=Hard(), framing=Framing(side=0.5), object_color=ColorRange(invert=0.5),
                        harmony=HarmonyRange(color=(0, 1)), sun=SunRange(lift=(0.1, 0.2)),
                        depth=DepthRange(haze=(0, 1)),
                        camera=CameraRange(jpeg=(20, 90), kinds=("box",)), finish=(Recapture(),) * 2)  # fmt: skip
    attack = PGD(eps=2, norm="l2", loss=kl, transform=Recapture(), eot_samples=3, autocast=torch.bfloat16,
                 steps=3, momentum=0.5)  # fmt: skip
    odd = 'no: "x" #1 \u2028 ü 😀 \\ \x85\xa0'
    recipe = Recipe(name="all", size=48, ranges=ranges, attack=attack, scene_attack=WorstOf(loss=margin),
                    strength=Ramp(start=1, stop=1e22), classes=odd, learning_rate=1e-7, dropout=2 / 3,
                    ink=(0, 1, 2))  # fmt: skip
    assert again(recipe) == recipe
    assert recipe_from(recipe_data(recipe), {}) == recipe


def pairs(low, high):
    number = st.floats(low, high, allow_nan=False) | st.integers(round(low), round(high)) | st.sampled_from([low, high])
    return st.tuples(number, number).map(lambda pair: tuple(sorted(pair)))


BLENDS = [
    *("Over", "Hard", "Average", {"type": "Average", "opacity": 0.1}, "Difference", "Smeared", "MultiBand", "Poisson"),
    *({"type": "Feather", "width": [0.5, 1], "kind": "box"}, {"type": "Eroded", "pixels": [0, 3]}),
    {"type": "OneOf", "blends": ["Over", {"type": "Feather", "width": [1, 2]}], "weights": [1, 2.5]},
    {"type": "OneOf", "blends": ["Hard"], "only": 0},
]
EDITS = {
    "name": st.text(st.characters(), min_size=1, max_size=20).filter(str.isprintable),
    "size": st.integers(16, 512).filter(lambda size: size >= 16),
    "ranges.pose.angle": pairs(-360.0, 360.0),
    "ranges.pose.elastic": pairs(0.0, 1.0),
    "ranges.pose.waves": st.integers(1, 64),
    "ranges.crop": pairs(0.01, 1.0).filter(lambda pair: pair[0] > 0),
    "ranges.color.exposure": pairs(-10.0, 5.0),
    "ranges.color.invert": st.floats(0, 1),
    "ranges.camera.jpeg": st.none() | pairs(1.0, 100.0),
    "ranges.framing": st.none() | st.builds(dict, side=st.floats(0.001, 10)),
    "ranges.object_color": st.none() | st.builds(dict, hue=pairs(-180.0, 180.0)),
    "ranges.harmony": st.none() | st.builds(dict, color=pairs(0.0, 1.0)),
    "ranges.sun": st.none() | st.builds(dict, direction=pairs(-1.0, 2.0)),
    "ranges.depth": st.none() | st.builds(dict, haze=pairs(0.0, 10.0)),
    "ranges.blend": st.sampled_from(BLENDS),
    "ranges.finish": st.lists(st.just("Recapture"), max_size=2),
    "ink": st.none() | st.tuples(*[st.integers(0, 255)] * 3),
    "thickness": st.lists(st.integers(-4, 4), max_size=4),
    "classes": st.text(max_size=20),
    "scene_attack": st.sampled_from([None, "WorstOf", "ScenePGD", {"type": "ScenePGD", "vary": ["pose"]}]),
    "attack": st.none()
    | st.builds(dict, eps=st.floats(0, 1), eps_min=st.none(), eps_object=st.none() | st.floats(0, 1)),
    "strength": st.floats(0, 1) | st.just({"start": 1, "stop": 2.5}),
    "images": st.integers(1, 2**50),
    "learning_rate": st.floats(0, 100, exclude_min=True),
    "grey": st.booleans(),
    "network": st.sampled_from(["convnet", "pooled", "dcgan", "two layers"]),
    "samples_per_class": st.none() | st.integers(1, 9),
}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([recipe for recipe in RECIPES.values() if recipe.detection is None]),
    st.fixed_dictionaries({}, optional=EDITS),
)
def test_any_edit_survives(recipe, edits):
    edited = changed(recipe, edits)
    text = recipe_text(edited)
    Path("edited.yaml").write_text(text, encoding="utf-8")
    assert load_recipe("edited.yaml") == edited


def test_every_field_has_its_meaning_beside_it():
    def untold(value):
        meaning = notes(type(value))
        for field in fields(value):
            inner = getattr(value, field.name)
            yield from [] if meaning.get(field.name) else [f"{type(value).__name__}.{field.name}"]
            if is_dataclass(inner):
                yield from untold(inner)

    ranges = replace(SIGNS.ranges, framing=Framing(), blend=Average(), object_color=ColorRange())
    blends = Feather(), Eroded(), Smeared(), MultiBand(), Poisson(), OneOf((Over(),))
    assert [name for blend in blends for name in untold(blend)] == []
    whole = replace(SIGNS, attack=PGD(eps=0.1, transform=Recapture()), strength=Ramp(), ranges=ranges)
    assert [*untold(whole), *untold(WorstOf())] == []
    text = recipe_text(SIGNS)
    assert re.search(r"^    angle: \[-12, 12\] +# degrees, clockwise on screen$", text, flags=re.MULTILINE)
    assert re.search(r"^  loss: cross_entropy .*\n? *(# )?.*margin, dlr, kl$", text, flags=re.MULTILINE)
    assert "8/255" in recipe_text(RECIPES["hardened-signs"])
    assert not re.search(r"None|:class:|``|PoseRange", text)


def test_a_file_with_a_base_holds_what_differs():
    Path("mine.yaml").write_text("base: digits\nsize: 32\nranges:\n  pose: {angle: [-30, 30]}\n")
    mine = load_recipe("mine.yaml")
    pose = replace(DIGITS.ranges.pose, angle=(-30, 30))
    assert mine == replace(DIGITS, name="mine", size=32, ranges=replace(DIGITS.ranges, pose=pose))
    text = "base: digits\nname: other\nranges: {blend: Difference, camera: {jpeg: [20, 90]}}\n"
    Path("mine.yaml").write_text(text)
    mine = load_recipe("mine.yaml")
    assert (mine.name, mine.ranges.blend, mine.ranges.camera.jpeg) == ("other", Difference(), (20, 90))
    assert mine.ranges.camera.noise == DIGITS.ranges.camera.noise
    Path("mine.yaml").write_text("base: signs\nscene_attack: {type: WorstOf, k: 3}\nattack:\n  eps: 8/255\n")
    mine = load_recipe("mine.yaml")
    assert (mine.scene_attack, mine.attack) == (WorstOf(k=3), PGD(eps=8 / 255))  # nothing of the base's ScenePGD
    Path("mine.yaml").write_text("base: hardened-signs\nattack: {type: PGD, momentum: 0.5}\n")
    assert load_recipe("mine.yaml").attack == replace(RECIPES["hardened-signs"].attack, momentum=0.5)


def test_a_file_without_one_has_the_defaults_of_recipes():
    Path("own.yaml").write_text("size: 32\nranges: {}\n")
    assert load_recipe("own.yaml") == Recipe(name="own", size=32, ranges=SceneRange())


@pytest.mark.parametrize(
    ("text", "missing"), [("ranges: {}", "size"), ("size: 32", "ranges"), ("name: mine", "size and ranges")]
)
def test_a_file_that_lacks_what_has_no_default_is_told_of_bases(text, missing):
    Path("own.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe("own.yaml")
    assert str(caught.value) == (
        f"own.yaml: expected a base, or else {missing}, got neither. "
        "base: cutouts has all fields that a file leaves out."
    )


def test_a_field_that_nobody_set_is_named_as_the_others_are():
    paired = replace(SIGNS, hard_pairing=True)
    with pytest.raises(InputError, match=r"^--set hard_pairing: expected a recipe with a chain") as caught:
        changed(paired, {"reset": None}, {"": "--set ", "reset": "--set reset"})
    assert caught.value.argument == "--set hard_pairing"


WRONG = [
    (
        "ranges: {pose: {angel: [1, 2]}}",
        "ranges.pose.angel: expected the name of a field, got another one. Did you mean ranges.pose.a",
    ),
    ("angle: [1, 2]", "angle: expected the name of a field, got another one. Did you mean ranges.pose.angle?"),
    ("blend: Over", "blend: expected the name of a field, got another one. Did you mean ranges.blend?"),
    ("batchsize: 2", "batchsize: expected the name of a field, got another one. Did you mean batch_size?"),
    ("colour: 2", "colour: expected one of name, size, ranges, "),
    (
        "ranges: {pose: {angle: 2.1rad}}",
        "ranges.pose.angle: expected a pair [low, high] of numbers, got '2.1rad'. Its meaning: degree",
    ),
    ("ranges: {pose: {angle: }}", "ranges.pose.angle: expected a value, got nothing."),
    ("ranges: {pose: {angle: null}}", "ranges.pose.angle: expected a pair [low, high] of numbers, got nothing."),
    (
        "ranges: {pose: {angle: [30, -30]}}",
        "ranges.pose.angle: expected a pair (low, high) with -360 <= low <= high <= 360, got (30, -30",
    ),
    (
        "ranges: {pose: {angle: [-30, 30, 3]}}",
        "ranges.pose.angle: expected a pair [low, high] of numbers, got [-30, 30, 3].",
    ),
    ("ranges: {pose: {angle: [-3000, 3]}}", "ranges.pose.angle: expected a pair (low, high) with -360"),
    ("ranges: {pose: {angle: [true, 3]}}", "ranges.pose.angle: expected a pair [low, high] of numbers, got [True, 3]."),
    ("ranges: {pose: {waves: 2.5}}", "ranges.pose.waves: expected an integer, got 2.5."),
    ("ranges: {pose: {waves: 0}}", "ranges.pose.waves: expected an integer of at least 1"),
    ("ranges: {pose: 3}", "ranges.pose: expected the fields of PoseRange, got 3."),
    (
        "ranges: {color: {exposure: 50%}}",
        "ranges.color.exposure: expected a pair [low, high] of numbers, got '50%'. Its meaning: stops",
    ),
    (
        "ranges: {camera: {jpeg: 0.9}}",
        "ranges.camera.jpeg: expected a pair [low, high] of numbers or null, got 0.9. Its meaning: qu",
    ),
    ("ranges: {camera: {kinds: [box, fog]}}", "ranges.camera.kinds: expected some of gaussian, box, motion"),
    ("ranges: {camera: {taps: 4}}", "ranges.camera.taps: expected an odd integer, got 4."),
    (
        "ranges: {blend: Under}",
        "ranges.blend: expected one of Over, Hard, Average, Difference, Feather, Eroded, Smeared, MultiBand, Po",
    ),
    (
        "ranges: {blend: {type: Averag}}",
        "ranges.blend.type: expected one of Over, Hard, Average, Difference, Feather, Eroded, Smeared, M",
    ),
    ("ranges: {blend: {type: Average, opacity: 2}}", "ranges.blend.opacity: expected a number in [0, 1], got 2."),
    ("ranges: {blend: {type: os.kill}}", "ranges.blend.type: expected one of "),
    ("ranges: {finish: [Blur]}", "ranges.finish: expected the fields of Recapture, got 'Blur'."),
    ("scene_attack: {steps: 2}", "scene_attack.type: expected one of WorstOf, ScenePGD, got nothing."),
    ("scene_attack: gradient", "scene_attack: expected one of WorstOf, ScenePGD or null"),
    (
        "attack: {eps: 8}",
        "attack.eps: expected a number in [0, 1], got 8. Budgets are in units of [0, 1]: write 8 / 25",
    ),
    ("attack: {eps: 8/0}", "attack.eps: expected a number, got '8/0'."),
    ("attack: {steps: 3}", "attack.eps: expected a number, got nothing."),
    (
        "attack: {eps: 0.1, loss: 'os:kill'}",
        "attack.loss: expected one of cross_entropy, margin, dlr, kl, got 'os:kill'.",
    ),
    ("attack: {eps: 0.1, loss: builtins.exec}", "attack.loss: expected one of "),
    (
        "attack: {eps: 0.1, transform: {type: Unkeyed}}",
        "attack.transform.type: expected one of Recapture, got 'Unkeyed'.",
    ),
    ("attack: {eps: 0.1, autocast: float8}", "attack.autocast: expected one of bfloat16, float16, float32 or null"),
    ("strength: high", "strength: expected a number or the fields of Ramp, got 'high'."),
    ("strength: {start: 3, stop: 1}", "strength.stop: expected an epoch after start=3, got 1."),
    ("size: 8", "size: expected an integer of at least 16 and at most 32768, got 8."),
    ("size: [32, 32]", "size: expected an integer, got [32, 32]."),
    ("size: '32'", "size: expected an integer, got '32'."),
    ("name: [a]", "name: expected text, got ['a']."),
    ("grey: maybe", "grey: expected true or false, got 'maybe'."),
    ("hard_pairing: true\nreset: null", "hard_pairing: expected a recipe with a chain, whose slots it orders, got"),
    ("reset: 1.5", "reset: expected a number in [0, 1], got 1.5."),
    ("learning_rate: 0", "learning_rate: expected a number above 0 and at most 100, got 0."),
    ("ema: 1", "ema: expected a number of at least 0 and below 1, got 1."),
    ("dropout: .nan", "dropout: expected a number, got '.nan'."),
    ("network: resnet", "network: expected one of convnet, pooled, dcgan, two layers, detector, got 'resnet'."),
    ("local: 4", "local: expected 0, or an odd window on a picture of 28 pixels, got 4."),
    ("ink: [0, 0, 300]", "ink: expected an integer of at least 0 and at most 255, got 300."),
    ("ink: [0, 0]", "ink: expected a list of 3 integers or null, got [0, 0]."),
    ("thickness: thick", "thickness: expected a list of integers, got 'thick'."),
    ("classes: 012", "classes: expected text, got 12."),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_a_wrong_file_is_said_by_line_and_field(text, said):
    Path("wrong.yaml").write_text(f"base: digits\n\n{text}\n")
    with pytest.raises(InputError) as caught:
        load_recipe("wrong.yaml")
    assert re.match(r"wrong\.yaml, line [34]: ", str(caught.value))
    assert str(caught.value).partition(": ")[2].startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: digit", "wrong.yaml, line 1: base: expected one of cutouts, .*got 'digit'. Did you mean digits?"),
        ("base:", "wrong.yaml, line 1: base: expected a value, got nothing."),
        ("base: null", "wrong.yaml, line 1: base: expected one of .*got nothing."),
        ("base: [digits]", r"wrong.yaml, line 1: base: expected one of .*got \['digits'\]"),
        ("base: ../other.yaml", "wrong.yaml, line 1: base: expected one of "),
        ("", "wrong.yaml: expected the fields of a recipe, got nothing."),
        ("digits", "wrong.yaml: expected the fields of a recipe, got something else."),
        ("[1, 2]", "wrong.yaml: expected the fields of a recipe"),
        ("size: 32\nranges: {}\nsize: 32", "wrong.yaml, line 3: expected size once"),
        ("size: 1: 2", r"wrong.yaml, line 1: expected a recipe, got text that is not YAML \(mapping values are not"),
    ],
)
def test_a_file_that_is_no_recipe(text, said):
    Path("wrong.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_recipe("wrong.yaml")


def test_nothing_that_a_file_names_is_imported_or_called(monkeypatch):
    Path("helper.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("called"))
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    for named in ("os:kill", "os.kill", "helper:Net", "kornia_cag.scenes.blends.Over", "builtins.exec"):
        for place in ("ranges: {blend: %s}", "ranges: {blend: {type: %s}}", "attack: {eps: 1, loss: '%s'}",
                      "scene_attack: {type: %s}", "ranges: {finish: ['%s']}", "strength: {type: %s}"):  # fmt: skip
            Path("evil.yaml").write_text(f"base: digits\n{place % named}\n")
            with pytest.raises(InputError, match=r"^evil\.yaml, line 2: "):
                load_recipe("evil.yaml")


class Mine(Blend):
    def __call__(self, rgb, alpha, behind, edge=0.5):
        return rgb


@pytest.mark.parametrize(
    "recipe",
    [
        replace(SIGNS, ranges=SceneRange(blend=Mine())),
        replace(SIGNS, ranges=SceneRange(finish=(lambda images, keys: images,))),
        replace(SIGNS, attack=PGD(eps=0.1, loss=lambda logits, labels: logits[:, 0])),
    ],
    ids=["blend", "finish", "loss"],
)
def test_what_a_file_cannot_hold_is_not_written(recipe):
    with pytest.raises(InputError, match=r"^recipe: expected (one of |the fields of Recapture)"):
        save_recipe(recipe, "x.yaml")
    assert not Path("x.yaml").exists()


def test_a_file_that_would_be_too_long_to_be_read_is_not_written():
    with pytest.raises(InputError, match=r"^recipe: expected one whose file has at most 65,536 bytes, got 7\d,\d{3} b"):
        save_recipe(replace(SIGNS, classes="a" * 70_000), "x.yaml")
    assert not Path("x.yaml").exists()
    long = replace(SIGNS, classes="a" * 50_000)
    assert again(long) == long


def test_fields_are_changed_together():
    camera = {"ranges.camera.taps": 11, "ranges.camera.box": (1, 10)}
    assert changed(SIGNS, camera).ranges.camera.box == (1, 10)
    with pytest.raises(InputError, match=r"^ranges\.camera\.taps: expected a side that holds"):
        changed(SIGNS, {"ranges.camera.box": (1, 10)})
    assert changed(SIGNS, {}) == SIGNS
    assert changed(SIGNS, {"strength": "Ramp", "strength.stop": 3}).strength == Ramp(stop=3)
    assert changed(SIGNS, {"ranges.framing": "Framing", "ranges.framing.side": 2}).ranges.framing == Framing(side=2)
    assert changed(SIGNS, {"ranges.blend": "Over", "scene_attack": None}).ranges.blend == Over()
