"""The one interface of all adversaries: ``plan`` may run ahead of the model, ``harden`` sees the model as it is now.

An adversary takes an unfinished batch, a :class:`Draft`, and returns another. Some choose scenes, some change pixels;
:class:`kornia_cag.CAGCollate` runs them in order and knows nothing else about them.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from kornia_cag.adversary.losses import Loss, OfTargets
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.core.checks import check_instance, check_tensor, describe, fail
from kornia_cag.core.ranks import Share
from kornia_cag.core.records import cut, mapped, packed
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.strength import Ramp
from kornia_cag.scenes.targets import Composites, Targets


@dataclass(frozen=True, eq=False)
class Draft:
    """An unfinished batch, between composing and delivery.

    There may be more rows than samples: rivals for an adversary to choose from follow the samples of the batch. And
    there may be fewer composites than rows: those of the first ``waiting`` rows are still to be composed.

    Attributes:
        rows: n rows, the first ``size`` of which belong to the batch itself.
        size: b, number of samples of the batch.
        earlier: earlier composites that the chain offers to each row; None: no chain.
        made: composites of the rows from ``waiting`` on; None: no composites yet.
        waiting: number of rows that an adversary will compose itself.
        photos: contexts that these lie on, where they are not the collate's own.
        composer: what composes; None until the batch is hardened.
        strength: share of what is drawn, in [0, 1], or by epoch.
        wants_targets: whether somebody asks for masks and boxes.
        wants_scene: whether somebody asks for what was drawn.
        images: (b, 3, h, w); with their pixels changed; None where nothing changed them.
        attacked: (b,); whose pixels an adversary changed; None where none did.
        changes: (b, 3, h, w); what the last attack on each slot ended with, to start from; None: nothing, or taken.
        dealt: what part of a global batch it is; None: the whole.
    """

    rows: Rows
    size: int
    _: KW_ONLY
    earlier: Earlier | None = None
    made: Composites | None = None
    waiting: int = 0
    photos: ContextBank | None = None
    composer: Composer | None = None
    strength: float | Ramp = 1.0
    wants_targets: bool = True
    wants_scene: bool = True
    images: Shaped[Tensor, "b 3 h w"] | None = None
    attacked: Bool[Tensor, " b"] | None = None
    changes: Float[Tensor, "b 3 h w"] | None = None
    dealt: Share | None = None

    @property
    def share(self) -> Share:
        """The part of a global batch that it is."""
        return self.dealt or Share(total=self.size)

    @property
    def rest(self) -> tuple[Rows, Earlier | None]:
        """The rows that no adversary will compose itself, and what the chain offers them."""
        if not self.waiting:
            return self.rows, self.earlier
        return self.rows[self.waiting :], cut(self.earlier, [self.waiting])[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return packed(self)

    @property
    def composites(self) -> Composites:
        """The composites, once no rows are waiting."""
        return cast(Composites, self.made)

    @property
    def pictures(self) -> Shaped[Tensor, "b 3 h w"]:
        """(b, 3, h, w); the images in their current state."""
        return self.composites.images if self.images is None else self.images

    @property
    def labels(self) -> Int[Tensor, " b"] | Int[Tensor, "b k"]:
        """(b,), classes; (b, K) if samples show several objects. Objects behind, of a chain, are in targets alone."""
        return self.composites.classes

    @property
    def keys(self) -> Int[Tensor, " b"]:
        """(b,); keys of the samples, from :func:`kornia_cag.core.randomness.sample_keys`."""
        return self.composites.keys

    @property
    def targets(self) -> Targets:
        """Masks and boxes of the objects. Only where the adversary says ``needs_targets``."""
        targets = self.composites.targets
        if targets is None:
            fail("draft.targets", "an adversary that says that it reads masks or boxes", "one that does not",
                 "Set needs_targets = True in its class.")  # fmt: skip
        return targets

    @property
    def mask(self) -> Float[Tensor, "b 1 h w"]:
        """(b, 1, h, w); how much each pixel shows objects that have a class, see :attr:`targets`."""
        return self.targets.cover

    def known(self, loss: Loss) -> Int[Tensor, " b"] | Int[Tensor, "b k"] | Targets:
        """What a loss is told of the pictures: :attr:`targets`, if it is one :class:`OfTargets`, or else classes."""
        return self.targets if isinstance(loss, OfTargets) else self.labels

    def chosen(self, places: Int[Tensor, " b"]) -> "Draft":
        """The draft of these rows, including composites."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor[places]

        earlier, made = mapped(chosen, self.earlier), mapped(chosen, self.made)
        return replace(self, rows=self.rows[places], earlier=earlier, made=made)

    def with_images(self, images: Tensor, attacked: Bool[Tensor, " b"] | None = None) -> "Draft":
        """The draft with other pixels, clipped to [0, 1], in the dtype of those before.

        Args:
            images: (b, 3, h, w); floats, on the same device.
            attacked: (b,); which samples were changed. Default: all.
        """
        every = torch.ones(len(images), dtype=torch.bool, device=images.device) if attacked is None else attacked
        before = self.attacked
        if not isinstance(images, Tensor) or not images.is_floating_point():
            fail("images", "float images (b, 3, h, w)", describe(images), "An adversary gives the pixels it changed.")
        images = images.detach().to(self.pictures.dtype).clamp(0, 1)
        return replace(self, images=images, attacked=every if before is None else before | every)


class Adversary:
    """Makes a batch harder. To write your own, derive from it and override :meth:`harden`.

    Attributes:
        needs_model: whether it uses the model; if False, the collate needs none.
        needs_targets: whether it reads :attr:`Draft.mask` or :attr:`Draft.targets`.
        chooses_scenes: whether it makes or chooses composites; such stages run before those that change pixels.
        starts_warm: whether it starts from :attr:`Draft.changes`.
        swaps_contexts: whether a sample may be composed on the context of another one of the batch, whose slot of a
            :class:`ContextStream` must then be filled on this rank, too.
    """

    needs_model: ClassVar[bool] = True
    needs_targets: ClassVar[bool] = False
    chooses_scenes: ClassVar[bool] = False
    starts_warm: ClassVar[bool] = False
    swaps_contexts: ClassVar[bool] = False

    def plan(self, draft: Draft) -> Draft:
        """Change what will be composed. Has no access to the model, and may run ahead of it. Default: no change."""
        return draft

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        """Make the batch harder for ``model`` as it is now, and leave the model unchanged.

        Args:
            model: the model being trained.
            draft: the draft from the previous stage.
        """
        return draft


class External(Adversary):
    """Another library's attack, or any function, as an adversary that changes pixels.

    Args:
        attack: called as ``attack(images, labels)``, like torchattacks' objects, which hold their own model; images
            (b, 3, h, w) in [0, 1], labels (b,), of the lowest of the scene's own objects that has a class. Returns
            images of the same shape, dtype and device. What it returns for a sample without any class is not used.
    """

    needs_model: ClassVar[bool] = False

    def __init__(self, attack: Callable[[Tensor, Tensor], Tensor]) -> None:
        if not callable(attack) or isinstance(attack, type | Adversary):
            fail("attack", "a function of images and labels", describe(attack), "Pass a kornia_cag attack directly.")
        self.attack = attack

    def harden(self, model: nn.Module | None, draft: Draft) -> Draft:
        """Pass the attack a copy of the images, which it may modify."""
        labels = draft.composites.labels
        known = labels >= 0
        first = labels.gather(1, known.int().argmax(dim=1, keepdim=True))[:, 0]
        found = self.attack(draft.pictures.clone(), first.clamp(min=0))  # most attacks fail on -1
        some = known.any(dim=1)
        if isinstance(found, Tensor) and found.shape == draft.pictures.shape:  # or it will be refused
            found = torch.where(some[:, None, None, None], found, draft.pictures)
        return draft.with_images(found, some)

    def __repr__(self) -> str:
        return f"External({self.attack!r})"


def check_adversaries(adversaries: Any, model: nn.Module | None) -> tuple[Adversary, ...]:
    """Require a tuple of adversaries whose order makes sense.

    Raises:
        InputError: for anything but adversaries, a missing model, or one that chooses scenes too late.
    """
    if not isinstance(adversaries, tuple | list):
        fail("adversaries", "a tuple of adversaries", describe(adversaries), "Pass adversaries=(PGD(eps=8 / 255),).")
    pixels: Adversary | None = None
    for place, stage in enumerate(adversaries):
        check_instance(f"adversaries[{place}]", stage, Adversary,
                       "Wrap another library's attack: External(attack).")  # fmt: skip
        if type(stage).plan is Adversary.plan and type(stage).harden is Adversary.harden:
            fail(f"adversaries[{place}]", "an adversary with a method plan or harden",
                 f"a {type(stage).__name__} with neither", "Override harden(self, model, draft).")  # fmt: skip
        if model is None and stage.needs_model:
            fail("model", "the model to attack", "None", f"Pass model=..., or leave out the {type(stage).__name__}.")
        if stage.chooses_scenes and pixels is not None:
            fail(f"adversaries[{place}]", f"a {type(stage).__name__}, which chooses scenes, before what changes pixels",
                 f"it after {type(pixels).__name__}", "Put it first.")  # fmt: skip
        if _changes_pixels(stage):
            pixels = stage
    return tuple(adversaries)


def _changes_pixels(stage: Adversary) -> bool:
    """Whether it does more than to plan or to choose scenes."""
    return not stage.chooses_scenes and type(stage).harden is not Adversary.harden


def planned(adversaries: tuple[Adversary, ...], draft: Draft) -> Draft:
    """The draft after every adversary's plan.

    Raises:
        InputError: naming an adversary that does not give a draft, by its place.
    """
    for place, stage in enumerate(adversaries):
        after = stage.plan(draft)
        check_instance(f"adversaries[{place}]", after, Draft, "Return dataclasses.replace(draft, rows=...) from plan.")
        draft = after
    return draft


def hardened(adversaries: tuple[Adversary, ...], model: nn.Module | None, draft: Draft, *, warm: bool = False) -> Draft:
    """The draft after every adversary has worked on it.

    Args:
        adversaries: in their order.
        model: as it is now.
        draft: composed.
        warm: whether to give, as ``changes``, what the first that starts warm has changed.

    Raises:
        InputError: naming, by its place, an adversary that leaves another number of samples, or other shapes.
    """
    ended, size = None, draft.size
    if not size:  # a rank's share of a small batch: nothing to harden, but the same tensors as on the others
        touched = draft.with_images(draft.pictures) if any(map(_changes_pixels, adversaries)) else draft
        return replace(touched, changes=draft.pictures) if warm else touched
    for place, stage in enumerate(adversaries):
        before, draft = draft, _checked(place, draft, stage.harden(model, draft))
        if warm and stage.starts_warm and ended is None:
            ended = draft.pictures - before.pictures
    made = 0 if draft.made is None else len(draft.made.images)
    if draft.waiting or {size, draft.size, len(draft.rows)} != {made}:
        fail("adversaries", f"rows and composites of all {size} samples of the batch in the end",
             f"{len(draft.rows)} rows, {made} composites and {draft.waiting} that wait to be composed",
             "Whoever plans rivals chooses among them: draft.chosen(places), one place for every sample.")  # fmt: skip
    return replace(draft, changes=ended) if warm else draft


def _checked(place: int, before: Draft, after: Any) -> Draft:
    name = f"adversaries[{place}]"
    check_instance(name, after, Draft, "Return draft.with_images(images) from harden.")
    draft: Draft = after
    if draft.images is not None and draft.images is not before.images:
        clean = before.pictures
        check_tensor(name, draft.images, tuple(clean.shape), clean.dtype, clean.device,
                     fix="An adversary must keep shape, dtype and device.")  # fmt: skip
        check_tensor(f"{name}.attacked", draft.attacked, (len(clean),), torch.bool, clean.device,
                     fix="Say which samples changed: draft.with_images(images, attacked).")  # fmt: skip
    return draft
