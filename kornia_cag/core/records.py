"""Records of tensors, nested or not: dataclasses, named tuples, tuples, and None for what was not made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def tensors(record: Any) -> Iterator[Tensor]:
    """All tensors of a record, in the order of its fields."""
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, tuple):
        for item in record:
            yield from tensors(item)
    elif is_dataclass(record):
        for field in fields(record):
            yield from tensors(getattr(record, field.name))


def mapped(change: Callable[..., Tensor], record: Record, *others: Record) -> Record:
    """A record of ``change(tensor, *tensors of the others)`` for every tensor of records that are built alike.

    What is no tensor is that of the first record.
    """
    if isinstance(record, Tensor):
        return change(record, *others)  # type: ignore[return-value]
    if isinstance(record, tuple):
        items = [mapped(change, *parts) for parts in zip(record, *others, strict=True)]
        return type(record)(*items) if hasattr(record, "_fields") else tuple(items)  # type: ignore[return-value]
    if is_dataclass(record) and not isinstance(record, type):
        names = [field.name for field in fields(record) if field.init]
        changed = {name: mapped(change, *(getattr(r, name) for r in (record, *others))) for name in names}
        return replace(record, **changed)
    return record


def cut(record: Record, ends: Sequence[int]) -> list[Record]:
    """A record of tensors over a batch, cut at these places."""
    return [mapped(lambda t, a=a, b=b: t[a:b], record) for a, b in zip([0, *ends], [*ends, None], strict=True)]


def joined(parts: Sequence[Record]) -> Record:
    """Records of tensors one behind the other."""
    return parts[0] if len(parts) == 1 else mapped(lambda *tensors: torch.cat(tensors), *parts)
