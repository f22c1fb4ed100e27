"""Hints on cut-outs: one warning for each kind, and none for what is meant so."""

import warnings

import numpy as np
import pytest
from conftest import make_contexts
from PIL import Image

from kornia_cag import CAGCollate, Composer, Framing, ObjectBank, PoseRange, SceneRange
from kornia_cag.training.recipes import RECIPES

RANGES = SceneRange(pose=PoseRange(scale=(0.5, 1.0)))


def picture(height, width, colour=9):
    """A rectangle with a transparent border."""
    rgba = np.zeros((height + 2, width + 2, 4), np.uint8)
    rgba[1:-1, 1:-1] = (colour, 200, 0, 255)
    return rgba


def folder(path, **pictures):
    for name, rgba in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgba).save(path / f"{name}.png")
    return path


def hints(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


def composed(bank, size, ranges=RANGES):
    return hints(lambda: Composer(bank, make_contexts(size=64), (size, size), ranges))


def test_classes_with_the_same_picture(tmp_path):
    same = picture(20, 30)
    said = hints(lambda: ObjectBank.from_folder(folder(tmp_path, a=same, b=picture(20, 30, 10), c=same)))
    assert said == [
        f"{tmp_path}: classes with the same picture, which no model can tell apart: 'a' and 'c'. Replace one of each, "
        "or make them one class."
    ]
    several = folder(tmp_path / "several", **{"a/1": same, "a/2": same, "b/1": picture(30, 20)})
    assert hints(lambda: ObjectBank.from_folder(several)) == []  # one class may have it twice


def test_nearly_empty_cut_outs(tmp_path):
    few = {}
    for i in range(4):
        specks = np.zeros((100, 100, 4), np.uint8)
        specks[45:55, 45:55] = specks[0, 0] = specks[99, 99] = (i, 9, 9, 255)
        few[f"e{i}"] = specks
    folder(tmp_path, full=picture(20, 30), line=picture(60, 2), **few)
    (said,) = hints(lambda: ObjectBank.from_folder(tmp_path, size=128))
    assert said.startswith(f"{tmp_path}: 4 of 6 cut-outs cover hardly any of the square around them: 'e0' (1.0%), 'e1'")
    assert "and 1 more. Objects are scaled by all that is visible" in said


def test_an_icon_on_a_large_canvas(tmp_path):
    bank = ObjectBank.from_folder(folder(tmp_path, icon=picture(16, 16), logo=picture(40, 100)), size=256)
    assert bank.sides == (16, 100)
    assert composed(bank, 32) == []  # twice as large
    assert composed(bank, 48) == [
        "objects: 1 of 2 are shown with up to 48 pixels on this canvas, more than twice as many as their files "
        "hold: 'icon' (16). They will look soft: give larger pictures."
    ]
    assert composed(bank, 48, SceneRange(pose=RANGES.pose, framing=Framing(side=0.5))) == []
    said = hints(lambda: CAGCollate(bank.with_thickness([1]).to("cpu"), None, 48, ranges=RANGES))
    assert len(said) == 1
    assert "'icon' (16)" in said[0]


def test_hints_are_on_files_only_beside_drawn_objects(tmp_path):
    icons = ObjectBank.from_folder(folder(tmp_path, icon=picture(16, 16)), size=64)
    bank = ObjectBank.procedural(8, size=64) + icons
    assert bank.sides == (0,) * 8 + (16,)
    said = composed(bank, 48)
    assert len(said) == 1
    assert said[0].startswith("objects: 1 of 1 are shown with up to 48 pixels")


def test_a_logo_that_becomes_a_line(tmp_path):
    bank = ObjectBank.from_folder(folder(tmp_path, wide=picture(20, 80), high=picture(80, 10)), size=64)
    assert composed(bank, 44) == []  # 33 pixels long, and an eighth of that wide
    assert composed(bank, 40) == [
        "objects: 1 of 2 are long and thin, with about these many pixels for their shorter side on this canvas: 'high' "
        "(3.8). Take a larger canvas."
    ]
    assert "'high' (1.9), 'wide' (3.8)" in composed(bank.with_thickness([-1]), 20)[0]


@pytest.mark.parametrize("name", ["digits", "photo-digits", "paper-digits"])
def test_glyphs_are_as_they_should_be(name):
    recipe = RECIPES[name]
    assert recipe.objects(None).sides == ()
    assert composed(recipe.objects(None), recipe.size, recipe.ranges) == []


@pytest.mark.parametrize(("objects", "name"), [("digits", "digits"), ("signs", "signs")])
def test_our_own_cut_outs_raise_no_hint(data, objects, name):
    recipe, found = RECIPES[name], []
    assert hints(lambda: found.append(recipe.objects(str(data / "objects" / objects)))) == []
    assert composed(found[0], recipe.size, recipe.ranges) == []
