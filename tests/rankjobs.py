"""What the ranks of a test do; a single process does the same."""

import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tinyrun import TINY
from torch import nn

from kornia_cag import (
    CAGCollate,
    ContextChain,
    ContextStream,
    HardPairing,
    Layout,
    ObjectBank,
    PairSampler,
    SceneRange,
)
from kornia_cag.adversary.stage import Adversary
from kornia_cag.command import attended
from kornia_cag.training import run, shared
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipes import RECIPES
from kornia_cag.training.run import Training

PLAIN = replace(TINY, attack=None, hard_pairing=True, learning_rate=1e-3)


def training(recipe: Recipe, images: int) -> Training:
    """A run in float32: in bfloat16 every other order of a sum shows."""
    return Training(recipe, recipe.objects(None, device="cpu"), recipe.contexts(None, device="cpu"), images=images,
                    seed=3, float32=True)  # fmt: skip


def streamed() -> Iterator[torch.Tensor]:
    """Pictures of one colour each, of which no two are alike."""
    for number in range(1000):
        yield torch.tensor([number % 256, number // 4, 128], dtype=torch.uint8)[:, None, None].expand(3, 16, 16)


def composed(batch_size: int, adversaries: tuple[Adversary, ...], warm: bool, stream: bool = False) -> dict:
    """All batches of two epochs, against a network that stays as it is: what its samples show, by epoch and index."""
    recipe = PLAIN
    objects, contexts = recipe.objects(None, device="cpu"), recipe.contexts(None, device="cpu")
    if stream:
        contexts = ContextStream(streamed, slots=len(contexts), size=contexts.size, device="cpu")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 10)).eval()
    pairing = HardPairing(10, decay=0.5)
    collate = CAGCollate(objects, contexts, 16, chain=ContextChain(0.1, pairing=pairing, warm_start=warm), model=model,
                         adversaries=adversaries, returns="batch")  # fmt: skip
    pairs, found = PairSampler(objects.labels, len(contexts), batch_size=batch_size, seed=4), {}
    for _ in range(2):
        for rows in pairs:
            batch = collate(rows)
            with torch.no_grad():
                pairing.observe(model(batch.images), batch.labels)
            for n, index in enumerate(batch.index.tolist()):
                found[int(batch.rows.epoch[n]), index] = (
                    batch.images[n],
                    batch.clean[n],
                    batch.chained[n],
                    batch.boxes[n],
                )
    return {"samples": found, "confusion": pairing.confusion}


class Watched:
    """The gradient of every step of a run, and which samples it was taken for."""

    def __init__(self, ran) -> None:
        self.gradients, self.samples, self.totals = [], [], []
        update, collate = ran._update, ran.collate.compose

        def watched(share, batch):
            update(share, batch)
            self.totals.append(share.total)
            self.gradients.append({name: weight.grad.clone() for name, weight in ran.model.named_parameters()})

        def composed(rows):
            self.samples += [(int(epoch), int(index)) for epoch, index in zip(rows.epoch, rows.index, strict=True)]
            return collate(rows)

        ran._update, ran.collate.compose = watched, composed


def trained(batch_size: int, images: int = 120, **changes: object) -> dict:
    """A whole training: its gradients, weights, samples and report."""
    ran = training(replace(PLAIN, batch_size=batch_size, **changes), images)
    seen = Watched(ran)
    ran.run()
    return {"gradients": seen.gradients, "samples": seen.samples, "totals": seen.totals,
            "weights": ran.model.state_dict(), "average": ran.learner.average.state_dict(), "seen": ran.seen,
            "steps": ran.steps, "rng": torch.get_rng_state(), "loss": float(ran.learner.loss),
            "confusion": ran.collate.chain.pairing.confusion, "report": ran.report(None, None)}  # fmt: skip


def stopped(file: str, steps: int, batch_size: int = 7) -> list:
    """Train for some steps, and save; the samples of this rank."""
    ran = training(replace(PLAIN, batch_size=batch_size), images=120)
    seen = Watched(ran)
    ran.run(save=Path(file), stop=lambda: ran.steps == steps)
    return seen.samples


def resumed(file: str, batch_size: int = 7) -> dict:
    """Go on to the end."""
    ran = training(replace(PLAIN, batch_size=batch_size), images=120)
    ran.load(Path(file))
    seen = Watched(ran)
    ran.run(save=Path(file))
    return {"samples": seen.samples, "average": ran.learner.average.state_dict(), "seen": ran.seen}


def found(batch_size: int = 5) -> dict:
    """The gradients of a detector in some steps, with a chain of generations."""
    ranges = replace(RECIPES["street"].ranges, layout=Layout(count=(0, 3), side=(0.3, 0.7)), camera=SceneRange().camera)
    street = replace(RECIPES["street"], size=32, images=24, batch_size=batch_size, width=4, procedural=12, reset=0.3,
                     learning_rate=1e-3, ranges=ranges, samples_per_class=8)  # fmt: skip
    objects = ObjectBank.from_glyphs("012", size=64, device="cpu")
    ran = Training(street, objects, street.contexts(None, device="cpu"), seed=3, float32=True)
    seen = Watched(ran)
    ran.run()
    return {"gradients": seen.gradients, "samples": seen.samples, "loss": float(ran.learner.loss)}


def monitored(batch_size: int = 7) -> dict:
    """What the monitor of overfitting counts, of a network that hardly changes."""
    ran = training(replace(TINY, batch_size=batch_size, learning_rate=1e-9, dropout=0.0, map_dropout=0.0), images=70)
    ran.run()
    return ran.monitor.report()


def traced(classes: int, size: int) -> nn.Module:
    """A network for the command, which thus imports this file in every rank."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, classes))  # fmt: skip


if "RANKJOBS_TRACE" in os.environ:  # then every rank writes down its process and the samples of its batches
    dealt, place = run.stateful, f"{os.environ['RANKJOBS_TRACE']}-{os.environ.get('RANK', 0)}"
    Path(f"{place}.pid").write_text(str(os.getpid()))
    attended.SAVE_EVERY = 0.3

    def noted(pairs, collate, *arguments):
        def seen(rows):
            with open(f"{place}.txt", "a") as file:
                print(*(f"{epoch}:{index}" for epoch, index in zip(rows.epoch, rows.index, strict=True)), file=file)
            time.sleep(float(os.environ["RANKJOBS_SLEEP"]))
            return collate(rows)

        return dealt(pairs, seen, *arguments)

    run.stateful = noted


class Odd(nn.Module):
    """A network of a user's own, with weights that nothing uses."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net, self.unused, self.calls = traced(classes, 16), nn.Linear(2, 2), 0

    def forward(self, images):
        self.calls += self.training
        if self.calls > 20 and os.environ.get("RANK") == os.environ.get("RANKJOBS_FAILS", "none"):
            raise ValueError("a rank of its own mind")
        return self.net(images)


def odd(classes: int, size: int) -> nn.Module:
    """Builds one."""
    return Odd(classes)


def unused() -> dict:
    """A training of it."""
    ran = Training(PLAIN, PLAIN.objects(None, device="cpu"), PLAIN.contexts(None, device="cpu"), images=40,
                   function="rankjobs:odd", float32=True)  # fmt: skip
    ran.run()
    return {"average": ran.learner.average.state_dict(), "seen": ran.seen}


class Activated(nn.BatchNorm2d):
    """As some networks have it: normalises, and does more."""

    def forward(self, images):
        return torch.relu(super().forward(images))


def derived() -> dict:
    """What a network of such layers says on several ranks, and of what it was warned."""
    torch.manual_seed(0)
    network, images = nn.Sequential(Activated(3), nn.AlphaDropout(0.0), nn.BatchNorm2d(3)), torch.randn(4, 3, 5, 5)
    wanted = network[0](images)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        network = shared.over_ranks(network, torch.device("cpu"))
    return {"same": torch.equal(network[0](images), wanted), "kinds": [type(layer).__name__ for layer in network],
            "told": [str(warning.message).partition(":")[0] for warning in told]}  # fmt: skip
