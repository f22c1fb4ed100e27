"""The README and the pages of the site as tests read them: code, commands, and what they take for granted."""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from kornia_cag import CAGCollate, ContextBank, ObjectBank, PairSampler
from kornia_cag.training.network import save_network
from kornia_cag.training.recipes import SIGNS, STREET

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = ("stop", "yield")


def name(page: Path) -> str:
    """The page as a test is called for it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str = "python") -> list[str]:
    """All blocks of code of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def block(page: Path, word: str) -> str:
    """The first Python block of a page with a word in it."""
    return next(text for text in blocks(page) if word in text)


def commands(page: Path) -> list[list[str]]:
    """The arguments of every ``kornia-cag`` in the shell blocks of a page."""
    lines = [line for text in blocks(page, "bash") for line in text.replace("\\\n", "").splitlines()]
    parts = [shlex.split(part.partition(" > ")[0], comments=True) for line in lines for part in line.split("&&")]
    return [words[1:] for words in parts if words[:1] == ["kornia-cag"]]


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of all subcommands by name, those of subcommands too."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, inner in action.choices.items():
                found |= {name: inner} | {f"{name} {below}": deep for below, deep in parsers(inner).items()}
    return found


def small(text: str) -> str:
    """The code with few contexts and one epoch."""
    text = text.replace("slots=2000", "slots=8").replace("range(3)", "range(1)")
    text = re.sub(r"ContextBank\.procedural\((?!\))", "ContextBank.procedural(count=8, ", text)
    return text.replace("ContextBank.procedural()", "ContextBank.procedural(count=8)").replace("range(100)", "range(1)")


def run(page: Path, text: str, names: dict[str, Any]) -> None:
    """Execute a block of a page on what has names already."""
    exec(compile(small(text), name(page), "exec"), names)


def write_folders(folder: Path) -> None:
    """The files that the texts speak of."""
    rng = np.random.default_rng(0)
    for each in (
        "signs",
        "icons",
        "logos",
        "photos",
        "runs/signs",
        "runs/street",
        *(f"photos_of_signs/{name}" for name in NAMES),
    ):
        (folder / each).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        picture = np.zeros((120, 120, 4), np.uint8)
        picture[10:110, 10 : 60 + 50 * i] = (200, 80 * i, 50, 255)
        for each in ("signs", "icons"):
            Image.fromarray(picture).save(folder / f"{each}/{name}.png")
        picture[picture[..., 3] == 0] = 255
        Image.fromarray(picture[..., :3]).save(folder / f"logos/{name}.png")
        Image.fromarray(picture[..., :3]).save(folder / f"photos_of_signs/{name}/0.png")
        Image.fromarray(rng.integers(256, size=(80, 90, 3), dtype=np.uint8)).save(folder / f"photos/{i}.jpg")
    save_network(folder / "runs/signs/model.pt", SIGNS.model(2), SIGNS, NAMES, None)
    save_network(folder / "runs/street/model.pt", STREET.model(1), STREET, NAMES, None)


def given() -> dict[str, Any]:
    """What pages have in common: each may take these names for granted."""
    objects, contexts = ObjectBank.from_folder("signs"), ContextBank.procedural(count=24)
    pairs = PairSampler(objects.labels, len(contexts), batch_size=24)
    known = CAGCollate(objects, contexts, 64, returns="batch")
    rows = next(iter(pairs))
    return {
        "objects": objects,
        "contexts": contexts,
        "pairs": pairs,
        "model": nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 2)),  # of any size
        "ranges": known.ranges,
        "collate": CAGCollate(objects, contexts, 64),
        "known": known,
        "rows": rows,
        "batch": known(rows),
        "images": torch.rand(4, 3, 40, 40),
        "my_photos": sorted(Path("photos").iterdir()),
    }
