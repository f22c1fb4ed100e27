import pytest
import torch
from test_randomness import keys_of
from torch import Tensor

import kornia_cag.core.fields
import kornia_cag.scenes.camera
import kornia_cag.scenes.warp

KEYS, PLACES = keys_of(count=3), torch.rand(3, 2, 4, 5)
GIVEN: dict[str, tuple[object, ...]] = {
    "noise": (KEYS, "slot", [3, 4]),
    "sensed": (torch.rand(3, 3, 6, 7), KEYS, None, torch.rand(3), torch.tensor([1.0, 1.5, 2.5]), torch.rand(3)),
    "outside": (PLACES, torch.rand(3, 2, 3)),
    "displaced": (PLACES, torch.rand(3, 2, 5)),
}


@pytest.mark.compile  # it traces with symbolic sizes
@pytest.mark.parametrize("name", GIVEN)
def test_torch_accepts_the_operation(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.kornia_cag, name).default, GIVEN[name])


def test_gradients_pass_through_the_formula() -> None:
    waves = torch.rand(3, 2, 5, requires_grad=True)
    moved = kornia_cag.scenes.warp.displace(PLACES, waves)
    moved.square().sum().backward()
    assert isinstance(waves.grad, Tensor)
    assert (waves.grad != 0).all()
    with torch.no_grad():
        assert torch.equal(kornia_cag.scenes.warp.displace(PLACES, waves), moved)
