"""What is composed: records of scenes."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import cast

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """``b`` finished composites and what is known about them.

    Attributes:
        images: (b, 3, h, w); in [0, 1], or uint8.
        labels: (b,); classes.
        masks: (b, 1, h, w); the object's warped alpha, in [0, 1]; None where not asked for.
        boxes: (b, 4); half-open xyxy, pixels, see :func:`outline`; NaN where the object is out of sight; None likewise.
        visible: (b,); whether anything of the object is seen, so that it has a box; None likewise.
        objects: (b,); ids in the bank.
        contexts: (b,); ids in the bank.
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"]
    masks: Float[Tensor, "b 1 h w"] | None
    boxes: Float[Tensor, "b 4"] | None
    visible: Bool[Tensor, " b"] | None
    objects: Int[Tensor, " b"]
    contexts: Int[Tensor, " b"]

    def map(self, change: Callable[..., Tensor], *others: "Scene") -> "Scene":
        """Scenes of ``change(tensor, *tensors of the others)`` for every tensor; what was not made stays so."""
        made = {field.name: tuple(getattr(scene, field.name) for scene in (self, *others)) for field in fields(self)}
        changed = {name: None if values[0] is None else change(*values) for name, values in made.items()}
        return Scene(**cast(dict[str, Tensor], changed))


@dataclass(frozen=True)
class Earlier:
    """Earlier composites that serve as contexts in the slots where ``use`` is true.

    Attributes:
        images: (b, 3, h, w); in [0, 1], or uint8.
        use: (b,); which samples take theirs as context.
    """

    images: Shaped[Tensor, "b 3 h w"]
    use: Bool[Tensor, " b"]
