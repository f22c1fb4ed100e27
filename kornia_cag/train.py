"""The training recipe's loop: compose, train, average the weights, save, resume, measure on real pictures."""

import json
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.banks import ContextBank, ObjectBank
from kornia_cag.chain import ContextChain
from kornia_cag.checks import fail
from kornia_cag.collate import CAGCollate
from kornia_cag.models import autocast_dtype
from kornia_cag.pairing import PairSampler
from kornia_cag.real import RealSet
from kornia_cag.recipes import Recipe

Log = Callable[[str], None]


@dataclass(frozen=True)
class Accuracy:
    """What a model got right on real pictures."""

    share: float  # of all pictures, in [0, 1]
    per_class: tuple[float, ...]
    confusions: tuple[tuple[str, str, int], ...]  # (true, predicted, count), most frequent first


class Training:
    """One run of a recipe, which can stop after any batch and go on bit for bit.

    Args:
        recipe: what to do.
        objects: prepared by :meth:`Recipe.objects`.
        contexts: prepared by :meth:`Recipe.contexts`.
        images: budget in composed images; default the recipe's.
        seed: of the network, the pairs and the scenes.
    """

    def __init__(
        self, recipe: Recipe, objects: ObjectBank, contexts: ContextBank, *, images: int | None = None, seed: int = 0
    ) -> None:
        self.recipe, self.objects, self.seed = recipe, objects, seed
        self.dtype = autocast_dtype(objects.device)
        self.budget = recipe.images if images is None else images
        self.seen = 0
        self.seconds = 0.0
        self.loss = torch.zeros((), device=objects.device)
        torch.manual_seed(seed)
        self.model = recipe.model(len(objects.classes)).to(objects.device)
        self.average = AveragedModel(self.model, avg_fn=_moving_average(recipe.ema), use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.pairs = PairSampler(objects.labels.cpu(), len(contexts), recipe.batch_size, seed=seed)
        self.collate = CAGCollate(
            objects,
            contexts,
            recipe.size,
            ranges=recipe.ranges,
            chain=None if recipe.reset is None else ContextChain(recipe.reset),
            model=self.model,
            attack=None if recipe.attack is None else replace(recipe.attack, autocast=self.dtype),
            strength=recipe.strength,
        )
        self.loader = self._loader()

    def _loader(self) -> Any:
        sampler: Any = self.pairs  # yields whole tensors of rows, where the annotation of DataLoader says lists
        # An iterator draws a seed for its workers: from the global state, dropout would go on otherwise after a resume.
        seeds = torch.Generator().manual_seed(self.seed)
        with warnings.catch_warnings():  # torchdata calls what newer torch deprecates
            warnings.filterwarnings("ignore", "'set_vital' is deprecated", UserWarning)
            return StatefulDataLoader(
                self.pairs.dataset, batch_sampler=sampler, collate_fn=self.collate, generator=seeds
            )

    def run(self, *, save: Path | None = None, save_every: float = 60.0, log: Log | None = None) -> None:
        """Train to the end of the budget, saving at least every ``save_every`` seconds and at the end."""
        start = mark = time.perf_counter()
        before = self.seconds
        while self.seen < self.budget:
            for images, labels in self.loader:
                self._update(images, labels)
                now = time.perf_counter()
                self.seconds = before + now - start
                if now - mark > save_every or self.seen >= self.budget:
                    mark = now
                    if save is not None:
                        self.save(save)
                    if log is not None:
                        log(self._progress())
                if self.seen >= self.budget:
                    break

    def _update(self, images: Tensor, labels: Int[Tensor, " b"]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(self.seen, self.budget)
        self.model.train()
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.loss = torch.lerp(loss.detach(), self.loss, 0.99 if self.seen else 0.0)
        self.seen += len(labels)

    def _progress(self) -> str:
        left = self.seconds / self.seen * max(0, self.budget - self.seen)
        return (f"{min(1.0, self.seen / self.budget):4.0%}  {self.seen:>9,} images  loss {float(self.loss):.3f}  "
                f"{self.seen / self.seconds:,.0f} images/s  {left / 60:.1f} min left")  # fmt: skip

    @property
    def result(self) -> nn.Module:
        """The network to use: averaged weights of the last step, in evaluation mode."""
        module: nn.Module = self.average.module
        return module.eval()

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, whole or not at all."""
        state = {
            "recipe": self.recipe.name,
            "classes": self.objects.classes,
            "plan": self._plan(),
            "seen": self.seen,
            "seconds": self.seconds,
            "loss": self.loss,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "collate": self.collate.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.objects.device) if self.objects.device.type == "cuda" else None,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Go on from a saved run.

        Raises:
            InputError: if the file is not a saved run, or was made by another plan.
        """
        try:
            state = torch.load(path, map_location=self.objects.device, weights_only=True)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            fail("--resume", "a run saved by kornia-cag train", f"{str(path)!r} ({type(error).__name__}: {reason})")
        if not isinstance(state, dict) or state.get("plan") != self._plan():
            was = state.get("plan") if isinstance(state, dict) else type(state).__name__
            fail("--resume", f"a run with {self._plan()}", f"one with {was}", "Repeat the options of the first start.")
        self.seen, self.seconds, self.loss = state["seen"], state["seconds"], state["loss"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.collate.load_state_dict(state["collate"])
        self.loader = self._loader()
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.objects.device)

    def _plan(self) -> dict[str, Any]:
        banks = f"{self.collate.composer.objects!r} {self.collate.composer.contexts!r}"
        recipe = re.sub(r" at 0x[0-9a-f]+", "", repr(self.recipe))  # a function's address is another in every process
        return {"images": self.budget, "seed": self.seed, "recipe": recipe, "banks": banks}

    def report(self, accuracy: Accuracy | None, real: RealSet | None) -> dict[str, Any]:
        """What was run, on what, and what came of it, ready for JSON."""
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "images": self.seen,
            "seconds": round(self.seconds, 1),
            "accuracy": None if accuracy is None else round(accuracy.share, 5),
            "real": None if real is None else {"name": real.name, "pictures": len(real.labels)},
            "per_class": None if accuracy is None else [round(share, 4) for share in accuracy.per_class],
            "confusions": None if accuracy is None else [list(row) for row in accuracy.confusions],
            "plan": self._plan(),
            "autocast": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            "hardware": hardware(self.objects.device),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
        }


def schedule(seen: int, budget: int, warmup: int = 20_000) -> float:
    """Learning rate factor after ``seen`` images: a linear start, then half a cosine to 0 at ``budget``."""
    return min(1.0, (seen + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, seen / budget)))


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average that forgets the untrained weights: after ``n`` steps it looks back ``n / 10``."""

    def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        if not old.is_floating_point():  # a counter of BatchNorm
            return new
        weight = (9 / (10 + torch.as_tensor(count, device=old.device))).clamp(min=1 - decay)
        return torch.lerp(old, new, weight.to(old.dtype))

    return average


@torch.no_grad()
def evaluate(model: nn.Module, real: RealSet, classes: tuple[str, ...], device: torch.device) -> Accuracy:
    """Accuracy of a model on real pictures, as it is: no test-time tricks, float32."""
    model.eval()
    predicted = torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in real.images.split(512)])
    table = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    table.index_put_((real.labels, predicted), torch.ones_like(predicted), accumulate=True)
    right = table.diagonal()
    share = float(right.sum() / table.sum())
    per_class = tuple((right / table.sum(dim=1).clamp(min=1)).tolist())
    wrong = table - torch.diag(right)
    count, place = wrong.flatten().sort(descending=True, stable=True)
    rows = [(classes[p // len(classes)], classes[p % len(classes)], c)
            for c, p in zip(count[:10].tolist(), place[:10].tolist(), strict=True) if c]  # fmt: skip
    return Accuracy(share, per_class, tuple(rows))


def hardware(device: torch.device) -> str:
    """Name the processor that a run used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {torch.get_num_threads()} threads"


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")
