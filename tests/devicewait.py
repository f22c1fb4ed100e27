"""Refuse whatever would make the host wait for the device, on a CPU too."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_OPS = {
    "_local_scalar_dense",
    "_unique2",
    "allclose",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
_READS = {Tensor.tolist, Tensor.numpy, Tensor.cpu}  # on a CPU these copy without an operator that could be seen


class Waited(AssertionError):
    """The host would have waited for the device."""


class _RefuseReads(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READS:
            raise Waited(f"Tensor.{func.__name__} waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, what makes the host wait for a CUDA device raises a ``RuntimeError``.

    The mode is that of the whole process, so afterwards it is what it was before, whatever happened.
    """
    mode = torch.cuda.get_sync_debug_mode()
    try:
        _set_mode("error")
        yield
    finally:
        _set_mode(mode)


def _set_mode(mode: int | str) -> None:
    with warnings.catch_warnings():  # torch sets the mode and warns, which is an error here
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature", UserWarning)
        torch.cuda.set_sync_debug_mode(mode)


class RefuseWaiting(TorchDispatchMode):
    """Inside, an operation whose host side needs a value or a size from the device raises :class:`Waited`.

    Refused: ``item`` and all that comes down to it (``bool``, ``int``, ``if tensor:``), ``nonzero`` and indexing by a
    bool mask, ``masked_select``, ``unique``, ``equal``, ``allclose``, ``repeat_interleave`` without ``output_size``,
    ``tolist``, ``numpy`` and ``cpu``.
    """

    def __enter__(self) -> Self:
        self._reads = _RefuseReads()
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._reads.__exit__(kind, error, trace)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _OPS or (name.startswith("index") and _by_mask(args)) or _of_unknown_length(func, kwargs):
            raise Waited(f"{func} waits for the device")
        return func(*args, **kwargs)


def _by_mask(args: tuple[Any, ...]) -> bool:
    lists = [arg for arg in args if isinstance(arg, list | tuple)]
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for indices in lists for i in indices)


def _of_unknown_length(func: Any, kwargs: dict[str, Any]) -> bool:
    return func is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
