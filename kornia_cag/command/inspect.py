"""``kornia-cag inspect``: what is in the banks, and how balanced their pairs are."""

import argparse
from typing import Any

import torch

from kornia_cag.command.options import chosen_recipe, load_banks
from kornia_cag.core.plain import to_json
from kornia_cag.sampling.pairs import PairSampler


def inspect(options: argparse.Namespace) -> None:
    """Report the banks and how balanced one epoch of pairs is."""
    recipe = chosen_recipe(options)
    objects, contexts = load_banks(options, recipe)
    labels = objects.labels.cpu()
    pairs = recipe.pairs(objects, len(contexts), seed=options.seed, balanced=options.balanced)
    balance = _balance(pairs, labels)
    counts = dict(zip(objects.classes, torch.bincount(labels[labels >= 0]).tolist(), strict=True))
    if options.json:
        banks: dict[str, Any] = {"objects": repr(objects), "contexts": repr(contexts), "objects_per_class": counts}
        print(to_json({**banks, "pairing": repr(pairs), **balance}))
        return
    print(f"{objects!r}\n{contexts!r}\n{pairs!r}")
    print("objects per class: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for name, (low, high) in balance.items():
        print(f"{name.replace('_', ' ')}: {low} to {high}")


def _balance(pairs: PairSampler, labels: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Lowest and highest counts in one epoch, without distractors; for classes, per full batch (or any if none is)."""
    ids = pairs.pairs()
    ids = ids[labels[ids[:, 0]] >= 0]
    classes, size = labels[ids[:, 0]], pairs.batch_size * pairs.objects_per_scene
    whole = [part for part in classes.split(size) if len(part) == size] or [classes]
    batches = torch.stack([torch.bincount(part, minlength=int(labels.max()) + 1) for part in whole])
    counts = {
        "contexts_per_object": torch.bincount(ids[:, 0], minlength=len(labels))[labels >= 0],
        "objects_per_context": torch.bincount(ids[:, 1], minlength=pairs.num_contexts),
        "samples_per_class": torch.bincount(classes, minlength=int(labels.max()) + 1),
        "samples_per_class_and_batch": batches,
    }
    return {name: (int(count.min()), int(count.max())) for name, count in counts.items()}
