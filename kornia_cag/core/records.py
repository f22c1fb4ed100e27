"""Records of tensors, possibly nested: dataclasses, named tuples, tuples, and None for missing parts."""

import functools
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")

SMALL = 2**16  # bytes; tensors up to this size are sent together with others of their dtype


def tensors(record: Any) -> Iterator[Tensor]:
    """All tensors of a record, in field order."""
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, tuple):
        for item in record:
            yield from tensors(item)
    elif is_dataclass(record):
        for name in _names(type(record)):  # type: ignore[arg-type]
            yield from tensors(getattr(record, name))


@functools.cache  # asked for at every batch, of every record
def _names(kind: Any) -> tuple[str, ...]:
    """Names of a dataclass's fields."""
    return tuple(field.name for field in fields(kind))


def mapped(change: Callable[..., Tensor], record: Record, *others: Record) -> Record:
    """Apply ``change(tensor, *tensors of the others)`` to every tensor of records with the same structure.

    Anything that is not a tensor comes from the first record.
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


def copied(record: Any) -> Any:
    """A record in fresh memory, by one launch per dtype; a tensor that it holds twice stays one tensor."""
    found = {id(tensor): tensor for tensor in tensors(record)}
    fresh = {place: torch.empty_like(tensor) for place, tensor in found.items()}
    together: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for place, tensor in found.items():
        copy = fresh[place]
        if not copy.numel() or copy.stride() != tensor.stride():  # one of these would make the others slow
            copy.copy_(tensor)
            continue
        copies, originals = together.setdefault(tensor.dtype, ([], []))
        copies.append(copy)
        originals.append(tensor)
    for copies, originals in together.values():
        torch._foreach_copy_(copies, originals)
    return mapped(lambda tensor: fresh[id(tensor)], record)


def cut(record: Record, ends: Sequence[int]) -> list[Record]:
    """Cut a record of tensors over a batch at these positions."""
    return [mapped(lambda t, a=a, b=b: t[a:b], record) for a, b in zip([0, *ends], [*ends, None], strict=True)]


def joined(parts: Sequence[Record]) -> Record:
    """Concatenate records of tensors."""
    return parts[0] if len(parts) == 1 else mapped(lambda *tensors: torch.cat(tensors), *parts)


def packed(record: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The result of ``__reduce__`` for a record of many tensors: small ones are sent as one tensor per dtype.

    Every tensor from a worker process takes two system calls and holds a file descriptor for as long as it lives. A
    batch has about 45 tensors, and a process is often limited to 1024 descriptors.
    """
    values = tuple(record) if isinstance(record, tuple) else tuple(getattr(record, f.name) for f in fields(record))
    pickler = _WithoutTensors(written := io.BytesIO(), pickle.HIGHEST_PROTOCOL)
    pickler.dump(values)
    found = [*pickler.found.values()]
    whole: list[Tensor | None] = [*found]
    groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for place, tensor in enumerate(found):
        if tensor.nbytes <= SMALL and (tensor.ndim < 4 or tensor.is_contiguous()):  # others keep memory format
            groups.setdefault((tensor.dtype, tensor.device), []).append(place)
    parts = []
    for places in groups.values():
        small = [found[place] for place in places]
        parts.append((torch.cat([tensor.flatten() for tensor in small]), places, [tensor.shape for tensor in small]))
        for place in places:
            whole[place] = None
    return _unpacked, (type(record), written.getvalue(), whole, parts)


def _unpacked(kind: type[Record], written: bytes, whole: list[Any], parts: list[tuple[Tensor, Any, Any]]) -> Record:
    found = list(whole)
    for flat, places, shapes in parts:
        start = 0
        for place, shape in zip(places, shapes, strict=True):
            end = start + prod(shape)
            found[place] = flat[start:end].view(shape).detach()  # not a view for autograd: its owner may write to it
            start = end
    values = _WithTensors(io.BytesIO(written), found).load()
    names = kind._fields if issubclass(kind, tuple) else [f.name for f in fields(kind)]  # type: ignore[attr-defined, arg-type]
    return kind(**dict(zip(names, values, strict=True)))


class _WithoutTensors(pickle.Pickler):
    """Collects tensors, each once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.found: dict[int, Tensor] = {}
        self._places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.found.setdefault(id(value), value)
        return self._places.setdefault(id(value), len(self._places))


class _WithTensors(pickle.Unpickler):
    """Restores them from a list."""

    def __init__(self, file: io.BytesIO, found: list[Tensor]) -> None:
        super().__init__(file)
        self._found = found

    def persistent_load(self, place: int) -> Tensor:
        return self._found[place]
