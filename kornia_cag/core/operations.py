"""Operations of our own: a formula of many steps that runs as one kernel, or that no compiled graph takes apart."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.utils._triton import has_triton

from kornia_cag.core.compiling import any_batch, fusing, program

CONTIGUOUS = torch.contiguous_format

Given = ParamSpec("Given")
Formula = Callable[..., Any]  # of tensors and Python's values, to one tensor or several


def one_operation(schema: str, cpu: Formula | None = None) -> Callable[[Formula], Formula]:
    """Make a formula one operation of torch: on a GPU one compiled kernel, elsewhere what the formula does.

    The formula runs as it is where a compiler is about to fuse it with its surroundings, and where a gradient is asked
    for. Without Triton it does so on a GPU, too.

    Args:
        schema: name, arguments and result, such as ``"double(Tensor x) -> Tensor"``.
        cpu: a faster way to the same numbers on a CPU.
    """
    name, arguments = schema.split("(", 1)

    def made(formula: Formula) -> Formula:
        operation = torch.library.custom_op(f"kornia_cag::{name}", formula, mutates_args=(), schema=f"({arguments}")
        operation.register_fake(formula)
        operation.register_kernel("cuda")(compiled(formula))
        if cpu is not None:
            operation.register_kernel("cpu")(cpu)

        @functools.wraps(formula)
        def whole(*given: Any) -> Any:
            moved = torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in given)
            return formula(*given) if fusing() or moved else operation(*given)

        return whole

    return made


def unfused(schema: str, like: str) -> Callable[[Callable[Given, Tensor]], Callable[Given, Tensor]]:
    """Keep a formula out of compiled graphs: there it is one operation, which runs as in eager mode, to the bit.

    For formulas of many steps, which would take minutes to compile. Where a gradient is asked for, they are compiled.

    Args:
        schema: name, arguments and result, such as ``"double(Tensor x) -> Tensor"``; the result shares no memory.
        like: the argument that has the result's shape and dtype.
    """
    name, arguments = schema.split("(", 1)

    def made(formula: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
        def alone(*given: Given.args, **named: Given.kwargs) -> Tensor:
            return formula(*given, **named).contiguous()  # as the compiler is told below

        operation = torch.library.custom_op(f"kornia_cag::{name}", alone, mutates_args=(), schema=f"({arguments}")
        order = list(inspect.signature(formula).parameters)

        @operation.register_fake
        def _(*given: Any, **named: Any) -> Tensor:
            return torch.empty_like({**dict(zip(order, given, strict=False)), **named}[like], memory_format=CONTIGUOUS)

        @functools.wraps(formula)
        def whole(*given: Given.args, **named: Given.kwargs) -> Tensor:
            moved = torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in given)
            found: Tensor = operation(*given, **named) if fusing() and not moved else formula(*given, **named)
            return found

        return whole

    return made


def compiled(formula: Formula) -> Formula:
    """A formula that is compiled for a GPU on first use, for each kind of arguments apart; without Triton, itself.

    Arguments are of a kind if they differ only in sizes and values of tensors. Torch gives up on a program that it had
    to compile eight times; one of many sizes of canvas, with and without optional arguments, would get there.
    """
    # Not before the first call: the question sets up the device.
    made = functools.cache(lambda _: program(formula, torch.device("cuda")) if has_triton() else formula)

    def call(*given: Any) -> Any:
        any_batch(*(value for value in given if isinstance(value, Tensor)))
        kind = tuple(value.ndim if isinstance(value, Tensor) else str(value) for value in given)
        with torch.no_grad():  # one program, whatever the caller's mode
            return made(kind)(*given)

    return call
