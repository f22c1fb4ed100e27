"""Adversarial training for free: one backward pass updates both weights and attack."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kornia_cag.adversary.ascent import EPS_FIX, MASKS
from kornia_cag.core.checks import check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS


class Free:
    """Yields each batch ``replays`` times, attacked further each time with the gradient left behind by training.

    The attack needs no gradient of its own: the pass that trains the weights also reaches the images::

        free = Free(eps=8 / 255, replays=4)
        for images, labels in loader:  # its collate has no attack
            for attacked in free(images):
                loss = criterion(model(attacked), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    The perturbation carries over from batch to batch, slot by slot, and starts at zero. Divide the number of epochs by
    ``replays``. Source: Shafahi et al. 2019.

    Args:
        eps: budget in L-infinity, in units of [0, 1].
        eps_object: budget where the object's mask is 1; None: eps.
        replays: how often each batch is repeated.
        alpha: step size at the larger budget, proportional elsewhere. Default the larger budget, as in the paper.
    """

    def __init__(
        self, *, eps: float, eps_object: float | None = None, replays: int = 4, alpha: float | None = None
    ) -> None:
        self.eps, self.replays = check_number("eps", eps, 0, 1, EPS_FIX), check_int("replays", replays, 1)
        self.eps_object = eps if eps_object is None else check_number("eps_object", eps_object, 0, 1, EPS_FIX)
        self._largest = max(self.eps, self.eps_object)
        self.alpha = self._largest if alpha is None else check_number("alpha", alpha, 0)
        self.change: Tensor | None = None

    def __call__(
        self, images: Float[Tensor, "b c h w"], mask: Shaped[Tensor, "b 1 h w"] | None = None
    ) -> Iterator[Float[Tensor, "b c h w"]]:
        """Yield the attacked images of each replay, leaf tensors that ``backward()`` has to reach.

        Args:
            images: in [0, 1].
            mask: 1 on the object, 0 on the context, bool or float; needed if ``eps_object`` differs from ``eps``.

        Raises:
            InputError: if no gradient has arrived by the next replay.
        """
        check_tensor("images", images, ("b", "c", "h", "w"), FLOATS, fix="Images are float BCHW in [0, 1].")
        eps = self._budget(images, mask)
        step = eps * (self.alpha / self._largest) if self._largest else eps
        if self.change is None or self.change.shape[1:] != images.shape[1:]:
            self.change = torch.zeros_like(images)
        self.change = self.change.to(images.device)
        if (missing := len(images) - len(self.change)) > 0:
            self.change = torch.cat([self.change, self.change.new_zeros(missing, *images.shape[1:])])
        for _ in range(self.replays):
            change = torch.clamp(self.change[: len(images)].to(images.dtype), -eps, eps)
            attacked = (images.detach() + change).clamp(0, 1).requires_grad_()
            yield attacked
            if attacked.grad is None:
                fail("free", "a call of backward() before the next replay", "images without a gradient",
                     "Call loss.backward(), with gradients on, inside the loop.")  # fmt: skip
            moved = torch.clamp(change + step * attacked.grad.sign(), -eps, eps)
            self.change = torch.cat([moved.detach().to(self.change.dtype), self.change[len(images) :]])

    def _budget(self, images: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            if self.eps_object != self.eps:
                fail("mask", "the objects' mask, since eps_object is set", "None", "Pass mask=batch.masks.")
            return torch.full_like(images[:1, :1, :1, :1], self.eps)
        check_tensor("mask", mask, (len(images), 1, *images.shape[2:]), MASKS, images.device)
        mask = mask.to(images.dtype)
        return self.eps * (1 - mask) + self.eps_object * mask

    def state_dict(self) -> dict[str, Tensor | None]:
        """The perturbation that the next batch starts from."""
        return {"change": self.change}

    def load_state_dict(self, state: dict[str, Tensor | None], device: torch.device | str | None = None) -> None:
        """Load the state of :meth:`state_dict`, moved to ``device`` if given.

        Raises:
            InputError: for any other state.
        """
        if not isinstance(state, dict) or set(state) != {"change"}:
            fail("state", "the state_dict of a Free", describe(state))
        change = state["change"]
        if change is not None:
            check_tensor("state['change']", change, ("b", "c", "h", "w"), FLOATS)
        self.change = None if change is None else change.to(device)

    def __repr__(self) -> str:
        return f"Free(eps={self.eps:g}, eps_object={self.eps_object:g}, replays={self.replays}, alpha={self.alpha:g})"
