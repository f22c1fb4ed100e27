"""Finding the first training step with a non-finite loss or weight, without waiting for the device."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Found(NamedTuple):
    """What was not finite first, in words, and at which step."""

    what: str
    step: int


class Watch:
    """Checks every step on the device, and stores the first bad one there until it is read.

    Tensors that are not finite from the start, such as a mask of -inf among the buffers, are ignored.

    Args:
        model: model about to be trained.
        device: device of the loss.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.endless = frozenset(name for name, tensor in floats(model) if not bool(tensor.isfinite().all()))
        self._first = torch.full((2,), -1, device=device)  # steps at which loss and weights were first not finite

    def copy(self) -> "Watch":
        """A copy that continues from here."""
        return copy.copy(self)  # a step replaces the tensor

    @torch.no_grad()
    def step(self, number: int, loss: Tensor, model: nn.Module) -> None:
        """Check the loss of a step and the resulting weights; does not wait for the device."""
        watched = [tensor for _, tensor in self._watched(model)]
        double = any(tensor.dtype == torch.float64 for tensor in watched)  # a norm is never narrower than its tensor
        norms = torch._foreach_norm(watched, 2, torch.float64 if double else torch.float32)
        wrong = ~torch.stack([loss.isfinite(), torch.stack(norms).isfinite().all()])
        self._first = torch.where(wrong & (self._first < 0), number, self._first)

    def found(self) -> Found | None:
        """What was found in the steps so far; waits for the device."""
        loss, weights = self._first.tolist()
        if loss >= 0 and (weights < 0 or loss <= weights):
            return Found("a loss that is not", loss)
        return Found("weights that are not", weights) if weights >= 0 else None

    def finite(self, model: nn.Module) -> bool:
        """Whether a model's weights are finite now; waits for the device."""
        return all(bool(tensor.isfinite().all()) for _, tensor in self._watched(model))

    def _watched(self, model: nn.Module) -> list[tuple[str, Tensor]]:
        return [(name, tensor) for name, tensor in floats(model) if name not in self.endless]


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name; a state_dict would omit non-persistent buffers."""
    return [*model.named_parameters(), *model.named_buffers()]


def floats(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The floating-point tensors among :func:`tensors`."""
    return [(name, tensor) for name, tensor in tensors(model) if tensor.is_floating_point()]
