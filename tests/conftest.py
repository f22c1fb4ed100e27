"""Shared fixtures: a device, the data folder, small banks."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core import devices

torch.set_num_threads(1)  # small tensors: threads cost more than they give


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
