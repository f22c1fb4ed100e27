"""The first training step that leaves a loss or a weight not finite, found without waiting for the device."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Found(NamedTuple):
    """What was first not finite, in words, and at which step."""

    what: str
    step: int


class Watch:
    """Looks at every step on the device, and remembers the first bad one there, until somebody reads it.

    What is not finite from the start, such as a mask of -inf among the buffers, is not looked at.

    Args:
        model: about to be trained.
        device: of the loss.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.endless = frozenset(name for name, tensor in floats(model) if not bool(tensor.isfinite().all()))
        self._first = torch.full((2,), -1, device=device)  # steps at which loss and weights were first not finite

    def copy(self) -> "Watch":
        """Another, which goes on from here."""
        return copy.copy(self)  # a step replaces the tensor

    @torch.no_grad()
    def step(self, number: int, loss: Tensor, model: nn.Module) -> None:
        """Look at the loss of a step, and at the weights that it gave; waits for nothing."""
        watched = [tensor for _, tensor in self._watched(model)]
        double = any(tensor.dtype == torch.float64 for tensor in watched)  # a norm is never narrower than its tensor
        norms = torch._foreach_norm(watched, 2, torch.float64 if double else torch.float32)
        wrong = ~torch.stack([loss.isfinite(), torch.stack(norms).isfinite().all()])
        self._first = torch.where(wrong & (self._first < 0), number, self._first)

    def found(self) -> Found | None:
        """What the steps so far came upon; waits for the device."""
        loss, weights = self._first.tolist()
        if loss >= 0 and (weights < 0 or loss <= weights):
            return Found("a loss that is not", loss)
        return Found("weights that are not", weights) if weights >= 0 else None

    def finite(self, model: nn.Module) -> bool:
        """Whether the weights of a model are, now; waits for the device."""
        return all(bool(tensor.isfinite().all()) for _, tensor in self._watched(model))

    def _watched(self, model: nn.Module) -> list[tuple[str, Tensor]]:
        return [(name, tensor) for name, tensor in floats(model) if name not in self.endless]


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name; a state_dict would leave out buffers that are not kept."""
    return [*model.named_parameters(), *model.named_buffers()]


def floats(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Those of :func:`tensors` that hold floating-point numbers."""
    return [(name, tensor) for name, tensor in tensors(model) if tensor.is_floating_point()]
