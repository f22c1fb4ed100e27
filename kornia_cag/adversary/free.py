"""Adversarial training for free: one backward pass moves the weights and the attack."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kornia_cag.adversary.ascent import EPS_FIX, MASKS
from kornia_cag.core.checks import check_int, check_number, check_tensor, describe, fail
from kornia_cag.core.precision import FLOATS


class Free:
    """Gives each batch ``replays`` times, attacked a little more each time by the gradient that training left there.

    No gradient is computed for the attack alone: the pass that trains the weights also reaches the images::

        free = Free(eps=8 / 255, replays=4)
        for images, labels in loader:  # of a collate without an attack
            for attacked in free(images):
                loss = criterion(model(attacked), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    The perturbation goes on from batch to batch, slot by slot, and starts at zero where there is none. Train for as
    many times fewer epochs. Source: Shafahi et al. 2019.

    Args:
        eps: budget in L-infinity, in units of [0, 1].
        eps_object: budget where the object's mask is 1; None: eps.
        replays: how often each batch is given.
        alpha: step where the larger budget holds, in proportion elsewhere. Default the larger budget, as in the paper.
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
        """The attacked images of each replay, which are leaves that ``backward()`` has to reach.

        Args:
            images: in [0, 1].
            mask: 1 on the object, 0 on the context, bool or float; needed where ``eps_object`` differs from ``eps``.

        Raises:
            InputError: where no gradient has arrived when the next replay is asked for.
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
                fail("free", "a loss that was called backward() on before the next replay", "images without a gradient",
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
        """The perturbation that the next batch starts with."""
        return {"change": self.change}

    def load_state_dict(self, state: dict[str, Tensor | None], device: torch.device | str | None = None) -> None:
        """Take the state of :meth:`state_dict`, moved to ``device`` if one is given.

        Raises:
            InputError: for another state.
        """
        if not isinstance(state, dict) or set(state) != {"change"}:
            fail("state", "the state_dict of a Free", describe(state))
        change = state["change"]
        if change is not None:
            check_tensor("state['change']", change, ("b", "c", "h", "w"), FLOATS)
        self.change = None if change is None else change.to(device)

    def __repr__(self) -> str:
        return f"Free(eps={self.eps:g}, eps_object={self.eps_object:g}, replays={self.replays}, alpha={self.alpha:g})"
