from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, training
from torch import nn

from kornia_cag import InputError
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.real import RealSet


class Says(nn.Module):
    """Predicts the class that is written into the first pixel."""

    def forward(self, images):
        return nn.functional.one_hot((images[:, 0, 0, 0] * 10).round().long(), 3).float()


def test_evaluate_counts_per_class_and_confusions(device):
    labels, said = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 2, 2, 2, 0, 1])
    images = (said / 10)[:, None, None, None].expand(-1, 3, 4, 4)
    accuracy = evaluate(Says(), RealSet(images, labels, "x"), ("a", "b", "c"), device)
    assert accuracy.share == pytest.approx(3 / 7)
    assert accuracy.per_class == pytest.approx({"a": 2 / 3, "b": 1 / 4, "c": None})
    assert accuracy.mean_per_class == pytest.approx((2 / 3 + 1 / 4) / 2)  # of the classes that have pictures
    assert accuracy.confusions == (("b", "c", 2), ("a", "c", 1), ("b", "a", 1))


def test_evaluate_does_not_depend_on_its_batches():
    model = training(replace(TINY, attack=None)).model
    images = torch.rand(600, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    real = RealSet(images, torch.arange(600) % 10, "x")
    classes = tuple("0123456789")
    share = evaluate(model, real, classes, torch.device("cpu")).share
    halves = [RealSet(images[i::2], real.labels[i::2], "x") for i in (0, 1)]
    assert share == pytest.approx(sum(evaluate(model, h, classes, torch.device("cpu")).share for h in halves) / 2)


@pytest.mark.parametrize("logits", [[torch.nan, 0.0, 0.0], [torch.inf, 0.0, 0.0], [-torch.inf] * 3])
def test_logits_without_an_answer_are_refused(logits):
    class Lost(Says):
        def forward(self, images):
            answers = super().forward(images)
            answers[-1] = torch.tensor(logits)
            return answers

    real = RealSet(torch.zeros(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64), "x")
    with pytest.raises(InputError, match=r"^model: expected finite logits, got others for 1 of 4 pictures\. Train"):
        evaluate(Lost(), real, ("a", "b", "c"), torch.device("cpu"))


def test_a_probability_of_zero_is_an_answer():
    real = RealSet(torch.zeros(4, 3, 4, 4), torch.zeros(4, dtype=torch.int64), "x")
    certain = nn.Sequential(Says(), Logarithm())
    assert evaluate(certain, real, ("a", "b", "c"), torch.device("cpu")).share == 1


class Logarithm(nn.Module):
    def forward(self, probabilities):
        return probabilities.log()
