"""Projected gradient ascent on images: the kernel of every pixel attack.

A norm is three small functions of a budget map: where an attack may start, which way is up, and how to project back
into the budget. In L-infinity the budget is a box around the image, in L2 an ellipsoid whose half-axes are the map; in
both, a pixel with zero budget never changes.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_choice, check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.formats import memory_format
from kornia_cag.core.precision import FLOATS, widen
from kornia_cag.core.randomness import normals, uniform, uniforms

Norm = Literal["linf", "l2"]
Schedule = Literal["sign", "paper"]

MASKS = (*FLOATS, torch.bool)  # dtypes of masks with separate budgets
EPS_FIX = "Budgets are in units of [0, 1]: write 8 / 255 for eight grey levels."
# A power of two changes neither a sign nor a normalised gradient, and keeps small ones above float16's underflow.
LOSS_SCALE = 128.0


def pgd(
    loss: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "#b #c #h #w"],
    keys: Int[Tensor, " b"],
    *,
    steps: int,
    norm: Norm = "linf",
    relative_alpha: float | None = None,
    momentum: float = 0.0,
    random_start: bool = False,
    start: Float[Tensor, "b c h w"] | None = None,
    schedule: Schedule = "sign",
    targeted: bool = False,
    compile: bool = False,
) -> Float[Tensor, "b c h w"]:
    """Projected gradient ascent on each image's own loss, within its budget and [0, 1].

    The ``"linf"`` budget is the box ``|delta| <= eps``; it holds exactly in float32 and float64, and up to one rounding
    in half precision. The ``"l2"`` budget is the ellipsoid ``sum((delta / eps) ** 2) <= 1``, for a uniform map the ball
    of radius ``eps``; it holds up to rounding. Each image follows the gradient of its own loss only, so its attack does
    not depend on the rest of the batch unless the loss mixes images. A value outside [0, 1] never moves further out,
    and a pixel with zero budget keeps its bits. A NaN gradient is a zero step. Neither ``images`` nor any ``.grad`` is
    written; only the images' gradients are computed, even under ``torch.no_grad()``.

    Args:
        loss: maps images, of the dtype and memory format of ``images``, to one loss per image, ``(b,)``.
        images: in [0, 1].
        eps: the budget map, in units of [0, 1].
        keys: keys of the samples; used only by the random start.
        steps: number of gradient steps.
        norm: ``"linf"`` steps along the gradient's sign, ``"l2"`` along the gradient, in a metric scaled by the map.
        relative_alpha: step size as a multiple of the budget map. Default ``2.5 / steps``; fixed by ``"paper"``.
        momentum: share of the earlier direction to keep; each gradient is first divided by its mean absolute value.
        random_start: start at a uniform point of the budget, before clipping to [0, 1].
        start: start at the point of the budget on the way to these images (in ``"linf"`` the nearest one). If one is
            the attacked image itself, no better start is known, and ``random_start`` decides.
        schedule: ``"sign"``, or ``"paper"``: step t of T is ``eps / T * ((T - t) * sign(g) + t * g / max|g|) / T``,
            t from 0, with the largest entry taken over the one image (Jin and Rinard's code takes it over the batch);
            ``"linf"`` only.
        targeted: descend instead.
        compile: fuse the random start and the bounds of the box into one compiled kernel. The steps are not compiled:
            calling a compiled update costs more than its three small kernels. The loss may be compiled, in any mode.

    Returns:
        Attacked images, detached, in the dtype and memory format of ``images``.

    Raises:
        InputError: for wrong shapes and dtypes, a loss that is not ``(b,)`` or does not depend on the images, and under
            ``torch.inference_mode()``.

    Source: Madry et al. 2018; step schedule: Jin and Rinard 2020; momentum: Dong et al. 2018.
    """
    _check_kernel(images, eps, keys, steps, norm, relative_alpha, momentum, schedule)
    if start is not None:
        check_tensor("start", start, tuple(images.shape), images.dtype, images.device, "Start at images like these.")
    rate = 1 / steps if schedule == "paper" else 2.5 / steps if relative_alpha is None else relative_alpha
    if len(images) == 0:
        return images.detach().clone()
    begin = _compiled_begin() if compile else _begin
    scale = -LOSS_SCALE if targeted else LOSS_SCALE
    gradient_at = partial(_input_gradient, loss, dtype=images.dtype, scale=scale)
    with torch.no_grad():
        clean = images.clone() if images.is_inference() else images.detach()
        middle = widen(clean)
        # taken before the box if possible, so that the box lands in memory which the model has just warmed up
        ahead = None if random_start or start is not None else gradient_at(middle)
        point, low, high, eps = begin(clean, eps, keys if random_start else None, norm)
        if start is not None:
            wanted = torch.nan_to_num(start.to(point.dtype)).contiguous(memory_format=memory_format(images))
            wanted = (_pulled_in(wanted, middle, eps) if norm == "l2" else wanted).clamp(low, high)
            point = torch.where((start != images).any(dim=(1, 2, 3), keepdim=True), wanted, point)
        step, trend = rate * eps, None
        for t in range(steps):
            gradient = gradient_at(point) if t or ahead is None else ahead
            if momentum:
                gradient, trend = _with_momentum(gradient, trend, momentum)
            if norm == "l2":
                point = _pulled_in(point + _ahead_in_l2(gradient, step), middle, eps).clamp_(low, high)
            else:
                point = _update(point, gradient, step, low, high, t / steps if schedule == "paper" else None)
        attacked = torch.where(eps > 0, point.to(images.dtype), clean)
        return attacked.contiguous(memory_format=memory_format(images))


def _check_kernel(
    images: Any, eps: Any, keys: Any, steps: Any, norm: Norm, relative_alpha: float | None, momentum: Any,
    schedule: Schedule,
) -> None:  # fmt: skip
    if torch.is_inference_mode_enabled():
        fail("attack", "a context that allows gradients", "torch.inference_mode()",
             "Evaluate under torch.no_grad(), or call the attack inside torch.inference_mode(False).")  # fmt: skip
    check_tensor("images", images, ("b", "c", "h", "w"), FLOATS, fix="Images are float BCHW in [0, 1].")
    check_tensor("keys", keys, (len(images),), torch.int64, images.device, fix="One key per image: see sample_keys.")
    broadcasts = isinstance(eps, Tensor) and eps.ndim == 4 and eps.dtype in FLOATS and eps.device == images.device
    if not broadcasts or any(have not in (1, want) for have, want in zip(eps.shape, images.shape, strict=True)):
        fail("eps", f"a float budget map that broadcasts to {describe(images)}", describe(eps), EPS_FIX)
    check_int("steps", steps)
    check_choice("norm", norm, get_args(Norm))
    check_number("momentum", momentum, 0, 10)
    check_schedule(schedule, norm, momentum)
    if relative_alpha is not None:
        check_number("relative_alpha", relative_alpha, 0)
        if schedule == "paper":
            fail("relative_alpha", "None with schedule='paper', which sets the step", describe(relative_alpha))


def check_schedule(schedule: Any, norm: Norm, momentum: float) -> None:
    """Require a schedule that fits norm and momentum.

    Raises:
        InputError: for any other.
    """
    check_choice("schedule", schedule, get_args(Schedule))
    if schedule == "paper" and (norm != "linf" or momentum):
        fail("schedule", "'sign' in L2 or with momentum", "'paper', whose steps assume a box")


@cache
def _compiled_begin() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    return torch.compile(_begin, fullgraph=True)


def _begin(
    clean: Float[Tensor, "b c h w"], eps: Float[Tensor, "#b #c #h #w"], keys: Int[Tensor, " b"] | None, norm: Norm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first point, random if ``keys`` are given; each pixel's lower and upper bound; the budget map."""
    start = widen(clean)
    eps = eps.to(start.dtype)
    layout = memory_format(clean)
    if layout == torch.channels_last and eps.shape[2:] != (1, 1):
        eps = eps.expand_as(start).contiguous(memory_format=layout)  # broadcasting along the innermost axis is slow
    low, high = start.clamp(max=0), start.clamp(min=1)
    if norm == "linf":
        low, high = _bound(start, -eps).clamp_(min=low), _bound(start, eps).clamp_(max=high)
    if keys is None:
        return start, low, high, eps
    if norm == "l2":
        return (start + _within_ball(keys, eps, clean.shape)).clamp_(low, high), low, high, eps
    noise = uniforms(keys, "attack.start", clean[0].numel()).reshape(clean.shape).contiguous(memory_format=layout)
    return (start + noise.mul_(2).sub_(1).mul_(eps)).clamp_(low, high), low, high, eps


def _bound(start: Float[Tensor, "b c h w"], change: Float[Tensor, "#b #c #h #w"]) -> Float[Tensor, "b c h w"]:
    """``start + change``, rounded towards ``start``, so that the difference never exceeds ``change``."""
    end = start + change
    beyond = (end - start).abs_().gt_(change.abs())
    # lerp selects one of its ends: where() is ten times slower on conditions as random as these
    return end.lerp_(torch.nextafter(end, start), beyond)


def _update(
    point: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"], step: Float[Tensor, "#b #c #h #w"],
    low: Float[Tensor, "b c h w"], high: Float[Tensor, "b c h w"], share: float | None,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """One step within the box along the gradient's sign, mixed with a ``share`` of the gradient itself."""
    direction = gradient.sign()  # 0 for NaN
    if share is not None:
        direction = (1 - share) * direction + share * _even(gradient)
    return torch.addcmul(point, step, direction).clamp_(low, high)


def _length(change: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    length: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return length


def _within_ball(keys: Int[Tensor, " b"], eps: Float[Tensor, "#b #c #h #w"], shape: torch.Size) -> Tensor:
    """A uniform point in the ellipsoid with half-axes ``eps``, per key."""
    free = (eps > 0).expand(shape)
    way = torch.where(free, normals(keys, "attack.start", shape[1:].numel()).reshape(shape), 0)
    count = free.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    radius = uniform(keys, "attack.radius")[:, None, None, None] ** (1 / count)
    return eps * way / _length(way).clamp(min=torch.finfo(way.dtype).tiny) * radius


def _even(gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The same direction, scaled to a largest entry of 1 so that no square overflows or vanishes; 0 for NaN."""
    gradient = torch.nan_to_num(gradient)
    return gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)


def _ahead_in_l2(gradient: Float[Tensor, "b c h w"], step: Float[Tensor, "#b #c #h #w"]) -> Float[Tensor, "b c h w"]:
    """The step of length 1 in the metric of ``step`` along which the loss rises fastest; 0 without a gradient."""
    scaled = _even(gradient) * step
    return step * scaled / _length(scaled).clamp(min=torch.finfo(scaled.dtype).tiny)


def _pulled_in(
    point: Float[Tensor, "b c h w"], middle: Float[Tensor, "b c h w"], eps: Float[Tensor, "#b #c #h #w"]
) -> Float[Tensor, "b c h w"]:
    """The point, or where the line to it from the middle leaves the ellipsoid with half-axes ``eps``."""
    change = torch.where(eps > 0, point - middle, 0)
    relative = change / eps.clamp(min=torch.finfo(eps.dtype).tiny)
    return middle + change / _length(relative).clamp(min=1)


def _with_momentum(
    gradient: Float[Tensor, "b c h w"], trend: Float[Tensor, "b c h w"] | None, momentum: float
) -> tuple[Tensor, Tensor]:
    """The direction to go, and the trend to remember. An image without a gradient stays where it is."""
    even = _even(gradient)
    size = even.abs().mean(dim=(1, 2, 3), keepdim=True)
    even = even / size.clamp(min=torch.finfo(even.dtype).tiny)
    trend = even if trend is None else momentum * trend + even
    return torch.where(size > 0, trend, 0), trend


def _input_gradient(
    loss: Callable[[Tensor], Tensor], point: Float[Tensor, "b c h w"], dtype: torch.dtype, scale: float
) -> Float[Tensor, "b c h w"]:
    with torch.enable_grad():
        leaf = point.detach().requires_grad_()
        # a copy, since a model may start with an in-place operation
        losses = loss(leaf.to(dtype, copy=True))
        check_tensor("loss", losses, (len(point),), FLOATS, fix="Return one loss per image: reduction='none'.")
        gradient = None
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses, leaf, torch.full_like(losses, scale), allow_unused=True)
    if gradient is None:
        fail("loss", "a differentiable function of the images", "a loss without a gradient",
             "Remove no_grad, detach and argmax between images and loss.")  # fmt: skip
    return gradient
