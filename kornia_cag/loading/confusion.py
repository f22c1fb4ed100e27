"""Which earlier composite an object is put over: the one whose class the model mistakes it for."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.randomness import uniforms

_GROUP = 64  # samples that look for partners among each other, in one round
_PATIENCE = 10  # batches without an observation, before a warning


class HardPairing:
    """A running confusion between classes, and the order of a chain's slots that it suggests.

    The order is a permutation: every earlier composite is offered to exactly one object, as without it. Which samples
    take a fresh context instead is drawn apart from it, so that all classes serve as contexts equally often; only who
    lies over whom changes, and objects of one class, which could not be chained, hardly meet. Pass it to
    :class:`kornia_cag.ContextChain`, and tell it in every training step what the model thought::

        hard = HardPairing(classes=43)
        collate = CAGCollate(..., chain=ContextChain(0.171, pairing=hard))
        for images, labels in loader:
            logits = model(images)
            hard.observe(logits, labels)

    The best permutation takes the host; this one is found on the device, by rounds in which samples of a random group
    swap their slots in pairs, each pair being the one that gains both members most. Batches depend on what was observed
    before the batch before them was hardened, so a :class:`kornia_cag.Prefetcher` changes nothing.

    Args:
        classes: number of classes.
        decay: of the running confusion, per observation.
        rounds: of swaps; 8 gain about nine tenths of what the best order would.
    """

    def __init__(self, classes: int, *, decay: float = 0.99, rounds: int = 8) -> None:
        self.classes, self.rounds = check_int("classes", classes, 2), check_int("rounds", rounds, 1, 1024)
        self.decay = check_number("decay", decay, 0, 1)
        self._running: Tensor | None = None
        self._shown: Tensor | None = None
        self._unobserved = 0  # batches

    @property
    def confusion(self) -> Float[Tensor, "c c"] | None:
        """Mean probability that the model gives class ``j`` to an object of class ``i``, row ``i``, column ``j``."""
        return self._running

    @torch.no_grad()
    def observe(self, logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> None:
        """Take in what the model thought of a batch."""
        check_tensor("logits", logits, ("b", self.classes), FLOATS)
        check_tensor("labels", labels, (len(logits),), torch.int64, logits.device)
        chances = logits.detach().float().softmax(dim=1)
        known = chances.isfinite().all(dim=1)  # an overflow of one sample is not to spoil its class for good
        chances = torch.where(known[:, None], chances, 0.0)
        own = (labels == torch.arange(self.classes, device=labels.device)[:, None]).float()  # (c, b)
        total, count = own @ chances, own @ known.float()  # index_add on a GPU adds in any order
        if self._running is None:  # all confusions alike
            self._running = torch.full_like(total, 1 / self.classes)
        mean = total / count.clamp(min=1)[:, None]
        seen = (count > 0)[:, None]
        self._running = torch.where(seen, torch.lerp(mean, self._running, self.decay), self._running)

    def publish(self) -> None:
        """From now on, orders are made by what was observed so far. The chain calls it when it keeps a batch.

        Warns once if many batches pass and nothing is observed.
        """
        self._shown = self._running
        if self._running is None:
            self._unobserved += 1
            if self._unobserved == _PATIENCE:
                warnings.warn(
                    f"HardPairing: {_PATIENCE} batches, and nothing was observed, so slots keep their places. "
                    "Call observe(logits, labels) in every training step.",
                    stacklevel=2,
                )

    def order(self, last: Int[Tensor, " b"], labels: Int[Tensor, " b"], keys: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """For each sample the slot whose composite it is put over: a permutation.

        Args:
            last: class that each slot holds, -1 where it holds none.
            labels: class of each sample.
            keys: of the samples; they match the samples that may swap.
        """
        place = torch.arange(len(labels), device=labels.device)
        if self._shown is None or len(labels) < 2:
            return place
        scores = self._shown.clone().fill_diagonal_(0.0)  # a slot of the sample's own class would start afresh
        scores = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)  # column -1: an empty slot
        order, side = place, min(_GROUP, len(labels))
        for drawn in uniforms(keys, "chain.swap", self.rounds).unbind(1):
            numbers, groups = (x[: len(labels) // side * side].view(-1, side) for x in drawn.sort())
            slots = order[groups]
            over = scores[labels[groups][:, :, None], last[slots][:, None, :]]  # sample i over the slot of sample j
            own = over.diagonal(dim1=1, dim2=2)
            gain = (over + over.mT) - (own[:, :, None] + own[:, None, :])  # symmetric to the last bit
            tie = (numbers[:, :, None] + numbers[:, None, :]).frac()  # or of equal gains all would choose the same one
            most, partner = (gain * (1 + 0.1 * tie)).max(dim=2)
            swap = (partner.gather(1, partner) == place[:side]) & (most > 0)  # both like each other best
            order = order.scatter(0, groups.flatten(), torch.where(swap, slots.gather(1, partner), slots).flatten())
        return order

    def state_dict(self) -> dict[str, Any]:
        """The confusion, as observed and as orders go by it."""
        return {"running": self._running, "shown": self._shown}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Take the state of :meth:`state_dict`, moved to ``device`` if one is given.

        Raises:
            InputError: for another state, or one of another number of classes.
        """
        if not isinstance(state, dict) or set(state) != {"running", "shown"}:
            fail("state", "the state_dict of a HardPairing", describe(state))
        for name, value in state.items():
            if value is not None:
                check_tensor(f"state[{name!r}]", value, (self.classes, self.classes), torch.float32)
        self._running, self._shown = (None if v is None else v.to(device) for v in (state["running"], state["shown"]))

    def __repr__(self) -> str:
        return f"HardPairing(classes={self.classes}, decay={self.decay:g}, rounds={self.rounds})"
