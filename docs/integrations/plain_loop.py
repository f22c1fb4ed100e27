"""Train in a loop of your own, on hardened batches."""

import torch
import torch.nn.functional as F
from given import SIZE, contexts, network, objects
from torch import nn
from torch.utils.data import DataLoader

from kornia_cag import FGSM, CAGCollate, ContextChain, PairSampler


def train(epochs: int = 10, samples_per_class: int = 32) -> nn.Module:
    """Train on so many epochs."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    pairs = PairSampler(objects.labels, len(contexts), batch_size=64, samples_per_class=samples_per_class)
    hardening = (FGSM(eps=8 / 255, eps_object=2 / 255),)
    collate = CAGCollate(objects, contexts, SIZE, chain=ContextChain(), model=model, adversaries=hardening)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    for epoch in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    return model


if __name__ == "__main__":
    train()
