"""Accuracy under attack, as a curve over budgets: with the context free to change, or every pixel.

The worst case counts: a picture is correct under a budget if the model classifies it correctly from every start,
whether the attack raises cross-entropy or the margin, whose gradient does not vanish where a model is confident. Source
of the context study: Jin and Rinard, 2020; of the attack: Madry et al., 2018.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kornia_cag.adversary.ascent import Norm
from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.losses import check_logits, cross_entropy, margin
from kornia_cag.adversary.pixels import PGD
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import check_choice, check_instance, check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.progress import Log
from kornia_cag.core.randomness import sample_keys
from kornia_cag.evaluation.prepared import check_finite
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.scenes.ranges import SceneRange

Start = Literal["clean", "random", "previous"]
AUTO_BUDGETS = (0.0, 8 / 255)
BUDGETS = (0.0, *(n / 255 for n in (2, 4, 8, 16, 32, 64, 128)), 1.0)  # the last lets a pixel take any value
L2_BUDGETS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
OWN = "Wrap a model with other outputs so that it returns its logits."


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures to attack, with the objects' masks if only the context may change."""

    images: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    masks: Float[Tensor, "n 1 h w"] | None = None

    def __post_init__(self) -> None:
        fix = "Pictures are float BCHW in [0, 1]: divide grey levels by 255."
        check_tensor("images", self.images, ("n", "c", "h", "w"), FLOATS, fix=fix)
        n, _, h, w = self.images.shape
        if n == 0:
            fail("images", "at least one picture", "none")
        low, high = (float(value) for value in torch.aminmax(self.images))
        if not 0 <= low <= high <= 1:  # also refuses NaN
            fail("images", "values in [0, 1]", f"values from {low:g} to {high:g}", fix)
        check_tensor("labels", self.labels, (n,), torch.int64, self.images.device)
        if int(self.labels.min()) < 0:
            fail("labels", "a class of each picture", f"{int(self.labels.min())}", "Leave out those without one.")
        if self.masks is not None:
            check_tensor("masks", self.masks, (n, 1, h, w), FLOATS, self.images.device)


@dataclass(frozen=True)
class Curve:
    """Accuracy against budget."""

    eps: tuple[float, ...]  # in units of [0, 1]
    accuracy: tuple[float, ...]  # share of pictures classified correctly from every start
    pictures: int

    def report(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        rows = zip(self.eps, self.accuracy, strict=True)
        return {"pictures": self.pictures, "curve": [[round(e, 5), round(a, 5)] for e, a in rows]}


def composites(
    objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange, count: int, *, seed: int = 0
) -> Pictures:
    """New composites, all classes equally often, with the objects' masks; no chain.

    Raises:
        InputError: for a layout, which may leave a picture without its object.
    """
    if ranges.layout is not None:
        fail("ranges", "no layout, which may leave an object out", describe(ranges.layout),
             "Pass dataclasses.replace(ranges, layout=None).")  # fmt: skip
    pairs = PairSampler(objects.labels.cpu(), len(contexts), batch_size=check_int("count", count), seed=seed,
                        rank=0, world_size=1)  # fmt: skip
    collate = CAGCollate(objects, contexts, size, ranges=ranges, returns="batch")
    made: list[Batch] = []
    while sum(len(batch.labels) for batch in made) < count:
        pairs.set_epoch(len(made))
        for rows in pairs:
            made += [collate(rows[place : place + 256]) for place in range(0, len(rows), 256)]
    parts = zip(*((batch.images, batch.labels, batch.masks) for batch in made), strict=True)
    return Pictures(*(torch.cat(part)[:count] for part in parts))


def curve(
    model: nn.Module,
    pictures: Pictures,
    eps: Sequence[float] = BUDGETS,
    *,
    norm: Norm = "linf",
    steps: int = 20,
    starts: Sequence[Start] = ("random", "previous"),
    restarts: int = 1,
    batch_size: int = 256,
    log: Log | None = None,
) -> Curve:
    """Attack all pictures at every budget, by PGD on both losses, with a step size of 2.5 budgets / steps.

    Args:
        model: maps images ``(b, 3, h, w)`` to logits; left unchanged.
        pictures: pictures to attack; with masks, a pixel's budget is ``eps`` times the context's share of it.
        eps: budgets, in units of [0, 1]; 0 gives the clean accuracy, in L-infinity 1 lets a pixel take any value.
        norm: ``"linf"``, or ``"l2"``, where budgets bound the length of a picture's whole change.
        steps: gradient steps per start and loss.
        starts: where to start: the picture itself, a random point of the box, or the point of the box nearest to a
            picture of another class, which shows another object.
        restarts: number of random points to start from, if ``starts`` has ``"random"``.
        batch_size: pictures attacked at a time.
        log: takes the share done and a status text, before each batch and at the end.

    Raises:
        InputError: for budgets below 0, or above 1 in L-infinity, for no starts, and for a model without logits,
            or whose logits of the pictures themselves are not finite.
    """
    check_choice("norm", norm, get_args(Norm))
    budgets = _budgets(model, pictures, eps, 1 if norm == "linf" else 1e4)
    if isinstance(starts, str) or not starts:
        fail("starts", "a sequence of some of clean, random, previous", describe(starts))
    for start in starts:
        check_choice("starts", start, get_args(Start))
    for name, value in (("steps", steps), ("restarts", restarts), ("batch_size", batch_size)):
        check_int(name, value, 1)
    tries = [start for start in starts for _ in range(restarts if start == "random" else 1)]
    other = _others(pictures.labels)
    parts = torch.arange(len(other), device=other.device).split(batch_size)
    _check_answers(model, pictures, batch_size)
    shares = []
    for i, budget in enumerate(budgets):
        right = []
        for j, ids in enumerate(parts):
            _tell(log, i, budgets, j / len(parts))
            right.append(_withstands(model, pictures, other, ids, budget, norm, steps, tries))
        shares.append(float(torch.cat(right).float().mean()))
    _tell(log, len(budgets) - 1, budgets, 1.0)
    return Curve(tuple(budgets), tuple(shares), len(other))


def _budgets(model: Any, pictures: Any, eps: Any, largest: float) -> list[float]:
    check_instance("model", model, nn.Module)
    check_instance("pictures", pictures, Pictures, "Pass Pictures(images, labels).")
    if not isinstance(eps, Sequence) or isinstance(eps, str) or not eps:
        fail("eps", "a sequence of budgets", describe(eps), "Pass eps=[0, 8 / 255].")
    return [check_number("eps", budget, 0, largest) for budget in eps]


@torch.no_grad()
def _check_answers(model: nn.Module, pictures: Pictures, batch_size: int) -> None:
    """Require finite logits without an attack: such a model has no accuracy to lose."""
    with frozen(model) as net:
        for part in pictures.images.split(batch_size):
            check_finite("model", check_logits(net(part.clone()), len(part), fix=OWN))


def _tell(log: Log | None, number: int, budgets: Sequence[float], share: float) -> None:
    if log is not None:
        log((number + share) / len(budgets), f"budget {budgets[number]:.4f}, {number + 1} of {len(budgets)}")


def autoattack(
    model: nn.Module, pictures: Pictures, eps: Sequence[float], *, batch_size: int = 128, seed: int = 0,
    log: Log | None = None,
) -> Curve:  # fmt: skip
    """Attack whole pictures with AutoAttack in L-infinity: two adaptive PGDs, FAB and the gradient-free Square.

    Slow: torchattacks targets every wrong class, twice; the authors' own code targets nine.

    Args:
        model: maps images ``(b, 3, h, w)`` to logits; left unchanged.
        pictures: pictures to attack, at every pixel; masks are ignored.
        eps: budgets, in units of [0, 1].
        batch_size: pictures attacked at a time.
        seed: seed of the attack's random starts.
        log: takes the share done and a status text, before each batch and at the end.

    Raises:
        InputError: without torchattacks, for budgets outside [0, 1], for fewer than 4 classes, and for a model whose
            logits of the pictures themselves are not finite.

    Source: Croce and Hein, 2020, as implemented in torchattacks.
    """
    try:
        from torchattacks import AutoAttack
    except ImportError:
        fail("attack", "torchattacks, which holds AutoAttack", "none", "pip install torchattacks")
    budgets = _budgets(model, pictures, eps, 1)
    check_int("batch_size", batch_size, 1)
    _check_answers(model, pictures, batch_size)
    shares = []
    with frozen(model) as net:
        classes = check_logits(net(pictures.images[:1].clone()), 1).shape[1]
        if classes < 4:
            fail("model", "logits of at least 4 classes, whose margins AutoAttack compares", f"{classes}")
        parts = [*zip(pictures.images.split(batch_size), pictures.labels.split(batch_size), strict=True)]
        for i, budget in enumerate(budgets):
            right = []
            for j, (images, labels) in enumerate(parts):
                _tell(log, i, budgets, j / len(parts))
                attack = AutoAttack(net, norm="Linf", eps=budget, n_classes=classes, seed=seed)
                right.append(correct(net, images, labels))
                if budget:
                    right[-1] &= correct(net, attack(images, labels), labels)
            shares.append(float(torch.cat(right).float().mean()))
    _tell(log, len(budgets) - 1, budgets, 1.0)
    return Curve(tuple(budgets), tuple(shares), len(pictures.labels))


def _withstands(
    model: nn.Module, pictures: Pictures, other: Int[Tensor, " n"], ids: Int[Tensor, " b"], eps: float, norm: Norm,
    steps: int, starts: Sequence[Start],
) -> Bool[Tensor, " b"]:  # fmt: skip
    images, labels = pictures.images[ids], pictures.labels[ids]
    mask = None if pictures.masks is None else pictures.masks[ids]
    right = correct(model, images, labels)
    for number, (start, loss) in enumerate(itertools.product(starts if eps else (), (cross_entropy, margin))):
        attack = PGD(eps=eps, eps_object=None if mask is None else 0.0, norm=norm, steps=steps,
                     random_start=start == "random", loss=loss, early_stop=True)  # fmt: skip
        keys = sample_keys(torch.full_like(ids, number), torch.zeros_like(ids), ids)
        first = pictures.images[other[ids]] if start == "previous" else None
        right &= correct(model, attack(model, images, labels, keys=keys, mask=mask, start=first), labels)
    return right


@torch.no_grad()
def correct(model: nn.Module, images: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which images the model classifies correctly in eval mode; leaves the model unchanged. NaN logits are wrong."""
    with frozen(model) as net:
        logits = net(images.clone())  # a model may start with an in-place operation
    check_logits(logits, len(labels), fix=OWN)
    right: Tensor = (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)
    return right


def _others(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """For each picture, the next one of another class; itself if there is no other class."""
    n = len(labels)
    place = torch.arange(n, device=labels.device)
    turns = place[labels != labels.roll(1)]  # where the class changes
    if len(turns) == 0:
        return place
    return turns[torch.searchsorted(turns, place, right=True) % len(turns)]
