"""``Earlier``: composites of an earlier batch, each offered to a sample as its context."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_tensor, fail
from kornia_cag.core.formats import DTYPES
from kornia_cag.scenes.targets import Targets, check_targets


@dataclass(frozen=True)
class Earlier:
    """Earlier composites, one offered to each of ``b`` samples as its context.

    Without targets, a sample uses it unless a fresh context is drawn, or it shows an object of one of the sample's own
    classes: the object behind must have a different label. Distractors and objects that are not shown have none.

    With the targets of G generations, objects behind are targets of the sample, too. Their classes do not matter then,
    but a composite that already shows G earlier generations is not used: there would be objects without a target.

    Attributes:
        images: (b, 3, h, w); in [0, 1], or uint8.
        labels: (b, K); classes of their own objects; without targets, a slot of -1 only is empty.
        reset: probability of a fresh context, in [0, 1].
        targets: (b, G K) objects that they show, of the earliest generation first; absent ones have label -1 and empty
            masks. None: objects behind give up their targets.
        generations: (b,); how many earlier generations each of them shows; -1: an empty slot. None without targets.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, "b k"]
    reset: float = 0.0
    targets: Targets | None = None
    generations: Int[Tensor, " b"] | None = None

    @property
    def places(self) -> int:
        """G K, number of objects behind those of a sample for which there are targets; 0 without targets."""
        return 0 if self.targets is None else self.targets.labels.shape[1]

    def used(self, labels: Int[Tensor, "b k"], fresh: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which samples, given their classes and ``Scene.fresh``, use their earlier composite."""
        if self.generations is not None:
            most = self.places // self.labels.shape[1]
            return (self.generations >= 0) & (self.generations < most) & (fresh >= self.reset)
        known = self.labels >= 0
        same = self.labels[:, :, None] == labels[:, None, :]
        if known.shape[1] > 1:  # a slot of one object has a class, or is empty
            same = same & known[:, :, None]
        taken: Tensor = (known.any(dim=1) > same.flatten(1).any(dim=1)) & (fresh >= self.reset)
        return taken

    def after(self, chained: Bool[Tensor, " b"]) -> Int[Tensor, " b"] | None:
        """How many earlier generations composites show of which these were ``chained``; None without targets."""
        return None if self.generations is None else torch.where(chained, self.generations + 1, 0)

    def check(self, b: int, size: tuple[int, int], device: torch.device) -> None:
        """Require composites for ``b`` samples.

        Raises:
            InputError: naming the field.
        """
        check_tensor("earlier.images", self.images, (b, 3, *size), DTYPES, device)
        if (self.targets is None) != (self.generations is None):
            fail("earlier", "targets and generations together", "one without the other", "Pass batch.earlier.")
        if self.targets is not None:
            check_tensor("earlier.generations", self.generations, (b,), torch.int64, device)
            check_targets("earlier.targets", vars(self.targets), (b, self.places, *size), device)


def chained(earlier: Earlier | None, labels: Int[Tensor, "b k"], fresh: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which samples use an earlier composite as context."""
    return torch.zeros_like(fresh, dtype=torch.bool) if earlier is None else earlier.used(labels, fresh)
