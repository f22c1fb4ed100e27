"""Stages after the camera: functions of images and keys, and an adapter for modules without keys."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.core.checks import check_instance, check_tensor
from kornia_cag.core.formats import memory_format
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.randomness import fold_in

_NUMBER = 0x66696E69  # folded into keys, so that stages draw apart from each other


@runtime_checkable
class Finish(Protocol):
    """A stage after the camera: any function of images and keys, such as :class:`kornia_cag.Recapture`.

    Each picture may depend on its own key alone, and a frozen dataclass is what is best written for it: then a sample
    is the same in any batch, a run repeats, and gradients reach through it what adversaries move. It may not move
    anything: masks and boxes would not follow. A strength does not reach it, and an earlier composite that serves as a
    context went through it before.
    """

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Map images in [0, 1] to others of their shape, dtype and device; see :func:`Draws` for numbers by key."""
        ...


class Unkeyed:
    """Adapts a module without keys, such as a kornia augmentation, as a stage after the camera.

    You lose what keys provide. Kornia's augmentations draw from the global random state: a run repeats only with
    ``torch.manual_seed``, a sample depends on its batch, and a batch composed ahead draws one training step earlier.

    Args:
        module: maps images (b, 3, h, w) to images of the same shape.
    """

    def __init__(self, module: nn.Module) -> None:
        check_instance("module", module, nn.Module, "Pass a function of images and keys directly.")
        self.module = module

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """The module's images; keys are not used."""
        found: Tensor = self.module(images)
        return found

    def __repr__(self) -> str:
        return f"Unkeyed({self.module!r})"


def finished(
    images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"], stages: tuple[Finish, ...]
) -> Float[Tensor, "b 3 h w"]:
    """Images after all stages, clipped to [0, 1], in their own dtype.

    The first stage gets the keys of the samples, each further one keys of its own: equal stages draw apart.

    Raises:
        InputError: for a stage that changes the shape or the device, or does not give floats.
    """
    for place, stage in enumerate(stages):
        with torch.autocast(images.device.type, enabled=False):  # a sample depends on no precision around it
            changed = stage(images, fold_in(keys, _NUMBER + place) if place else keys)
        check_tensor(f"finish[{place}]", changed, tuple(images.shape), FLOATS, images.device,
                     fix="A stage after the camera must keep shape and device.")  # fmt: skip
        layout = memory_format(images)
        images = changed.to(images.dtype).clamp(0, 1).contiguous(memory_format=layout)
    return images
