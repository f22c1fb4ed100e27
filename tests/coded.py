"""JPEG on a GPU, whose matrix products round differently in batches of different sizes."""

from torch import Tensor


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether pictures are the same but for a few blocks, in which a coefficient was rounded the other way."""
    return bool(((one - other).abs() < 1e-3).float().mean() > 0.95)
