"""Distractors in a recipe: in its scenes, and in nothing that a network learns or a run is told."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kornia_cag import CAGCollate, InputError, Recipe
from kornia_cag.training import recipe as recipe_module
from kornia_cag.training.provenance import banks
from kornia_cag.training.recipe_file import load_recipe, save_recipe
from kornia_cag.training.recipes import DIGITS, STREET

BESIDE = replace(STREET, size=48, classes="0123", distractors=2, batch_size=8, procedural=5)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_module, "MADE_UP", 6)


def test_the_bank_keeps_the_classes_and_adds_objects_without() -> None:
    bank = BESIDE.objects(None, device="cpu")
    assert bank.classes == tuple("0123")
    assert bank.labels.tolist() == [0, 1, 2, 3, *[-1] * 6]
    plain = replace(BESIDE, distractors=0).objects(None, device="cpu")
    assert torch.equal(bank.pyramid.level(0)[:4], plain.pyramid.level(0))
    assert banks(bank, BESIDE.contexts(None, device="cpu"))["classes"] == plain.classes
    thick = replace(BESIDE, thickness=(1,)).objects(None, device="cpu")
    assert (thick.variants, len(thick)) == (2, 10)


def test_scenes_show_them_and_targets_do_not(untyped: None) -> None:
    bank, contexts = BESIDE.objects(None, device="cpu"), BESIDE.contexts(None, device="cpu")
    pairs = BESIDE.pairs(bank, len(contexts))
    assert (pairs.objects_per_scene, pairs.distractors_per_scene) == (4, 2)
    batch = CAGCollate(bank, contexts, BESIDE.size, ranges=BESIDE.ranges, returns="batch")(next(iter(pairs)))
    shown = torch.stack([layer.shown for layer in batch.scene.layers if layer.shown is not None], dim=1)
    beside = batch.rows.layers >= 4
    assert (beside.sum(dim=1) == 2).all()
    assert (shown & beside).any()
    assert BESIDE.detection is not None
    found = BESIDE.detection.targets(batch)
    assert not found.present[beside].any()
    assert found.present.any()
    assert set(found.labels.unique().tolist()) <= {-1, 0}


def test_only_a_recipe_of_detection_has_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^distractors: expected 0, since the recipe's network is shown one object"):
        replace(DIGITS, distractors=1)
    with pytest.raises(InputError, match=r"^distractors: expected an integer of at least 0"):
        replace(STREET, distractors=-1)
    with pytest.raises(InputError, match=r"^distractors: expected a recipe that shows some"):
        replace(BESIDE, distractors=0).objects(None, distractors=str(tmp_path), device="cpu")
    save_recipe(BESIDE, tmp_path / "mine.yaml")
    loaded: Recipe = load_recipe(tmp_path / "mine.yaml")
    assert loaded == BESIDE
