"""What changes during training: the learning rate, and how far the averaged weights look back."""

import math
from collections.abc import Collection

import torch
from torch import nn

from kornia_cag.training.divergence import tensors


def schedule(seen: int, budget: int) -> float:
    """Learning rate factor after ``seen`` images: linear warm-up, then half a cosine to 0 at ``budget``.

    The warm-up takes 20,000 images, or a tenth of a small budget.
    """
    return min(1.0, (seen + 1) / min(20_000, 0.1 * budget)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / budget)))


@torch.no_grad()
def average(old: nn.Module, new: nn.Module, steps: int, decay: float, copied: Collection[str] = ()) -> None:
    """Exponential moving average that forgets the untrained weights: after ``n`` steps it looks back ``n / 10``.

    Args:
        old: the averaged network, changed in place.
        new: the network after one more step.
        steps: number of steps before this one.
        decay: in [0, 1], share of the average kept per step in the long run.
        copied: names of tensors to copy unchanged, such as a mask of -inf; integers are always copied.
    """
    weight = max(1 - decay, 9 / (10 + steps)) if steps else 1.0
    pairs = [(name, before, after) for (name, before), (_, after) in zip(tensors(old), tensors(new), strict=True)]
    floats = [(before, after) for name, before, after in pairs if before.is_floating_point() and name not in copied]
    torch._foreach_lerp_([before for before, _ in floats], [after for _, after in floats], weight)
    for name, before, after in pairs:
        if not before.is_floating_point() or name in copied:  # a counter of BatchNorm, a mask of -inf
            before.copy_(after)
