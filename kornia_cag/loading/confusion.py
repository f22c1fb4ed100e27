"""Hard pairing: put an object over an earlier composite whose class the model confuses it with."""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kornia_cag.core.checks import check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS
from kornia_cag.core.randomness import uniforms
from kornia_cag.core.ranks import Share, whole

_GROUP = 64  # samples that may swap with each other in one round
_PATIENCE = 10  # batches without an observation, before a warning


class HardPairing:
    """A running confusion matrix, and the order of a chain's slots that follows from it.

    The order is a permutation: every earlier composite is offered to exactly one object, as without it. Which samples
    use a fresh context is drawn independently, so all classes serve as contexts equally often; only who lies over whom
    changes, and objects of one class, which could not be chained, rarely meet. Pass it to
    :class:`kornia_cag.ContextChain`, and report the model's logits in every training step::

        hard = HardPairing(classes=43)
        collate = CAGCollate(..., chain=ContextChain(0.171, pairing=hard))
        for images, labels in loader:
            logits = model(images)
            hard.observe(logits, labels)

    Finding the best permutation would need the host; this one is found on the device, in rounds in which samples of a
    random group swap slots two by two, always the two that gain most from each other. A batch depends on what was
    observed before the previous batch was hardened, so a :class:`kornia_cag.Prefetcher` changes nothing.

    With several ranks all of them observe the logits of the global batch and order its slots, by what they tell each
    other: every rank has to observe every batch, even one of which it has no rows.

    Args:
        classes: number of classes.
        decay: decay of the running confusion, per observation.
        rounds: rounds of swaps; 8 reach about nine tenths of the best order's gain.
    """

    def __init__(self, classes: int, *, decay: float = 0.99, rounds: int = 8) -> None:
        self.classes, self.rounds = check_int("classes", classes, 2), check_int("rounds", rounds, 1, 1024)
        self.decay = check_number("decay", decay, 0, 1)
        self._running: Tensor | None = None
        self._shown: Tensor | None = None
        self._unobserved = 0  # batches
        self._share: Share | None = None  # of the batch that was stored last

    @property
    def confusion(self) -> Float[Tensor, "c c"] | None:
        """Mean probability that the model gives class ``j`` for an object of class ``i``: row ``i``, column ``j``."""
        return self._running

    @torch.no_grad()
    def observe(self, logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> None:
        """Update the confusion with the model's logits on a batch, of which other ranks observe other rows."""
        check_tensor("logits", logits, ("b", self.classes), FLOATS)
        check_tensor("labels", labels, (len(logits),), torch.int64, logits.device)
        if self._share is not None and self._share.ranks > 1:
            check_tensor(
                "logits", logits, (self._share.mine, self.classes), FLOATS, fix="Observe the rank's whole batch."
            )
            logits, labels = whole((logits, labels), self._share)
        chances = logits.detach().float().softmax(dim=1)
        known = chances.isfinite().all(dim=1)  # one overflowing sample must not spoil its class forever
        chances = torch.where(known[:, None], chances, 0.0)
        own = (labels == torch.arange(self.classes, device=labels.device)[:, None]).float()  # (c, b)
        total, count = own @ chances, own @ known.float()  # index_add on a GPU has no fixed order
        if self._running is None:  # start with all confusions equal
            self._running = torch.full_like(total, 1 / self.classes)
        mean = total / count.clamp(min=1)[:, None]
        seen = (count > 0)[:, None]
        self._running = torch.where(seen, torch.lerp(mean, self._running, self.decay), self._running)

    def publish(self, share: Share | None = None) -> None:
        """Use everything observed so far for the next orders. The chain calls it when it stores a batch.

        Warns once if many batches pass without an observation.

        Args:
            share: of the global batch that this rank stores, and observes next; None: the whole.
        """
        self._share = share
        self._shown = self._running
        if self._running is None:
            self._unobserved += 1
            if self._unobserved == _PATIENCE:
                warnings.warn(
                    f"HardPairing: {_PATIENCE} batches without an observation, so slots keep their places. "
                    "Call observe(logits, labels) in every training step.",
                    stacklevel=2,
                )

    def order(self, last: Int[Tensor, " b"], labels: Int[Tensor, " b"], keys: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """For each sample, the slot whose composite it is put over: a permutation.

        Args:
            last: class in each slot, -1 for empty slots.
            labels: class of each sample, -1 for none.
            keys: keys of the samples; they determine which samples may swap.
        """
        place = torch.arange(len(labels), device=labels.device)
        if self._shown is None or len(labels) < 2:
            return place
        scores = self._shown.clone().fill_diagonal_(0.0)  # a slot of the sample's own class gives a fresh context
        scores = nn.functional.pad(scores, (0, 1, 0, 1))  # column -1: an empty slot; row -1: an object without a class
        order, side = place, min(_GROUP, len(labels))
        for drawn in uniforms(keys, "chain.swap", self.rounds).unbind(1):
            numbers, groups = (x[: len(labels) // side * side].view(-1, side) for x in drawn.sort())
            slots = order[groups]
            over = scores[labels[groups][:, :, None], last[slots][:, None, :]]  # sample i over the slot of sample j
            own = over.diagonal(dim1=1, dim2=2)
            gain = (over + over.mT) - (own[:, :, None] + own[:, None, :])  # symmetric to the last bit
            tie = (numbers[:, :, None] + numbers[:, None, :]).frac()  # so that equal gains do not all pick the same one
            most, partner = (gain * (1 + 0.1 * tie)).max(dim=2)
            swap = (partner.gather(1, partner) == place[:side]) & (most > 0)  # each is the other's best partner
            order = order.scatter(0, groups.flatten(), torch.where(swap, slots.gather(1, partner), slots).flatten())
        return order

    def state_dict(self) -> dict[str, Any]:
        """The confusion, both as observed and as used for orders."""
        return {"running": self._running, "shown": self._shown}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Load the state of :meth:`state_dict`, moved to ``device`` if given.

        Raises:
            InputError: for any other state, or a different number of classes.
        """
        if not isinstance(state, dict) or set(state) != {"running", "shown"}:
            fail("state", "the state_dict of a HardPairing", describe(state))
        for name, value in state.items():
            if value is not None:
                check_tensor(f"state[{name!r}]", value, (self.classes, self.classes), torch.float32)
        self._running, self._shown = (None if v is None else v.to(device) for v in (state["running"], state["shown"]))

    def __repr__(self) -> str:
        return f"HardPairing(classes={self.classes}, decay={self.decay:g}, rounds={self.rounds})"
