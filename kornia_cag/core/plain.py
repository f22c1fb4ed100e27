"""The settings of a run as plain JSON: to read, to store with the result, and to compare when resuming."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch

MISSING = "nothing"


def plain(value: Any) -> Any:
    """Reduce a value to JSON types: records to objects with their class, functions and data types to names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        value = {"class": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if hasattr(value, "__qualname__"):  # a function: its repr would contain an address, which differs between processes
        return f"{value.__module__}:{value.__qualname__}"
    return str(value) if isinstance(value, Path) else type(value).__qualname__


def differences(mine: Any, saved: Any, name: str = "") -> list[str]:
    """List the entries in which two plain values differ: ``recipe.size 28 (saved: 32)``."""
    if isinstance(mine, dict) and isinstance(saved, dict):
        keys = [*mine, *(key for key in saved if key not in mine)]
        parts = [differences(mine.get(k, MISSING), saved.get(k, MISSING), f"{name}.{k}".lstrip(".")) for k in keys]
        return [line for part in parts for line in part]
    return [] if mine == saved else [f"{name} {_short(mine)} (saved: {_short(saved)})"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_json(value: Any) -> str:
    """One JSON document."""
    return json.dumps(plain(value), indent=2)
