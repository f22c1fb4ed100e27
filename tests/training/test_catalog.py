from kornia_cag.training.catalog import PURPOSES, USUAL
from kornia_cag.training.recipes import RECIPES


def test_every_recipe_says_what_it_is_for():
    assert set(PURPOSES) == set(RECIPES)
    assert USUAL in RECIPES


def test_a_recipe_without_glyphs_says_what_it_needs():
    for name, purpose in PURPOSES.items():
        assert ("needs cut-outs" in purpose) == (not RECIPES[name].classes), name
