"""Train with the Trainer of Hugging Face: it asks for its loader, and gets ours."""

from typing import Any

import torch.nn.functional as F
from given import SIZE, contexts, network, objects
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from kornia_cag import CAGCollate, PairSampler, Rows

collate = CAGCollate(objects, contexts, SIZE)


def composed(rows: Rows) -> dict[str, Tensor]:
    """A batch by name: the Trainer takes no named tuples."""
    return collate(rows)._asdict()


class ComposingTrainer(Trainer):
    """A Trainer that composes its batches; the model maps images to logits."""

    def get_train_dataloader(self) -> DataLoader:
        """A loader that nobody shards or shuffles again."""
        rows = self.args.per_device_train_batch_size * self.args.world_size  # those of all ranks
        pairs = PairSampler(objects.labels, len(contexts), batch_size=rows, samples_per_class=16)
        return DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=composed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(model(inputs["images"]), inputs["labels"])


def train(folder: str, epochs: int = 10, **options: Any) -> Trainer:
    """Train on so many epochs; checkpoints go to the folder."""
    options |= {"num_train_epochs": epochs, "per_device_train_batch_size": 64}
    trainer = ComposingTrainer(network(), TrainingArguments(folder, **options))
    trainer.train()
    return trainer
