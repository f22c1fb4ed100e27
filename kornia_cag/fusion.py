"""What a stage must say to a compiler that fuses it with its neighbours. In eager mode, none of this does anything."""

import torch
from torch import Tensor


def fusing() -> bool:
    """Whether this is being compiled, so that what would be slow in eager mode becomes one loop over pixels."""
    return torch.compiler.is_compiling()


def once(*values: Tensor) -> tuple[Tensor, ...]:
    """Two or more numbers per sample ``(b,)``, computed once and kept, instead of anew at every pixel."""
    return torch.stack(values).unbind(0) if fusing() else values


def kept(value: Tensor) -> Tensor:
    """A value just computed, contiguous, that is to be kept where it is used several times.

    A compiler writes an expression out at every use: a chain of such uses grows without bounds.
    """
    return value.as_strided(value.size(), value.stride()) if fusing() else value  # a strided view needs memory
