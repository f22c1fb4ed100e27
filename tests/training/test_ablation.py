from dataclasses import replace

import pytest

from kornia_cag.training.ablation import REFINEMENT, ablated, alike, rows, summary
from kornia_cag.training.recipes import DIGITS, RECIPES, SIGNS

NAMING = [recipe for recipe in RECIPES.values() if recipe.detection is None]


@pytest.mark.parametrize("recipe", NAMING, ids=lambda recipe: recipe.name)
def test_every_row_differs_from_the_recipe_in_its_own_thing(recipe):
    table = rows(recipe)
    names = [row.name for row in table]
    assert len(set(names)) == len(names)
    paper = ["baseline", "random context", "refinement only", "bias correction only", "full"]
    if recipe.reset is None and recipe.attack is None and recipe.scene_attack is None:  # then that row is the recipe
        paper.remove("random context")
    assert [name for name in names if name.startswith("paper")] == [f"paper: {name}" for name in paper]
    base = next(row for row in table if row.name == "recipe")
    assert base.recipe == recipe
    for row in table:
        assert row.name == "recipe" or replace(row, name="recipe") != base, row.name


def test_rows_that_train_the_same_are_known():
    table = {row.name: row for row in rows(DIGITS)}
    assert alike(table["paper: random context"], table["without chain"], "photos")
    assert not alike(table["recipe"], table["without chain"], "photos")
    assert not alike(table["recipe"], table["without photographs"], "photos")
    assert alike(table["recipe"], table["without photographs"], None)


def test_what_a_recipe_does_not_use_is_no_row():
    assert "without elastic" in {row.name for row in rows(DIGITS)}
    assert "without holes" in {row.name for row in rows(DIGITS)}
    assert "without holes" not in {row.name for row in rows(SIGNS)}
    hardened = replace(SIGNS, attack=REFINEMENT)
    assert "without attack" in {row.name for row in rows(hardened)}
    assert "with refinement" not in {row.name for row in rows(hardened)}


def test_a_row_trains_what_it_says():
    small = replace(DIGITS, size=16, images=16, batch_size=8, width=4, procedural=6)
    row = next(row for row in rows(small) if row.name == "paper: full")
    run = ablated(row, (None, None, None), images=None, seed=2, device="cpu")
    assert run.collate.chain is not None
    assert [type(stage).__name__ for stage in run.collate.adversaries] == ["PGD"]
    assert run.seed == 2
    run.run()
    assert run.seen >= 16


def test_summary_is_mean_and_deviation_in_order():
    runs = [{"row": "b", "seed": 0, "accuracy": 0.5}, {"row": "a", "seed": 0, "accuracy": 0.25},
            {"row": "b", "seed": 1, "accuracy": 0.7}]  # fmt: skip
    assert summary(runs) == [
        {"row": "b", "seeds": 2, "mean": 0.6, "deviation": 0.14142},
        {"row": "a", "seeds": 1, "mean": 0.25, "deviation": None},
    ]
