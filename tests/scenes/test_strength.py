import pytest
import torch

from kornia_cag import InputError, Ramp


def test_ramp(device):
    epochs = torch.arange(8, device=device)
    assert Ramp(start=2, stop=6)(epochs).tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    with pytest.raises(InputError, match="stop: expected an epoch after start=3, got 3"):
        Ramp(start=3, stop=3)
    with pytest.raises(InputError, match="start: "):
        Ramp(start=-1)
