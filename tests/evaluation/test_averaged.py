import math

import pytest
import torch
from torch import nn

from kornia_cag import InputError
from kornia_cag.evaluation.averaged import Averaged, _affine


class Place(nn.Module):
    """Logits that say where the light is."""

    def forward(self, images):
        weight = images.mean(dim=1)
        x = (torch.arange(images.shape[-1]) + 0.5) / images.shape[-1] - 0.5
        across = (weight * x).sum((1, 2)) / weight.sum((1, 2))
        return torch.stack([across, -across], dim=1) * 20


def test_one_view_is_the_networks_own_opinion():
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    averaged = Averaged(Place(), 1)
    torch.testing.assert_close(averaged(images), Place()(images).log_softmax(dim=1))


def test_the_mean_of_the_probabilities_of_all_views():
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    calls = []

    class Counted(Place):
        def forward(self, images):
            calls.append(images)
            return super().forward(images)

    got = Averaged(Counted(), 6)(images)
    assert len(calls) == 6
    assert torch.equal(calls[0], images)
    assert len({float(call.sum()) for call in calls}) == 6
    expected = torch.stack([Place()(call).softmax(dim=1) for call in calls]).mean(dim=0)
    torch.testing.assert_close(got.exp(), expected)
    assert torch.equal(Averaged(Counted(), 6)(images), got)  # nothing is drawn


def test_convention_the_moves_are_small_and_go_both_ways():
    moves = Averaged(Place(), 64, angle=10, shear=0, stretch=0, shift=0.05).moves
    angle = torch.atan2(moves[:, 1, 0], moves[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 10
    assert angle.min() < -8
    assert angle.max() > 8
    assert moves[:, :, 2].abs().max() <= 0.1 + 1e-6  # affine_grid counts from -1 to 1
    still = _affine(torch.zeros(1, 6))
    torch.testing.assert_close(still, torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]))
    stretched = _affine(torch.tensor([[0, 0, 0.1, -0.1, 0, 0]]))[0]
    torch.testing.assert_close(stretched[:, :2].diag(), torch.tensor([math.exp(0.1), math.exp(-0.1)]))


@pytest.mark.usefixtures("untyped")
def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="views: expected an integer"):
        Averaged(Place(), 0)
    with pytest.raises(InputError, match="angle: expected a number"):
        Averaged(Place(), 2, angle=90.0)
