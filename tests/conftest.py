"""Shared fixtures: a device, the data folder, small banks, small recipes and the command."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.command import cli
from kornia_cag.core import devices
from kornia_cag.training.recipes import CUTOUTS, DIGITS, RECIPES, SIGNS

torch.set_num_threads(1)  # small tensors: threads cost more than they give
torch.backends.cudnn.deterministic = True  # on a GPU, too, two runs are compared to the bit
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Please use the new API settings to control TF32", UserWarning)  # torch 2.9
    # A GPU convolves with the ten bits of TF32 by default, which differ by 1e-3 from batch to batch, and from a CPU.
    torch.backends.cudnn.allow_tf32 = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--damage", type=int, default=60, help="damaged files of each kind that test_damage.py tries")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


_auto = devices._auto
devices._auto = lambda: "cpu"  # a test that names no device says the same on a machine with a GPU


@pytest.fixture(autouse=True)
def auto(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that are marked so get the GPU."""
    if request.node.get_closest_marker("cuda") is not None:
        monkeypatch.setattr(devices, "_auto", _auto)


@pytest.fixture(scope="session")
def data() -> Path:
    folder = os.environ.get("KORNIA_CAG_DATA")
    if folder is None:
        pytest.skip("KORNIA_CAG_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture
def untyped() -> Iterator[None]:
    """Errors are for those who run without shape checks, and the checker draws from Python's random state."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def make_objects(device: torch.device | str = "cpu", size: int = 32) -> ObjectBank:
    """Five coloured shapes with soft edges, one class each."""
    y, x = torch.meshgrid(torch.linspace(-1.2, 1.2, 48), torch.linspace(-1.2, 1.2, 48), indexing="ij")
    shapes = [
        (x**2 + y**2).sqrt(), torch.maximum(x.abs(), y.abs()), x.abs() + y.abs(),
        torch.maximum(x.abs() * 2, y.abs()), torch.minimum(torch.maximum(x.abs() * 3, y.abs()),
                                                           torch.maximum(x.abs(), y.abs() * 3)),
    ]  # fmt: skip
    images = []
    for i, shape in enumerate(shapes):
        alpha = ((1 - shape) * 8).clamp(0, 1)
        color = torch.stack([0.5 + 0.5 * torch.sin(3 * x + i + c) * torch.cos(2 * y - c) for c in range(3)])
        images.append(torch.cat([color, alpha[None]]))
    return ObjectBank.from_tensors(images, size=size, device=device)


def make_contexts(device: torch.device | str = "cpu", count: int = 7, size: int = 32) -> ContextBank:
    return ContextBank.procedural("mix", count=count, size=size, device=device)


@pytest.fixture
def objects(device: torch.device) -> ObjectBank:
    return make_objects(device)


@pytest.fixture
def contexts(device: torch.device) -> ContextBank:
    return make_contexts(device)


# --- the command


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The main recipes in small, and a folder to work in."""
    for recipe in (CUTOUTS, DIGITS, SIGNS):
        small = replace(recipe, size=16, images=48, batch_size=8, width=4, procedural=6)
        monkeypatch.setitem(RECIPES, recipe.name, small)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def signs(tmp_path: Path) -> str:
    """Three classes of cut-outs."""
    for i, name in enumerate(("stop", "give way", "no entry")):
        picture = np.zeros((40, 40, 4), np.uint8)
        picture[5 + 5 * i : 35, 5:35] = (80 * i, 200, 50, 255)
        (tmp_path / "signs").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "signs" / f"{name}.png")
    return "signs"


@pytest.fixture
def photos(tmp_path: Path) -> str:
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.new("RGB", (50, 40), (9, 100 * i, 200)).save(tmp_path / "photos" / f"{i}.jpg")
    return "photos"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process: status, standard output, and what standard error says but for progress."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = cli.main(list(map(str, arguments)))
        except SystemExit as stopped:  # argparse's way
            status = stopped.code
        said = capsys.readouterr()
        lines = said.err.splitlines(keepends=True)
        call.progress = [line for line in lines if not line.startswith(("kornia-cag:", "usage:"))]
        return status, said.out, "".join(line for line in lines if line not in call.progress)

    return call
