"""A training in small, and all that it has made."""

from dataclasses import replace

import torch

from kornia_cag import PGD, Ramp
from kornia_cag.training.recipes import DIGITS
from kornia_cag.training.run import Training

# Ten glyphs and six contexts make epochs of 30 samples: three batches of 8 and one of 6.
TINY = replace(DIGITS, size=16, images=72, batch_size=8, learning_rate=1e-2, ema=0.9, width=4, procedural=6,
               thickness=(1,), attack=PGD(eps=0.05, steps=1), strength=Ramp(start=0, stop=2))  # fmt: skip


def training(recipe=TINY, images=None, seed=3, device="cpu", balanced=True):
    return Training(recipe, recipe.objects(None, device=str(device)), recipe.contexts(None, device=str(device)),
                    images=images, seed=seed, balanced=balanced)  # fmt: skip


def everything(run):
    """All tensors that a run has made, by name."""
    state = {f"model.{name}": value for name, value in run.model.state_dict().items()}
    state |= {f"average.{name}": value for name, value in run.learner.average.state_dict().items()}
    for index, moments in run.learner.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    chain = run.collate.state_dict()["chain"]
    state |= {f"chain.{name}": value for name, value in chain.items() if isinstance(value, torch.Tensor)}
    state |= {f"pairing.{name}": value for name, value in (chain["pairing"] or {}).items()}
    return state | {"loss": run.learner.loss, "rng": torch.get_rng_state()}


def breaks_at(run, step):
    """Let the logits of a step be NaN."""
    run.model.register_forward_hook(lambda model, images, logits: logits * (float("nan") if run.steps == step else 1.0))
