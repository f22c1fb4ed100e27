"""Large batches in parts: a CPU's cache then holds what is in the making, and its memory serves the next part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.memory import Memory
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.scene import Scene

PIXELS = 2**18  # of a part, where there are enough rows for every thread: 3 MiB of float32 images

Slots = tuple[Tensor, Tensor] | None


class Room(NamedTuple):
    """Memory for the images of a batch, and for its masks where they are made."""

    images: Shaped[Tensor, "b 3 h w"]
    masks: Float[Tensor, "b 1 h w"] | None


Made = tuple[Scene, Int[Tensor, " b"], Bool[Tensor, " b"]]  # scenes, keys, and which contexts are earlier composites
Make = Callable[[Int[Tensor, "b 5"], Slots, Room | None], Made]


class Rooms:
    """Lends the memory of batches; images and masks have blocks of their own, and get the same ones again."""

    def __init__(self) -> None:
        self._images, self._masks = Memory(), Memory()

    def room(self, composer: Composer, b: int, masks: bool) -> Room:
        """Memory for ``b`` scenes in the composer's format."""
        (height, width), device = composer.size, composer.objects.device
        if composer.channels_last:
            images = self._images.empty((b, height, width, 3), composer.dtype, device).permute(0, 3, 1, 2)
        else:
            images = self._images.empty((b, 3, height, width), composer.dtype, device)
        alpha = self._masks.empty((b, 1, height, width), torch.float32, device) if masks else None
        # Not views of anything, as far as autograd knows: a user may write into them.
        return Room(images.detach(), None if alpha is None else alpha.detach())


def cuts(composer: Composer, b: int) -> list[int]:
    """Where a batch is cut into parts: nowhere on a GPU, on a CPU such that each has about :data:`PIXELS`.

    Every thread gets as many rows of a part as the others, at least one; no part is a single row, which compiles on its
    own.
    """
    if composer.objects.device.type != "cpu":
        return []
    threads, (height, width) = torch.get_num_threads(), composer.size
    count = max(1, round(b * height * width / PIXELS))
    rows = max(2, -(-b // (count * threads)) * threads)
    return list(range(rows, b - 1, rows))


def in_parts(make: Make, table: Int[Tensor, "b 5"], slots: Slots, into: Room, ends: list[int]) -> Made:
    """``make(table, slots, into)`` in parts; samples do not depend on their neighbours.

    Args:
        make: maps rows, what their slots held, and the memory for their images, to what is made of them.
        table: rows of the batch.
        slots: what each slot held, ``(b, …)`` tensors, or None.
        into: memory for the batch.
        ends: where to cut, see :func:`cuts`.
    """
    parts = zip(table.tensor_split(ends), split(slots, ends), split(into, ends), strict=True)
    made = [make(rows, held, Room(*written)) for rows, held, written in parts]
    return made[0] if not ends else join(made, into)


def join(made: Sequence[tuple[Scene, Tensor, Tensor]], into: Room | None = None) -> Made:
    """Scenes one behind the other; images and masks are where ``into`` says, if they were written there."""
    if len(made) == 1 and into is None:
        return made[0]
    scenes, keys, chained = zip(*made, strict=True)
    names = (field.name for field in fields(Scene) if into is None or field.name not in Room._fields)
    joined: dict[str, Any] = {name: _joined([getattr(scene, name) for scene in scenes]) for name in names}
    written = {} if into is None else into._asdict()
    return Scene(**joined, **written), torch.cat(keys), torch.cat(chained)


def split(tensors: tuple[Tensor | None, ...] | None, ends: list[int]) -> Iterator[Any]:
    """The parts of a tuple's tensors, as tuples."""
    nothing = [None] * (len(ends) + 1)
    if tensors is None:
        return iter(nothing)
    return zip(*(nothing if t is None else t.tensor_split(ends) for t in tensors), strict=True)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors else None
