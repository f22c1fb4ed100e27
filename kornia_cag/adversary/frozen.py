"""Borrowing the model being trained, and returning it unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """The module to call instead of ``model``, so that no gradient hook, broadcast or other collective runs.

    A DistributedDataParallel wrapper is removed and a compiled module inside it kept. A compiled module *around* the
    wrapper is removed with it, so compile first, then wrap; otherwise the attack runs eagerly.
    """
    inner = getattr(model, "_orig_mod", model)
    return unwrap(inner.module) if isinstance(inner, DistributedDataParallel) else model


def _writable(buffer: Tensor) -> bool:
    """Whether a forward pass can write to it in place: torch refuses this for inference and expanded tensors."""
    dense = buffer.layout == torch.strided and not buffer.is_inference()
    return dense and all(stride > 0 or size <= 1 for stride, size in zip(buffer.stride(), buffer.shape, strict=True))


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Lend ``model``, unwrapped, in eval mode and without parameter gradients; restore everything afterwards.

    Restored, even after an exception: the training flag of every submodule (by attribute: neither ``train()`` nor
    ``eval()`` is called, since models override them), ``requires_grad`` of every parameter, the random state of the CPU
    and of the model's CUDA devices, and buffers. Gradients and autocast are never touched. Nothing waits for the
    device.

    One thread at a time: two that borrow a model at once would restore each other's changes. A model that draws random
    numbers in eval mode draws the same ones as the next training step. Buffers of torch's own layers do not change in
    eval mode; dense buffers of other modules are copied before and written back after, at the cost of two small copies
    each. Python attributes that a ``forward`` changes are not restored.
    """
    net = unwrap(model)
    modules = [*net.modules()]  # walk once: on a GPU, a small network is limited by the host
    training = [(module, module.training) for module in modules]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    trainable = [(parameter, parameter.requires_grad) for parameter in parameters]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modules
        if not type(module).__module__.startswith("torch.nn.modules.")
        for name, buffer in module.named_buffers(recurse=False)
        if _writable(buffer)
    ]
    held = chain(parameters, *(module.buffers(recurse=False) for module in modules))
    devices = {tensor.device for tensor in held if tensor.is_cuda}
    with torch.random.fork_rng(devices, device_type="cuda"):
        try:
            for module, _ in training:
                module.training = False
            for parameter, _ in trainable:
                parameter.requires_grad_(False)
            yield net
        finally:
            for module, flag in training:
                module.training = flag
            for parameter, flag in trainable:
                parameter.requires_grad_(flag)
            for module, name, buffer, before in buffers:
                # .data: restoring the same values must not look like a change to a graph still awaiting backward
                buffer.data.copy_(before)
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)
