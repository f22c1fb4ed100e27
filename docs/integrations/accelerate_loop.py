"""Train with Accelerate: model and optimizer are prepared, the loader is not."""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from given import SIZE, contexts, network, objects
from torch import nn
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, PairSampler


def train(epochs: int = 10, samples_per_class: int = 32, *, cpu: bool = False) -> nn.Module:
    """Train on so many epochs."""
    accelerator = Accelerator(cpu=cpu)
    bank, backgrounds = objects.to(accelerator.device), contexts.to(accelerator.device)
    model = network()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=2e-3))
    pairs = PairSampler(bank.labels, len(backgrounds), batch_size=64, samples_per_class=samples_per_class)
    collate = CAGCollate(bank, backgrounds, SIZE)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    for _ in range(epochs):
        for images, labels in loader:
            with accelerator.autocast():
                loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    return accelerator.unwrap_model(model)
