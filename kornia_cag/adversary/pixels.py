"""Adversarial examples against the model being trained, within budgets that may differ between pixels.

:class:`PGD` holds the numbers and attacks a model by the kernel of :mod:`.ascent`, raising a loss of :mod:`.losses`;
:mod:`.frozen` sees to it that the attack leaves no trace on that model. Normalisation belongs inside the model: images
and budgets are in units of [0, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from kornia_cag.adversary.ascent import EPS_FIX, MASKS, Norm, Schedule, check_schedule, pgd
from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.losses import Loss, OfTargets, check_logits, class_not_shown, cross_entropy, kl, shows
from kornia_cag.adversary.stage import Adversary, Draft
from kornia_cag.core.checks import check_choice, check_instance, check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS, PRECISIONS, autocasting
from kornia_cag.core.randomness import chance, fold_in, uniform
from kornia_cag.core.records import joined, mapped
from kornia_cag.scenes.targets import Targets

Target = Literal["given", "random", "least likely"]

Transform = Callable[[Tensor, Tensor], Tensor]  # images and keys to images of the same shape, differentiable


@dataclass(frozen=True, kw_only=True)
class PGD(Adversary):
    """Projected gradient descent in L-infinity or L2, with separate budgets for object and context, and per sample.

    Called with a model and a batch, it returns the attacked images. The whole batch is computed whatever ``fraction``
    is: reading which samples to attack would wait for the device.

    In L2 the budget bounds the length of an image's whole change; with separate budgets for object and context, it
    bounds the length of the change divided by the budget map, see :func:`pgd`.

    With a ``transform`` the model sees transformed images, redrawn at each step, and the gradient is the mean over
    ``eot_samples`` draws, evaluated in one forward pass: expectation over transformation (Athalye et al. 2018). The
    returned images are not transformed.

    Source: Madry et al. 2018; one step from a random start: Wong et al. 2020.

    Attributes:
        eps: budget, in units of [0, 1]: per value, or in L2 for an image's whole change.
        eps_object: budget where the object's mask is 1; None: eps.
        eps_min: each sample draws its budget log-uniformly between this and eps; None: eps.
        alpha: step size at the larger budget, proportional elsewhere; None: 2.5 budgets / steps.
        steps: number of gradient steps.
        norm: ``"linf"``, which bounds each value, or ``"l2"``, which bounds an image's whole change.
        random_start: whether to start at a random point of the budget, else at the image itself.
        target: a wrong class whose loss to lower, instead of raising the label's.
        momentum: share of the earlier direction to keep.
        schedule: step schedule: ``"sign"``, or ``"paper"``, see pgd, which sets the step, so alpha stays None.
        early_stop: stop changing a sample once the model is fooled; saves no time, but keeps changes small.
        transform: make the attack survive it: a function of images (b, c, h, w) and keys (b,), for example
            kornia_cag.Recapture(); None: no transform.
        eot_samples: number of draws of the transform per step, over which the gradient is averaged.
        fraction: share of the samples attacked, chosen by key; the others keep their bits.
        loss: (model output, classes) to one loss per sample, (b,); or :class:`OfTargets`: see losses.py.
        autocast: dtype of the attack's forward passes, float32 turns autocast off; None: as in the caller.
        compile: whether to compile the random start and the box; for faster steps, pass a compiled model.
    """

    starts_warm: ClassVar[bool] = True

    eps: float
    eps_object: float | None = None
    eps_min: float | None = None
    alpha: float | None = None
    steps: int = 10
    norm: Norm = "linf"
    random_start: bool = True
    target: Target | None = None
    momentum: float = 0.0
    schedule: Schedule = "sign"
    early_stop: bool = False
    transform: Transform | None = None
    eot_samples: int = 1
    fraction: float = 1.0
    loss: Loss = cross_entropy
    autocast: torch.dtype | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, get_args(Norm))
        largest, fix = (1, EPS_FIX) if self.norm == "linf" else (1e4, "")
        check_number("eps", self.eps, 0, largest, fix)
        if self.eps_object is not None:
            check_number("eps_object", self.eps_object, 0, largest, fix)
        if self.eps_min is not None:
            check_number("eps_min", self.eps_min, 0, self.eps, "It is the lower end of the budgets up to eps.")
            if self.eps_min == 0:
                fail("eps_min", "a number above 0, since budgets are log-uniform", "0", "fraction= leaves samples out.")
        if self.alpha is not None:
            check_number("alpha", self.alpha, 0, fix=fix)
            if self.schedule == "paper":
                fail("alpha", "None with schedule='paper', which sets the step", describe(self.alpha))
        check_int("steps", self.steps)
        check_choice("target", self.target, (None, *get_args(Target)))
        check_number("momentum", self.momentum, 0, 10)
        check_schedule(self.schedule, self.norm, self.momentum)
        if self.loss is kl and not self.random_start:
            fail("random_start", "True with loss=kl", "False", "At the clean image itself its gradient is 0.")
        if self.loss is kl and self.target is not None:
            fail("target", "None with loss=kl, which ignores classes", describe(self.target))
        if not callable(self.loss) or isinstance(self.loss, type):
            fail("loss", "a function of the model's output and classes, such as cross_entropy", describe(self.loss))
        if isinstance(self.loss, OfTargets) and (self.target is not None or self.early_stop):
            name = "early_stop" if self.target is None else "target"
            fail(name, "to be left out with a loss of targets, which names no classes", describe(getattr(self, name)))
        if self.transform is not None and (not callable(self.transform) or isinstance(self.transform, type)):
            fail("transform", "a function of images and keys, or None", describe(self.transform))
        if check_int("eot_samples", self.eot_samples, 1) > 1 and self.transform is None:
            fail("eot_samples", "1 without a transform", str(self.eot_samples), "Pass transform=Recapture().")
        check_number("fraction", self.fraction, 0, 1)
        check_choice("autocast", self.autocast, PRECISIONS)

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"] | Int[Tensor, "b k"] | Targets,
        *,
        keys: Int[Tensor, " b"],
        mask: Shaped[Tensor, "b 1 h w"] | None = None,
        targets: Int[Tensor, " b"] | None = None,
        scale: Float[Tensor, " b"] | None = None,
        start: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Attack ``model``, which is left unchanged (see :func:`frozen`); guarantees as in :func:`pgd`.

        Args:
            model: maps images to logits ``(b, classes)``, or to whatever ``loss`` takes; plain, compiled or DDP.
            images: in [0, 1].
            labels: true classes; (b, K) if images show K objects each; for a loss :class:`OfTargets` the targets.
            keys: keys of the samples; they determine the random start and the attacked fraction.
            mask: 1 on the object, 0 on the context, values between mix the budgets; bool or float.
            targets: target classes, with ``target="given"``. ``"random"`` draws a class by key that the image does not
                show; ``"least likely"`` asks the model, in one more forward pass (Kurakin et al. 2017).
            scale: factor on each sample's budget.
            start: images to start from, as near as the budget allows; if one is the image itself, ``random_start``
                decides.

        Raises:
            InputError: as :func:`pgd`, and for invalid labels, mask, targets or scale.
        """
        self._check(model, images, labels, keys, mask, targets, scale)
        if self.largest == 0 or self.fraction == 0:
            return images.detach().clone()
        eps = self.budget(images, keys, mask=mask, scale=scale)
        rate = None if self.alpha is None else self.alpha / self.largest
        with frozen(model) as net:
            with autocasting(self.autocast, images.device):
                aims = self._aims(net, images, labels, targets)
            drawn = uniform(keys, "attack.target") if self.target == "random" else None
            seen = count()  # forward passes: each draws new transforms

            def loss(x: Tensor) -> Tensor:
                if self.transform is None:
                    return judge(x, labels, aims, drawn)
                n, first = self.eot_samples, next(seen) * self.eot_samples
                many = torch.cat([fold_in(keys, first + draw) for draw in range(n)])
                x = self.transform(x if n == 1 else x.repeat(n, 1, 1, 1), many)
                check_tensor("transform", x, (len(many), *images.shape[1:]), images.dtype, images.device,
                             "It must keep shape, dtype and device.")  # fmt: skip
                losses = judge(x, *joined([(labels, aims, drawn)] * n))
                check_tensor("loss", losses, (len(many),), FLOATS, fix="Return one loss per image: reduction='none'.")
                return losses.view(n, -1).mean(dim=0)

            def judge(x: Tensor, labels: Any, aims: Any, drawn: Any) -> Tensor:
                with autocasting(self.autocast, images.device):
                    output = net(x)  # shows how many classes there are
                    classes = aims if drawn is None else class_not_shown(output, labels, drawn)
                    losses = self.loss(output, classes)
                    return losses if not self.early_stop else losses * ~self._fooled(output, labels, classes)

            return pgd(loss, images, eps, keys, steps=self.steps, norm=self.norm, relative_alpha=rate,
                       momentum=self.momentum, schedule=self.schedule, start=start, compile=self.compile,
                       random_start=self.random_start, targeted=self.target is not None)  # fmt: skip

    @property
    def needs_targets(self) -> bool:  # type: ignore[override]
        """Whether object and context have budgets of their own, or its loss is told boxes and masks."""
        return self.eps_object is not None or isinstance(self.loss, OfTargets)

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        """Attack the pixels of a batch in the making."""
        images, keys = draft.pictures, draft.keys
        start = None if draft.changes is None else images + draft.changes
        mask = None if self.eps_object is None else draft.mask
        images = self(cast(nn.Module, model), images, draft.known(self.loss), mask=mask, keys=keys, start=start)
        hardened = draft.with_images(images, self.attacked(keys) if self.fraction < 1 else None)
        return replace(hardened, changes=None)  # a later attack starts from what this one found

    @property
    def largest(self) -> float:
        """The larger of the object and context budgets."""
        return max(self.eps, self.eps_object or 0.0)

    def budget(
        self,
        images: Float[Tensor, "b c h w"],
        keys: Int[Tensor, " b"],
        *,
        mask: Shaped[Tensor, "b 1 h w"] | None = None,
        scale: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b 1 #h #w"]:
        """The budget map: ``eps`` off the mask, ``eps_object`` on it, times ``scale``, zero for unattacked samples.

        With ``eps_min`` both shrink by the factor that the sample draws.

        Its height and width are 1 if the budget is uniform over the image.
        """
        dtype = torch.promote_types(images.dtype, torch.float32)
        if mask is None or self.eps_object is None:
            eps = torch.full((len(images), 1, 1, 1), self.eps, dtype=dtype, device=images.device)
        else:
            eps = self.eps * (1 - mask.to(dtype)) + self.eps_object * mask.to(dtype)
        if scale is not None:
            eps = eps * scale.to(dtype)[:, None, None, None]
        if self.eps_min is not None:
            least = math.log(self.eps_min / self.eps)
            eps = eps * torch.exp(uniform(keys, "attack.budget", least, 0.0))[:, None, None, None]
        return eps if self.fraction == 1 else eps * self.attacked(keys)[:, None, None, None]

    def attacked(self, keys: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which samples belong to the attacked ``fraction``."""
        return chance(keys, "attack.fraction", self.fraction)

    def _aims(
        self,
        net: nn.Module,
        images: Tensor,
        labels: Any,
        targets: Int[Tensor, " b"] | None,
    ) -> Any:
        """What the loss compares with: classes, targets of scenes, or the clean logits; random ones are drawn later."""
        aims = labels if targets is None else targets
        if self.target == "least likely" or self.loss is kl:
            with torch.no_grad():
                logits = net(images.clone())
            aims = logits if self.loss is kl else class_not_shown(logits, labels, None)
        # cross-entropy saves them for its backward pass
        return mapped(lambda aim: aim.clone() if aim.is_inference() else aim, aims)

    def _fooled(
        self, output: Any, labels: Int[Tensor, " b"] | Int[Tensor, "b k"], classes: Tensor
    ) -> Bool[Tensor, " b"]:
        """Which samples already fool the model."""
        named = check_logits(output, len(labels), fix="early_stop needs logits: leave it out.").argmax(dim=1)
        fooled: Tensor = ~shows(labels, named) if self.target is None else named == classes
        return fooled

    def _check(self, model: Any, images: Any, labels: Any, keys: Any, mask: Any, targets: Any, scale: Any) -> None:
        if not isinstance(model, nn.Module):
            fail("model", "a torch.nn.Module", describe(model), "Attack another function with pgd.")
        check_tensor("images", images, ("b", "c", "h", "w"), FLOATS, fix="Images are float BCHW in [0, 1].")
        b, _, h, w = images.shape
        several = isinstance(labels, Tensor) and labels.ndim == 2
        if isinstance(self.loss, OfTargets):
            check_instance("labels", labels, Targets, "Pass batch.targets, which the loss is told.")
            check_tensor("labels.labels", labels.labels, (b, "K"), torch.int64, images.device)
        else:
            check_tensor("labels", labels, (b, "K") if several else (b,), torch.int64, images.device)
        check_tensor("keys", keys, (b,), torch.int64, images.device, fix="One key per image: see sample_keys.")
        if mask is not None:
            check_tensor("mask", mask, (b, 1, h, w), MASKS, images.device)
        elif self.eps_object is not None:
            fail("mask", f"the object's mask ({b}, 1, {h}, {w}), since eps_object is set", "None",
                 "Pass mask=..., or leave eps_object out.")  # fmt: skip
        if scale is not None:
            check_tensor("scale", scale, (b,), FLOATS, images.device)
        if self.target == "given":
            check_tensor("targets", targets, (b,), torch.int64, images.device, "target='given' needs targets=...")
        elif targets is not None:
            fail("targets", f"None with target={self.target!r}", describe(targets), "Set target='given'.")
