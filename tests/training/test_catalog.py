from kornia_cag.training.catalog import CATALOG, USUAL
from kornia_cag.training.recipes import RECIPES


def test_every_recipe_says_what_it_is_for():
    assert set(CATALOG) == set(RECIPES)
    assert USUAL in RECIPES


def test_a_recipe_says_what_it_needs():
    for name, about in CATALOG.items():
        assert about.needs.startswith("nothing" if RECIPES[name].classes else "cut-outs"), name
