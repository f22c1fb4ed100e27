"""The training recipe's loop: compose, train, average the weights, save, resume."""

import copy
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.attack import PGD
from kornia_cag.banks import ContextBank, ObjectBank
from kornia_cag.checkpoint import check_saved
from kornia_cag.checks import fail
from kornia_cag.collate import CAGCollate
from kornia_cag.config import differences, hardware, plain, versions
from kornia_cag.measure import Accuracy
from kornia_cag.models import autocast_dtype
from kornia_cag.monitor import OverfittingMonitor
from kornia_cag.network import averaged, build_network
from kornia_cag.pairing import PairSampler
from kornia_cag.progress import Log, bar, duration
from kornia_cag.real import RealSet
from kornia_cag.recipes import Recipe
from kornia_cag.saved import check_plain, refused
from kornia_cag.storage import read_torch, write_torch


class Training:
    """One run of a recipe, which can stop after any batch and go on bit for bit.

    Args:
        recipe: what to do.
        objects: prepared by :meth:`Recipe.objects`.
        contexts: prepared by :meth:`Recipe.contexts`.
        images: budget in composed images; default the recipe's.
        seed: of the network, the pairs and the scenes.
        balanced: pair objects and contexts by balanced graphs, as :class:`PairSampler` says.
        function: ``module:function`` that makes the network; default the recipe's.
        compile: compose by one compiled graph.
    """

    def __init__(
        self,
        recipe: Recipe,
        objects: ObjectBank,
        contexts: ContextBank,
        *,
        images: int | None = None,
        seed: int = 0,
        balanced: bool = True,
        function: str | None = None,
        compile: bool = False,
    ) -> None:
        if recipe.batch_size < 2:
            fail("--batch-size", "at least 2, since BatchNorm compares the pictures of a batch", str(recipe.batch_size))
        self.recipe, self.objects, self.seed, self.function, self.compile = recipe, objects, seed, function, compile
        self.dtype = autocast_dtype(objects.device)
        self.budget = recipe.images if images is None else images
        self.seen = 0
        self.seconds = 0.0
        self.loss = torch.zeros((), device=objects.device)
        torch.manual_seed(seed)
        self.model = build_network(recipe, len(objects.classes), function).to(objects.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.steps = 0
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.pairs = PairSampler(objects.labels.cpu(), len(contexts), recipe.batch_size, seed=seed, balanced=balanced,
                                 samples_per_class=recipe.samples_per_class)  # fmt: skip
        self.collate = CAGCollate(
            objects,
            contexts,
            recipe.size,
            ranges=recipe.ranges,
            chain=recipe.chain(len(objects.classes)),
            model=self.model,
            scene_attack=_at_precision(recipe.scene_attack, self.dtype),
            attack=_at_precision(recipe.attack, self.dtype),
            strength=recipe.strength,
            returns="pair" if recipe.attack is None else "batch",
            compile=compile,
        )
        self.monitor = None
        if isinstance(self.collate.attack, PGD):
            every = min(100, max(1, self.budget // recipe.batch_size // 10))  # ten looks at a short run, too
            self.monitor = OverfittingMonitor(self.collate.attack, len(objects.classes), every=every)
        self._crc = objects.pyramid.checksum(), contexts.pyramid.checksum()
        self.loader = self._loader(self.pairs)

    def _loader(self, pairs: PairSampler) -> Any:
        sampler: Any = pairs  # yields whole tensors of rows, where the annotation of DataLoader says lists
        # An iterator draws a seed for its workers: from the global state, dropout would go on otherwise after a resume.
        seeds = torch.Generator().manual_seed(self.seed)
        with warnings.catch_warnings():  # torchdata calls what newer torch deprecates
            warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
            return StatefulDataLoader(pairs.dataset, batch_sampler=sampler, collate_fn=self.collate, generator=seeds)

    def run(
        self, *, save: Path | None = None, save_every: float = 60.0, log: Log | None = None, log_every: float = 0.5
    ) -> None:
        """Train to the end of the budget.

        Args:
            save: file to save to, every ``save_every`` seconds and at the end.
            save_every: seconds.
            log: takes a line on the progress, every ``log_every`` seconds and at the end. Only this reads the loss, so
                that nothing else waits for the device.
            log_every: seconds.
        """
        start = saved = logged = time.perf_counter()
        before = self.seconds
        while self.seen < self.budget:
            for batch in self.loader:
                if len(batch.labels) == 1:
                    continue  # the rest of an epoch: BatchNorm cannot compare it with anything
                if self.monitor is not None:
                    self.monitor(self.model, batch)
                self._update(batch.images, batch.labels)
                now = time.perf_counter()
                self.seconds = before + now - start
                done = self.seen >= self.budget
                if save is not None and (done or now - saved > save_every):
                    saved = now
                    self.save(save)
                if log is not None and (done or now - logged > log_every):
                    logged = now
                    log(self._progress())
                if done:
                    break

    def _update(self, images: Tensor, labels: Int[Tensor, " b"]) -> None:
        for group in self.optimizer.param_groups:
            factor = schedule(self.seen, self.budget) if self.recipe.cosine else 1.0
            group["lr"] = self.recipe.learning_rate * factor
        self.model.train()
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)
        if self.collate.chain is not None and self.collate.chain.pairing is not None:
            self.collate.chain.pairing.observe(logits.detach(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._average()
        self.steps += 1
        self.loss = torch.lerp(loss.detach(), self.loss, 0.99 if self.seen else 0.0)
        self.seen += len(labels)

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average that forgets the untrained weights: after ``n`` steps it looks back ``n / 10``."""
        weight = max(1 - self.recipe.ema, 9 / (10 + self.steps)) if self.steps else 1.0
        pairs = [*zip(self.average.parameters(), self.model.parameters(), strict=True),
                 *zip(self.average.buffers(), self.model.buffers(), strict=True)]  # fmt: skip
        floats = [(old, new) for old, new in pairs if old.is_floating_point()]
        if floats:
            torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], weight)
        for old, new in pairs:
            if not old.is_floating_point():  # a counter of BatchNorm
                old.copy_(new)

    def _progress(self) -> str:
        left = self.seconds / self.seen * max(0, self.budget - self.seen)
        share = min(1.0, self.seen / self.budget)
        return (f"{bar(share)} {share:4.0%}  loss {float(self.loss):.3f}  "
                f"{self.seen / self.seconds:,.0f} images/s  {duration(left)} left")  # fmt: skip

    @property
    def result(self) -> nn.Module:
        """The network to use: averaged weights of the last step, in evaluation mode, over the recipe's views."""
        return averaged(self.average, self.recipe.views)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, whole or not at all."""
        write_torch(path, self._state(self.loader))

    def _state(self, loader: Any) -> dict[str, Any]:
        return {
            "plan": self.plan(),
            "seen": self.seen,
            "steps": self.steps,
            "seconds": self.seconds,
            "loss": self.loss,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": loader.state_dict(),
            "collate": self.collate.state_dict(),
            "monitor": None if self.monitor is None else self.monitor.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.objects.device) if self.objects.device.type == "cuda" else None,
        }

    def load(self, path: Path) -> None:
        """Go on from a saved run.

        Raises:
            InputError: if the file is not a saved run or is damaged, or was made by another plan.
        """
        afresh = "Leave --resume out to start afresh."
        state = read_torch(path, "--resume", "a run saved by kornia-cag train", afresh)
        if not isinstance(state, dict) or "plan" not in state:
            fail("--resume", "a run saved by kornia-cag train", f"{str(path)!r}, which is another file")
        with refused(path, "--resume", "a run saved by this version", afresh):
            check_plain("plan", state["plan"])
        if other := differences(self.plan(), state["plan"]):
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            fail("--resume", "the options of the saved run", f"{', '.join(other[:3])}{more}",
                 "Repeat the options of the first start.")  # fmt: skip
        with refused(path, "--resume", "a run saved by this version", afresh):
            trial = self._loader(copy.deepcopy(self.pairs))
            check_saved(state, self._state(trial), self.model, self.collate.size, len(self.objects.classes))
            trial.load_state_dict(state["loader"])
            iter(trial)  # only then does a loader look at its state
            self._take(state)

    def _take(self, state: dict[str, Any]) -> None:
        self.seen, self.steps = state["seen"], state["steps"]
        self.seconds, self.loss = state["seconds"], state["loss"].to(self.objects.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.collate.load_state_dict(state["collate"])
        if self.monitor is not None:
            self.monitor.load_state_dict(state["monitor"])
        self.loader = self._loader(self.pairs)
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.objects.device)

    def plan(self) -> dict[str, Any]:
        """All that the course of the run depends on, ready for JSON."""
        objects, contexts = self.objects, self.collate.composer.contexts
        plan: dict[str, Any] = plain({
            "recipe": self.recipe,
            "images": self.budget,
            "seed": self.seed,
            "balanced": self.pairs.balanced,
            "model": self.function,
            "compile": self.compile,
            "classes": objects.classes,
            "objects": {"count": len(objects), "variants": objects.variants, "size": objects.size, "crc": self._crc[0]},
            "contexts": {"count": len(contexts), "size": contexts.size, "crc": self._crc[1]},
            "device": objects.device.type,
            "autocast": self.dtype,
        })  # fmt: skip
        return plan

    def report(self, accuracy: Accuracy | None, real: RealSet | None) -> dict[str, Any]:
        """What came of the run, and on what hardware, ready for JSON."""
        unmeasured = {"accuracy": None, "per_class": None, "confusions": None}
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "images": self.seen,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "loss": round(float(self.loss), 4),
            **({} if self.monitor is None else {"overfitting": self.monitor.report()}),
            "real": None if real is None else {"name": real.name, "pictures": len(real.labels)},
            **(unmeasured if accuracy is None else accuracy.report()),
            "hardware": hardware(self.objects.device),
            "versions": versions(),
        }


def _at_precision(attack: Any, dtype: torch.dtype | None) -> Any:
    return None if attack is None else replace(attack, autocast=dtype)


def schedule(seen: int, budget: int) -> float:
    """Learning rate factor after ``seen`` images: a linear start, then half a cosine to 0 at ``budget``.

    The start takes 20,000 images, of a small budget a tenth.
    """
    return min(1.0, (seen + 1) / min(20_000, 0.1 * budget)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / budget)))
