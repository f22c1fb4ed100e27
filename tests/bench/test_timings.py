"""``kornia-cag bench`` on tiny settings; what the numbers are is a matter of the machine."""

import re
from dataclasses import replace

import pytest
from conftest import make_contexts, make_objects

from kornia_cag.bench.timings import table, timings
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipes import DIGITS, RIGID_SIGNS, SIGNS

LINES = ["composition, eager", "OpenCV loader", "Pillow loader", "training step", "FGSM", "ScenePGD"]


def report(recipe: Recipe) -> dict:
    small = replace(recipe, size=16, batch_size=8, width=4, procedural=7)
    return timings(small, make_objects(), make_contexts(), compiled=False, seconds=0.01)


def test_report_of_a_recipe_that_the_cpu_loaders_can_make() -> None:
    found = report(replace(SIGNS, ranges=RIGID_SIGNS))
    assert (found["batch_size"], found["size"], found["compile_seconds"]) == (8, 16, None)
    assert [line["name"].split(",")[0] for line in found["lines"]] == [name.split(",")[0] for name in LINES]
    for line in found["lines"]:
        assert line["ms"] > 0
        assert line["images_per_second"] == pytest.approx(8e3 / line["ms"], rel=0.05, abs=0.6)  # rounded
    said = table(found)
    assert said[0] == "8 images of 16 x 16 pixels in a batch"
    assert "of the time of a training step, and is" in said[-2]
    assert re.fullmatch(r"With its ScenePGD a batch takes \d+% of the time of a training step\.", said[-1])
    assert "Compiling took 3.1 s" in "\n".join(table(found | {"compile_seconds": 3.1}))


def test_report_of_a_recipe_that_they_cannot_make() -> None:
    found = report(DIGITS)
    loaders = [line for line in found["lines"] if "loader" in line["name"]]
    assert len(loaders) == 2
    assert all("ms" not in line and "the limit of the CPU loaders" in line["note"] for line in loaders)
    assert table(found)[-1].endswith("; no CPU loader makes these scenes.")
