"""A network in training: its optimizer, its averaged weights, and a check for non-finite numbers."""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import Diverged
from kornia_cag.core.ranks import Share
from kornia_cag.loading.detections import Detections
from kornia_cag.training.divergence import Found, Watch
from kornia_cag.training.makers import build_network, check_loss, check_output
from kornia_cag.training.objectives import mean_cross_entropy
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.schedule import average
from kornia_cag.training.shared import deal, forward_of, over_ranks, weighed


class Learner:
    """Trains a network step by step with AdamW, as its recipe says: on cross-entropy, or on a detector's own loss.

    With several ranks each takes its share of every step, and all have the same weights, loss and number of images.

    Args:
        recipe: network, learning rate, weight decay, smoothing and averaging.
        classes: number of classes that the network tells apart.
        function: ``module:function`` that builds the network; default the recipe's.
        device: device to train on.
        dtype: autocast dtype; None for float32.

    Raises:
        InputError: as for :func:`kornia_cag.training.makers.build_network`.
    """

    def __init__(
        self, recipe: Recipe, classes: int, function: str | None, device: torch.device, dtype: torch.dtype | None
    ) -> None:
        self.recipe, self.classes, self.function, self.dtype = recipe, classes, function, dtype
        network = build_network(recipe, classes, function).to(device)
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.model = over_ranks(network, device)
        self.forward = forward_of(self.model, own=function is None)
        self.optimizer = self._optimizer()
        self.watch = Watch(self.model, device)
        self.loss = torch.zeros((), device=device)  # averaged over about a hundred steps
        self.seen = 0  # images
        self.steps = 0
        self.kept: tuple[Path, int] | None = None  # the last saved file, and its step

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def twin(self) -> "Learner":
        """A copy with a fresh optimizer, whose steps do not affect this one."""
        twin = copy.copy(self)
        twin.model, twin.average = copy.deepcopy(self.model), copy.deepcopy(self.average)
        twin.forward = forward_of(twin.model, own=self.function is None)
        twin.optimizer, twin.watch = twin._optimizer(), self.watch.copy()
        return twin

    def step(
        self, images: Float[Tensor, "b 3 h w"], known: Int[Tensor, " b"] | Detections, rate: float = 1.0,
        share: Share | None = None,
    ) -> Float[Tensor, "b c"] | None:  # fmt: skip
        """Train on one batch, and return its logits, if the network names pictures; does not wait for a GPU.

        Args:
            images: in [0, 1].
            known: their classes, or what is to be found in them; a class -1: none, so that it does not count.
            rate: factor on the recipe's learning rate.
            share: of a global batch that they are, all ranks taking the step together; None: the whole.

        Raises:
            InputError: for a network that does not return logits, or a loss.
            Diverged: as :meth:`look`, on a CPU.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate
        self.model.train()
        share = share or Share(total=len(images))
        deal(self.model, share)
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            mine, loss, logits = self._loss(images.contiguous(memory_format=torch.channels_last), known, share)
        self.optimizer.zero_grad()
        mine.backward()
        self.optimizer.step()
        average(self.average, self.model, self.steps, self.recipe.ema, self.watch.endless)
        self.steps += 1
        self.loss = torch.lerp(loss, self.loss, 0.99 if self.seen else 0.0)
        self.seen += share.pictures
        self.watch.step(self.steps, loss, self.model)
        if loss.device.type == "cpu" and self.watch.found() is not None:  # nothing to wait for there
            self.look()
        return logits

    def _loss(
        self, images: Float[Tensor, "b 3 h w"], known: Int[Tensor, " b"] | Detections, share: Share
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "b c"] | None]:
        """What to differentiate, the loss of the global batch, and the logits of this rank's pictures, if any."""
        found = self.forward(images, known)
        if isinstance(known, Detections):
            return *weighed(check_loss(found, self.function), self._objects(known, images), share), None
        check_output(found, len(known), self.classes, self.function)
        loss = mean_cross_entropy(found, known, smoothing=self.recipe.smoothing)
        return *weighed(loss, (known >= 0).sum(), share), found.detach()

    def _objects(self, known: Detections, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, ""]:
        """How much the loss of a detector is a mean over: as it says itself, or pictures."""
        network: Any = self.model
        if hasattr(network, "objects"):
            return network.objects(known)  # type: ignore[no-any-return]
        return torch.tensor(len(images), device=images.device)

    def look(self) -> None:
        """Wait for the device, and check that all numbers are finite.

        Raises:
            Diverged: if the loss, the weights or the averaged weights are not; says since which step, and what to try.
        """
        found = self.watch.found()
        if found is None and not self.watch.finite(self.average):
            found = Found("averaged weights that are not", self.steps)
        if found is not None:
            advice = f"a recipe with a learning_rate below {self.recipe.learning_rate:g}"
            advice += "" if self.dtype is None else ", or float32=True"
            advice += "" if self.function is None else f", and look for log(0), 0 / 0 and overflow in {self.function!r}"
            raise Diverged(f"training: expected finite numbers, got {found.what}, at step {found.step}. "
                           f"Try {advice}.{self.remains()}")  # fmt: skip

    def remains(self) -> str:
        """A sentence about the last saved file, after a space; empty if nothing was saved."""
        if self.kept is None:
            return ""
        path, step = self.kept
        return f" {str(path)!r} still holds step {step}: Training.load reads it, and .result is its network."

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, except the random state."""
        return {
            "seen": self.seen,
            "steps": self.steps,
            "loss": self.loss,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the entries of :meth:`state_dict`, checked by :func:`kornia_cag.training.checkpoint.check_saved`."""
        self.seen, self.steps, self.loss = state["seen"], state["steps"], state["loss"].to(self.loss.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
