"""``WorstOf``: of several scenes that the ranges allow, the one that confuses the model most."""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.adversary.chooser import SceneChooser, check_loss, how_many, losses_of
from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.losses import Loss, cross_entropy
from kornia_cag.adversary.stage import Draft
from kornia_cag.core.checks import check_choice, check_int, check_number, fail
from kornia_cag.core.precision import PRECISIONS
from kornia_cag.core.randomness import fold_in
from kornia_cag.core.ranks import Share, whole
from kornia_cag.core.records import mapped
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.targets import Targets


@dataclass(frozen=True, kw_only=True)
class WorstOf(SceneChooser):
    """Keeps the worst of ``k`` scenes: each sample's own, and ``k - 1`` others of the same object.

    All are composed as one batch and seen by the model in one forward pass, without gradients. In a batch smaller than
    ``k``, some samples serve as rivals twice.

    It favours objects that are hard to see: if ranges run from deep shade to glare, as in ``signs``, far more of the
    worst scenes than of plain draws are nearly black. A narrower ``exposure`` or a smaller ``fraction`` limits that.

    Source: worst-of-k, Engstrom et al. 2019.

    Attributes:
        k: number of scenes, including each sample's own.
        scenes: whether the others redraw pose, light, camera and crop.
        contexts: whether the others use contexts, or earlier composites, of other samples of the batch.
        fraction: share of a batch that is attacked, and paid for: its first samples, which are in random order.
        loss: (model output, classes) to one loss per sample, (b,); or :class:`OfTargets`.
        autocast: dtype of the model's forward pass, float32 turns autocast off; None: as in the caller.
    """

    k: int = 4
    scenes: bool = True
    contexts: bool = True
    fraction: float = 1.0
    loss: Loss = cross_entropy
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_int("k", self.k, 2, 1024)
        check_number("fraction", self.fraction, 0, 1)
        check_loss(self.loss)
        check_choice("autocast", self.autocast, PRECISIONS)
        if not (self.scenes or self.contexts):
            fail("scenes, contexts", "at least one that varies", "False for both")

    @property
    def swaps_contexts(self) -> bool:  # type: ignore[override]
        """Whether rivals use contexts of other samples."""
        return self.contexts

    def plan(self, draft: Draft) -> Draft:
        """Append the rivals of the attacked samples to the batch."""
        if len(draft.rows) != draft.size:
            fail("adversaries", "one WorstOf", "two, whose rivals would be each other's", "Raise its k instead.")
        rows, earlier = self.candidates(draft.rows, draft.earlier)
        return replace(draft, rows=rows, earlier=earlier)

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        """Keep the worst of each sample's rivals."""
        images, known = draft.composites.images, draft.known(self.loss)
        return draft.chosen(self.choose(cast(nn.Module, model), images, known, draft.share))

    def candidates(self, rows: Rows, earlier: Earlier | None) -> tuple[Rows, Earlier | None]:
        """The rows of all candidates and what the chain offers them: first the batch itself, then its rivals.

        There are ``n = b + (k - 1) * m`` rows for ``m`` attacked samples. A chosen row determines its scene, except for
        the slot of an earlier composite. Rivals have the contexts of other samples of the global batch, which other
        ranks then tell.
        """
        share, m = rows.share, how_many(self.fraction, rows.share)
        shifts = [max(1, number * share.total // self.k) if self.contexts else 0 for number in range(1, self.k)]
        every, held = whole((rows.contexts, earlier), share) if self.contexts else (rows.contexts, earlier)
        parts = [rows]

        def others(tensor: Tensor, shift: int) -> Tensor:
            return share.own(tensor.roll(-shift, 0))[:m] if self.contexts else tensor[:m]

        for number, shift in enumerate(shifts, 1):
            contexts = others(every, shift)
            seed = fold_in(rows.seed[:m], number) if self.scenes else None
            parts.append(rows[:m].replaced(contexts=contexts, seed=seed))
        if earlier is not None:
            earlier = mapped(lambda own, all_: torch.cat([own, *(others(all_, s) for s in shifts)]), earlier, held)
        return Rows.cat(parts), earlier

    def choose(
        self, model: nn.Module, images: Float[Tensor, "n 3 h w"],
        known: Int[Tensor, " n"] | Int[Tensor, "n k"] | Targets, share: Share,
    ) -> Int[Tensor, " b"]:  # fmt: skip
        """The places, among the candidates of a share, of those that ``model``, left as it was, finds worst."""
        b, m = share.mine, how_many(self.fraction, share)
        place = torch.arange(b, device=images.device)
        if m == 0:
            return place
        images, known = mapped(lambda each: torch.cat([each[:m], each[b:]]), (images, known))
        with torch.no_grad(), frozen(model) as net:
            losses = losses_of(net, self.loss, self.autocast, images, known).view(self.k, m)
        worst = losses.argmax(dim=0)
        other = b + (worst - 1) * m + place[:m]
        return torch.cat([torch.where(worst > 0, other, place[:m]), place[m:]])
