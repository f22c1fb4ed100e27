"""Large batches in parts: on a CPU, the fresh memory of a large batch costs as much as what is written to it."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import torch
from jaxtyping import Int
from torch import Tensor

from kornia_cag.compose import Scene

PIXELS = 2**19  # of a part: 6 MiB of float32 images, which the allocator keeps at hand

Slots = tuple[Tensor, Tensor] | None
Made = tuple[Scene, Tensor, Tensor]


def in_parts(
    make: Callable[[Int[Tensor, "b 5"], Slots], Made], table: Int[Tensor, "b 5"], slots: Slots, size: tuple[int, int]
) -> Made:
    """``make(table, slots)``, on a CPU in parts of about :data:`PIXELS`; samples do not depend on their neighbours.

    Args:
        make: maps rows, and what their slots held, to scenes and two more tensors, one entry per row in each.
        table: rows of the batch.
        slots: what each slot held, ``(b, …)`` tensors, or None.
        size: canvas ``(height, width)``.
    """
    b = len(table)
    count = min(-(-b * size[0] * size[1] // PIXELS), b // 2)  # a part of one row would be compiled on its own
    if table.device.type != "cpu" or count < 2:
        return make(table, slots)
    whole: list[Tensor | None] = []
    start = 0
    for rows, held in zip(table.tensor_split(count), _split(slots, count), strict=True):
        scene, *others = make(rows, held)
        values = [*(getattr(scene, field.name) for field in fields(scene)), *others]
        whole = whole or [_room(value, b) for value in values]
        for value, room in zip(values, whole, strict=True):
            if room is not None:
                room[start : start + len(rows)] = value
        start += len(rows)
    *found, keys, chained = whole
    names = (field.name for field in fields(scene))
    return replace(scene, **dict(zip(names, found, strict=True))), keys, chained  # type: ignore[arg-type, return-value]


def _split(slots: Slots, count: int) -> Iterator[Slots]:
    if slots is None:
        yield from [None] * count
    else:
        yield from zip(*(held.tensor_split(count) for held in slots), strict=True)


def _room(value: Tensor | None, b: int) -> Tensor | None:
    """Memory for ``b`` rows in the layout of a part."""
    if value is None:
        return None
    return torch.empty_strided((b, *value.shape[1:]), value.stride(), dtype=value.dtype, device=value.device)
