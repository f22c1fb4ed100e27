"""What a batch asks of a device in eager mode, counted where there is none.

Tensors on torch's device ``meta`` have shapes and no values. It takes the place of a GPU: whatever would read a value
back, and so wait for the device, raises.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.ranges import SceneRange

_NOTHING_LAUNCHED = {"_unsafe_view", "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty"}


class Counts(TorchDispatchMode):
    """Inside, counts what is dispatched to ``device``: about one kernel an operation. Views and empty memory are free.

    Args:
        device: the type of the device to watch.

    Attributes:
        operations: how often each operation was dispatched, by name.
        written: bytes of the results.
        copies: tensors that came from the host, and constants of Python's numbers.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.operations: Counter[str] = Counter()
        self.written = 0
        self.copies = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count it."""
        result = func(*args, **(kwargs or {}))
        made = [part for part in (result if isinstance(result, list | tuple) else [result]) if self._here(part)]
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and made:
            self.copies += not all(self._here(arg) for arg in args if isinstance(arg, Tensor))
        if made and not _is_view(func) and name not in _NOTHING_LAUNCHED:
            self.operations[name] += 1
            self.written += sum(part.numel() * part.element_size() for part in made)
        return result

    def __enter__(self) -> Self:
        self._constants = _Constants(self)
        self._constants.__enter__()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._constants.__exit__(kind, error, trace)

    def _here(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.device.type == self.device


class _Constants(TorchFunctionMode):
    """Counts ``torch.tensor(numbers, device=...)``, which no operator shows."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.counts.copies += func in (torch.tensor, torch.as_tensor) and self.counts._here(result)
        return result


def _is_view(func: Any) -> bool:
    """Whether the results only look at the arguments' memory."""
    aliases = [result.alias_info for result in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def counted(ranges: SceneRange, size: int, batch: int, layers: int = 1) -> Counts:
    """Counts of a second batch, with targets and a chain, from rows on the host to composites on the device.

    Args:
        ranges: what varies.
        size: side of the canvas, pixels.
        batch: number of samples.
        layers: number of objects of each.
    """
    there, texels = torch.device("meta"), 64 if size <= 64 else 256
    objects, contexts = ObjectBank.from_glyphs("0123456789", size=texels), ContextBank.procedural(count=8, size=texels)
    objects = replace(objects, pyramid=objects.pyramid.to(there), labels=objects.labels.to(there))
    composer = Composer(objects, ContextBank(contexts.pyramid.to(there)), (size, size), ranges, warn=False)
    place = torch.arange(batch)
    shown = (place[:, None] + torch.arange(layers)) % 10
    rows, images = Rows.of(shown, place % 8, place), torch.empty(batch, 3, size, size, device=there)
    earlier = Earlier(images, torch.empty(batch, layers, dtype=torch.int64, device=there), 0.171)
    with patch("torch.autocast", lambda *_, **__: nullcontext()):  # which meta does not know
        for _ in range(2):  # the first batch also makes constants, which are kept
            with Counts() as counts:
                Renderer()(composer, rows.to(there), 1.0, earlier, targets=True, scene=True)
    return counts
