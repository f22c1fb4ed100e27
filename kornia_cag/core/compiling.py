"""Hints for the compiler that fuses stages, and how a stage becomes one compiled graph."""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def fusing() -> bool:
    """Whether this is being compiled, so that code slow in eager mode becomes one loop over pixels."""
    return torch.compiler.is_compiling()


def threads(like: Tensor) -> bool:
    """Whether what is being compiled is for a GPU, where each thread computes a pixel of its own, and not a row."""
    return fusing() and like.device.type != "cpu"


def channels(like: Tensor) -> tuple[slice, ...]:
    """Which channels of a picture are one tensor: all, or each alone while this is being compiled for a CPU.

    Then a pixel is computed once, in one loop, for its three channels. A GPU's threads would compute all of them to
    store one.
    """
    apart = fusing() and not threads(like)
    return tuple(slice(channel, channel + 1) for channel in range(3)) if apart else (slice(0, 3),)


def once(*values: Tensor) -> tuple[Tensor, ...]:
    """Two or more numbers per sample ``(b,)``, computed once instead of again at every pixel."""
    if not fusing():
        return values
    stacked = torch.stack(values)
    return _in_pairs(stacked) if threads(stacked) else stacked.unbind(0)


def columns(numbers: Tensor) -> tuple[Tensor, ...]:
    """The columns of a matrix (b, k) of numbers per sample, computed once; int32 or float32 for a GPU."""
    return _in_pairs(numbers.mT) if threads(numbers) else kept(numbers).unbind(1)


def _in_pairs(numbers: Tensor) -> tuple[Tensor, ...]:
    """The rows of a matrix, stored two in a word: a GPU's thread reads 8 bytes in one instruction, as it does 4."""
    count = len(numbers)
    low, high = (part.view(torch.int32).long() for part in (numbers[: (count + 1) // 2], numbers[count // 2 :]))
    words = kept((low & 0xFFFFFFFF) | (high << 32))
    first, second = (part.to(torch.int32).view(numbers.dtype).unbind(0) for part in (words, words >> 32))
    return first + second[count % 2 :]  # of an odd number, the middle one is in both halves


def kept(value: Tensor) -> Tensor:
    """Store a contiguous, just computed value that is used several times; never a view, whose offset would be lost.

    The compiler repeats an expression at every use: a chain of such uses grows without bound.
    """
    return value.as_strided(value.size(), value.stride()) if fusing() else value  # a strided view forces storage


def reused(value: Tensor) -> Tensor:
    """A value that is used several times: stored for a CPU (see :func:`kept`), in a register of each GPU's thread."""
    return value if threads(value) else kept(value)


def natural(index: Tensor) -> Tensor:
    """An index that is not negative, which, if it is an int32, a GPU's code then need not test, nor wrap around."""
    return index & 0x7FFFFFFF if threads(index) and index.dtype == torch.int32 else index


def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor (n,) of a few numbers, copied to its device once: a copy for each batch would wait in its way."""
    return _sliced(_known("tensor", (values,), dtype, device))


def spread(low: float, high: float, count: int, device: torch.device) -> Tensor:
    """``count`` evenly spaced numbers from ``low`` to ``high``, float32, made once for a device.

    A compiler would work them out again at every pixel, in double precision.
    """
    return _sliced(_known("linspace", (low, high, count), torch.float32, device))


def _sliced(known: Tensor) -> Tensor:
    return known[:] if fusing() else known  # torch 2.13 takes two constants of one name for the same, but not slices


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _known(maker: str, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Any:
    return _made(maker, arguments, dtype, device)


@functools.cache  # none is ever given up: a captured graph goes on reading its memory
def _made(maker: str, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a function of torch makes of constants, by its name."""
    with torch.inference_mode(False):
        found: Tensor = getattr(torch, maker)(*arguments, dtype=dtype, device=device)
    return found


def program(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compile a function of tensors on ``device`` and immutable objects as one graph.

    Every program has its own cache, so that programs do not evict each other from torch's; inductor keeps kernels on
    disk for the next process. Numbers are constants, even where another program of the same function has others, such
    as a second canvas's size; only what :func:`any_batch` marks may vary.
    """
    code, defaults, closure = function.__code__.replace(), function.__defaults__, function.__closure__
    own = types.FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    return torch.compile(own, fullgraph=True, dynamic=False, options=options(device))


def options(device: torch.device) -> dict[str, str | int | bool | Callable[..., Any]]:
    """Inductor's options for every program on a device, as ``torch.compile`` takes them."""
    chosen: dict[str, str | int | bool | Callable[..., Any]] = {
        # Let the work per pixel become one loop: what must not be repeated is `kept`.
        "realize_opcount_threshold": 1000,
        "realize_reads_threshold": 1000,
        "realize_acc_reads_threshold": 1000,
        "assert_indirect_indexing": False,  # the pyramid's indices stay inside it
    }
    if device.type != "cpu":
        return chosen | {
            "aggressive_fusion": True,  # a sample's numbers are many and small: one launch for all that are ready,
            "combo_kernels": True,  # of whatever shape
            "force_pointwise_cat": True,  # or each part of a matrix that is put together is a launch of its own
            "triton.max_tiles": 1,  # tiles of two dimensions give each thread eight pixels to hold in registers
        }
    # The second flag has no option of its own: hashes wrap around, which C++ leaves undefined for signed integers.
    chosen["cpp.enable_floating_point_contract_flag"] = "fast -fwrapv"
    width = {"AVX512": 512, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    if width is not None:
        # Inductor's default, but set explicitly it becomes part of the key of its disk cache (torch 2.13). Otherwise a
        # process with narrower vectors loads code for wider ones, gets wrong numbers and writes out of bounds.
        chosen["cpp.simdlen"] = width
    return chosen


def any_batch(*tensors: Tensor | None) -> None:
    """Let the first dimension of these vary between calls without recompiling; a single row is a separate case."""
    for tensor in tensors:
        if tensor is not None and len(tensor) > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
