"""Catastrophic overfitting: a model that withstands the attack it is trained with, and no other."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kornia_cag.adversary.losses import OfTargets
from kornia_cag.adversary.pixels import PGD
from kornia_cag.core.checks import check_instance, check_int, check_tensor, describe, fail
from kornia_cag.core.ranks import summed
from kornia_cag.evaluation.robustness import correct
from kornia_cag.loading.batch import Batch, check_attacked


class OverfittingMonitor:
    """Every ``every`` steps, attacks part of the batch with PGD, and compares it with the batch's own attack.

    Training with one-step FGSM can collapse within an epoch: the model learns to resist that one step, and its accuracy
    under PGD drops to zero (Wong et al. 2020). Call the monitor in every training step, before the weights are updated,
    with an attacked batch::

        monitor = OverfittingMonitor(attack, classes=43)
        for batch in loader:  # of CAGCollate(..., adversaries=(attack,), returns="batch")
            monitor(model, batch)
            ...
        print(monitor.report())

    With several ranks all of them call it in every step, and count the same samples as a single process.

    Only :meth:`report` reads anything back from the device. If the attack has a ``fraction``, only the samples that it
    attacks count, and samples without a class never do.

    Args:
        attack: the training's own attack; the PGD uses its budgets, norm, loss and transform.
        classes: number of classes: accuracy under attack must be better than guessing to tell anything.
        every: steps between two looks.
        samples: number of samples per look.
        steps: steps of the PGD, from a random start.
    """

    def __init__(self, attack: PGD, classes: int, *, every: int = 100, samples: int = 64, steps: int = 10) -> None:
        check_instance("attack", attack, PGD)
        if isinstance(attack.loss, OfTargets):
            fail("attack", "one whose loss takes classes, since the monitor counts right names", "one OfTargets")
        self.attack, self.classes = attack, check_int("classes", classes, 2)
        self.every, self.samples = check_int("every", every, 1), check_int("samples", samples, 1)
        self.stronger = replace(
            attack, steps=check_int("steps", steps, 1), alpha=None, schedule="sign", random_start=True, target=None,
            momentum=0.0, early_stop=False, fraction=1.0,
        )  # fmt: skip
        self._step = 0
        self._looks: list[tuple[int, Tensor]] = []  # per step: samples that count, and how many of them were correct

    def __call__(self, model: nn.Module, batch: Batch) -> None:
        """Look at a batch, if it is time; leaves the model unchanged.

        Raises:
            InputError: for anything but a :class:`kornia_cag.Batch` that was attacked.
        """
        check_attacked(batch)
        self._step += 1
        if self._step % self.every:
            return
        share = batch.rows.share
        looked_at = batch.scene.keys, batch.clean, batch.images, batch.labels, batch.masks
        keys, clean, images, labels, masks = (tensor[: share.first(self.samples)] for tensor in looked_at)
        counts = torch.zeros(4, dtype=torch.int64, device=labels.device)
        if len(labels):
            stronger = self.stronger(model, clean, labels, keys=keys, mask=masks)
            meant = self.attack.attacked(keys) & (labels >= 0)
            rights = [correct(model, x, labels) & meant for x in (clean, images, stronger)]
            counts = torch.stack([meant, *rights]).sum(dim=1)
        self._looks.append((self._step, summed(counts) if share.ranks > 1 else counts))

    def report(self) -> dict[str, Any]:
        """The looks so far, ready for JSON: number of attacked samples, and the share of them classified correctly.

        The columns are ``clean``, under the training's ``attack``, and under ``pgd``. ``overfitted`` refers to the last
        look: whether accuracy under PGD is less than half of that under the attack, by more than two standard errors.
        It is None before the first look, and if accuracy under the attack is no better than guessing.
        """
        looks = []
        overfitted = None
        for step, counts in self._looks:
            count, *right = counts.tolist()
            if count:
                looks.append([step, count, *(round(number / count, 4) for number in right)])
                overfitted = self._overfitted(count, *right[1:])
        return {"columns": ["step", "attacked", "clean", "attack", "pgd"], "looks": looks, "overfitted": overfitted}

    def _overfitted(self, count: int, attack: int, pgd: int) -> bool | None:
        guess = 1 / self.classes
        if attack / count - guess <= 2 * math.sqrt(guess * (1 - guess) / count):
            return None
        # add two of each kind, or a few samples would look like certainty (Agresti and Coull, 1998)
        n, a, p = count + 4, (attack + 2) / (count + 4), (pgd + 2) / (count + 4)
        return 0.5 * a - p > 2 * math.sqrt((0.25 * a * (1 - a) + p * (1 - p)) / n)

    def state_dict(self) -> dict[str, Any]:
        """The looks and the step count."""
        return {"step": self._step, "looks": [(step, counts.cpu()) for step, counts in self._looks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state_dict`.

        Raises:
            InputError: for any other state.
        """
        if not isinstance(state, dict) or set(state) != {"step", "looks"}:
            fail("state", "the state_dict of an OverfittingMonitor", describe(state))
        step = check_int("state['step']", state["step"], 0)
        check_instance("state['looks']", state["looks"], (list, tuple))
        for look in state["looks"]:
            if not isinstance(look, list | tuple) or len(look) != 2:
                fail("state['looks']", "pairs of a step and its counts", describe(look))
            check_int("state['looks']", look[0], 0)
            check_tensor("state['looks']", look[1], (4,), torch.int64)
        self._step, self._looks = step, [(at, counts) for at, counts in state["looks"]]
