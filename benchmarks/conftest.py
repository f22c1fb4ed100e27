"""Shared by the benchmarks: the device, the banks, and what is written down about the machine."""

import os
import platform
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch
from common import Banks, make_banks, make_collate

from kornia_cag import CAGCollate, ContextBank, ObjectBank
from kornia_cag.bench.timings import cores
from kornia_cag.loading.batch import Pair
from kornia_cag.training.provenance import hardware

LOAD = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # before the first benchmark
PACKAGES = ("kornia_cag", "torch", "kornia", "numpy", "opencv-python-headless", "pillow", "torchvision",
            "albumentations", "torchattacks", "foolbox")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes long; left out unless --benchmark-enable is given")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is not timed is only shown to work, on the smallest settings."""
    if config.getoption("benchmark_enable"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(scope="session")
def banks(device: torch.device) -> Callable[[int], Banks]:
    """Objects and contexts for a canvas side, made once for all that read the same."""
    made = cache(lambda large: make_banks(128 if large else 64, device))
    return lambda side: made(side > 64)


@pytest.fixture(scope="session")
def collates(banks: Callable[[int], Banks]) -> Callable[..., CAGCollate[Pair]]:
    """Collates on these banks, kept: what is compiled once need not be compiled by the next benchmark."""
    return cache(lambda side, compiled, **options: make_collate(*banks(side), side, compiled=compiled, **options))


@pytest.fixture(scope="session")
def objects(banks: Callable[[int], Banks]) -> ObjectBank:
    return banks(64)[0]


@pytest.fixture(scope="session")
def contexts(banks: Callable[[int], Banks]) -> ContextBank:
    return banks(64)[1]


@pytest.fixture
def threads() -> Iterator[Callable[[int | None], int]]:
    """Sets how many threads torch uses in this process (None: as many as before), and says how many they are."""
    before = torch.get_num_threads()

    def use(count: int | None) -> int:
        torch.set_num_threads(count or before)
        return count or before

    yield use
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    cuda = torch.cuda.is_available()
    machine_info.pop("node", None)  # the machine's name is nobody's business
    machine_info.update({
        "hardware": hardware(torch.device("cpu")) + (f"; {torch.cuda.get_device_name()}" if cuda else ""),
        "cores": cores(),
        "load": LOAD,
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **versions()},
    })  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
