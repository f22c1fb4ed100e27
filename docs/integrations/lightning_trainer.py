"""Train with Lightning, whose own handling of samplers is switched off."""

from typing import Any

import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from given import SIZE, contexts, network, objects
from torch import Tensor
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, PairSampler
from kornia_cag.loading.batch import Pair


class Classifier(lightning.LightningModule):
    """A network, its loss and its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()

    def training_step(self, batch: Pair, step: int) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(self.model(batch.images), batch.labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on everything."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def train(epochs: int = 10, samples_per_class: int = 32, **options: Any) -> Classifier:
    """Train on so many epochs."""
    pairs = PairSampler(objects.labels, len(contexts), batch_size=64, samples_per_class=samples_per_class)
    collate = CAGCollate(objects, contexts, SIZE)
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    module = Classifier()
    lightning.Trainer(max_epochs=epochs, use_distributed_sampler=False, **options).fit(module, loader)
    return module
