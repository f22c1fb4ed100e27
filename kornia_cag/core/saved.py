"""Checks of a file's content before it is used: types, sizes and values of everything saved."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_cag.core.checks import InputError, check_int, check_number, describe, fail

LARGEST = 2**63 - 1
_DEPTH = 20  # deepest nesting; plans and reports have less


@contextmanager
def refused(path: str | Path, argument: str, expected: str, fix: str) -> Iterator[None]:
    """Turn any exception while a file's content is read into one error that names file and field.

    Raises:
        InputError: in place of any other exception.
    """
    try:
        yield
    except InputError as error:
        fail(argument, expected, f"{str(path)!r} ({str(error).rstrip('.')})", fix)
    except Exception as error:  # torch has many ways to refuse a state
        reason = " ".join(str(error).split())[:120]
        fail(argument, expected, f"{str(path)!r} ({type(error).__name__}: {reason})", fix)


def check_fields(name: str, value: Any, fields: Iterable[str]) -> dict[str, Any]:
    """Require a dictionary with exactly these keys, and return it."""
    if not isinstance(value, dict):
        fail(name, f"fields {', '.join(fields)}", describe(value))
    wanted = set(fields)
    if missing := sorted(wanted - value.keys()):
        fail(name, f"a field {missing[0]!r}", "none")
    if more := value.keys() - wanted:
        fail(name, f"fields {', '.join(sorted(wanted))} alone", describe(next(iter(more))))
    return value


def check_type(name: str, value: Any, *kinds: type) -> None:
    """Require exactly one of these types: ``isinstance`` would accept ``True`` as an ``int``."""
    if type(value) not in kinds:
        fail(name, " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds), describe(value))


def check_names(name: str, value: Any) -> tuple[str, ...]:
    """Require at least one name, all of them different, and return them."""
    check_type(name, value, tuple, list)
    for i, text in enumerate(value):
        check_type(f"{name}[{i}]", text, str)
    if not value or len(set(value)) < len(value):
        fail(name, "at least one name, each once", describe(value))
    return tuple(value)


def check_like(name: str, value: Any, like: Tensor, *, finite: bool = True) -> Tensor:
    """Require a plain CPU tensor with the shape and dtype of another, and return it.

    Args:
        name: name of the field.
        value: what was read.
        like: on any device, including ``meta``.
        finite: refuse infinite numbers, too; NaN is always refused.
    """
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.shape != like.shape or not _same_numbers(value, like):
        fail(name, describe(like).partition(" on ")[0], describe(value))
    tensor: Tensor = value.detach()
    if not tensor.is_floating_point():
        return tensor
    if bool(tensor.isnan().any()) or (finite and bool(tensor.isinf().any())):
        fail(name, "finite numbers", "others")
    return tensor


def _same_numbers(value: Tensor, like: Tensor) -> bool:
    if value.is_quantized or value.is_complex():
        return False
    return value.dtype == like.dtype or (value.is_floating_point() and like.is_floating_point())


def check_weights(name: str, value: Any, like: Mapping[str, Any], finite: Iterable[str]) -> None:
    """Require a network's state with tensors like another's; those named in ``finite`` must not be infinite."""
    certain = set(finite)
    check_fields(name, value, like)
    for key, tensor in like.items():
        if isinstance(tensor, Tensor):
            check_like(f"{name}.{key}", value[key], tensor, finite=key in certain)


def check_alike(name: str, value: Any, like: Any) -> None:
    """Require the structure and types of another plain value; counts must not be negative if its own are not."""
    if isinstance(like, dict):
        check_fields(name, value, like)
        for key, item in like.items():
            check_alike(f"{name}.{key}", value[key], item)
    elif isinstance(like, list | tuple):
        check_type(name, value, type(like))
        if len(value) != len(like):
            fail(name, f"{len(like)} values", f"{len(value)}")
        for i, (item, other) in enumerate(zip(value, like, strict=True)):
            check_alike(f"{name}[{i}]", item, other)
    elif isinstance(like, Tensor):
        check_like(name, value, like)
    else:
        check_type(name, value, type(like))
        if type(like) is int:
            check_int(name, value, 0 if like >= 0 else -LARGEST, LARGEST)
        elif type(like) is float:
            check_number(name, value, -1e300, 1e300)


def check_plain(name: str, value: Any, depth: int = _DEPTH) -> None:
    """Require JSON types, nested no deeper than anything saved here."""
    if depth == 0:
        fail(name.partition(".")[0], f"values nested up to {_DEPTH} deep", "deeper ones")
    if isinstance(value, dict):
        for key, item in value.items():
            check_type(f"a key of {name}", key, str)
            check_plain(f"{name}.{key}", item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            check_plain(name, item, depth - 1)
    else:
        check_type(name, value, str, int, float, bool, type(None))
