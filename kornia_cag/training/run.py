"""The loop that trains a recipe: compose, learn, save, resume."""

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts
from kornia_cag.core import ranks
from kornia_cag.core.checks import fail
from kornia_cag.core.plain import plain
from kornia_cag.core.precision import autocast_dtype
from kornia_cag.core.progress import Log
from kornia_cag.core.ranks import Share
from kornia_cag.core.saved import refused
from kornia_cag.evaluation.accuracy import Accuracy
from kornia_cag.evaluation.boxes import BoxedSet
from kornia_cag.evaluation.detection import DetectionAccuracy
from kornia_cag.evaluation.measurement import measurement
from kornia_cag.evaluation.real import RealSet
from kornia_cag.loading.batch import Batch, Pair
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.training import checkpoint
from kornia_cag.training.estimate import seconds_per_image
from kornia_cag.training.hardening import collate_of, monitor_of
from kornia_cag.training.learner import Learner
from kornia_cag.training.loader import stateful
from kornia_cag.training.makers import blamed
from kornia_cag.training.network import averaged, described
from kornia_cag.training.provenance import banks, hardware, versions
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.schedule import schedule

LOOK_EVERY = 5.0  # seconds between checks for non-finite numbers, if checking waits for the device


class Training:
    """One run of a recipe, which can stop after any batch and resume exactly.

    If ``torch.distributed`` is initialised, all ranks build it, and call its methods together: each composes its share
    of every batch, and they learn as one process would, but for rounding. The first of them writes files and logs.

    Args:
        recipe: the recipe to train.
        objects: prepared by :meth:`Recipe.objects`.
        contexts: prepared by :meth:`Recipe.contexts`, or a :class:`ContextStream` of the recipe's ``texels``.
        images: budget in composed images; default the recipe's.
        seed: seed of the network, the pairs and the scenes.
        balanced: pair objects and contexts by balanced graphs, see :class:`PairSampler`.
        function: ``module:function`` that builds the network; default the recipe's.
        compile: compose in one compiled graph.
        float32: compute in float32 even if the processor supports bfloat16.

    Raises:
        InputError: for a batch size below 2, and for a network that cannot be built or trained.
    """

    def __init__(
        self, recipe: Recipe, objects: ObjectBank, contexts: Contexts, *, images: int | None = None, seed: int = 0,
        balanced: bool = True, function: str | None = None, compile: bool = False, float32: bool = False,
    ) -> None:  # fmt: skip
        if (size := recipe.batch_size) < 2:
            fail("recipe.batch_size", "at least 2, since BatchNorm compares the pictures of a batch", str(size))
        self.recipe, self.objects, self.seed, self.function, self.compile = recipe, objects, seed, function, compile
        self.dtype = None if float32 else autocast_dtype(objects.device)
        self.budget = recipe.images if images is None else images
        self.seconds = 0.0
        torch.manual_seed(seed)
        self.classes = recipe.names(objects.classes)
        self.learner = Learner(recipe, len(self.classes), function, objects.device, self.dtype)
        self.pairs = self._pairs(len(contexts), balanced)
        self._compiled = not compile
        whole = recipe.attack is not None or recipe.detection is not None
        self.collate = collate_of(recipe, objects, contexts, self.model, returns="batch" if whole else "pair",
                                  autocast=self.dtype, compile=compile)  # fmt: skip
        self.monitor = monitor_of(recipe, len(objects.classes), self.budget, autocast=self.dtype)
        self._banks = banks(objects, contexts)
        self._reload()

    @property
    def model(self) -> nn.Module:
        """The network being trained."""
        return self.learner.model

    @property
    def seen(self) -> int:
        """Images so far."""
        return self.learner.seen

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.learner.steps

    def _pairs(self, contexts: int, balanced: bool) -> PairSampler:
        return self.recipe.pairs(self.objects, contexts, seed=self.seed, balanced=balanced)

    def run(
        self, *, save: Path | None = None, save_every: float = 60.0, log: Log | None = None, log_every: float = 0.5,
        stop: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        """Train to the end of the budget, or until stopped; call it again to continue.

        Args:
            save: file to save to, every ``save_every`` seconds and at the end.
            save_every: seconds.
            log: takes the share done and a status text, every ``log_every`` seconds and at the end. Only this, saving,
                and a check for non-finite numbers every few seconds wait for the device.
            log_every: seconds.
            stop: called after each step; if it returns True, the run is saved and ends.

        Raises:
            Diverged: if the loss or a weight is no longer finite; earlier saved files are not touched.
            InputError: if the network of a ``function`` fails on a batch.
        """
        self.compile_graph()
        with blamed(self.function, lambda: f"in step {self.steps + 1}.{self.learner.remains()}".rstrip(".")):
            self._run(save, save_every, log, log_every, stop or (lambda: False))

    def _run(
        self, save: Path | None, save_every: float, log: Log | None, log_every: float, stop: Callable[[], bool]
    ) -> None:
        start = saved = logged = looked = time.perf_counter()
        before, counted, ended = self.seconds, self.seen, self.seen >= self.budget
        while not ended:
            for share, batch in self.loader:
                if share.pictures == 1:
                    continue  # a single last sample: BatchNorm has nothing to compare it with
                if self.monitor is not None:
                    self.monitor(self.model, batch)
                self._update(share, batch)
                now = time.perf_counter()
                self.seconds = before + now - start
                stopped, look, keep = ranks.agreed(stop(), now - looked > LOOK_EVERY, now - saved > save_every)
                ended = self.seen >= self.budget or bool(stopped)
                if ended or look:
                    looked = now
                    self.learner.look()
                if save is not None and (ended or keep):
                    saved = now
                    self.save(save)
                if log is not None and (ended or now - logged > log_every):
                    rate = (self.seen - counted) / max(now - logged, 1e-9)  # of late: a machine may be busy for a while
                    logged, counted = now, self.seen
                    log(self.share, f"loss {float(self.learner.loss):.3f}  {rate:,.0f} images/s")
                if ended:
                    break
        if self.seen < self.budget:
            self._reload(self.loader.state_dict())  # otherwise the next call would restart the epoch

    @property
    def share(self) -> float:
        """Share of the budget done, in [0, 1]."""
        return min(1.0, self.seen / self.budget)

    def compile_graph(self) -> None:
        """With ``compile``, compile the composer unless already done: takes a minute, which speeds do not include.

        Does not affect the run.
        """
        if not self._compiled:
            twin = self._twin()
            twin.collate(next(iter(twin.pairs)))
            self._compiled = True

    def seconds_left(self, most: float = 2.0) -> float | None:
        """Estimate how long :meth:`run` will take on this machine now, from a few steps; None if they fail.

        A copy takes the steps, so the run itself stays the same, bit for bit.

        Args:
            most: seconds to spend; a step that takes longer is not interrupted.
        """
        self.compile_graph()
        each = seconds_per_image(self._steps(), self.objects.device, most)
        return None if each is None else each * max(0, self.budget - self.seen)

    def _steps(self) -> Iterator[int]:
        """Take steps with a copy, full batches after the first; yields the number of images of each."""
        twin = self._twin()
        for i, rows in enumerate(twin.pairs):
            share = rows.share._replace(views=self.recipe.pictures)
            if share.total < (self.recipe.batch_size if i else 2):
                return
            twin._update(share, twin.collate(rows))
            yield share.pictures

    def _twin(self) -> "Training":
        """A copy at the start of its first epoch, whose steps do not affect this run."""
        twin = copy.copy(self)
        twin.learner = self.learner.twin()
        twin.collate = self.collate.twin(twin.model)
        twin.pairs = self._pairs(len(self.collate.composer.contexts), self.pairs.balanced)
        return twin

    def _update(self, share: Share, batch: Pair | Batch) -> None:
        rate = schedule(self.seen, self.budget) if self.recipe.cosine else 1.0
        task = self.recipe.detection
        known = task.targets(batch) if task is not None and isinstance(batch, Batch) else batch.labels
        logits = self.learner.step(batch.images, known, rate, share)
        pairing = None if self.collate.chain is None else self.collate.chain.pairing
        if pairing is not None and logits is not None:
            pairing.observe(logits, batch.labels)

    @property
    def result(self) -> nn.Module:
        """The network to use: averaged weights after the last step, in evaluation mode, over the recipe's views."""
        return averaged(self.learner.average, self.recipe.views)

    def save(self, path: Path | str) -> None:
        """Write everything the next step depends on, whole or not at all; it resumes on any number of ranks.

        The save before stays beside it as ``….previous.pt``. A folder that is gone is made again, with a warning.

        Raises:
            Diverged: if any of it is not finite; an existing file is not touched.
        """
        self.learner.look()
        checkpoint.write(path := Path(path), self._state(self.loader), last=self.learner.kept)
        self.learner.kept = path, self.steps

    def _state(self, loader: Any) -> dict[str, Any]:
        return {
            "plan": self.plan(),
            "network": described(self.recipe, self.objects.classes, self.function),
            "seconds": self.seconds,
            **self.learner.state_dict(),
            "loader": loader.state_dict(),
            "collate": checkpoint.collated(self.collate),
            "monitor": None if self.monitor is None else self.monitor.state_dict(),
            **checkpoint.random_state(self.objects.device),
        }

    def load(self, path: Path) -> None:
        """Resume from a saved run; where the file is missing or damaged, from the save before, with a warning.

        Raises:
            InputError: if both files are damaged, if it is not a saved run, or from another plan.
        """
        state, path = checkpoint.read(path, self.plan())
        with refused(path, "path", checkpoint.OF_THIS_VERSION, checkpoint.AFRESH):
            trial = stateful(copy.deepcopy(self.pairs), self.collate, self.seed)
            several = self.pairs.objects_per_scene + self.pairs.distractors_per_scene
            checkpoint.check_saved(state, self._state(trial), self.model, self.collate.size, len(self.objects.classes),
                                   several)  # fmt: skip
            trial.load_state_dict(state["loader"])
            iter(trial)  # a loader reads its state only then
            self.seconds = state["seconds"]
            self.learner.load_state_dict(state)
            checkpoint.restore(self.collate, state["collate"])
            if self.monitor is not None:
                self.monitor.load_state_dict(state["monitor"])
            self._reload(state["loader"])
            checkpoint.set_random_state(state, self.objects.device)
        self.learner.kept = path, self.steps

    def _reload(self, state: dict[str, Any] | None = None) -> None:
        self.loader = stateful(self.pairs, self.collate, self.seed, self.recipe.pictures)
        if state is not None:
            self.loader.load_state_dict(state)

    def plan(self) -> dict[str, Any]:
        """Everything that determines the run, ready for JSON."""
        device = self.objects.device.type
        plan: dict[str, Any] = plain({
            "recipe": self.recipe,
            "images": self.budget,
            "seed": self.seed,
            "balanced": self.pairs.balanced,
            "model": self.function,
            "compile": self.compile,
            **self._banks,
            "device": device,
            "autocast": self.dtype,
            # sums round by the number of threads; those of several ranks do so by their own number, too
            "threads": torch.get_num_threads() if device == "cpu" and ranks.here()[1] == 1 else None,
        })  # fmt: skip
        return plan

    def report(self, accuracy: Accuracy | DetectionAccuracy | None, real: RealSet | BoxedSet | None) -> dict[str, Any]:
        """The results of the run, and the hardware, ready for JSON."""
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "images": self.seen,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            **({} if (count := ranks.here()[1]) == 1 else {"ranks": count}),
            "loss": round(float(self.learner.loss), 4),
            **({} if self.monitor is None else {"overfitting": self.monitor.report()}),
            **measurement(accuracy, real, detection=self.recipe.detection is not None),
            "hardware": hardware(self.objects.device),
            "versions": versions(),
        }
