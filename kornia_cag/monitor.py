"""Catastrophic overfitting: a model that withstands the attack it trains with, and no other."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kornia_cag.attack import PGD
from kornia_cag.checks import check_instance, check_int
from kornia_cag.collate import Batch
from kornia_cag.randomness import sample_keys
from kornia_cag.robustness import named_rightly


class OverfittingMonitor:
    """Every so many steps attacks some of a batch by PGD, and compares with the attack that the batch came with.

    Training by one step of FGSM can break down within an epoch: the model learns to answer that very step, and its
    accuracy under PGD falls to nothing (Wong et al. 2020). Call it in every training step; only :meth:`report` reads
    anything back from the device.

    Args:
        attack: the training's own, whose budgets are taken.
        every: steps from one look to the next.
        samples: of the batch.
        steps: of the PGD that is compared, from a random start.
    """

    def __init__(self, attack: PGD, *, every: int = 100, samples: int = 64, steps: int = 10) -> None:
        check_instance("attack", attack, PGD)
        self.every, self.samples = check_int("every", every, 1), check_int("samples", samples, 1)
        self.stronger = replace(
            attack, steps=check_int("steps", steps, 1), alpha=None, schedule="sign", random_start=True, target=None,
            momentum=0.0, early_stop=False,
        )  # fmt: skip
        self._step = 0
        self._looks: list[tuple[int, Tensor]] = []

    def __call__(self, model: nn.Module, batch: Batch) -> None:
        """Look at a batch, if it is time to; the model is left as it was."""
        self._step += 1
        if self._step % self.every:
            return
        looked_at = batch.rows, batch.clean, batch.images, batch.labels, batch.masks
        rows, clean, images, labels, masks = (tensor[: self.samples] for tensor in looked_at)
        _, _, index, epoch, seed = rows.unbind(1)
        keys = sample_keys(seed, epoch, index)
        attacked = self.stronger(model, clean, labels, keys=keys, mask=masks)
        rights = [named_rightly(model, x, labels) for x in (clean, images, attacked)]
        self._looks.append((self._step, torch.stack(rights).float().mean(dim=1)))

    def report(self) -> dict[str, Any]:
        """The looks so far: shares right of clean images, under the training's attack, and under PGD; ready for JSON.

        ``overfitted`` is true where PGD leaves less than half of what the training's attack leaves, at the last look.
        """
        looks = [[step, *(round(value, 4) for value in values.tolist())] for step, values in self._looks]
        overfitted = bool(looks) and looks[-1][3] < 0.5 * looks[-1][2]
        return {"columns": ["step", "clean", "attack", "pgd"], "looks": looks, "overfitted": overfitted}

    def state_dict(self) -> dict[str, Any]:
        """The looks, and the count of steps."""
        return {"step": self._step, "looks": [(step, values.cpu()) for step, values in self._looks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`state_dict`."""
        self._step, self._looks = state["step"], list(state["looks"])
