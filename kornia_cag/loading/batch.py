"""What a collate returns: images and labels, or everything known about a batch."""

import re
from typing import Any, NamedTuple, TypeVar, cast

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.adversary.stage import Draft
from kornia_cag.core.checks import check_instance, describe, fail
from kornia_cag.core.records import mapped, packed
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.scene import Scene
from kornia_cag.scenes.targets import Targets


class Pair(NamedTuple):
    """The plain output of :class:`CAGCollate`, for a training loop to unpack.

    Attributes:
        images: (b, 3, h, w), in [0, 1], or uint8; after all adversaries.
        labels: (b,), classes 0 to C - 1.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"]

    def pin_memory(self) -> "Pair":
        """Called by a DataLoader with ``pin_memory=True``; batches composed on a GPU have nothing to pin."""
        return cast(Pair, _pinned(self))

    def __repr__(self) -> str:
        return _short(self)


class Batch(NamedTuple):
    """The full output of :class:`CAGCollate`, for training on boxes or masks and for inspection.

    Fields with one object per sample refer to the lowest layer, the only one unless rows name several objects. Objects
    of earlier composites are among the targets only.

    Attributes:
        images: (b, 3, h, w), in [0, 1], or uint8; after all adversaries.
        labels: (b,), classes 0 to C - 1; -1 if the object is a distractor or not shown.
        masks: (b, 1, h, w); how much each pixel shows the object, in [0, 1].
        boxes: (b, 4); half-open xyxy, pixels; NaN if the object is out of sight.
        visible: (b,); whether the object is visible at all: use ``boxes[visible]``.
        objects: (b,); ids in the bank.
        contexts: (b,); ids in the bank, or indices of the photos; unused where chained.
        index: (b,), index of the sample in its epoch; shadows ``tuple.index``.
        clean: (b, 3, h, w); as composed: after adversaries that choose scenes, before those that change pixels.
        chained: (b,), whether the context is an earlier composite.
        rows: (b,) rows, of which each sample is a function, unless a ``ScenePGD`` moved its scene; see ``rows.share``.
        scene: (b,) scenes; all that was drawn; ``composer.render(scene, earlier)`` makes ``clean`` anew, but on photos.
        earlier: (b,) composites that the chain offered as contexts; None without a chain.
        targets: (b, K) objects: classes, boxes and masks of all layers, after those behind, if the chain keeps them.
        attacked: (b,), which samples had their pixels changed; None without an adversary that changes pixels.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"]
    masks: Float[Tensor, "b 1 h w"]
    boxes: Float[Tensor, "b 4"]
    visible: Bool[Tensor, " b"]
    objects: Int[Tensor, " b"]
    contexts: Int[Tensor, " b"]
    index: Int[Tensor, " b"]  # type: ignore[assignment]
    clean: Shaped[Tensor, "b 3 h w"]
    chained: Bool[Tensor, " b"]
    rows: Rows
    scene: Scene
    earlier: Earlier | None
    targets: Targets
    attacked: Bool[Tensor, " b"] | None

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with ``pin_memory=True``; batches composed on a GPU have nothing to pin."""
        return cast(Batch, _pinned(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return packed(self)

    def __repr__(self) -> str:
        return _short(self)


for _record in (Pair, Batch):  # for help() on each field
    for _name, _text in re.findall(r"^ +(\w+): (.+)\.$", _record.__doc__ or "", flags=re.MULTILINE):
        getattr(_record, _name).__doc__ = _text

Output = TypeVar("Output", bound=Pair | Batch, covariant=True)


def batch_of(draft: Draft) -> Batch:
    """The full batch of a hardened draft of composites with targets and scene."""
    made, rows, images = draft.composites, draft.rows, draft.pictures
    if draft.share.ranks > 1:
        rows = rows.with_share(draft.share)
    targets = cast(Targets, made.targets)
    own = targets.labels.shape[1] - made.labels.shape[1]  # the first that is not of an earlier composite
    boxes, visible = targets.boxes[:, own], targets.visible[:, own]
    masks = targets.masks[:, own : own + 1]
    return Batch(images, made.labels[:, 0], masks, boxes, visible, rows.objects, rows.contexts,
                 rows.index, made.images, made.chained, rows, cast(Scene, made.scene),
                 draft.earlier, targets, draft.attacked)  # fmt: skip


def check_attacked(batch: Any) -> None:
    """Require a :class:`Batch` whose pixels an adversary changed.

    Raises:
        InputError: for anything else.
    """
    check_instance("batch", batch, Batch, 'Pass CAGCollate(..., returns="batch").')
    if batch.attacked is None:
        fail("batch", "an attacked batch", "a batch from a collate without an adversary that changes pixels",
             "Pass CAGCollate(..., adversaries=(PGD(eps=8 / 255),), model=model).")  # fmt: skip


def _short(batch: Pair | Batch) -> str:
    """Show dtypes and shapes instead of thousands of numbers."""
    parts = (f"{name}={describe(value) if isinstance(value, Tensor) else type(value).__name__}"
             for name, value in zip(batch._fields, batch, strict=True))  # fmt: skip
    return f"{type(batch).__name__}({', '.join(parts)})"


def _pinned(batch: Pair | Batch) -> Pair | Batch:
    if batch.images.device.type == "cuda":
        fail("pin_memory", "False with batches composed on the GPU", "True", "Pass pin_memory=False.")
    return mapped(Tensor.pin_memory, batch)
