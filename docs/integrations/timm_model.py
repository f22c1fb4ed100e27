"""Train a model of timm on composed batches."""

from itertools import chain, islice, repeat

import timm
import torch
import torch.nn.functional as F
from given import contexts, objects
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, PairSampler


class Normalised(nn.Module):
    """A model of timm that takes images in [0, 1], as adversaries want it."""

    def __init__(self, name: str, classes: int) -> None:
        super().__init__()
        self.model = timm.create_model(name, num_classes=classes)  # pretrained=True fetches weights
        config = resolve_data_config(self.model.pretrained_cfg)
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (b, 3, h, w) in [0, 1]."""
        return self.model((images - self.mean) / self.std)


def train(name: str = "resnet18", size: int = 64, steps: int = 1000) -> nn.Module:
    """Train for so many steps."""
    model = Normalised(name, len(objects.classes)).to(objects.device)
    pairs, optimizer = PairSampler(objects.labels, len(contexts), batch_size=32), torch.optim.AdamW(model.parameters())
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=CAGCollate(objects, contexts, size))
    for images, labels in islice(chain.from_iterable(repeat(loader)), steps):  # epoch after epoch
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model
