"""Earlier composites as contexts: the greedy bias correction of Jin and Rinard.

The object of the batch before is the most confusing thing to put behind a new object: a model that has learned to look
at the wrong one of two objects is punished for it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.checks import check_number, check_tensor, describe, fail
from kornia_cag.compose import Earlier
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

    def earlier(self, labels: Int[Tensor, " b"], keys: Int[Tensor, " b"], size: tuple[int, int]) -> Earlier:
        """The contexts that the slots offer to new objects of the given classes.

        Raises:
            InputError: if the kept composites have another size than ``(height, width)``.
        """
        images, last = self._slots(len(labels), size, labels.device)
        use = (last >= 0) & (last != labels) & ~chance(keys, "chain.reset", self.reset)
        return Earlier(images, use)

    def keep(self, images: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"]) -> None:
        """Remember the finished (attacked) composites of a batch. Slots beyond a smaller batch stay as they are."""
        if self._images is None or self._labels is None or len(self._labels) <= len(labels):
            self._images, self._labels = images.detach().clone(), labels.clone()
            return
        self._images = torch.cat([images.detach(), self._images[len(labels) :]])
        self._labels = torch.cat([labels, self._labels[len(labels) :]])

    def clear(self) -> None:
        """Forget all composites."""
        self._images = self._labels = None

    def _slots(self, b: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        kept = 0 if self._images is None else len(self._images)
        images = torch.zeros(max(0, b - kept), 3, *size, device=device)
        labels = torch.full((len(images),), -1, dtype=torch.int64, device=device)
        if self._images is None or self._labels is None:
            return images, labels
        if self._images.shape[-2:] != images.shape[-2:] or self._images.device != device:
            fail("chain", f"composites of {tuple(images.shape[-2:])} pixels on {device}",
                 f"{tuple(self._images.shape[-2:])} on {self._images.device}", "Call chain.clear() first.")  # fmt: skip
        if kept >= b:
            return self._images[:b], self._labels[:b]
        return torch.cat([self._images, images]), torch.cat([self._labels, labels])

    def state_dict(self) -> dict[str, Any]:
        """The kept composites and their labels, as they are; with them a stopped run goes on bit for bit."""
        return {"images": self._images, "labels": self._labels}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str | None = None) -> None:
        """Take the state of :meth:`state_dict`, moved to ``device`` if one is given.

        Raises:
            InputError: for anything but images ``(b, 3, h, w)`` float32 with labels ``(b,)`` int64, or None for both.
        """
        if not isinstance(state, dict) or set(state) != {"images", "labels"}:
            got = f"{sorted(map(str, state))}" if isinstance(state, dict) else describe(state)
            fail("state", "keys 'images' and 'labels'", got)
        images, labels = state["images"], state["labels"]
        if images is None and labels is None:
            self.clear()
            return
        check_tensor("state['images']", images, ("b", 3, "h", "w"), torch.float32)
        check_tensor("state['labels']", labels, (len(images),), torch.int64, None if device else images.device)
        self._images, self._labels = images.to(device), labels.to(device)

    def __repr__(self) -> str:
        return f"ContextChain(reset={self.reset:g}, slots={0 if self._labels is None else len(self._labels)})"
