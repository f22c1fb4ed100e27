import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize("recipe", ["digits", "signs"])
def test_preview(run, recipe, signs):
    objects = () if recipe == "digits" else ("--objects", signs)
    options = ("--rows", 2, "--columns", 3, "--zoom", 2, "--boxes")
    status, out, err = run("preview", recipe, *objects, *options, "--out", "sheet.png")
    assert (status, out, err) == (0, "wrote sheet.png\n", "")
    picture = np.asarray(Image.open("sheet.png"))
    foot = 17 if recipe == "digits" else 30  # names in one line, or two
    assert picture.shape[1] == 3 * 33 + 1
    assert picture.shape[0] - 2 * (33 + foot) - 1 in {0, *range(20, 80)}  # perhaps a line about insets
    for row in range(2):
        names = picture[1 + row * (33 + foot) + 32 :][:foot, 1:33]
        assert (names[0] == 255).all()
        assert (names < 100).any()
    assert (picture == (255, 220, 0)).all(axis=2).any()  # a box
    run("preview", recipe, *objects, *options, "--out", "again.png")
    assert (np.asarray(Image.open("again.png")) == picture).all()
    run("preview", recipe, *objects, *options, "--seed", 1, "--out", "other.png")
    other = np.asarray(Image.open("other.png"))
    assert (other[: 2 * (33 + foot)] != picture[: 2 * (33 + foot)]).any()


def test_preview_of_masks_and_perturbation(run, signs):
    options = ("preview", "signs", "--objects", signs, "--rows", 2, "--columns", 3, "--zoom", 1, "--out", "sheet.png",
               "--no-names")  # fmt: skip
    attack = ("--eps", 0.1, "--eps-object", 0, "--masks", "--perturbation")
    status, _, err = run(*options, *attack)
    assert (status, err) == (0, "")
    picture = np.asarray(Image.open("sheet.png"))
    side = 2 * 17 + 1
    assert picture.shape[1:] == (3 * 17 + 1, 3)
    assert picture.shape[0] - 3 * side in {0, *range(20, 80)}  # perhaps a line about insets, above the masks
    masks, delta = picture[-2 * side : -side], picture[-side:]
    on, off = (masks == 255).all(axis=2), (masks == 0).all(axis=2)
    assert on.any()
    assert np.abs(delta[on].astype(int) - 128).max() <= 1  # the object has no budget, up to the mask's rounding
    assert (delta[off] != 128).any(axis=1).mean() > 0.5
    assert run("train", "signs", "--objects", signs, "--steps", 1, "--out", "o")[0] == 0
    assert run(*options, *attack, "--model-from", "o")[0] == 0
    assert (np.asarray(Image.open("sheet.png"))[-side:] != delta).any()
    assert run(*options, "--perturbation")[0] == 0
    assert np.asarray(Image.open("sheet.png")).shape[0] - 2 * side in {0, *range(20, 80)}
    status, _, err = run("preview", "digits", "--perturbation", "--model-from", "o")
    assert status == 2
    assert "--model-from: expected a model of 10 classes, those of the objects, at size 16" in err
