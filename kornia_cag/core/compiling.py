"""What a stage says to a compiler that fuses it with its neighbours, and how a stage becomes one compiled graph."""

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def fusing() -> bool:
    """Whether this is being compiled, so that what would be slow in eager mode becomes one loop over pixels."""
    return torch.compiler.is_compiling()


def once(*values: Tensor) -> tuple[Tensor, ...]:
    """Two or more numbers per sample ``(b,)``, computed once and kept, instead of anew at every pixel."""
    return torch.stack(values).unbind(0) if fusing() else values


def kept(value: Tensor) -> Tensor:
    """A value just computed, contiguous, that is to be kept where it is used several times.

    A compiler writes an expression out at every use: a chain of such uses grows without bounds.
    """
    return value.as_strided(value.size(), value.stride()) if fusing() else value  # a strided view needs memory


def program(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors, and of objects that never change, as one graph.

    Every program has a cache of its own, so that many of them do not crowd each other out of torch's, and inductor
    keeps kernels on disk for the next process.
    """
    code, defaults, closure = function.__code__.replace(), function.__defaults__, function.__closure__
    own = types.FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        # Let the work of a pixel become one loop: what must not be written out again and again is `kept`.
        "realize_opcount_threshold": 1000,
        "realize_reads_threshold": 1000,
        "realize_acc_reads_threshold": 1000,
        "cpp.enable_floating_point_contract_flag": "fast",
        "assert_indirect_indexing": False,  # the arithmetic of the pyramid stays inside it
    }
    width = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    if width is not None:
        # What inductor takes anyway, but said, it is in the key of its cache on disk (torch 2.13): else a process with
        # narrower vectors finds code there that was written for wider ones, gets wrong numbers and leaves its memory.
        options["cpp.simdlen"] = width
    return torch.compile(own, fullgraph=True, options=options)


def any_batch(*tensors: Tensor | None) -> None:
    """Let the first dimension of these vary from call to call without compiling anew; one row is a case of its own."""
    for tensor in tensors:
        if tensor is not None and len(tensor) > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
