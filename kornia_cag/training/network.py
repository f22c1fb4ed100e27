"""The file of a trained network: writing it, and reading it back without trusting its content."""

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from kornia_cag.banks.refusals import ON_ERROR
from kornia_cag.core.checks import InputError, check_choice, check_instance, check_int, check_number, check_tensor, fail
from kornia_cag.core.devices import Device, chosen_device, device_of
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.saved import LARGEST, check_fields, check_names, check_type, check_weights, refused
from kornia_cag.core.storage import earlier, read_last, write_torch
from kornia_cag.evaluation.averaged import Averaged
from kornia_cag.training.detected import Detected, detected
from kornia_cag.training.makers import Maker, named, untried
from kornia_cag.training.prediction import Prediction, Refused, located, predicted, several
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipe_data import recipe_data, recipe_from

Answer = TypeVar("Answer", Prediction, Detected)
THRESHOLD = 0.5  # probability from which on a found object is told of
MODEL, CHECKPOINT, CONFIG = "model.pt", "checkpoint.pt", "config.json"
_KEYS = ("recipe", "classes", "function", "state")
_SAVED = "a model saved by kornia-cag train"
_ANEW = "Use another copy of the file, or train again."


class Trained(NamedTuple):
    """A network read from a file, in evaluation mode."""

    network: nn.Module  # averages over the recipe's views; one that names pictures only takes those of its size
    recipe: Recipe
    classes: tuple[str, ...]  # of the objects
    share: float = 1.0  # of its training that is done, in [0, 1]: below 1, the network is that of a checkpoint

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that the network tells apart; a detector may take all objects for one."""
        return self.recipe.names(self.classes)

    @property
    def device(self) -> torch.device:
        """The device of the network; the CPU if it has no parameters."""
        return device_of(self.network)

    def predict(self, photos: Any, *, top: int = 3, on_error: str = "raise") -> Iterator[Prediction]:
        """What the network sees in photographs, one after another, in order; read as they are asked for.

        A picture is prepared as the recipe's ``fit`` says. A transparent file is laid on white.

        Args:
            photos: a path, a PIL image, a tensor or an array, or any number of these. A path names a file, a folder, or
                a pattern such as ``photos/*.jpg``; see :func:`~kornia_cag.training.prediction.located`.
            top: names per picture.
            on_error: ``"raise"`` at a picture that cannot be read, or ``"skip"`` it and warn at the end.

        Raises:
            InputError: naming the picture, and for a network that finds objects.
        """
        check_choice("on_error", on_error, ON_ERROR)
        check_int("top", top)
        if self.recipe.detection is not None:
            fail("network", "one that names pictures", "one that finds objects", "Call detect(photos).")
        return _settled(self.answers(located(photos), top), on_error)

    def detect(self, photos: Any, *, threshold: float = THRESHOLD, on_error: str = "raise") -> Iterator[Detected]:
        """The objects that a detector finds in photographs, one after another, in order; read as they are asked for.

        Pictures are seen at their full size: objects should be about as many pixels large as in training.

        Args:
            photos: as for :meth:`predict`.
            threshold: lowest probability of an object, in [0, 1].
            on_error: as for :meth:`predict`.

        Raises:
            InputError: naming the picture, and for a network that names pictures.
        """
        check_choice("on_error", on_error, ON_ERROR)
        check_number("threshold", threshold, 0, 1)
        if self.recipe.detection is None:
            fail("network", "one that finds objects", "one that names pictures", "Call predict(photos).")
        return _settled(self.sightings(located(photos), threshold), on_error)

    def sightings(self, photos: Iterable[tuple[str, Any] | Refused], threshold: float) -> Iterator[Detected | Refused]:
        """What a detector finds in photographs, as :func:`~kornia_cag.training.detected.detected` says it."""
        network: Any = self.network
        return detected(network, self.names, photos, threshold=threshold, device=self.device)

    def answers(self, photos: Iterable[tuple[str, Any] | Refused], top: int) -> Iterator[Prediction | Refused]:
        """What the network sees in photographs, as :func:`~kornia_cag.training.prediction.predicted` says it."""
        return predicted(self.network, self.classes, photos, size=self.recipe.size, fit=self.recipe.fit, top=top)


def _settled(answers: Iterator[Answer | Refused], on_error: str) -> Iterator[Answer]:
    """The answers alone; pictures that cannot be read raise, or are skipped with a warning at the end."""
    refused = []
    for found in answers:
        if not isinstance(found, Refused):
            yield found
        elif on_error == "raise":
            raise InputError(str(found))
        else:
            refused.append(found)
    if refused:
        warnings.warn(f"skipped {len(refused)} picture(s): {several(refused)}", stacklevel=2)


def averaged(network: nn.Module, views: int) -> nn.Module:
    """The network, wrapped in :class:`Averaged` for more than one view, on the same device, in evaluation mode."""
    if views == 1:
        return network.eval()
    return Averaged(network, views).to(device_of(network)).eval()


def save_network(
    path: Path, network: nn.Module, recipe: Recipe, classes: tuple[str, ...], function: str | None
) -> None:
    """Write a network with everything needed to rebuild it; readable by ``torch.load(path, weights_only=True)``.

    The recipe is written whole, as :func:`recipe_data` says it.

    Raises:
        InputError: for a recipe with a part that a file cannot hold, such as a blend of your own.
    """
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    write_torch(path, {**_description(recipe, classes, function), "state": state})


def _description(recipe: Recipe, classes: tuple[str, ...], function: str | None) -> dict[str, Any]:
    return {"recipe": recipe_data(recipe), "classes": classes, "function": function}


def described(recipe: Recipe, classes: tuple[str, ...], function: str | None) -> dict[str, Any] | None:
    """What a checkpoint says of its network, all that :func:`save_network` writes but the weights.

    None for a recipe that a file cannot hold: its training can be saved and resumed, but is not rebuilt from a file.
    """
    try:
        return _description(recipe, classes, function)
    except InputError:
        return None


def load_network(
    path: str | Path,
    device: Device = "auto",
    *,
    function: Maker | None = None,
    views: int | None = None,
) -> Trained:
    """Read a network that training wrote. Nothing named in the file is imported or called, whoever made it.

    Of an unfinished training it is the network of the last checkpoint, with averaged weights like a finished one; a
    warning says how far it got.

    Args:
        path: the file, a checkpoint, or the folder of a run.
        device: device for the network; ``"auto"`` is a GPU if there is one.
        function: builds the network from ``(classes, size)``, as a function or as ``module:function``. A network that
            was trained with one needs it again.
        views: number of views to average per picture; default the recipe's.

    Raises:
        InputError: for a damaged or unrelated file, for a run that has saved nothing yet, and if a network built by a
            function is read without ``function``.
    """
    check_instance("path", path, (str, os.PathLike))
    device, file = chosen_device(device), _file(Path(path))
    (saved, file), share = read_last(file, "path", _SAVED, _ANEW), 1.0
    if isinstance(saved, dict) and "plan" in saved:
        saved, share = _of_checkpoint(file, saved)
    with refused(file, "path", _SAVED, _ANEW):
        recipe, classes, told = _described(saved)
    if told is not None and function is None:
        fail("function", "the function that builds the network, since nothing named in a file is called",
             f"nothing; {str(file)!r} names {told!r}", f"Pass function={told!r} if you trust it.")  # fmt: skip
    network = _with_weights(file, recipe, len(recipe.names(classes)), function, saved["state"])
    if function is None and recipe.detection is None:
        network.register_forward_pre_hook(partial(_check_pictures, recipe.size))
    if share < 1:
        warnings.warn(f"{path}: an unfinished training, of which {int(100 * share)} % is done; the answers are those "
                      "of its last checkpoint. Resume it with Training.load.", stacklevel=2)  # fmt: skip
    recipe = recipe if views is None else replace(recipe, views=views)
    return Trained(averaged(network.to(device), recipe.views), recipe, classes, share)


def _file(path: Path) -> Path:
    """The file to read: in the folder of a run its model, or until there is one its checkpoint."""
    files = [path / MODEL, path / CHECKPOINT, earlier(path / CHECKPOINT)] if path.is_dir() else [path]
    file = next((file for file in files if file.is_file()), None)
    if file is None and (path / CONFIG).is_file():
        fail("path", "a training that has saved something", f"{str(path)!r}, which has no checkpoint yet",
             "Wait for its first, after some 20 seconds; if it was stopped before, train again.")  # fmt: skip
    if file is None:
        beside = path.name == MODEL and (path.parent / CHECKPOINT).is_file()
        fix = f"Name the folder for the {CHECKPOINT} in it." if beside else "Make one with kornia-cag train."
        fail("path", f"a folder with a {MODEL}, or such a file", repr(str(path)), fix)
    return file


def _of_checkpoint(file: Path, saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """What a model file would hold, and the share of the training that is done."""
    expected = "a run saved by this version"
    with refused(file, "path", expected, _ANEW):
        check_type("plan", saved["plan"], dict)
        share = check_int("seen", saved["seen"], 0, LARGEST) / check_int("images", saved["plan"]["images"], 1, LARGEST)
        network, weights = saved["network"], saved["average"]
        check_type("network", network, dict, type(None))
    if network is None:
        fail("path", "a checkpoint whose recipe a file can hold", f"{str(file)!r}, with a part of your own",
             "Resume it with Training.load; .result is its network.")  # fmt: skip
    return {**network, "state": weights}, min(1.0, share)


def _described(saved: Any) -> tuple[Recipe, tuple[str, ...], str | None]:
    """The recipe, the classes and the name of the function in a file, all checked."""
    check_fields("its content", saved, _KEYS)
    function: str | None = saved["function"]
    check_type("function", function, str, type(None))
    check_type("recipe", saved["recipe"], dict)
    return recipe_from(saved["recipe"], {"": "recipe."}), check_names("classes", saved["classes"]), function


def _with_weights(file: Path, recipe: Recipe, classes: int, function: Maker | None, state: Any) -> nn.Module:
    """The network with the weights of a file; sizes are compared before allocating memory for them."""
    fitting = f"weights that fit the network of {recipe.name if function is None else named(function)!r}"
    if function is None:
        with refused(file, "path", fitting, _ANEW), torch.device("meta"):
            _check_state(recipe.model(classes), state)
    network = untried(recipe, classes, function)  # untried: the file says how large pictures would be
    with refused(file, "path", fitting, _ANEW):
        _check_state(network, state)
        network.load_state_dict(state)
    return network


def _check_state(network: nn.Module, state: Any) -> None:
    finite = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    check_weights("state", state, network.state_dict(), finite)


def _check_pictures(size: int, network: nn.Module, given: tuple[Any, ...]) -> None:
    check_tensor("images", given[0], ("b", 3, size, size), FLOATS,
                 fix=f"Scale pictures to the network's {size} x {size} pixels, in [0, 1].")  # fmt: skip
