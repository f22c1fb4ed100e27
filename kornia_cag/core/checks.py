"""Input checks, and the wording of every user error.

Every message reads ``argument: expected X, got Y. Fix.`` Checks look at shape, dtype and device, never at the values of
a tensor, so none of them waits for the device. The exception is :func:`check_pixels`, for pictures from outside.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

OVERSHOOT = 0.01  # allowed beyond [0, 1] and silently clamped: resizing by splines overshoots


class InputError(ValueError):
    """A user error, worded so that the user can fix it.

    Attributes:
        argument: name of the argument in question; empty if the message is worded differently.
    """

    def __init__(self, message: str, argument: str = "") -> None:  # a loader's workers pass only one argument
        super().__init__(message)
        self.argument = argument


class Diverged(RuntimeError):
    """The loss or weights of a training are no longer finite; the message says since which step."""


class Hint(UserWarning):
    """A warning of pictures that can be used, but that people would rather not use."""


class Interrupted(KeyboardInterrupt):
    """The command was stopped by Ctrl-C or SIGTERM; the argument is the signal number."""


def describe(value: Any) -> str:
    """Describe ``value`` briefly: dtype and shape of an array, else its shortened ``repr``."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{where}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # deep nesting, an integer with too many digits, or whatever a user's class raises
        text = f"one {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(text: str, most: int = 2000) -> str:
    """The text without line breaks and other unprintable characters, and without the middle if it is long.

    File names can contain any character and be of any length.
    """
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return shown if len(shown) <= most else f"{shown[: most // 2]} ... {shown[-most // 4 :]}"


def first_few(parts: Sequence[str], mark: str = ",", most: int = 3) -> str:
    """The first parts, and how many more there are: ``a, b and 4 more``, or with another mark ``a; b; and 4 more``."""
    shown, rest = f"{mark} ".join(parts[:most]), len(parts) - most
    return f"{shown}{'' if mark == ',' else mark} and {rest} more" if rest > 0 else shown


def fail(argument: str, expected: str, got: str, fix: str = "") -> NoReturn:
    """Raise :class:`InputError` in the standard wording."""
    raise InputError(one_line(f"{argument}: expected {expected}, got {got}." + (f" {fix}" if fix else "")), argument)


def check_tensor(
    argument: str,
    value: Any,
    shape: Sequence[int | str],
    dtype: torch.dtype | Sequence[torch.dtype] | None = None,
    device: torch.device | None = None,
    fix: str = "",
) -> None:
    """Require a tensor of the given shape: an int is an exact size, a name matches any size, the same each time.

    Raises:
        InputError: for any other type, rank, size, dtype or device.
    """
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype or ())
    if not isinstance(value, Tensor) or not _fits(value, shape) or (dtypes and value.dtype not in dtypes):
        fail(argument, _expected(shape, dtypes, device), describe(value), fix)
    if device is not None and value.device != device:
        got = describe(value) + ("" if " on " in describe(value) else f" on {value.device}")
        fail(argument, _expected(shape, dtypes, device), got, fix or f"Move it with .to('{device}').")


def check_pixels(argument: str, value: Tensor) -> None:
    """Require a picture of at least one pixel, uint8, or float in [0, 1] with a tolerance for resizing overshoot.

    Waits for the device of float pictures, so do not use it while composing a batch.

    Raises:
        InputError: distinguishing 0 to 255, normalised values and NaN.
    """
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        fail(argument, "a plain tensor with values", f"{describe(value)} ({str(value.layout).removeprefix('torch.')})")
    if not value.numel():
        fail(argument, "at least one pixel", describe(value), "Leave it out.")
    if not value.is_floating_point():
        return
    low, high = (float(bound) for bound in value.detach().aminmax())
    if -OVERSHOOT <= low <= high <= 1 + OVERSHOOT:
        return
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        fail(argument, "values in [0, 1]", "NaN" if math.isnan(low) else f"{low:.3g} to {high:.3g}",
             "Fix their source: usually a division by zero or a logarithm of zero.")  # fmt: skip
    if max(-low, high) > 16:
        fix = "Divide by 255, or pass uint8." if high <= 256 else "Divide by the highest possible value."
    elif low < -OVERSHOOT:
        fix = "Undo the normalisation (x * std + mean), and leave it to the model; clamp what filtering overshot."
    else:
        fix = "Divide by 255 if it counts from 0 to 255, or pass uint8; clamp what filtering overshot."
    fail(argument, "values in [0, 1]", f"{low:.3g} to {high:.3g}", fix)


def _fits(value: Tensor, shape: Sequence[int | str]) -> bool:
    if value.ndim != len(shape):
        return False
    seen: dict[str, int] = {}
    return all(
        have == (want if not isinstance(want, str) else seen.setdefault(want, have))
        for want, have in zip(shape, value.shape, strict=True)
    )


def _expected(shape: Sequence[int | str], dtypes: tuple[torch.dtype, ...], device: torch.device | None) -> str:
    names = " or ".join(str(d).removeprefix("torch.") for d in dtypes) or "tensor"
    return f"{names} ({', '.join(map(str, shape))})" + (f" on {device}" if device is not None else "")


def check_instance(argument: str, value: Any, kind: type | tuple[type, ...], fix: str = "") -> None:
    """Require an instance of one of the given classes."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        fail(argument, " or ".join("None" if k is type(None) else k.__name__ for k in kinds), describe(value), fix)


def check_int(argument: str, value: Any, low: int = 1, high: int | None = None, fix: str = "") -> int:
    """Require an integer in ``[low, high]`` and return it as ``int``."""
    integral = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integral or value < low or (high is not None and value > high):
        fail(argument, f"an integer of at least {low}" + (f" and at most {high}" if high is not None else ""),
             describe(value), fix)  # fmt: skip
    return int(value)


def check_number(
    argument: str, value: Any, low: float | int = -np.inf, high: float | int = np.inf, fix: str = ""
) -> float:
    """Require a finite real number in ``[low, high]`` and return it as ``float``."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not low <= value <= high or not _finite(value):
        fail(argument, f"a number in [{low:g}, {high:g}]", describe(value), fix)
    return float(value)


def _finite(value: float | int) -> bool:
    """Whether it is a number that fits a float: ``math.isfinite`` fails on integers that are too large."""
    return bool(abs(value) <= sys.float_info.max)


def check_range(
    argument: str, value: Any, low: float | int = -np.inf, high: float | int = np.inf, fix: str = ""
) -> None:
    """Require a pair ``(low, high)`` of finite numbers in order, inside the given limits."""
    pair = isinstance(value, tuple | list) and len(value) == 2
    real = pair and all(isinstance(v, int | float) and not isinstance(v, bool) and _finite(v) for v in value)
    if not real or not low <= value[0] <= value[1] <= high:
        fail(argument, f"a pair (low, high) with {low:g} <= low <= high <= {high:g}", describe(value), fix)


def check_choice(argument: str, value: Any, choices: Sequence[Any], fix: str = "") -> None:
    """Require one of ``choices``."""
    if value not in choices:
        fail(argument, "one of " + ", ".join(map(repr, choices)), describe(value), fix)


def check_size(argument: str, value: Any) -> tuple[int, int]:
    """Require one positive integer or a pair ``(height, width)``, and return the pair."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not isinstance(value, tuple | list) or len(value) != 2:
        fail(argument, "a positive integer or (height, width)", describe(value))
    return check_int(argument, value[0]), check_int(argument, value[1])
