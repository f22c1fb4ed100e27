"""Shared by the benchmarks: the device, the banks, and what is written down about the machine."""

import os
import platform
from typing import Any

import cv2
import kornia
import numpy as np
import pytest
import torch
from common import cores

import kornia_cag
from kornia_cag import ContextBank, ObjectBank
from kornia_cag.train import hardware

GLYPHS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"  # 43 classes, as many as GTSRB has
LOAD = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # before the first benchmark


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(scope="session")
def objects(device: torch.device) -> ObjectBank:
    return ObjectBank.from_glyphs(GLYPHS, size=64, device=device).with_ink((220, 60, 40))


@pytest.fixture(scope="session")
def contexts(device: torch.device) -> ContextBank:
    return ContextBank.procedural("mix", count=512, size=64, device=device)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    cuda = torch.cuda.is_available()
    machine_info.update({
        "hardware": hardware(torch.device("cpu")) + (f"; {torch.cuda.get_device_name()}" if cuda else ""),
        "cores": cores(),
        "load": LOAD,
        "versions": {
            "kornia_cag": kornia_cag.__version__, "torch": torch.__version__, "cuda": torch.version.cuda,
            "kornia": kornia.__version__, "numpy": np.__version__, "opencv": cv2.__version__,
            "python": platform.python_version(),
        },
    })  # fmt: skip
