import pytest
import torch
from torch import nn

from kornia_cag import InputError
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.calibration import calibration_error
from kornia_cag.evaluation.real import RealSet


def slow(probabilities, labels):
    """The definition, bin by bin: 15 of them, each without its lower end."""
    total = 0.0
    for low in range(15):
        inside = [(max(row), row.index(max(row)) == label) for row, label in zip(probabilities, labels, strict=True)
                  if low / 15 < max(row) <= (low + 1) / 15]  # fmt: skip
        if inside:
            confidence = sum(top for top, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("classes", [2, 7, 43])
@pytest.mark.parametrize("sharpness", [0.1, 2.0, 10.0])
def test_it_is_the_definition(classes, sharpness, rng):
    logits = sharpness * torch.randn(500, classes, generator=rng, dtype=torch.float64)
    probabilities, labels = logits.softmax(dim=1), torch.randint(classes, (500,), generator=rng)
    expected = slow(probabilities.tolist(), labels.tolist())
    assert 0 < expected < 1
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)
    shuffled = torch.randperm(500, generator=rng)
    assert calibration_error(probabilities[shuffled], labels[shuffled]) == pytest.approx(expected, abs=1e-12)
    assert calibration_error(probabilities.float(), labels) == pytest.approx(expected, abs=1e-2)


def said(confidences):
    """Two classes, of which the first is believed in."""
    top = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([top, 1 - top], dim=1)


@pytest.mark.parametrize(
    ("confidences", "labels", "error"),
    [
        ([1.0, 1.0, 1.0], [0, 0, 0], 0.0),  # certain and right
        ([1.0, 1.0, 1.0], [1, 1, 1], 1.0),  # certain and wrong
        ([0.75] * 4, [0, 0, 0, 1], 0.0),  # right as often as it says
        ([0.75] * 4, [0, 1, 1, 1], 0.5),
        ([0.95] * 2 + [0.55] * 2, [0, 0, 1, 1], (0.05 + 0.55) / 2),  # bins do not make up for each other
        ([0.95, 0.98], [0, 1], 0.965 - 0.5),  # what is in a bin does
        ([0.6, 0.6 + 1e-9], [0, 1], (0.4 + 0.6) / 2),  # 9/15 is in the bin that it ends
    ],
)
def test_cases_worked_out_by_hand(confidences, labels, error):
    assert calibration_error(said(confidences), torch.tensor(labels)) == pytest.approx(error, abs=1e-8)


def test_chance_told_as_chance_is_calibrated():
    even, labels = torch.full((60, 5), 0.2), torch.arange(60) % 5
    assert calibration_error(even, labels) == pytest.approx(0, abs=1e-7)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), r"^probabilities: expected at least one picture"),
        (
            torch.full((4, 2), 0.5),
            torch.zeros(3, dtype=torch.int64),
            r"^labels: expected tensor \(4\), got int64 \(3,\)",
        ),
        (torch.tensor([[3.0, -2.0]]), torch.tensor([0]), r"sum to 1, got others\. Of logits: logits\.softmax\(dim=1\)"),
        (torch.tensor([[0.9, 0.9]]), torch.tensor([0]), "sum to 1"),
        (torch.tensor([[torch.nan, 1.0]]), torch.tensor([0]), "sum to 1"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, labels, words):
    with pytest.raises(InputError, match=words):
        calibration_error(probabilities, labels)


def test_evaluate_takes_the_probabilities_of_pictures_not_of_views():
    class Brightness(nn.Module):
        def forward(self, images):
            return torch.stack([images.mean(dim=(1, 2, 3)), torch.zeros(len(images))], dim=1)

    images = torch.tensor([0.2, 0.8, 0.5])[:, None, None, None].expand(-1, 3, 4, 4)
    real = RealSet(images, torch.tensor([0, 1]), "x", views=(2, 1))
    accuracy = evaluate(Brightness(), real, ("a", "b"), torch.device("cpu"))
    top = torch.tensor([[0.8, 0.0], [0.5, 0.0]]).softmax(dim=1)
    assert accuracy.calibration_error == pytest.approx(calibration_error(top, real.labels))
    assert accuracy.report()["calibration_error"] == round(accuracy.calibration_error, 5)
