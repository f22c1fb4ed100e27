"""The collate step of a recipe: its scenes, its chain, and its adversaries with the loss of its task."""

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.adversary.losses import OfTargets
from kornia_cag.adversary.stage import Adversary
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts
from kornia_cag.core.checks import fail
from kornia_cag.evaluation.monitor import OverfittingMonitor
from kornia_cag.loading.batch import Batch, Pair
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.scenes.targets import Targets
from kornia_cag.training.recipe import Recipe


def collate_of(
    recipe: Recipe, objects: ObjectBank, contexts: Contexts, model: nn.Module | None, *,
    returns: Literal["pair", "batch"] = "batch", autocast: torch.dtype | None = None, compile: bool = False,
) -> CAGCollate[Pair | Batch]:  # fmt: skip
    """A collate with everything that a recipe asks for.

    Args:
        recipe: the recipe.
        objects: prepared by :meth:`Recipe.objects`.
        contexts: prepared by :meth:`Recipe.contexts`, or a stream.
        model: the network that adversaries attack, if there are any.
        returns: as for :class:`CAGCollate`.
        autocast: dtype of the adversaries' forward passes; None: as in the caller.
        compile: compose in one compiled graph.

    Raises:
        InputError: for adversaries of a detector without a loss for single pictures.
    """
    return CAGCollate(
        objects, contexts, recipe.size, ranges=recipe.ranges, chain=recipe.chain(len(objects.classes)), model=model,
        adversaries=adversaries_of(recipe, model, autocast), strength=recipe.strength, returns=returns,
        compile=compile, views="all blends" if recipe.all_blends else None,
    )  # fmt: skip


def monitor_of(
    recipe: Recipe, classes: int, images: int, *, autocast: torch.dtype | None = None
) -> OverfittingMonitor | None:
    """What watches for catastrophic overfitting, if pixels of named pictures are attacked: it counts right names.

    Args:
        recipe: the recipe.
        classes: number of classes.
        images: budget of the training, of which it looks at ten batches, or at every hundredth.
        autocast: dtype of its forward passes; None: as in the caller.
    """
    if recipe.attack is None or recipe.detection is not None:
        return None
    every = min(100, max(1, images // recipe.batch_size // 10))
    return OverfittingMonitor(replace(recipe.attack, autocast=autocast), classes, every=every)


def adversaries_of(
    recipe: Recipe, model: nn.Module | None, autocast: torch.dtype | None = None
) -> tuple[Adversary, ...]:
    """The adversaries that harden a batch, in order: scenes first, then pixels.

    Args:
        recipe: the recipe.
        model: the network that they attack; its ``losses`` are what those of a detector raise.
        autocast: dtype of their forward passes; None: as in the caller.

    Raises:
        InputError: for a detector without them.
    """
    stages = [stage for stage in (recipe.scene_attack, recipe.attack) if stage is not None]
    if not stages or recipe.detection is None:
        return tuple(replace(stage, autocast=autocast) for stage in stages)
    detector: Any = model
    if model is None:
        fail("model", "the detector that adversaries attack", "None")
    if not callable(getattr(detector, "losses", None)):
        fail("function", "a network with a method losses(output, targets), which adversaries raise", "one without",
             "Write it as kornia_cag.training.detector.Detector does, or leave the attacks out.")  # fmt: skip
    task = recipe.detection

    def losses(output: Any, targets: Targets) -> Float[Tensor, " b"]:
        found: Tensor = detector.losses(output, task.targets(targets))
        return found

    return tuple(replace(stage, autocast=autocast, loss=OfTargets(losses)) for stage in stages)
