"""The network of a run: the recipe's own or anyone's ``module:function``, and the file that keeps it trained."""

import copy
import importlib
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kornia_cag.checks import check_tensor, describe, fail
from kornia_cag.devices import Device, chosen_device
from kornia_cag.losses import FLOATS
from kornia_cag.recipes import RECIPES, Recipe
from kornia_cag.views import Averaged

MODEL, CHECKPOINT = "model.pt", "checkpoint.pt"
_KEYS = {"recipe", "classes", "size", "model", "state"}


class Trained(NamedTuple):
    """A network read from its file, in evaluation mode."""

    network: nn.Module  # averages over the recipe's views; a recipe's own takes pictures of its size alone
    recipe: Recipe
    classes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the network is; the CPU for one without parameters."""
        return next((tensor.device for tensor in self.network.parameters()), torch.device("cpu"))


def build_network(recipe: Recipe, classes: int, function: str | None = None) -> nn.Module:
    """A fresh, untrained network: the recipe's, or what ``module:function`` makes of ``(classes, size)``.

    The current folder is searched for the module, too.

    Raises:
        InputError: for a function that cannot be found or called, or whose network does not map pictures to logits.
    """
    if function is None:
        return recipe.model(classes)
    make = _imported(function)
    try:
        network = make(classes, recipe.size)
    except Exception as error:
        fail("--model", f"a function of (classes, size), called with ({classes}, {recipe.size})",
             f"{function!r}, which raised {_reason(error)}")  # fmt: skip
    if not isinstance(network, nn.Module):
        fail(
            "--model", "a function that returns a torch.nn.Module", f"{function!r}, which returned {describe(network)}"
        )
    _check_output(network, classes, recipe.size, function)
    return network.train()


def averaged(network: nn.Module, views: int) -> nn.Module:
    """The network, or for more than one view its :class:`Averaged`, on the same device and in evaluation mode."""
    if views == 1:
        return network.eval()
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    return Averaged(network, views).to(device).eval()


def _imported(function: str) -> Any:
    module, _, name = function.partition(":")
    if not name or not all(part.isidentifier() for part in (*module.split("."), name)):
        fail("--model", "module:function, such as mymodels:small", repr(function))
    if os.getcwd() not in sys.path:  # the command's own folder stands there, not the user's
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        make = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module does while it is imported
        fail("--model", "a function that can be imported", f"{function!r} ({_reason(error)})")
    if not callable(make):
        fail("--model", "a function", f"{function!r}, which is {describe(make)}")
    return make


def _check_output(network: nn.Module, classes: int, size: int, function: str) -> None:
    if not any(parameter.requires_grad for parameter in network.parameters()):
        fail("--model", "a network with parameters to train", f"that of {function!r}, which has none")
    for mode in (True, False):  # some give more than logits while they are trained
        try:
            trial = copy.deepcopy(network).train(mode)  # training keeps an averaged copy
            with torch.no_grad():
                logits = trial(torch.zeros(2, 3, size, size))
        except Exception as error:
            fail("--model", f"a network that takes pictures (b, 3, {size}, {size})",
                 f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
        if not isinstance(logits, Tensor) or logits.shape != (2, classes) or not logits.is_floating_point():
            fail("--model", f"a network that gives logits (b, {classes}), also in train mode",
                 f"{describe(logits)} for two pictures, from {function!r}")  # fmt: skip


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"


def save_network(
    path: Path, network: nn.Module, recipe: Recipe, classes: tuple[str, ...], function: str | None
) -> None:
    """Write a network and what it takes to build it again; ``torch.load(path, weights_only=True)`` reads it."""
    model = {
        name: getattr(recipe, name) for name in ("network", "width", "grey", "local", "dropout", "map_dropout", "views")
    } | {"function": function}
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    saved = {"recipe": recipe.name, "classes": classes, "size": recipe.size, "model": model, "state": state}
    with path.open("wb") as file:  # a full disk is an OSError then
        torch.save(saved, file)


def load_network(path: str | Path, device: Device = "auto", *, views: int | None = None) -> Trained:
    """Read what :func:`save_network` wrote; ``path`` is the file, or the folder of a run.

    The network is moved to ``device``; ``"auto"`` is a GPU where there is one. ``views`` of a picture are averaged;
    default the recipe's.

    Raises:
        InputError: for anything else.
    """
    device, file = chosen_device(device), Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not file.is_file() and (file.parent / CHECKPOINT).is_file():
        fail("model", "a training that is done", f"{str(path)!r}, which holds one that is not",
             "Go on with it: repeat its kornia-cag train with --resume.")  # fmt: skip
    if not file.is_file():
        fail("model", f"a folder with a {MODEL}, or such a file", f"{str(path)!r}", "Make one with kornia-cag train.")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        fail("model", "a model saved by kornia-cag train", f"{str(file)!r} ({_reason(error)})")
    if not isinstance(saved, dict) or not saved.keys() >= _KEYS or saved["recipe"] not in RECIPES:
        fail("model", "a model saved by kornia-cag train", f"{str(file)!r}, which is another file")
    model = dict(saved["model"])
    function = model.pop("function")
    recipe = replace(RECIPES[saved["recipe"]], size=saved["size"], **model)
    network = build_network(recipe, len(saved["classes"]), function)
    try:
        network.load_state_dict(saved["state"])
    except RuntimeError as error:
        fail("model", f"weights that fit the network of {function or recipe.name!r}", f"others ({_reason(error)})")
    if function is None:
        network.register_forward_pre_hook(partial(_check_pictures, recipe.size))
    recipe = recipe if views is None else replace(recipe, views=views)
    return Trained(averaged(network.to(device), recipe.views), recipe, tuple(saved["classes"]))


def _check_pictures(size: int, network: nn.Module, given: tuple[Any, ...]) -> None:
    check_tensor("images", given[0], ("b", 3, size, size), FLOATS,
                 fix=f"Scale pictures to the network's {size} x {size} pixels, in [0, 1].")  # fmt: skip
