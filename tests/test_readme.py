"""What the README shows runs."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import PGD, CAGCollate, ContextChain, PairSampler
from kornia_cag.command.cli import main
from kornia_cag.training.architectures import convnet
from kornia_cag.training.recipes import SIGNS

pytestmark = pytest.mark.filterwarnings("error")

README = Path(__file__).parents[1] / "README.md"


def block(word):
    """The first Python block with a word in it."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return next(text for text in blocks if word in text)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the text takes for granted: two folders."""
    for folder in ("signs", "photos"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate(("stop", "yield")):
        picture = np.zeros((60, 60, 4), np.uint8)
        picture[5:55, 5 : 30 + 25 * i] = (200, 80 * i, 50, 255)
        Image.fromarray(picture).save(tmp_path / "signs" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return {}


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_the_loop_and_the_ranges(names):
    loop = replaced(
        block("DataLoader("),
        ("batch_size=512", "batch_size=8"),
        ("ContextBank.procedural(", "ContextBank.procedural(count=8, "),
        ("range(100)", "range(1)"),
        ("...  # loss.backward()", "loss.backward()  #"),
    )
    exec(compile(loop, "README.md", "exec"), names)
    assert names["images"].shape[1:] == (3, 64, 64)
    assert 0 <= names["images"].min() <= names["images"].max() <= 1
    assert set(names["labels"].tolist()) == {0, 1}
    assert all(parameter.grad is not None for parameter in names["model"].parameters())
    exec(compile(block("SceneRange("), "README.md", "exec"), names)
    exec(compile(block("batch.scene"), "README.md", "exec"), names)
    assert names["batch"].masks.shape == (8, 1, 64, 64)
    assert names["batch"].boxes.shape == (8, 4)
    kept = torch.load("scene.pt", weights_only=True)
    brighter, scene = names["brighter"], names["scene"]
    assert torch.equal(kept.pose.angle, scene.pose.angle)
    assert torch.allclose(brighter.light.exposure, scene.light.exposure + 1)
    again = names["collate"].composer.render(scene).images
    assert torch.equal(again, names["batch"].images)
    assert not torch.equal(names["turned"].images, again)
    assert names["boxes"].shape == (8, 2, 4)
    assert torch.equal(names["classes"], names["objects"].labels[names["two"]])
    assert (names["street"].targets.share[:, 0] < 1).all()  # something lies over each of the lower objects


def test_a_stage_of_ones_own(names):
    start = block("DataLoader(").split("collate =")[0]
    small = replaced(start, ("batch_size=512", "batch_size=8"), (".procedural(", ".procedural(count=8, "))
    exec(compile(small, "README.md", "exec"), names)
    names["CAGCollate"] = CAGCollate
    exec(compile(block("(Adversary)"), "README.md", "exec"), names)
    rows = next(iter(names["pairs"]))
    plain = CAGCollate(names["objects"], names["contexts"], size=64, returns="batch")(rows)
    dimmed = names["collate"](rows).images
    outside, inside = (plain.masks == 0).expand_as(dimmed), (plain.masks == 1).expand_as(dimmed)
    assert torch.allclose(dimmed[outside], 0.3 * plain.images[outside])
    assert torch.allclose(dimmed[inside], plain.images[inside])


def test_how_to_add(names):
    """What the page on architecture adds works, and does what it says."""
    start = block("DataLoader(").split("collate =")[0]
    small = replaced(start, ("batch_size=512", "batch_size=8"), (".procedural(", ".procedural(count=8, "))
    exec(compile(small, "README.md", "exec"), names)
    page = (README.parent / "docs/architecture.md").read_text()
    blend, adversary, effect = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    rows = next(iter(names["pairs"]))
    plain = CAGCollate(names["objects"], names["contexts"], 64)(rows).images
    exec(compile(blend, "architecture.md", "exec"), names)
    screened = CAGCollate(names["objects"], names["contexts"], 64, ranges=names["ranges"])(rows).images
    assert (screened - plain).abs().amax() > 0.05
    exec(compile(adversary, "architecture.md", "exec"), names)
    duller = names["collate"](rows).images
    halved = torch.isclose(duller, 0.5 * screened).flatten(1).all(dim=1)
    kept = (duller == screened).flatten(1).all(dim=1)
    assert (halved | kept).all()
    exec(compile(effect, "architecture.md", "exec"), names)
    shaded = CAGCollate(names["objects"], names["contexts"], 64, ranges=names["ranges"])(rows).images
    assert torch.allclose(shaded[:, :, 31:33, 31:33], plain[:, :, 31:33, 31:33], atol=1e-3)
    assert (shaded[:, :, 0, 0] <= plain[:, :, 0, 0]).all()
    assert shaded.mean() < plain.mean()


def test_the_command_of_the_readme_is_the_command(capsys):
    """Each line of the block is taken by the command line's parser, and names options that are there."""
    commands = re.findall(r"^kornia-cag (\w+) ?(.*?)(?: {2,}#.*| #.*)?$", README.read_text(), flags=re.MULTILINE)
    assert len(commands) > 10
    for name, rest in commands:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert not stop.value.code
        said = capsys.readouterr().out
        assert [option for option in re.findall(r"(--[\w-]+)", rest) if option not in said] == [], name


def test_the_attacks(names):
    banks = replaced(block("DataLoader(").split("pairs =")[0], (".procedural(", ".procedural(count=8, "))
    exec(compile(banks, "README.md", "exec"), names)
    names["torchattacks"] = SimpleNamespace(PGD=lambda model: lambda images, labels: 0 * images)
    exec(compile(block("losses import"), "README.md", "exec"), names)
    pairs = PairSampler(names["objects"].labels, len(names["contexts"]), batch_size=8)
    assert (names["collate"](next(iter(pairs))).images == 0).all()


def test_which_scenes_confuse_a_network(names, capsys):
    """The page's example, on what the README begins with."""
    first = block("DataLoader(").split("collate =")[0]
    small = replaced(first, ("512", "40"), (".procedural(", ".procedural(count=24, "))
    exec(compile(small, "README.md", "exec"), names)
    names |= {
        "CAGCollate": CAGCollate,
        "ranges": SIGNS.ranges,
        "rows": next(iter(names["pairs"])),
        "model": convnet(2, 40),
    }
    (example,) = re.findall(r"```python\n(.*?)```", (README.parent / "docs/adversary.md").read_text(), flags=re.DOTALL)
    exec(compile(example, "adversary.md", "exec"), names)
    shares = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {"pose.scale", "color.exposure", "camera.low_resolution", "camera.grain", "context.crop"} <= shares.keys()
    assert all(0 <= float(share) < 1 for share in shares.values())
    assert len(names["numbers"]) == len(names["losses"]) == 24


def test_the_scene_adversary(names):
    first = block("DataLoader(").split("collate =")[0]
    small = replaced(first, ("512", "8"), (".procedural(", ".procedural(count=8, "))
    exec(compile(small, "README.md", "exec"), names)
    names["ContextChain"], names["PGD"] = ContextChain, PGD
    exec(compile(replaced(block("HardPairing("), ("    ...", "    pass")), "README.md", "exec"), names)
    assert names["hard"].confusion.shape == (2, 2)
    names["loss"].backward()
    assert names["loss"] > 0
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


def test_every_promise_names_a_test_that_exists():
    page = (README.parent / "docs/guarantees.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (README.parent / file).read_text(), f"{file}::{test}"
