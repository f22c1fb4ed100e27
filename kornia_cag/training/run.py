"""The training recipe's loop: compose, train, average the weights, save, resume."""

import contextlib
import copy
import itertools
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import Diverged, fail
from kornia_cag.core.plain import differences, plain
from kornia_cag.core.precision import autocast_dtype
from kornia_cag.core.progress import Log
from kornia_cag.core.saved import check_plain, refused
from kornia_cag.core.storage import read_torch, write_torch
from kornia_cag.evaluation.accuracy import Accuracy
from kornia_cag.evaluation.monitor import OverfittingMonitor
from kornia_cag.evaluation.real import RealSet
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.training.checkpoint import check_saved
from kornia_cag.training.divergence import Found, Watch, tensors
from kornia_cag.training.network import averaged, blamed, build_network, check_output
from kornia_cag.training.provenance import hardware, versions
from kornia_cag.training.recipes import Recipe

LOOK_EVERY = 5.0  # seconds between two looks for numbers that are not finite, where looking waits for the device


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
        float32: compute in float32 also where the processor would take bfloat16.
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
        float32: bool = False,
    ) -> None:
        if recipe.batch_size < 2:
            fail("--batch-size", "at least 2, since BatchNorm compares the pictures of a batch", str(recipe.batch_size))
        self.recipe, self.objects, self.seed, self.function, self.compile = recipe, objects, seed, function, compile
        self.dtype = None if float32 else autocast_dtype(objects.device)
        self.budget = recipe.images if images is None else images
        self.seen = 0
        self.seconds = 0.0
        self.loss = torch.zeros((), device=objects.device)
        torch.manual_seed(seed)
        self.model = build_network(recipe, len(objects.classes), function).to(objects.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.steps = 0
        self.optimizer = self._optimizer()
        self.pairs = self._pairs(len(contexts), balanced)
        self.watch = Watch(self.model, objects.device)
        self._kept: tuple[Path, int] | None = None  # what was saved last, and the step it holds
        self._compiled = not compile
        hardening = replace(recipe, scene_attack=_at_precision(recipe.scene_attack, self.dtype),
                            attack=_at_precision(recipe.attack, self.dtype))  # fmt: skip
        self.collate = CAGCollate(
            objects,
            contexts,
            recipe.size,
            ranges=recipe.ranges,
            chain=recipe.chain(len(objects.classes)),
            model=self.model,
            adversaries=hardening.adversaries,
            strength=recipe.strength,
            returns="pair" if recipe.attack is None else "batch",
            compile=compile,
        )
        self.monitor = None
        if hardening.attack is not None:
            every = min(100, max(1, self.budget // recipe.batch_size // 10))  # ten looks at a short run, too
            self.monitor = OverfittingMonitor(hardening.attack, len(objects.classes), every=every)
        self._crc = objects.pyramid.checksum(), contexts.pyramid.checksum()
        self.loader = self._loader(self.pairs)

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        return torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def _pairs(self, contexts: int, balanced: bool) -> PairSampler:
        return PairSampler(self.objects.labels.cpu(), contexts, self.recipe.batch_size, seed=self.seed,
                           balanced=balanced, samples_per_class=self.recipe.samples_per_class)  # fmt: skip

    def _loader(self, pairs: PairSampler) -> Any:
        sampler: Any = pairs  # yields whole tensors of rows, where the annotation of DataLoader says lists
        # An iterator draws a seed for its workers: from the global state, dropout would go on otherwise after a resume.
        seeds = torch.Generator().manual_seed(self.seed)
        with warnings.catch_warnings():  # torchdata calls what newer torch deprecates
            warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
            return StatefulDataLoader(pairs.dataset, batch_sampler=sampler, collate_fn=self.collate, generator=seeds)

    def run(
        self, *, save: Path | None = None, save_every: float = 60.0, log: Log | None = None, log_every: float = 0.5,
        stop: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        """Train to the end of the budget, or until told to stop; called again, it goes on.

        Args:
            save: file to save to, every ``save_every`` seconds and at the end.
            save_every: seconds.
            log: takes the share that is done and a word on it, every ``log_every`` seconds and at the end. Only this,
                saving, and a look for numbers that are not finite every few seconds wait for the device.
            log_every: seconds.
            stop: asked after each step; when it says so, the run is saved and left.

        Raises:
            Diverged: if the loss or a weight is no longer finite; what was saved before is not touched.
            InputError: if the network of a ``function`` fails at a batch.
        """
        self.compile_graph()
        with blamed(self.function, lambda: f"in step {self.steps + 1}.{self._remains()}".rstrip(".")):
            self._run(save, save_every, log, log_every, stop or (lambda: False))

    def _run(
        self, save: Path | None, save_every: float, log: Log | None, log_every: float, stop: Callable[[], bool]
    ) -> None:
        start = saved = logged = looked = time.perf_counter()
        before, ended = self.seconds, self.seen >= self.budget
        while not ended:
            for batch in self.loader:
                if len(batch.labels) == 1:
                    continue  # the rest of an epoch: BatchNorm cannot compare it with anything
                if self.monitor is not None:
                    self.monitor(self.model, batch)
                self._update(batch.images, batch.labels)
                now = time.perf_counter()
                self.seconds = before + now - start
                ended = self.seen >= self.budget or stop()
                if ended or now - looked > LOOK_EVERY:
                    looked = now
                    self.look()
                if save is not None and (ended or now - saved > save_every):
                    saved = now
                    self.save(save)
                if log is not None and (ended or now - logged > log_every):
                    logged = now
                    log(self.share, f"loss {float(self.loss):.3f}  {self.seen / self.seconds:,.0f} images/s")
                if ended:
                    break
        if self.seen < self.budget:
            self._reload(self.loader.state_dict())  # or a run that is called again would begin the epoch anew

    @property
    def share(self) -> float:
        """What is done of the budget, in [0, 1]."""
        return min(1.0, self.seen / self.budget)

    def compile_graph(self) -> None:
        """With ``compile``, compile what composes, unless that is done: it takes a minute, which no speed counts.

        The run goes as it would have gone: what is composed for it leaves no trace.
        """
        if not self._compiled:
            twin = self._twin()
            twin.collate(next(iter(twin.pairs)))
            self._compiled = True

    def seconds_left(self, most: float = 2.0) -> float | None:
        """About how long :meth:`run` will take on this machine as it is now, by a few steps; None if they fail.

        The steps are taken by a copy, and leave no trace: the run goes bit for bit as it would have gone.

        Args:
            most: seconds to spend; a step that takes longer is not broken off.
        """
        self.compile_graph()
        device = self.objects.device
        times: list[float] = []
        rngs = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=rngs), contextlib.suppress(Exception):  # which the run itself will word
            twin, end = self._twin(), time.perf_counter() + most
            for rows in itertools.islice(twin.pairs, 10):
                if len(rows) < 2 or (times and (len(rows) < self.recipe.batch_size or time.perf_counter() > end)):
                    break
                start = time.perf_counter()
                batch = twin.collate(rows)
                twin._update(batch.images, batch.labels)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append((time.perf_counter() - start) / len(rows))
        # the first step prepares much that later ones find
        return statistics.median(times[1:] or times) * max(0, self.budget - self.seen) if times else None

    def _twin(self) -> "Training":
        """A copy, at the start of its first epoch, that takes steps without a trace in this run."""
        twin = copy.copy(self)
        twin.model, twin.average = copy.deepcopy(self.model), copy.deepcopy(self.average)
        twin.optimizer, twin.watch = twin._optimizer(), self.watch.copy()
        twin.collate = self.collate.twin(twin.model)
        twin.pairs = self._pairs(len(self.collate.composer.contexts), self.pairs.balanced)
        return twin

    def _update(self, images: Tensor, labels: Int[Tensor, " b"]) -> None:
        for group in self.optimizer.param_groups:
            factor = schedule(self.seen, self.budget) if self.recipe.cosine else 1.0
            group["lr"] = self.recipe.learning_rate * factor
        self.model.train()
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
            check_output(logits, len(labels), len(self.objects.classes), self.function)
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
        self.watch.step(self.steps, loss.detach(), self.model)
        if loss.device.type == "cpu" and self.watch.found() is not None:  # where nothing has to wait
            self.look()

    def look(self) -> None:
        """Wait for the device, and see that all numbers are finite.

        Raises:
            Diverged: if the loss, the weights or the averaged weights are not; says since which step, and what to try.
        """
        found = self.watch.found()
        if found is None and not self.watch.finite(self.average):
            found = Found("averaged weights that are not", self.steps)
        if found is not None:
            advice = f"a recipe with a learning_rate below {self.recipe.learning_rate:g}"
            advice += "" if self.dtype is None else ", or float32=True"
            advice += "" if self.function is None else f", and look for log(0), 0 / 0 and overflow in {self.function!r}"
            raise Diverged(f"training: expected finite numbers, got {found.what}, at step {found.step}. "
                           f"Try {advice}.{self._remains()}")  # fmt: skip

    def _remains(self) -> str:
        """A sentence on what was saved."""
        if self._kept is None:
            return ""
        path, step = self._kept
        return f" {str(path)!r} still holds step {step}: Training.load reads it, and .result is its network."

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average that forgets the untrained weights: after ``n`` steps it looks back ``n / 10``."""
        weight = max(1 - self.recipe.ema, 9 / (10 + self.steps)) if self.steps else 1.0
        pairs = [(name, old, new) for (name, old), (_, new)
                 in zip(tensors(self.average), tensors(self.model), strict=True)]  # fmt: skip
        floats = [(old, new) for name, old, new in pairs if old.is_floating_point() and name not in self.watch.endless]
        torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], weight)
        for name, old, new in pairs:
            if not old.is_floating_point() or name in self.watch.endless:  # a counter of BatchNorm, a mask of -inf
                old.copy_(new)

    @property
    def result(self) -> nn.Module:
        """The network to use: averaged weights of the last step, in evaluation mode, over the recipe's views."""
        return averaged(self.average, self.recipe.views)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, whole or not at all.

        Raises:
            Diverged: if there is a number in it that is not finite; the file is left as it was.
        """
        self.look()
        write_torch(path, self._state(self.loader))
        self._kept = path, self.steps

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
                 "Repeat the options of the first start." + _threads(other))  # fmt: skip
        with refused(path, "--resume", "a run saved by this version", afresh):
            trial = self._loader(copy.deepcopy(self.pairs))
            check_saved(state, self._state(trial), self.model, self.collate.size, len(self.objects.classes))
            trial.load_state_dict(state["loader"])
            iter(trial)  # only then does a loader look at its state
            self._take(state)
        self._kept = path, self.steps

    def _take(self, state: dict[str, Any]) -> None:
        self.seen, self.steps = state["seen"], state["steps"]
        self.seconds, self.loss = state["seconds"], state["loss"].to(self.objects.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.collate.load_state_dict(state["collate"])
        if self.monitor is not None:
            self.monitor.load_state_dict(state["monitor"])
        self._reload(state["loader"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.objects.device)

    def _reload(self, state: dict[str, Any]) -> None:
        self.loader = self._loader(self.pairs)
        self.loader.load_state_dict(state)

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
            "threads": torch.get_num_threads() if objects.device.type == "cpu" else None,  # sums round by them
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


def _threads(other: list[str]) -> str:
    """How to have the saved number of threads, where that is among the differences."""
    saved = [line.partition("(saved: ")[2].rstrip(")") for line in other if line.startswith("threads ")]
    return f" Call torch.set_num_threads({saved[0]}), or pass --threads {saved[0]}." if saved else ""


def _at_precision(attack: Any, dtype: torch.dtype | None) -> Any:
    return None if attack is None else replace(attack, autocast=dtype)


def schedule(seen: int, budget: int) -> float:
    """Learning rate factor after ``seen`` images: a linear start, then half a cosine to 0 at ``budget``.

    The start takes 20,000 images, of a small budget a tenth.
    """
    return min(1.0, (seen + 1) / min(20_000, 0.1 * budget)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / budget)))
