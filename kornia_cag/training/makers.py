"""Building the network of a run from the recipe or the user's function, and reporting the function's errors."""

import copy
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_cag.core import ranks
from kornia_cag.core.checks import Diverged, InputError, describe, fail
from kornia_cag.core.memory import no_memory
from kornia_cag.core.plain import plain
from kornia_cag.evaluation.detection import Found
from kornia_cag.loading.detections import Detections
from kornia_cag.training.divergence import tensors
from kornia_cag.training.recipe import Recipe

Maker = str | Callable[[int, int], nn.Module]
"""A function that builds a network from ``(classes, size)``, or its name as ``module:function``."""


def build_network(recipe: Recipe, classes: int, function: Maker | None = None) -> nn.Module:
    """A new, untrained network: the recipe's, or one built by a function or ``module:function`` of ``(classes, size)``.

    The module is also looked up in the current folder. For a recipe of detection the network needs two methods,
    ``loss(images, targets)`` and ``detect(images, threshold=...)``, and if it is attacked ``losses(output, targets)``,
    as :class:`~kornia_cag.training.detector.Detector` has them.

    Raises:
        InputError: for a function that cannot be found or called, or whose network does not map pictures to logits, or
            does not find objects.
    """
    network = untried(recipe, classes, function)
    if function is not None:
        _check_weights(network, named(function))
        check = _check_output if recipe.detection is None else _check_detector
        check(network, classes, recipe.size, named(function))
    return network.train()


def untried(recipe: Recipe, classes: int, function: Maker | None) -> nn.Module:
    """Like :func:`build_network`, but without passing any pictures through the network.

    Raises:
        InputError: for a function that cannot be found or called.
    """
    if function is None:
        return recipe.model(classes)
    make, name = _imported(function) if isinstance(function, str) else function, named(function)
    if not callable(make):
        fail("function", "a function", f"{name!r}, which is {describe(make)}")
    try:
        network = make(classes, recipe.size)
    except (Exception, SystemExit) as error:
        fail("function", f"a function of (classes, size), called with ({classes}, {recipe.size})",
             f"{name!r}, which raised {_reason(error)}")  # fmt: skip
    if not isinstance(network, nn.Module):
        fail("function", "a function that returns a torch.nn.Module", f"{name!r}, which returned {describe(network)}")
    return network


def named(function: Maker) -> str:
    """The name as ``module:function``."""
    return function if isinstance(function, str) else str(plain(function))


@contextmanager
def blamed(function: str | None, when: Callable[[], str]) -> Iterator[None]:
    """Report exceptions in a user's network as errors of its function; those in a recipe's network pass unchanged.

    Args:
        function: ``module:function``, or None for a recipe's own network.
        when: called on an error, completes "it raised ...".

    Raises:
        InputError: with the original exception as its cause. File and out-of-memory errors pass unchanged.
    """
    try:
        yield
    except (InputError, Diverged, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if function is None or no_memory(error) or ranks.broken(error):
            raise
        fail("function", "a network that takes every batch", f"that of {function!r}, which raised {_reason(error)} "
             f"({_place(error)}) {when()}")  # fmt: skip


def _place(error: BaseException) -> str:
    """Where an error was raised: the last line outside torch and this package."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "inside torch"


def _imported(function: str) -> Any:
    module, _, name = function.partition(":")
    if not name or not all(part.isidentifier() for part in (*module.split("."), name)):
        fail("function", "module:function, such as mymodels:small", repr(function))
    if os.getcwd() not in sys.path:  # it has the command's own folder, not the user's
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        make = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the user's module can do anything while being imported
        fail("function", "a function that can be imported", f"{function!r} ({_reason(error)})")
    return make


def _check_weights(network: nn.Module, function: str) -> None:
    """Require finite parameters to train."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        fail("function", "a network with parameters to train", f"that of {function!r}, which has none")
    if any(tensor.is_meta for _, tensor in tensors(network)):
        fail("function", "a network with weights", f"that of {function!r}, some of which are on the meta device",
             "Give them values: network.to_empty(device='cpu') and its reset_parameters().")  # fmt: skip
    if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
        fail("function", "a network with weights", f"that of {function!r}, some of which have no shape yet",
             "Let the function call it once on torch.zeros(1, 3, size, size).")  # fmt: skip
    try:
        finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
    except Exception as error:  # sparse ones
        fail("function", "a network of plain weights", f"that of {function!r}, which raised {_reason(error)}")
    if not finite:
        fail("function", "a network with finite weights", f"that of {function!r}, some of which are not")


def _check_output(network: nn.Module, classes: int, size: int, function: str) -> None:
    """Try two pictures, in both modes, on a copy, as training averages one. Leaves the run's random numbers alone."""
    for mode in (False, True):  # some return more than logits in train mode
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                trial = copy.deepcopy(network).train(mode)
                logits = trial(torch.zeros(2, 3, size, size))
        except (Exception, SystemExit) as error:
            fail("function", f"a network that takes pictures (b, 3, {size}, {size})",
                 f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
        check_output(logits, 2, classes, function)
    _check_gradient(trial, logits.float().logsumexp(dim=1).sum(), "logits", function)


def _check_detector(network: nn.Module, classes: int, size: int, function: str) -> None:
    """Try two pictures, one with an object, on a copy. Leaves the run's random numbers alone."""
    for name in ("loss", "detect"):
        if not callable(getattr(network, name, None)):
            fail("function", "a network with the methods loss(images, targets) and detect(images, threshold=...)",
                 f"that of {function!r}, without {name}", "See kornia_cag.training.detector.Detector.")  # fmt: skip
    trial: Any = copy.deepcopy(network)
    images, box = torch.zeros(2, 3, size, size), torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]).expand(2, 1, 4)
    there = torch.tensor([[True], [False]])
    targets = Detections(box, torch.where(there, classes - 1, -1), there.float(), there)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            found = trial.eval().detect(images, threshold=0.5)
            loss = trial.train().loss(images, targets)
    except (Exception, SystemExit) as error:
        fail("function", f"a network that finds objects in pictures (b, 3, {size}, {size})",
             f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
    if not isinstance(found, list | tuple) or len(found) != 2 or not all(isinstance(one, Found) for one in found):
        fail("function", "a network whose detect returns a Found for each picture",
             f"that of {function!r}, which returned {describe(found)}")  # fmt: skip
    _check_gradient(trial, check_loss(loss, function), "a loss", function)


def check_loss(loss: Any, function: str | None) -> Tensor:
    """Require a scalar from a detector's ``loss``; does not read it.

    Raises:
        InputError: naming the function that built the network.
    """
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
        fail("function", "a network whose loss is a single number", f"{describe(loss)} from {function!r}")
    return loss


def check_output(logits: Any, b: int, classes: int, function: str | None) -> None:
    """Require logits ``(b, classes)`` from a network in any mode; does not read values.

    Raises:
        InputError: naming the function that built the network.
    """
    if not isinstance(logits, Tensor) or logits.shape != (b, classes) or not logits.is_floating_point():
        pictures = "two pictures" if b == 2 else f"{b:,} pictures"
        fail("function", f"a network that returns logits (b, {classes}), also in train mode",
             f"{describe(logits)} for {pictures}, from {function!r}")  # fmt: skip


def _check_gradient(trial: nn.Module, total: Tensor, what: str, function: str) -> None:
    """Run backward once, from a number in train mode."""
    if not total.requires_grad:
        fail("function", f"{what} with gradients", f"those of {function!r}, which have no gradients",
             "Remove no_grad(), detach() and argmax from its forward.")  # fmt: skip
    try:
        total.backward()
    except (Exception, SystemExit) as error:
        fail("function", "a network that backward() works on",
             f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
    if all(parameter.grad is None for parameter in trial.parameters()):
        fail("function", f"a network whose parameters take part in its {what.removeprefix('a ')}",
             f"that of {function!r}, none of which gets a gradient")  # fmt: skip


def _reason(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # of a user's class
        text = "no text"
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"
