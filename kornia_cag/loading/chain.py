"""Earlier composites as contexts: the greedy bias correction of Jin and Rinard.

The object of the batch before is the most confusing thing to put behind a new object: a model that has learned to look
at the wrong one of two objects is punished for it.
"""

from types import NoneType
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_number, check_tensor, describe, fail
from kornia_cag.core.formats import DTYPES
from kornia_cag.core.randomness import chance
from kornia_cag.loading.confusion import HardPairing


class ContextChain:
    """Keeps, for every slot of a batch, the composite that the slot held last, and offers it as a context.

    With probability ``reset`` a slot takes a fresh context from the bank instead. It also does where its last composite
    shows an object of the new object's own class, since the label of the object in the context must differ: with C
    balanced classes the share of fresh contexts is ``reset + (1 - reset) / C``, and less with a ``pairing``, which
    keeps objects of a class apart.

    Args:
        reset: probability in [0, 1]. The paper's code uses 0.171 for signs and 0.212 for digits.
        pairing: chooses which slot offers its composite to which sample; default each slot to its own.
        warm_start: let the attack start, in place of a random point, where the slot's last attack ended: at the new
            composite plus the last perturbation. A slot that was not attacked last has no such point. Needs a
            :class:`kornia_cag.PGD`.
    """

    def __init__(self, reset: float = 0.171, *, pairing: HardPairing | None = None, warm_start: bool = False) -> None:
        self.reset = check_number("reset", reset, 0, 1)
        check_instance("pairing", pairing, (HardPairing, NoneType), "Pass pairing=HardPairing(classes=43).")
        self.pairing, self.warm_start = pairing, warm_start
        self._changes: Tensor | None = None
        self._images: Tensor | None = None
        self._labels: Tensor | None = None

    def slots(
        self, b: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> tuple[Shaped[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """What the first ``b`` slots hold: composites and their classes, -1 where there is none yet.

        Raises:
            InputError: if the kept composites have another size than ``(height, width)``, or another dtype.
        """
        kept = 0 if self._images is None else len(self._images)
        if self._images is None or self._labels is None or kept < b:
            images = torch.zeros(b - kept, 3, *size, device=device, dtype=dtype)
            labels = torch.full((b - kept,), -1, dtype=torch.int64, device=device)
        if self._images is None or self._labels is None:
            return images, labels
        here = tuple(self._images.shape[-2:]), self._images.dtype, self._images.device
        if here != (size, dtype, device):
            fail("chain", f"{dtype} composites of {size} pixels on {device}", "{1} of {0} on {2}".format(*here),
                 "Call chain.clear() first.")  # fmt: skip
        if kept >= b:
            return self._images[:b], self._labels[:b]
        return torch.cat([self._images, images]), torch.cat([self._labels, labels])

    def ordered(
        self, slots: tuple[Shaped[Tensor, "b 3 h w"], Int[Tensor, " b"]], labels: Int[Tensor, " b"],
        keys: Int[Tensor, " b"],
    ) -> tuple[Shaped[Tensor, "b 3 h w"], Int[Tensor, " b"]]:  # fmt: skip
        """What :meth:`slots` gave, in the order in which it is offered to samples of classes ``labels``."""
        if self.pairing is None:
            return slots
        order = self.pairing.order(slots[1], labels, keys)
        return slots[0][order], slots[1][order]

    def choose(self, last: Int[Tensor, " b"], labels: Int[Tensor, " b"], keys: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether each slot, which holds a composite of class ``last``, offers it to an object of class ``labels``."""
        return (last >= 0) & (last != labels) & ~chance(keys, "chain.reset", self.reset)

    def start(self, clean: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"] | None:
        """Where the attack on new composites starts with ``warm_start``; None without, and before the first attack."""
        if not self.warm_start or self._changes is None:
            return None
        missing = max(0, len(clean) - len(self._changes))
        last = torch.cat([self._changes, self._changes.new_zeros(missing, *clean.shape[1:])])[: len(clean)]
        return clean + last

    def keep(
        self,
        images: Shaped[Tensor, "b 3 h w"],
        labels: Int[Tensor, " b"],
        clean: Shaped[Tensor, "b 3 h w"] | None = None,
    ) -> None:
        """Remember the finished (attacked) composites of a batch. Slots beyond a smaller batch stay as they are.

        Args:
            images: attacked.
            labels: of the objects.
            clean: the same before the attack; with ``warm_start`` only.
        """
        if self.warm_start:
            check_tensor("clean", clean, tuple(images.shape), images.dtype, images.device, "warm_start needs it.")
            rest = None if self._changes is None else self._changes[len(labels) :]
            changes = images.detach() - cast(Tensor, clean)
            self._changes = changes if rest is None else torch.cat([changes, rest])
        if self.pairing is not None:
            self.pairing.publish()
        if self._images is None or self._labels is None or len(self._labels) <= len(labels):
            self._images, self._labels = images.detach().clone(), labels.clone()
            return
        self._images = torch.cat([images.detach(), self._images[len(labels) :]])
        self._labels = torch.cat([labels, self._labels[len(labels) :]])

    def clear(self) -> None:
        """Forget all composites and perturbations."""
        self._images = self._labels = self._changes = None

    def state_dict(self) -> dict[str, Any]:
        """The kept composites and their labels, as they are; with them a stopped run goes on bit for bit."""
        pairing = None if self.pairing is None else self.pairing.state_dict()
        return {"images": self._images, "labels": self._labels, "pairing": pairing,
                "changes": self._changes}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Take the state of :meth:`state_dict`, moved to ``device`` if one is given.

        Raises:
            InputError: for anything but images ``(b, 3, h, w)`` with labels ``(b,)`` int64, or None for both.
        """
        if not isinstance(state, dict) or set(state) != {"images", "labels", "pairing", "changes"}:
            got = f"{sorted(map(str, state))}" if isinstance(state, dict) else describe(state)
            fail("state", "keys 'changes', 'images', 'labels' and 'pairing'", got)
        images, labels, changes = state["images"], state["labels"], state["changes"]
        self._check_alike("pairing", self.pairing is not None, state["pairing"] is not None)
        if images is not None or labels is not None:
            check_tensor("state['images']", images, ("b", 3, "h", "w"), DTYPES)
            check_tensor("state['labels']", labels, (len(images),), torch.int64, None if device else images.device)
            self._check_alike("warm start", self.warm_start, changes is not None)
        if changes is not None:
            check_tensor("state['changes']", changes, tuple(images.shape), images.dtype)
        if self.pairing is not None:
            self.pairing.load_state_dict(state["pairing"], device)
        self._images, self._labels, self._changes = (
            None if tensor is None else tensor.to(device) for tensor in (images, labels, changes)
        )

    @staticmethod
    def _check_alike(what: str, mine: bool, saved: bool) -> None:
        if mine != saved:
            words = {True: f"one with a {what}", False: f"one with no {what}"}
            fail("state", f"the state of a chain like this, {words[mine]}", words[saved],
                 "Build it as the saved one was built.")  # fmt: skip

    def __repr__(self) -> str:
        pairing = "" if self.pairing is None else f", pairing={self.pairing!r}"
        return f"ContextChain(reset={self.reset:g}{pairing}, slots={0 if self._labels is None else len(self._labels)})"
