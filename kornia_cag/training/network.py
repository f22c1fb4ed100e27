"""The network of a run: the recipe's own or anyone's ``module:function``, and the file that keeps it trained."""

import copy
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kornia_cag.core.checks import (
    Diverged,
    InputError,
    check_choice,
    check_instance,
    check_int,
    check_number,
    check_tensor,
    describe,
    fail,
)
from kornia_cag.core.devices import Device, chosen_device
from kornia_cag.core.memory import no_memory
from kornia_cag.core.plain import plain
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.saved import check_fields, check_names, check_type, check_weights, refused
from kornia_cag.core.storage import read_torch, write_torch
from kornia_cag.evaluation.averaged import Averaged
from kornia_cag.training.divergence import tensors
from kornia_cag.training.recipes import RECIPES, SIDES, Recipe

MODEL, CHECKPOINT = "model.pt", "checkpoint.pt"
_KEYS = ("recipe", "classes", "size", "model", "state")
_MODEL = ("network", "width", "grey", "local", "dropout", "map_dropout", "views")  # fields of a recipe
_SAVED = "a model saved by kornia-cag train"
_ANEW = "Take another copy of the file, or train again."

Maker = str | Callable[[int, int], nn.Module]
"""What makes a network of ``(classes, size)``: ``module:function``, or the function."""


class Trained(NamedTuple):
    """A network read from its file, in evaluation mode."""

    network: nn.Module  # averages over the recipe's views; a recipe's own takes pictures of its size alone
    recipe: Recipe
    classes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the network is; the CPU for one without parameters."""
        return next((tensor.device for tensor in self.network.parameters()), torch.device("cpu"))


def build_network(recipe: Recipe, classes: int, function: Maker | None = None) -> nn.Module:
    """A fresh, untrained network: the recipe's, or what a function or ``module:function`` makes of ``(classes, size)``.

    The current folder is searched for the module, too.

    Raises:
        InputError: for a function that cannot be found or called, or whose network does not map pictures to logits.
    """
    network = _made(recipe, classes, function)
    if function is not None:
        _check_output(network, classes, recipe.size, _name(function))
    return network.train()


def _made(recipe: Recipe, classes: int, function: Maker | None) -> nn.Module:
    """A network that was not tried yet."""
    if function is None:
        return recipe.model(classes)
    make, name = _imported(function) if isinstance(function, str) else function, _name(function)
    if not callable(make):
        fail("--model", "a function", f"{name!r}, which is {describe(make)}")
    try:
        network = make(classes, recipe.size)
    except (Exception, SystemExit) as error:
        fail("--model", f"a function of (classes, size), called with ({classes}, {recipe.size})",
             f"{name!r}, which raised {_reason(error)}")  # fmt: skip
    if not isinstance(network, nn.Module):
        fail("--model", "a function that returns a torch.nn.Module", f"{name!r}, which returned {describe(network)}")
    return network


def averaged(network: nn.Module, views: int) -> nn.Module:
    """The network, or for more than one view its :class:`Averaged`, on the same device and in evaluation mode."""
    if views == 1:
        return network.eval()
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    return Averaged(network, views).to(device).eval()


def _name(function: Maker) -> str:
    """As ``module:function``."""
    return function if isinstance(function, str) else str(plain(function))


@contextmanager
def blamed(function: str | None, when: Callable[[], str]) -> Iterator[None]:
    """Word what a network of the user's raises as a mistake of its function; a recipe's own raises as it is.

    Args:
        function: ``module:function``, or None for a recipe's own network.
        when: completes "it raised ...", at that time.

    Raises:
        InputError: with the cause behind it. Errors of files, and of memory that is used up, pass as they are.
    """
    try:
        yield
    except (InputError, Diverged, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if function is None or no_memory(error):
            raise
        fail("--model", "a network that takes every batch", f"that of {function!r}, which raised {_reason(error)} "
             f"({_place(error)}) {when()}")  # fmt: skip


def _place(error: BaseException) -> str:
    """Where an error was raised: the last line that is neither torch's nor this package's."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "inside torch"


def _imported(function: str) -> Any:
    module, _, name = function.partition(":")
    if not name or not all(part.isidentifier() for part in (*module.split("."), name)):
        fail("--model", "module:function, such as mymodels:small", repr(function))
    if os.getcwd() not in sys.path:  # the command's own folder stands there, not the user's
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        make = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module does while it is imported
        fail("--model", "a function that can be imported", f"{function!r} ({_reason(error)})")
    return make


def _check_output(network: nn.Module, classes: int, size: int, function: str) -> None:
    """Try two pictures, in both modes, on a copy: training keeps an averaged one. Nothing is drawn that a run draws."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        fail("--model", "a network with parameters to train", f"that of {function!r}, which has none")
    if any(tensor.is_meta for _, tensor in tensors(network)):
        fail("--model", "a network with weights", f"that of {function!r}, some of which are on the meta device",
             "Give them values: network.to_empty(device='cpu') and its reset_parameters().")  # fmt: skip
    if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
        fail("--model", "a network with weights", f"that of {function!r}, some of which have no shape yet",
             "Let the function call it once, on torch.zeros(1, 3, size, size).")  # fmt: skip
    try:
        finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
    except Exception as error:  # sparse ones
        fail("--model", "a network of plain weights", f"that of {function!r}, which raised {_reason(error)}")
    if not finite:
        fail("--model", "a network of finite weights", f"that of {function!r}, some of which are not")
    for mode in (False, True):  # some give more than logits while they are trained
        try:
            with torch.random.fork_rng(devices=[]), torch.enable_grad():
                trial = copy.deepcopy(network).train(mode)
                logits = trial(torch.zeros(2, 3, size, size))
        except (Exception, SystemExit) as error:
            fail("--model", f"a network that takes pictures (b, 3, {size}, {size})",
                 f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
        check_output(logits, 2, classes, function)
    _check_gradient(trial, logits, function)


def check_output(logits: Any, b: int, classes: int, function: str | None) -> None:
    """Require logits ``(b, classes)``, of a network in any mode; looks at no value.

    Raises:
        InputError: naming the function that made the network.
    """
    if not isinstance(logits, Tensor) or logits.shape != (b, classes) or not logits.is_floating_point():
        pictures = "two pictures" if b == 2 else f"{b:,} pictures"
        fail("--model", f"a network that gives logits (b, {classes}), also in train mode",
             f"{describe(logits)} for {pictures}, from {function!r}")  # fmt: skip


def _check_gradient(trial: nn.Module, logits: Tensor, function: str) -> None:
    """Go back once, from logits in train mode."""
    if not logits.requires_grad:
        fail("--model", "logits that gradients can be followed from", f"those of {function!r}, which have none",
             "Leave no_grad() and detach() out of its forward, and argmax to the measuring.")  # fmt: skip
    try:
        logits.float().logsumexp(dim=1).sum().backward()
    except (Exception, SystemExit) as error:
        fail("--model", "a network that gradients can be followed through",
             f"that of {function!r}, which raised {_reason(error)}")  # fmt: skip
    if all(parameter.grad is None for parameter in trial.parameters()):
        fail("--model", "a network whose parameters take part in its logits",
             f"that of {function!r}, to none of which a gradient comes")  # fmt: skip


def _reason(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:  # of a class of the user's
        text = "no text"
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"


def save_network(
    path: Path, network: nn.Module, recipe: Recipe, classes: tuple[str, ...], function: str | None
) -> None:
    """Write a network and what it takes to build it again; ``torch.load(path, weights_only=True)`` reads it."""
    model = {name: getattr(recipe, name) for name in _MODEL} | {"function": function}
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    saved = {"recipe": recipe.name, "classes": classes, "size": recipe.size, "model": model, "state": state}
    write_torch(path, saved)


def load_network(
    path: str | Path,
    device: Device = "auto",
    *,
    function: Maker | None = None,
    views: int | None = None,
) -> Trained:
    """Read what :func:`save_network` wrote. Nothing that a file names is imported or called, whoever made the file.

    Args:
        path: the file, or the folder of a run.
        device: where the network is put; ``"auto"`` is a GPU where there is one.
        function: makes the network of ``(classes, size)``, as a function or as ``module:function``. A network that was
            trained with one needs it again.
        views: of a picture that are averaged; default the recipe's.

    Raises:
        InputError: for a file that is damaged or another, and for a network of a function without ``function``.
    """
    check_instance("path", path, (str, os.PathLike))
    device, file = chosen_device(device), Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not file.is_file() and (file.parent / CHECKPOINT).is_file():
        fail("model", "a training that is done", f"{str(path)!r}, which holds one that is not",
             "Go on with it: repeat its kornia-cag train with --resume.")  # fmt: skip
    if not file.is_file():
        fail("model", f"a folder with a {MODEL}, or such a file", f"{str(path)!r}", "Make one with kornia-cag train.")
    saved = read_torch(file, "model", _SAVED, _ANEW)
    with refused(file, "model", _SAVED, _ANEW):
        recipe, classes, named = _described(saved)
    if named is not None and function is None:
        fail("model", "to be told what makes its network, since nothing that a file names is called",
             f"no function; {str(file)!r} names {named!r}", f"Pass function={named!r}, if that is yours.")  # fmt: skip
    network = _with_weights(file, recipe, len(classes), function, saved["state"])
    if function is None:
        network.register_forward_pre_hook(partial(_check_pictures, recipe.size))
    recipe = recipe if views is None else replace(recipe, views=views)
    return Trained(averaged(network.to(device), recipe.views), recipe, classes)


def _described(saved: Any) -> tuple[Recipe, tuple[str, ...], str | None]:
    """The recipe, the classes and the name of the function that a file tells of, all of them checked."""
    check_fields("its content", saved, _KEYS)
    check_type("recipe", saved["recipe"], str)
    check_choice("recipe", saved["recipe"], tuple(RECIPES))
    size, classes = check_int("size", saved["size"], 1, 2**16), check_names("classes", saved["classes"])
    model = dict(check_fields("model", saved["model"], (*_MODEL, "function")))
    function: str | None = model.pop("function")
    check_type("model.function", function, str, type(None))
    check_type("model.network", model["network"], str)
    check_choice("model.network", model["network"], ("convnet", *SIDES))
    check_type("model.grey", model["grey"], bool)
    for name, low, high in (("width", 1, 2**16), ("local", 0, 2**16), ("views", 1, 1000)):
        check_int(f"model.{name}", model[name], low, high)
    if model["local"] and (model["local"] % 2 == 0 or model["local"] >= 2 * size):
        fail("model.local", f"0, or an odd window on a picture of {size} pixels", describe(model["local"]))
    for name in ("dropout", "map_dropout"):
        check_number(f"model.{name}", model[name], 0, 1)
    return replace(RECIPES[saved["recipe"]], size=size, **model), classes, function


def _with_weights(file: Path, recipe: Recipe, classes: int, function: Maker | None, state: Any) -> nn.Module:
    """The network with the weights of a file, whose sizes are compared before any memory is taken for them."""
    fitting = f"weights that fit the network of {recipe.name if function is None else _name(function)!r}"
    if function is None:
        with refused(file, "model", fitting, _ANEW), torch.device("meta"):
            _check_state(recipe.model(classes), state)
    network = _made(recipe, classes, function)  # not tried: pictures would be as large as the file says
    with refused(file, "model", fitting, _ANEW):
        _check_state(network, state)
        network.load_state_dict(state)
    return network


def _check_state(network: nn.Module, state: Any) -> None:
    finite = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    check_weights("state", state, network.state_dict(), finite)


def _check_pictures(size: int, network: nn.Module, given: tuple[Any, ...]) -> None:
    check_tensor("images", given[0], ("b", 3, size, size), FLOATS,
                 fix=f"Scale pictures to the network's {size} x {size} pixels, in [0, 1].")  # fmt: skip
