"""What a collate gives: pairs, full batches, and what lies between composing and hardening."""

from dataclasses import dataclass
from typing import (
    Any,
    NamedTuple,
    TypeVar,
)

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.core.checks import (
    check_instance,
    describe,
    fail,
)
from kornia_cag.scenes.chunks import Made, Slots


class Pair(NamedTuple):
    """The plain output of :class:`CAGCollate`: what a training loop unpacks.

    Attributes:
        images: (b, 3, h, w), in [0, 1], or uint8; after the attack.
        labels: (b,), classes 0 to C - 1.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"]

    def pin_memory(self) -> "Pair":
        """Called by a DataLoader with ``pin_memory=True``; batches made on a GPU have nothing to pin."""
        return Pair(*_pinned(self))

    def __repr__(self) -> str:
        return _short(self)


class Batch(NamedTuple):
    """The full output of :class:`CAGCollate`, for training on boxes or masks and for looking at what was made.

    Attributes:
        images: (b, 3, h, w), in [0, 1], or uint8; after the attack.
        labels: (b,), classes 0 to C - 1.
        masks: (b, 1, h, w); warped alpha, in [0, 1].
        boxes: (b, 4); half-open xyxy, pixels; NaN where the object is out of sight.
        visible: (b,); whether the object is seen at all: take ``boxes[visible]``.
        objects: (b,); ids in the bank.
        contexts: (b,); ids in the bank, or places among the photos; without effect where chained.
        index: (b,), place of the sample in its epoch; shadows ``tuple.index``.
        clean: (b, 3, h, w); as composed: after the attack on scenes, before that on pixels.
        chained: (b,), whether the context is an earlier composite.
        rows: (b, 5); object, context, index, epoch, seed.
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
    chained: Tensor
    rows: Int[Tensor, "b 5"]

    def pin_memory(self) -> "Batch":
        """Called by a DataLoader with ``pin_memory=True``; batches made on a GPU have nothing to pin."""
        return Batch(*_pinned(self))

    def __repr__(self) -> str:
        return _short(self)


Output = TypeVar("Output", bound=Pair | Batch, covariant=True)


@dataclass(frozen=True)
class Composed:
    """A batch between :meth:`CAGCollate.compose` and :meth:`CAGCollate.harden`.

    With :class:`WorstOf` more is made than will come of it: after the samples of the batch their rivals. With
    :class:`ScenePGD` less is: it makes the scenes of the first rows itself.

    Attributes:
        rows: (n, 5); object, context, index, epoch, seed.
        size: number of samples of the batch.
        made: scenes of the rows from ``waiting`` on; None where there are none.
        waiting: rows whose scenes are still to be made.
        slots: images (n, 3, h, w) and labels (n,) that the chain offers to these; None: no chain.
        photos: bank of contexts that these lie on, where it is not the collate's own.
    """

    rows: Int[Tensor, "n 5"]
    size: int
    made: Made | None
    waiting: int = 0
    slots: Slots = None
    photos: ContextBank | None = None


def _short(batch: Pair | Batch) -> str:
    """Dtypes and shapes, not thousands of numbers."""
    parts = (f"{name}={describe(tensor)}" for name, tensor in zip(batch._fields, batch, strict=True))
    return f"{type(batch).__name__}({', '.join(parts)})"


def _pinned(batch: Pair | Batch) -> list[Tensor]:
    if batch.images.device.type == "cuda":
        fail("pin_memory", "False with batches that are made on the GPU", "True", "Pass pin_memory=False.")
    return [tensor.pin_memory() for tensor in batch]


def check_attacked(batch: Any) -> None:
    """Require a batch with images before and after an attack on pixels.

    Raises:
        InputError: for anything else.
    """
    check_instance("batch", batch, Batch, "Pass returns='batch' to the collate.")
    if batch.images is batch.clean:
        fail("batch", "one that was attacked", "images as composed", "Pass attack=... to the collate.")
