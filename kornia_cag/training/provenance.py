"""What a run was made with: versions and hardware."""

import platform
from pathlib import Path

import torch

from kornia_cag import __version__


def versions() -> dict[str, str]:
    """Of what the numbers may depend on."""
    return {"kornia_cag": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def hardware(device: torch.device) -> str:
    """Name the processor that a run used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads"
