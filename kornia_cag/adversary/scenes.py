"""``ScenePGD``: gradient ascent on pose, light, camera and crop, not pixels, to confuse the model.

It stays among scenes that the ranges allow, so the result is a composite like any other.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NoReturn, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kornia_cag.adversary.ascent import LOSS_SCALE
from kornia_cag.adversary.chooser import SceneChooser, check_loss, how_many, losses_of
from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.losses import Loss, cross_entropy
from kornia_cag.adversary.stage import Draft
from kornia_cag.core.checks import check_choice, check_int, check_number, describe, fail
from kornia_cag.core.draws import Draws, Slot
from kornia_cag.core.precision import PRECISIONS
from kornia_cag.core.records import cut, joined, mapped
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.chunks import cuts
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.strength import given_strength
from kornia_cag.scenes.targets import Composites, Targets

Varied = Literal["pose", "color", "context", "camera"]
_HIGHEST = 1 - 2.0**-24  # the largest number that can be drawn


@dataclass(frozen=True, kw_only=True)
class ScenePGD(SceneChooser):
    """Projected gradient ascent on a scene's parameters, through composer and model.

    A scene is a function of numbers in [0, 1), which its ranges turn into angles, exposures, blurs and so on. Each
    step moves every number along the sign of its gradient, at most ``reach`` away from where it was drawn, so
    ranges hold by construction. Discrete choices have no gradient and stay as drawn: mirror, negative, thickness,
    whether and how to blur, low resolution, JPEG quality. So do the noise field, the sizes of individual elastic
    waves, a blend's numbers, a layout's sizes and places, harmony, sun and depth; the pyramid level follows pose and
    crop. The worst scene on the way is kept, so the loss is never lower than that of the scene as drawn. Such scenes
    depend on the model, so a batch's rows alone cannot reproduce them.

    A step takes a forward and a backward pass through composer and model, in eager mode.

    Attributes:
        steps: number of gradient steps.
        reach: how far a number may move, as a share of its range.
        alpha: step size, as a share of the range; None: 2.5 reaches / steps, at most the reach.
        vary: what may move, some of ``"pose"``, ``"color"`` (light and colours), ``"context"`` (its crop) and
            ``"camera"``.
        fraction: share of a batch that is attacked, and paid for: its first samples, which are in random order.
        loss: (model output, classes) to one loss per sample, (b,); or :class:`OfTargets`.
        autocast: dtype of the model's forward passes, float32 turns autocast off; None: as in the caller.
    """

    steps: int = 3
    reach: float = 0.15
    alpha: float | None = None
    vary: tuple[Varied, ...] = ("pose", "color", "context", "camera")
    fraction: float = 1.0
    loss: Loss = cross_entropy
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_int("steps", self.steps)
        check_number("reach", self.reach, 0, 1)
        if self.alpha is not None:
            check_number("alpha", self.alpha, 0)
        if not self.vary or not isinstance(self.vary, tuple | list):
            fail("vary", f"a tuple of some of {', '.join(get_args(Varied))}", describe(self.vary))
        for name in self.vary:
            check_choice("vary", name, get_args(Varied))
        check_number("fraction", self.fraction, 0, 1)
        check_loss(self.loss)
        check_choice("autocast", self.autocast, PRECISIONS)

    def plan(self, draft: Draft) -> Draft:
        """Leave the attacked samples to :meth:`harden`, which composes them anyway."""
        if draft.waiting:
            fail("adversaries", "one ScenePGD", "two, the second of which would start over", "Raise its steps instead.")
        if len(draft.rows) != draft.size:
            return draft  # somebody before needs their composites
        return replace(draft, waiting=how_many(self.fraction, draft.share))

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        """Move the scenes of the first samples, in chunks where that pays: a step keeps all of a chunk."""
        m, composer = how_many(self.fraction, draft.share), cast(Composer, draft.composer)
        rest = draft.made
        if rest is not None and not draft.waiting:
            rest = cut(rest, [m])[1] if m < len(draft.rows) else None
        if m:
            ends = cuts(composer, m)
            earlier = cut(draft.earlier, [m])[0]
            climbed = [
                self(cast(nn.Module, model), composer, rows, given_strength(draft.strength, rows.epoch), held,
                     targets=draft.wants_targets, scene=draft.wants_scene)
                for rows, held in zip(cut(draft.rows[:m], ends), cut(earlier, ends), strict=True)
            ]  # fmt: skip
            rest = joined(climbed if rest is None else [*climbed, rest])
        return replace(draft, made=rest, waiting=0)

    def __call__(
        self, model: nn.Module, composer: Composer, rows: Rows, strength: Float[Tensor, " b"] | None = None,
        earlier: Earlier | None = None, *, targets: bool = True, scene: bool = True,
    ) -> Composites:  # fmt: skip
        """The worst composites found, detached; ``model`` is left unchanged (see :func:`frozen`).

        Args:
            model: maps images to logits ``(b, classes)``, or to whatever ``loss`` takes.
            composer: the composer to use, in eager mode.
            rows: rows of the samples.
            strength: as for :meth:`Composer.__call__`.
            earlier: likewise.
            targets: likewise.
            scene: also return the scenes.
        """
        if torch.is_inference_mode_enabled():
            fail("ScenePGD", "a context that allows gradients", "torch.inference_mode()",
                 "Compose under torch.no_grad() instead.")  # fmt: skip
        alpha = min(2.5 * self.reach / self.steps, self.reach) if self.alpha is None else self.alpha
        still, varied = self._numbers(composer, rows)
        first = _stacked(varied)
        worst, most, now = None, None, first
        with frozen(model) as net:
            for step in range(self.steps + 1):
                last = step == self.steps
                with torch.set_grad_enabled(not last):
                    now = now.detach().requires_grad_(not last)
                    drawn = composer.sample(rows, strength, draws=Draws(rows.keys, {**still, **_apart(now, varied)}))
                    made = composer.compose(drawn, earlier, targets=targets or self.needs_targets)
                    known = cast(Targets, made.targets) if self.needs_targets else made.classes
                    losses = losses_of(net, self.loss, self.autocast, made.images, known)
                    made = replace(made, targets=made.targets if targets else None, scene=made.scene if scene else None)
                if worst is None or most is None:
                    worst, most = mapped(Tensor.detach, made), losses.detach()
                else:
                    worse = losses.detach() > most
                    worst, most = mapped(partial(_where, worse), made, worst), torch.where(worse, losses.detach(), most)
                if not last:
                    now = self._moved(losses, now, first, alpha)
        return cast(Composites, worst)

    def _numbers(self, composer: Composer, rows: Rows) -> tuple[dict[Slot, Tensor], dict[Slot, Tensor]]:
        """The numbers that the scenes are drawn from: those that stay, and those that vary."""
        draws = Draws(rows.keys)
        with torch.no_grad():
            composer.sample(rows, draws=draws)
        varied = {slot: numbers for slot, numbers in draws.numbers.items() if slot[1] in self.vary}
        if not varied:
            self._fail()
        return {slot: numbers for slot, numbers in draws.numbers.items() if slot not in varied}, varied

    def _moved(
        self, losses: Float[Tensor, " b"], now: Float[Tensor, "n b"], first: Float[Tensor, "n b"], alpha: float
    ) -> Float[Tensor, "n b"]:
        """One step along the sign of the gradient, within the reach and [0, 1)."""
        gradient = None
        if losses.requires_grad:
            weights = torch.full_like(losses, LOSS_SCALE)
            (gradient,) = torch.autograd.grad(losses, now, weights, allow_unused=True)
        if gradient is None:
            self._fail()
        low, high = (first - self.reach).clamp(min=0), (first + self.reach).clamp(max=_HIGHEST)
        return torch.clamp(now.detach() + alpha * gradient.sign(), low, high)

    def _fail(self) -> NoReturn:
        fail("ScenePGD", "a scene and a loss that depend on what varies", "neither",
             f"Let the ranges vary one of {', '.join(self.vary)}, and the loss be differentiable.")  # fmt: skip


def _stacked(numbers: dict[Slot, Tensor]) -> Float[Tensor, "n b"]:
    """Numbers by slot, each (b,) or (b, n), as one matrix."""
    return torch.cat([each[None] if each.ndim == 1 else each.T for each in numbers.values()])


def _apart(matrix: Float[Tensor, "n b"], like: dict[Slot, Tensor]) -> dict[Slot, Tensor]:
    """The inverse of :func:`_stacked`: views of a matrix."""
    parts = matrix.split([1 if each.ndim == 1 else each.shape[1] for each in like.values()])
    return {slot: part[0] if each.ndim == 1 else part.T for part, (slot, each) in zip(parts, like.items(), strict=True)}


def _where(choice: Bool[Tensor, " b"], one: Tensor, other: Tensor) -> Tensor:
    """For each sample ``one`` if ``choice`` is true, else the other; detached."""
    return torch.where(choice.view(-1, *[1] * (one.ndim - 1)), one.detach(), other)
