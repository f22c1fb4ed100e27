"""Earlier composites as contexts: the greedy bias correction of Jin and Rinard.

The object of the batch before is the most confusing thing to put behind a new object: a model that has learned to look
at the wrong one of two objects is punished for it.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from kornia_cag.checks import check_number, check_tensor, describe, fail
from kornia_cag.formats import DTYPES
from kornia_cag.randomness import chance


class ContextChain:
    """Keeps, for every slot of a batch, the composite that the slot held last, and offers it as a context.

    With probability ``reset`` a slot takes a fresh context from the bank instead. It also does where its last composite
    shows an object of the new object's own class, since the label of the object in the context must differ: with C
    balanced classes the share of fresh contexts is ``reset + (1 - reset) / C``.

    Args:
        reset: probability in [0, 1]. The paper's code uses 0.171 for signs and 0.212 for digits.
    """

    def __init__(self, reset: float = 0.171) -> None:
        self.reset = check_number("reset", reset, 0, 1)
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

    def choose(self, last: Int[Tensor, " b"], labels: Int[Tensor, " b"], keys: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether each slot, which holds a composite of class ``last``, offers it to an object of class ``labels``."""
        return (last >= 0) & (last != labels) & ~chance(keys, "chain.reset", self.reset)

    def keep(self, images: Shaped[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> None:
        """Remember the finished (attacked) composites of a batch. Slots beyond a smaller batch stay as they are."""
        if self._images is None or self._labels is None or len(self._labels) <= len(labels):
            self._images, self._labels = images.detach().clone(), labels.clone()
            return
        self._images = torch.cat([images.detach(), self._images[len(labels) :]])
        self._labels = torch.cat([labels, self._labels[len(labels) :]])

    def clear(self) -> None:
        """Forget all composites."""
        self._images = self._labels = None

    def state_dict(self) -> dict[str, Any]:
        """The kept composites and their labels, as they are; with them a stopped run goes on bit for bit."""
        return {"images": self._images, "labels": self._labels}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Take the state of :meth:`state_dict`, moved to ``device`` if one is given.

        Raises:
            InputError: for anything but images ``(b, 3, h, w)`` with labels ``(b,)`` int64, or None for both.
        """
        if not isinstance(state, dict) or set(state) != {"images", "labels"}:
            got = f"{sorted(map(str, state))}" if isinstance(state, dict) else describe(state)
            fail("state", "keys 'images' and 'labels'", got)
        images, labels = state["images"], state["labels"]
        if images is None and labels is None:
            self.clear()
            return
        check_tensor("state['images']", images, ("b", 3, "h", "w"), DTYPES)
        check_tensor("state['labels']", labels, (len(images),), torch.int64, None if device else images.device)
        self._images, self._labels = images.to(device), labels.to(device)

    def __repr__(self) -> str:
        return f"ContextChain(reset={self.reset:g}, slots={0 if self._labels is None else len(self._labels)})"
