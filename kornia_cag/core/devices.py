"""Resolving device names on this machine before anything is created there."""

import textwrap
from typing import Any

import torch
from torch import Tensor, nn

from kornia_cag.core.checks import fail

Device = torch.device | str


def chosen_device(device: Any, argument: str = "device") -> torch.device:
    """The device of that name, as tensors report it; ``"auto"`` is a GPU if there is one, else the CPU.

    Args:
        device: ``"auto"``, or anything torch accepts: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, a ``torch.device``.
        argument: the caller's name for it.

    Raises:
        InputError: for a device that this machine lacks, that torch does not know, or that cannot compute.
    """
    expected = "auto, or a device of this machine, such as cpu or cuda"
    if not isinstance(device, str | torch.device):
        fail(argument, expected, repr(device))
    if device == "auto":
        device = _auto()
    try:
        made = torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error).partition("\n")[0].rstrip("."), 120, placeholder="...")
        found = f"this machine has {torch.cuda.device_count() or 'no'} CUDA device(s) that torch can use"
        fail(argument, expected, f"'{device}' ({reason}; {found})", "Leave it at auto, or use cpu.")
    if made.type == "cpu" and torch.device(device).index:  # an index that torch accepts and ignores
        fail(argument, expected, f"'{device}', but there is only one", "Use cpu.")
    if made.type == "meta":
        fail(argument, expected, f"'{device}', which cannot compute")
    return made


def _auto() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(network: nn.Module) -> torch.device:
    """The device of a network; the CPU if it has no parameters."""
    return next((tensor.device for tensor in network.parameters()), torch.device("cpu"))


def upload(tensor: Tensor, device: Device) -> Tensor:
    """Move a tensor to ``device``, from the CPU to a GPU without waiting for it."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
