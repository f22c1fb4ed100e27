"""Adversarial training for free: one backward pass moves the weights and the attack."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from kornia_cag.checks import check_int, check_number, check_tensor, fail
from kornia_cag.losses import FLOATS
from kornia_cag.pgd import EPS_FIX


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
        alpha: step, on object and context alike. Default the larger budget, as in the paper, which has one.
    """

    def __init__(
        self, *, eps: float, eps_object: float | None = None, replays: int = 4, alpha: float | None = None
    ) -> None:
        self.eps, self.replays = check_number("eps", eps, 0, 1, EPS_FIX), check_int("replays", replays, 1)
        self.eps_object = eps if eps_object is None else check_number("eps_object", eps_object, 0, 1, EPS_FIX)
        self.alpha = max(self.eps, self.eps_object) if alpha is None else check_number("alpha", alpha, 0)
        self.change: Tensor | None = None

    def __call__(
        self, images: Float[Tensor, "b c h w"], mask: Float[Tensor, "b 1 h w"] | None = None
    ) -> Iterator[Float[Tensor, "b c h w"]]:
        """The attacked images of each replay, which are leaves that ``backward()`` has to reach.

        Args:
            images: in [0, 1].
            mask: 1 on the object, 0 on the context; needed where ``eps_object`` differs from ``eps``.

        Raises:
            InputError: where no gradient has arrived when the next replay is asked for.
        """
        check_tensor("images", images, ("b", "c", "h", "w"), FLOATS, fix="Images are float BCHW in [0, 1].")
        eps = self._budget(images, mask)
        if self.change is None or self.change.shape[1:] != images.shape[1:] or self.change.device != images.device:
            self.change = torch.zeros_like(images)
        if (missing := len(images) - len(self.change)) > 0:
            self.change = torch.cat([self.change, self.change.new_zeros(missing, *images.shape[1:])])
        for _ in range(self.replays):
            change = torch.clamp(self.change[: len(images)].to(images.dtype), -eps, eps)
            attacked = (images.detach() + change).clamp(0, 1).requires_grad_()
            yield attacked
            if attacked.grad is None:
                fail("free", "a loss that was called backward() on before the next replay", "images without a gradient",
                     "Call loss.backward(), with gradients on, inside the loop.")  # fmt: skip
            moved = torch.clamp(change + self.alpha * attacked.grad.sign(), -eps, eps)
            self.change = torch.cat([moved.detach().to(self.change.dtype), self.change[len(images) :]])

    def _budget(self, images: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            if self.eps_object != self.eps:
                fail("mask", "the objects' mask, since eps_object is set", "None", "Pass mask=batch.masks.")
            return torch.full_like(images[:1, :1, :1, :1], self.eps)
        check_tensor("mask", mask, (len(images), 1, *images.shape[2:]), FLOATS, images.device)
        mask = mask.to(images.dtype)
        return self.eps * (1 - mask) + self.eps_object * mask
