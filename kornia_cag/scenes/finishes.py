"""Stages after the camera: functions of images and keys, and an adapter for modules without keys."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.core.checks import check_instance, check_tensor


@runtime_checkable
class Finish(Protocol):
    """A stage after the camera: any function of images and keys, such as :class:`kornia_cag.Recapture`.

    Each picture may depend only on its own key, and a frozen dataclass is the best way to write one: then a sample is
    the same in any batch, runs are reproducible, and adversaries get gradients through it. It must not move anything:
    masks and boxes would not follow.
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
    """Apply all stages, then clip to [0, 1].

    Raises:
        InputError: if a stage changes shape, dtype or device.
    """
    for place, stage in enumerate(stages):
        changed = stage(images, keys)
        check_tensor(f"finish[{place}]", changed, tuple(images.shape), images.dtype, images.device,
                     fix="A stage after the camera must keep shape, dtype and device.")  # fmt: skip
        images = changed.clamp(0, 1)
    return images
