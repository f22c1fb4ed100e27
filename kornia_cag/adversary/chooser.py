"""What adversaries that choose scenes have in common: how many they attack, and by which losses they judge."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.adversary.losses import Loss, OfTargets, kl
from kornia_cag.adversary.stage import Adversary
from kornia_cag.core.checks import check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS, autocasting
from kornia_cag.core.ranks import Share
from kornia_cag.scenes.targets import Targets


class SceneChooser(Adversary):
    """An adversary that judges whole scenes by a loss."""

    chooses_scenes: ClassVar[bool] = True

    loss: Loss

    @property
    def needs_targets(self) -> bool:  # type: ignore[override]
        """Whether its loss is told boxes and masks."""
        return isinstance(self.loss, OfTargets)


def check_loss(loss: Any) -> None:
    """Require a loss that can judge a scene.

    Raises:
        InputError: if it is no function, and for :func:`kl`, which compares with a clean picture.
    """
    if not callable(loss) or isinstance(loss, type) or loss is kl:
        fail("loss", "a function of logits and classes, such as cross_entropy", describe(loss))


def how_many(fraction: float, b: int | Share) -> int:
    """How many samples of a batch are attacked: the fraction, rounded, but for one above 0 at least one.

    Args:
        fraction: of the batch.
        b: samples of the batch, or a rank's share of one, of whose first slots it then says how many are the rank's.
    """
    if isinstance(b, Share):
        return b.first(how_many(fraction, b.total))
    return max(round(fraction * b), min(1, b) if fraction else 0)


def losses_of(
    net: nn.Module, loss: Loss, autocast: torch.dtype | None, images: Tensor,
    known: Int[Tensor, " b"] | Int[Tensor, "b k"] | Targets,
) -> Float[Tensor, " b"]:  # fmt: skip
    """The loss of each picture, without one that the model cannot judge: it is not the worst."""
    with autocasting(autocast, images.device):
        losses = loss(net(images.clone()), known)  # a model may start with an in-place operation
    check_tensor("loss", losses, (len(images),), FLOATS, fix="Return one loss per image: reduction='none'.")
    return torch.nan_to_num(losses.float(), nan=-torch.inf)
