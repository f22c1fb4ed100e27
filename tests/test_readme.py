"""What the README and the pages of the site show runs, and does what they say."""

import ast
import re
import runpy
from types import SimpleNamespace

import pages
import pytest
import torch
from pages import PAGES, README, ROOT, block, blocks, run

from kornia_cag import PGD, CAGCollate, ScenePGD
from kornia_cag.command import usage
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.training.catalog import CATALOG
from kornia_cag.training.recipe_file import load_recipe
from kornia_cag.training.recipes import SIGNS

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings(r"ignore:(objects|contexts)\S the bank holds:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11 with torch 2.13
]

DOCS = ROOT / "docs"
LOOP, HARDEN = DOCS / "how-to/loop.md", DOCS / "how-to/harden.md"
WITH_CODE = [page for page in PAGES if blocks(page) and page.name != "export.md"]  # test_exported.py runs that


@pytest.fixture
def names(tmp_path, monkeypatch):
    """A folder with the files that the texts speak of, and the names that they take for granted."""
    pages.write_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Renderer, "compile", lambda self: None)  # it makes the same pictures
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield pages.given() | {"torchattacks": SimpleNamespace(PGD=lambda model: lambda images, labels: 0 * images)}
    torch.set_rng_state(state)


@pytest.mark.parametrize("page", WITH_CODE, ids=pages.name)
def test_all_blocks_of_a_page_run_one_after_the_other(names, page):
    for text in blocks(page):
        run(page, text, names)


def test_the_loop_of_the_readme(names):
    run(README, block(README, "DataLoader("), names)
    assert names["images"].shape == (8, 3, 64, 64)
    assert 0 <= names["images"].min() <= names["images"].max() <= 1
    assert set(names["labels"].tolist()) == {0, 1}


def test_the_loop_learns_and_scenes_are_values(names):
    loop, step = block(LOOP, "DataLoader("), "...  # loss.backward()"
    assert step in loop
    run(LOOP, loop.replace(step, "loss.backward()  #"), names)
    assert names["images"].shape[1:] == (3, 64, 64)
    assert all(parameter.grad is not None for parameter in names["model"].parameters())
    for text in blocks(LOOP)[1:4]:
        run(LOOP, text, names)
    assert names["batch"].masks.shape == (8, 1, 64, 64)
    assert names["batch"].boxes.shape == (8, 4)
    kept = torch.load("scene.pt", weights_only=True)
    brighter, scene = names["brighter"], names["scene"]
    assert torch.equal(kept.pose.angle, scene.pose.angle)
    assert torch.allclose(brighter.light.exposure, scene.light.exposure + 1)
    again = names["known"].composer.render(scene).images
    assert torch.equal(again, names["batch"].images)
    assert not torch.equal(names["turned"].images, again)
    assert names["boxes"].shape == (8, 2, 4)
    assert torch.equal(names["classes"], names["objects"].labels[names["two"]])
    assert (names["street"].targets.share[:, 0] < 1).all()  # something lies over each of the lower objects


def test_what_is_saved_goes_on(names):
    for text in blocks(LOOP)[:1]:
        run(LOOP, text, names)
    run(LOOP, block(LOOP, "StatefulDataLoader("), names)
    pairs, saved = names["pairs"], names["saved"]
    assert pairs.epoch == 2  # epoch 0 was trained on, epoch 1 is used up by its only batch
    assert saved["collate"]["chain"] is not None


def test_a_stage_of_ones_own(names):
    names["CAGCollate"] = CAGCollate  # from the block before
    run(HARDEN, block(HARDEN, "(Adversary)"), names)
    rows = next(iter(names["pairs"]))
    plain = CAGCollate(names["objects"], names["contexts"], size=64, returns="batch")(rows)
    dimmed = names["collate"](rows).images
    outside, inside = (plain.masks == 0).expand_as(dimmed), (plain.masks == 1).expand_as(dimmed)
    assert torch.allclose(dimmed[outside], 0.3 * plain.images[outside])
    assert torch.allclose(dimmed[inside], plain.images[inside])


def test_an_attack_of_another_library(names):
    run(HARDEN, block(HARDEN, "losses import margin"), names)
    assert (names["collate"](next(iter(names["pairs"]))).images == 0).all()


def test_everything_at_once(names):
    names |= {"CAGCollate": CAGCollate, "PGD": PGD}
    run(HARDEN, block(HARDEN, "HardPairing("), names)
    assert names["hard"].confusion.shape == (2, 2)
    names["loss"].backward()
    assert names["loss"] > 0
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


def test_an_attack_of_a_detector(names):
    names |= {"CAGCollate": CAGCollate, "PGD": PGD, "ScenePGD": ScenePGD}
    run(HARDEN, block(HARDEN, "OfTargets("), names)
    batch = names["collate"](next(iter(names["pairs"])))
    assert bool(batch.attacked.all())
    assert not torch.equal(batch.images, batch.clean)


def test_how_to_add(names):
    """What the page on architecture adds works, and does what it says."""
    page = DOCS / "architecture.md"
    blend, adversary, effect = blocks(page)
    rows = next(iter(names["pairs"]))
    plain = CAGCollate(names["objects"], names["contexts"], 64)(rows).images
    run(page, blend, names)
    screened = CAGCollate(names["objects"], names["contexts"], 64, ranges=names["ranges"])(rows).images
    assert (screened - plain).abs().amax() > 0.05
    run(page, adversary, names)
    duller = names["collate"](rows).images
    halved = torch.isclose(duller, 0.5 * screened).flatten(1).all(dim=1)
    kept = (duller == screened).flatten(1).all(dim=1)
    assert (halved | kept).all()
    run(page, effect, names)
    shaded = CAGCollate(names["objects"], names["contexts"], 64, ranges=names["ranges"])(rows).images
    assert torch.allclose(shaded[:, :, 31:33, 31:33], plain[:, :, 31:33, 31:33], atol=1e-3)
    assert (shaded[:, :, 0, 0] <= plain[:, :, 0, 0]).all()
    assert shaded.mean() < plain.mean()


def test_scenes_of_several_objects(names):
    """The page's own assertions hold."""
    example, chain, light = blocks(DOCS / "how-to/scenes.md")
    run(DOCS / "how-to/scenes.md", example, names)
    assert len(names["boxes"]) == len(names["classes"]) > 0
    assert names["boxes"].isfinite().all()
    run(DOCS / "how-to/scenes.md", chain, names)
    run(DOCS / "how-to/scenes.md", light, names)
    rows = next(iter(names["pairs"]))
    lit, plain = (CAGCollate(names["objects"], names["contexts"], 160, ranges=names[ranges], returns="batch")(rows)
                  for ranges in ("light", "ranges"))  # fmt: skip
    assert not torch.equal(lit.images, plain.images)
    assert lit.scene.sun is not None


def test_which_scenes_confuse_a_network(names, capsys):
    page = DOCS / "adversary.md"
    names["ranges"] = SIGNS.ranges
    (example,) = blocks(page)
    run(page, example, names)
    shares = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {"pose.scale", "color.exposure", "camera.low_resolution", "camera.grain", "context.crop"} <= shares.keys()
    assert all(0 <= float(share) < 1 for share in shares.values())
    assert len(names["numbers"]) == len(names["losses"]) == 24


def test_what_is_said_of_epochs_and_samples(names, capsys):
    for page, said in (
        (DOCS / "how-to/epochs.md", "22016 344\n4300\ntensor(0) tensor(1)\n"),
        (DOCS / "how-to/reproducibility.md", "True\n"),
    ):
        for text in blocks(page):
            run(page, text, names)
        assert capsys.readouterr().out.endswith(said)


@pytest.mark.parametrize("page", [page for page in PAGES if pages.commands(page)], ids=pages.name)
def test_every_command_is_one(page):
    """The command line's own parser takes it."""
    for words in pages.commands(page):
        assert usage.parser().parse_args(words).command == words[0]


def test_there_are_commands_of_every_kind():
    shown = [" ".join(words) for page in PAGES for words in pages.commands(page)]
    assert [
        name for name in pages.parsers(usage.parser()) if not any(f"{text} ".startswith(f"{name} ") for text in shown)
    ] == []


def test_the_recipe_of_the_page_is_one(tmp_path):
    (text,) = blocks(DOCS / "how-to/recipes.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.images, recipe.ranges.pose.angle) == ("mine", 300_000, (-90, 90))


def test_the_table_of_recipes_has_all_of_them():
    table = README.read_text().partition("<!-- recipes -->")[2].partition("<!-- end of recipes -->")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \| (.+) \|$", table, flags=re.MULTILINE)
    assert rows == [(name, about.purpose, about.needs) for name, about in CATALOG.items()]


def test_every_text_of_an_error_is_one_of_ours():
    """The first column of the tables on troubleshooting holds parts of messages as the package has them."""
    texts = [
        node.value
        for path in (ROOT / "kornia_cag").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    page = (DOCS / "how-to/troubleshooting.md").read_text()
    quoted = re.findall(r"^\| `(.*?)` \|", page, flags=re.MULTILINE)
    assert len(quoted) > 20
    assert [q for q in quoted if not any(q.removeprefix("expected ") in text for text in texts)] == []


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md")], ids=pages.name)
def test_links_beside_the_site_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("script", [DOCS / "life.py", DOCS / "stages.py"], ids=pages.name)
def test_what_draws_the_pictures_starts(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert not stop.value.code
    assert "--contexts" in capsys.readouterr().out


def test_every_promise_names_a_test_that_exists():
    rows = [line for line in (DOCS / "guarantees.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| promise")]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
