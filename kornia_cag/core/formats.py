"""External image formats: floats in [0, 1], or uint8."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kornia_cag.core.compiling import kept

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


def to_float(images: Shaped[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Convert images of any of :data:`DTYPES` to float32 in [0, 1]."""
    return images.to(torch.float32) * (1 / 255) if images.dtype == torch.uint8 else images.to(torch.float32)


def to_format(
    images: Float[Tensor, "b c h w"], dtype: torch.dtype, channels_last: bool = False
) -> Shaped[Tensor, "b c h w"]:
    """Convert images in [0, 1] to one of :data:`DTYPES`, rounded; ``channels_last`` is torch's memory format."""
    found = (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)
    # kept: otherwise the compiler computes all channels of a pixel together, which is slow
    return kept(found).contiguous(memory_format=torch.channels_last) if channels_last else found


def memory_format(images: Tensor) -> torch.memory_format:
    """Channels last or contiguous."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
