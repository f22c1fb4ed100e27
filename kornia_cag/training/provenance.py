"""Provenance of a run: versions, hardware and banks."""

import platform
from pathlib import Path
from typing import Any

import torch

from kornia_cag import __version__
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts, ContextStream


def versions() -> dict[str, str]:
    """Versions of everything that the numbers may depend on."""
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


def banks(objects: ObjectBank, contexts: Contexts) -> dict[str, Any]:
    """What is in the banks, with checksums of all pictures; of a stream's, which come and go, of their names."""
    held: dict[str, Any] = {"count": len(contexts), "size": contexts.size}
    if isinstance(contexts, ContextStream):
        held |= {"epochs": contexts.epochs, "files": contexts.files}
    else:
        held["crc"] = contexts.pyramid.checksum()
    return {
        "classes": objects.classes,
        "objects": {
            "count": len(objects),
            "variants": objects.variants,
            "size": objects.size,
            "crc": objects.pyramid.checksum(),
        },
        "contexts": held,
    }
