import pytest
import torch

from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.scenes.sensor import sensed, sensed_planes


@pytest.mark.parametrize("size", [(9, 13), (1, 6), (5, 1)])
@pytest.mark.parametrize("parts", ["noise", "grain", "both"])
def test_channel_by_channel_it_is_the_same(parts: str, size: tuple[int, int], device: torch.device) -> None:
    index = torch.arange(40, device=device)
    keys = sample_keys(0 * index + 3, 0 * index + 1, index)
    amount, grey = uniform(keys, "amount", 0.0, 0.1), uniform(keys, "grey")
    grain = (amount, uniform(keys, "size", 1.0, 4.0), grey) if parts != "noise" else (None, None, None)
    given = keys, None if parts == "grain" else amount, *grain
    picture = torch.rand(40, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    found = torch.stack(sensed_planes(picture.unbind(1), *given), dim=1)
    torch.testing.assert_close(found, sensed(picture, *given), rtol=0, atol=1e-5)
