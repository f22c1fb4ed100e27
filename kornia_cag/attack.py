"""Adversarial examples against the model being trained, within a budget that may differ from pixel to pixel.

``pgd`` is the kernel: a loss, images and a budget map in, images out. ``PGD`` holds the numbers and attacks a model;
:mod:`.frozen` sees to it that the attack leaves no trace on that model. Normalisation belongs inside the model: images
and budgets are in units of [0, 1].
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from kornia_cag.checks import check_choice, check_int, check_number, check_tensor, describe, fail
from kornia_cag.frozen import frozen
from kornia_cag.randomness import chance, uniform, uniforms

Schedule = Literal["sign", "paper"]
Target = Literal["given", "random", "least likely"]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MASKS = (*_FLOATS, torch.bool)
_EPS_FIX = "Budgets are in units of [0, 1]: write 8 / 255 for eight grey levels."
# A power of two changes neither a sign nor a normalised gradient, and keeps small ones above float16's underflow.
_LOSS_SCALE = 128.0


def cross_entropy(logits: Any, labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Cross-entropy per sample, the default loss. Requires logits ``(b, classes)`` of at least two classes."""
    fix = "Give another kind of output its own loss=..., which maps (output, labels) to (b,)."
    check_tensor("model output", logits, (len(labels), "classes"), _FLOATS, fix=fix)
    if logits.shape[1] < 2:
        fail("model output", "logits of at least two classes", describe(logits), fix)
    return F.cross_entropy(logits, labels, reduction="none")


def pgd(
    loss: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "#b #c #h #w"],
    keys: Int[Tensor, " b"],
    *,
    steps: int,
    relative_alpha: float | None = None,
    random_start: bool = False,
    start: Float[Tensor, "b c h w"] | None = None,
    schedule: Schedule = "sign",
    targeted: bool = False,
    compile: bool = False,
) -> Float[Tensor, "b c h w"]:
    """Projected gradient ascent on each image's own loss, in the box ``|delta| <= eps`` cut with [0, 1].

    Each image follows the gradient of its own loss only, so its attack does not depend on its neighbours unless the
    loss itself mixes them. The box holds exactly in float32 and float64, and up to one rounding in half precision. A
    value outside [0, 1] is never moved further out, and a pixel of zero budget keeps its bits. A NaN gradient is a zero
    step. Neither ``images`` nor any ``.grad`` is written; gradients of the images alone are computed, also under
    ``torch.no_grad()``.

    Args:
        loss: maps images, of the dtype and memory format of ``images``, to one loss per image, ``(b,)``.
        images: in [0, 1].
        eps: the budget map, in units of [0, 1].
        keys: of the samples; read by the random start only.
        steps: number of gradients taken.
        relative_alpha: step size as a multiple of the budget map. Default ``2.5 / steps``; fixed by ``"paper"``.
        random_start: start at a point uniform in the box of ``eps``, before the cut with [0, 1].
        start: start at the point of the box that is nearest to these images, instead.
        schedule: ``"sign"``, or ``"paper"``: step t of T is ``eps / T * ((T - t) * sign(g) + t * g / max|g|) / T``,
            t from 0, with the largest entry taken over the one image (Jin and Rinard's code takes it over the batch).
        targeted: descend instead.
        compile: fuse the random start and the bounds of the box into a compiled kernel. What repeats is the loss, which
            may itself be compiled, in any mode; calling a compiled update would cost more than its three small kernels.

    Returns:
        Attacked images, detached, of the dtype and memory format of ``images``.

    Raises:
        InputError: for shapes and dtypes that do not fit, a loss that is not ``(b,)`` or does not depend on the images,
            and under ``torch.inference_mode()``.

    Source: Madry et al. 2018; step schedule: Jin and Rinard 2020.
    """
    _check_kernel(images, eps, keys, steps, relative_alpha, schedule)
    _check_start(images, start, random_start)
    rate = 1 / steps if schedule == "paper" else 2.5 / steps if relative_alpha is None else relative_alpha
    if len(images) == 0:
        return images.detach().clone()
    begin = _compiled_begin() if compile else _begin
    scale = -_LOSS_SCALE if targeted else _LOSS_SCALE
    gradient_at = partial(_input_gradient, loss, dtype=images.dtype, scale=scale)
    with torch.no_grad():
        clean = images.clone() if images.is_inference() else images.detach()
        # taken before the box where it can be, so that the box lies in memory which the model has just warmed up
        ahead = None if random_start or start is not None else gradient_at(_widen(clean))
        point, low, high, eps = begin(clean, eps, keys if random_start else None)
        if start is not None:
            point = torch.nan_to_num(start.to(point.dtype)).clamp(low, high)
        step = rate * eps
        for t in range(steps):
            gradient = gradient_at(point) if t or ahead is None else ahead
            point = _update(point, gradient, step, low, high, t / steps if schedule == "paper" else None)
        attacked = torch.where(eps > 0, point.to(images.dtype), clean)
        return attacked.contiguous(memory_format=_memory_format(images))


def _check_kernel(
    images: Any, eps: Any, keys: Any, steps: Any, relative_alpha: float | None, schedule: Schedule
) -> None:
    if torch.is_inference_mode_enabled():
        fail("attack", "a place where gradients can be taken", "torch.inference_mode()",
             "Evaluate under torch.no_grad(), or call the attack inside torch.inference_mode(False).")  # fmt: skip
    check_tensor("images", images, ("b", "c", "h", "w"), _FLOATS, fix="Images are float BCHW in [0, 1].")
    check_tensor("keys", keys, (len(images),), torch.int64, images.device, fix="One key per image: see sample_keys.")
    broadcasts = isinstance(eps, Tensor) and eps.ndim == 4 and eps.dtype in _FLOATS and eps.device == images.device
    if not broadcasts or any(have not in (1, want) for have, want in zip(eps.shape, images.shape, strict=True)):
        fail("eps", f"a float budget map that broadcasts to {describe(images)}", describe(eps), _EPS_FIX)
    check_int("steps", steps)
    check_choice("schedule", schedule, ("sign", "paper"))
    if relative_alpha is not None:
        check_number("relative_alpha", relative_alpha, 0)
        if schedule == "paper":
            fail("relative_alpha", "None with schedule='paper', which sets the step", describe(relative_alpha))


def _check_start(images: Tensor, start: Any, random_start: bool) -> None:
    if start is None:
        return
    check_tensor("start", start, tuple(images.shape), images.dtype, images.device, "Start at images like the attacked.")
    if random_start:
        fail("start", "None with random_start=True", describe(start), "Choose one of the two.")


@cache
def _compiled_begin() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    return torch.compile(_begin, fullgraph=True)


def _begin(
    clean: Float[Tensor, "b c h w"], eps: Float[Tensor, "#b #c #h #w"], keys: Int[Tensor, " b"] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first point, at random where ``keys`` are given; the lower and upper bound of the box; the budget map."""
    start = _widen(clean)
    eps = eps.to(start.dtype)
    layout = _memory_format(clean)
    if layout == torch.channels_last and eps.shape[2:] != (1, 1):
        eps = eps.expand_as(start).contiguous(memory_format=layout)  # broadcasting along the innermost axis is slow
    low = _bound(start, -eps).clamp_(min=start.clamp(max=0))
    high = _bound(start, eps).clamp_(max=start.clamp(min=1))
    if keys is None:
        return start, low, high, eps
    noise = uniforms(keys, "attack.start", clean[0].numel()).reshape(clean.shape).contiguous(memory_format=layout)
    return (start + noise.mul_(2).sub_(1).mul_(eps)).clamp_(low, high), low, high, eps


def _widen(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _bound(start: Float[Tensor, "b c h w"], change: Float[Tensor, "#b #c #h #w"]) -> Float[Tensor, "b c h w"]:
    """``start + change``, rounded towards ``start``: the difference never exceeds ``change``."""
    end = start + change
    beyond = (end - start).abs_().gt_(change.abs())
    # lerp chooses between its ends: where() stumbles over conditions as random as these, and takes ten times as long
    return end.lerp_(torch.nextafter(end, start), beyond)


def _update(
    point: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"], step: Float[Tensor, "#b #c #h #w"],
    low: Float[Tensor, "b c h w"], high: Float[Tensor, "b c h w"], share: float | None,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """One step within the box along the gradient's sign, or with a ``share`` of the gradient itself."""
    direction = gradient.sign()  # 0 for NaN
    if share is not None:
        gradient = torch.nan_to_num(gradient)
        largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        direction = (1 - share) * direction + share * (gradient / largest)
    return torch.addcmul(point, step, direction).clamp_(low, high)


def _input_gradient(
    loss: Callable[[Tensor], Tensor], point: Float[Tensor, "b c h w"], dtype: torch.dtype, scale: float
) -> Float[Tensor, "b c h w"]:
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        # a copy, so that a model may begin with an in-place operation
        losses = loss(leaf.to(dtype, copy=True))
        check_tensor("loss", losses, (len(point),), _FLOATS, fix="Return one loss per image: reduction='none'.")
        gradient = None
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses, leaf, torch.full_like(losses, scale), allow_unused=True)
    if gradient is None:
        fail("loss", "a differentiable function of the images", "a loss without a gradient",
             "Take no_grad, detach and argmax out of the way from the images to the loss.")  # fmt: skip
    return gradient


def _memory_format(images: Tensor) -> torch.memory_format:
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


@dataclass(frozen=True, kw_only=True)
class PGD:
    """The L-infinity attack of projected gradients, with budgets for object, context and sample.

    Called with a model and a batch, it returns the attacked images. The whole batch is computed whatever ``fraction``
    says: reading which samples are meant would wait for the device.

    Source: Madry et al. 2018; one step from a random start: Wong et al. 2020.
    """

    eps: float  # budget, in units of [0, 1]
    eps_object: float | None = None  # budget where the object's mask is 1; None: eps
    alpha: float | None = None  # step where the larger budget holds, in proportion elsewhere; None: 2.5 budgets / steps
    steps: int = 10
    random_start: bool = True
    target: Target | None = None  # a wrong class whose loss to lower, instead of raising that of the label
    schedule: Schedule = "sign"  # "paper": see pgd; sets the step, so alpha stays None
    fraction: float = 1.0  # share of the samples attacked, chosen by key; the others keep their bits
    loss: Callable[[Any, Tensor], Tensor] = cross_entropy  # (model output, labels) to one loss per sample, (b,)
    autocast: torch.dtype | None = None  # of the attack's forward passes, float32 turns it off; None: as around it
    compile: bool = False  # the random start and the box; for faster steps, hand in a compiled model

    def __post_init__(self) -> None:
        check_number("eps", self.eps, 0, 1, _EPS_FIX)
        if self.eps_object is not None:
            check_number("eps_object", self.eps_object, 0, 1, _EPS_FIX)
        if self.alpha is not None:
            check_number("alpha", self.alpha, 0, fix=_EPS_FIX)
            if self.schedule == "paper":
                fail("alpha", "None with schedule='paper', which sets the step", describe(self.alpha))
        check_int("steps", self.steps)
        check_choice("schedule", self.schedule, ("sign", "paper"))
        check_choice("target", self.target, (None, *get_args(Target)))
        check_number("fraction", self.fraction, 0, 1)
        check_choice("autocast", self.autocast, (None, torch.bfloat16, torch.float16, torch.float32))

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"],
        *,
        keys: Int[Tensor, " b"],
        mask: Shaped[Tensor, "b 1 h w"] | None = None,
        targets: Int[Tensor, " b"] | None = None,
        scale: Float[Tensor, " b"] | None = None,
        start: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Attack ``model``, which is left as it was (see :func:`frozen`); guarantees as in :func:`pgd`.

        Args:
            model: maps images to logits ``(b, classes)``, or to whatever ``loss`` takes; plain, compiled or DDP.
            images: in [0, 1].
            labels: true classes.
            keys: of the samples; they choose the random start and the attacked fraction.
            mask: 1 on the object, 0 on the context, anything between mixes the budgets; bool or float.
            targets: the classes to be mistaken for, with ``target="given"``. ``"random"`` draws a wrong class by key;
                ``"least likely"`` asks the model, by one more forward pass (Kurakin et al. 2017).
            scale: factor per sample on its budget.
            start: images to start from, as near as the budget allows, in place of ``random_start``.

        Raises:
            InputError: as :func:`pgd`, and for labels, mask, targets or scale that do not fit.
        """
        self._check(model, images, labels, keys, mask, targets, scale)
        largest = max(self.eps, self.eps_object or 0.0)
        if largest == 0 or self.fraction == 0:
            return images.detach().clone()
        eps = self.budget(images, keys, mask=mask, scale=scale)
        rate = None if self.alpha is None else self.alpha / largest
        with frozen(model) as net:
            with self._autocast(images.device):
                aims = self._aims(net, images, labels, targets)

            drawn = uniform(keys, "attack.target") if self.target == "random" else None

            def loss(x: Tensor) -> Tensor:
                with self._autocast(images.device):
                    output = net(x)  # only it says how many classes there are
                    return self.loss(output, aims if drawn is None else _wrong(output, labels, drawn))

            return pgd(loss, images, eps, keys, steps=self.steps, relative_alpha=rate, schedule=self.schedule,
                       random_start=self.random_start and start is None, start=start, targeted=self.target is not None,
                       compile=self.compile)  # fmt: skip

    def budget(
        self,
        images: Float[Tensor, "b c h w"],
        keys: Int[Tensor, " b"],
        *,
        mask: Shaped[Tensor, "b 1 h w"] | None = None,
        scale: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b 1 #h #w"]:
        """The budget map: ``eps`` off the mask, ``eps_object`` on it, times ``scale``, zero for samples left out.

        Its height and width are 1 where the budget is the same all over the image.
        """
        dtype = torch.promote_types(images.dtype, torch.float32)
        if mask is None or self.eps_object is None:
            eps = torch.full((len(images), 1, 1, 1), self.eps, dtype=dtype, device=images.device)
        else:
            eps = self.eps * (1 - mask.to(dtype)) + self.eps_object * mask.to(dtype)
        if scale is not None:
            eps = eps * scale.to(dtype)[:, None, None, None]
        if self.fraction == 1:
            return eps
        return eps * chance(keys, "attack.fraction", self.fraction)[:, None, None, None]

    def _aims(
        self, net: nn.Module, images: Tensor, labels: Int[Tensor, " b"], targets: Int[Tensor, " b"] | None
    ) -> Int[Tensor, " b"]:
        """The classes whose loss is raised or lowered; random ones are drawn once the number of classes is known."""
        aims = labels if targets is None else targets
        if self.target == "least likely":
            with torch.no_grad():
                aims = _wrong(net(images.clone()), labels, None)
        return aims.clone() if aims.is_inference() else aims  # cross-entropy saves them for its backward pass

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        if self.autocast == torch.float32:
            return torch.autocast(device.type, enabled=False)
        return torch.autocast(device.type, dtype=self.autocast)

    def _check(self, model: Any, images: Any, labels: Any, keys: Any, mask: Any, targets: Any, scale: Any) -> None:
        if not isinstance(model, nn.Module):
            fail("model", "a torch.nn.Module", describe(model), "Attack another function with pgd.")
        check_tensor("images", images, ("b", "c", "h", "w"), _FLOATS, fix="Images are float BCHW in [0, 1].")
        b, _, h, w = images.shape
        check_tensor("labels", labels, (b,), torch.int64, images.device)
        check_tensor("keys", keys, (b,), torch.int64, images.device, fix="One key per image: see sample_keys.")
        if mask is not None:
            check_tensor("mask", mask, (b, 1, h, w), _MASKS, images.device)
        elif self.eps_object is not None:
            fail("mask", f"the object's mask ({b}, 1, {h}, {w}), since eps_object is set", "None",
                 "Pass mask=..., or leave eps_object out.")  # fmt: skip
        if scale is not None:
            check_tensor("scale", scale, (b,), _FLOATS, images.device)
        if self.target == "given":
            check_tensor("targets", targets, (b,), torch.int64, images.device, "target='given' needs targets=...")
        elif targets is not None:
            fail("targets", f"None with target={self.target!r}", describe(targets), "Set target='given'.")


def _wrong(logits: Any, labels: Int[Tensor, " b"], drawn: Float[Tensor, " b"] | None) -> Int[Tensor, " b"]:
    """For each sample a class other than its label: by a number in [0, 1), or the one of the lowest logit."""
    fix = "Of another kind of output no wrong class can be drawn: give targets."
    check_tensor("model output", logits, (len(labels), "classes"), _FLOATS, fix=fix)
    classes = logits.shape[1]
    if drawn is None:
        wrong: Tensor = logits.scatter(1, labels[:, None], torch.inf).argmin(dim=1)
    else:
        wrong = (labels + 1 + (drawn * (classes - 1)).long().clamp(max=classes - 2)) % classes
    return wrong


def FGSM(*, eps: float, random_start: bool = False, **options: Any) -> PGD:
    """PGD of one step: the whole budget (Goodfellow et al. 2015), or 1.25 budgets after a random start.

    ``options`` are further fields of :class:`PGD`. Source of the factor: Wong et al. 2020.
    """
    attack = PGD(eps=eps, steps=1, random_start=random_start, **options)
    return replace(attack, alpha=(1.25 if random_start else 1.0) * max(attack.eps, attack.eps_object or 0.0))
