"""What the ranks of a test do; a single process does the same."""

from dataclasses import replace
from pathlib import Path

import torch
from tinyrun import TINY, training
from torch import nn

from kornia_cag import PGD, CAGCollate, ContextChain, HardPairing, PairSampler
from kornia_cag.adversary.stage import Adversary

PLAIN = replace(TINY, attack=None, hard_pairing=True)


def composed(batch_size: int, adversaries: tuple[Adversary, ...] = (), **chain: object) -> dict:
    """All batches of two epochs, against a network that stays as it is: what its samples show, by epoch and index."""
    recipe = PLAIN
    objects, contexts = recipe.objects(None, device="cpu"), recipe.contexts(None, device="cpu")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 10)).eval()
    pairing = HardPairing(10, decay=0.5)
    collate = CAGCollate(objects, contexts, 16, chain=ContextChain(0.1, pairing=pairing, **chain), model=model,
                         adversaries=adversaries, returns="batch")  # fmt: skip
    pairs, found = PairSampler(objects.labels, len(contexts), batch_size=batch_size, seed=4), {}
    for _ in range(2):
        for rows in pairs:
            batch = collate(rows)
            with torch.no_grad():
                pairing.observe(model(batch.images), batch.labels)
            for n, index in enumerate(batch.index.tolist()):
                found[int(batch.rows.epoch[n]), index] = (batch.images[n], batch.clean[n], batch.chained[n], batch.boxes[n])
    return {"samples": found, "confusion": pairing.confusion}


def attacked(batch_size: int) -> dict:
    """The same under PGD that starts warm."""
    return composed(batch_size, (PGD(eps=0.1, steps=2),), warm_start=True)
