"""Float formats, and which computation uses which."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def widen(values: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Convert half precision to float32: differences of logits are small, and steps of an attack smaller."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


PRECISIONS = (None, torch.bfloat16, torch.float16, torch.float32)  # for forward passes, see autocasting


def autocasting(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to ``dtype``; float32: no autocast; None: as in the caller."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 if the hardware multiplies it natively, else None.

    On a CPU oneDNN does the multiplying: ``ONEDNN_MAX_CPU_ISA=AVX2`` in the environment disables it.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and native() and _allowed_bfloat16() else None


def _allowed_bfloat16() -> bool:
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is None or bool(ask())
