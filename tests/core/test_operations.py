from collections.abc import Callable
from types import FunctionType

import pytest
import torch
from test_randomness import keys_of
from torch import Tensor

import kornia_cag.core.fields
import kornia_cag.core.operations
import kornia_cag.core.randomness
import kornia_cag.scenes.camera
import kornia_cag.scenes.light
import kornia_cag.scenes.multiband
import kornia_cag.scenes.poisson
import kornia_cag.scenes.soft
import kornia_cag.scenes.warp

KEYS, PLACES, ALPHA = keys_of(count=3), torch.rand(3, 2, 4, 5), torch.rand(3, 1, 6, 7)
GIVEN: dict[str, tuple[object, ...]] = {
    "noise": (KEYS, "slot", [3, 4]),
    "sensed": (torch.rand(3, 3, 6, 7), KEYS, None, torch.rand(3), torch.tensor([1.0, 1.5, 2.5]), torch.rand(3)),
    "units": (torch.stack([KEYS, KEYS + 1]), torch.tensor([0, 1, 1]), torch.arange(3, dtype=torch.int32)[:, None], 2,
              torch.tensor([2, 2]), torch.arange(2, dtype=torch.int32)[:, None]),
    "outside": (*PLACES.unbind(1), torch.rand(3, 2, 3)),
    "displaced": (PLACES, torch.rand(3, 2, 5)),
    "lit": (*torch.rand(3, 3, 4, 5), torch.rand(3, 3), torch.rand(3, 3, 3), None, torch.rand(3, 4, 5)),
    "recolored": (*torch.rand(3, 3, 4, 5), torch.rand(3, 3), torch.rand(3, 3, 3), torch.rand(3, 4, 5), None),
    "eroded": (ALPHA[:, 0], torch.rand(3)),
    "feathered": (ALPHA[:, 0], torch.rand(3), "box"),
    "smeared": (ALPHA[:, 0], torch.rand(3), torch.rand(3)),
    "multiband": (torch.rand(3, 3, 6, 7), ALPHA, torch.rand(3, 6, 7, 3).movedim(3, 1)),
    "poisson": (torch.rand(3, 3, 6, 7), ALPHA, torch.rand(3, 6, 7, 3).movedim(3, 1)),
    "moments": (ALPHA[:, 0],),
    "matching": (torch.rand(3, 3, 6, 7), ALPHA[:, 0], torch.rand(3, 3, 6, 7), torch.rand(3, 4), torch.rand(3, 3)),
    "matched": (torch.rand(3, 3, 6, 7), ALPHA[:, 0], torch.rand(3, 3, 6, 7), torch.rand(3, 4), torch.rand(3, 3)),
    "shadow": (ALPHA[:, 0], torch.rand(3, 2), torch.rand(3)),
    "blurred": (torch.rand(3, 4, 6, 7), torch.rand(3)),
}  # fmt: skip
NAMED: dict[str, dict[str, object]] = {
    "eroded": {"most": 1.0}, "feathered": {"most": 2.0}, "smeared": {"most": 2.0}, "multiband": {"levels": 2},
    "shadow": {"most": 2.0}, "blurred": {"most": 1.0},
}  # fmt: skip


def test_every_operation_is_among_these() -> None:
    ours = {
        name.removeprefix("kornia_cag::") for name in torch._C._dispatch_get_all_op_names() if "kornia_cag::" in name
    }
    assert ours == GIVEN.keys()


@pytest.mark.compile  # it traces with symbolic sizes
@pytest.mark.parametrize("name", GIVEN)
def test_torch_accepts_the_operation(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.kornia_cag, name).default, GIVEN[name], NAMED.get(name))


def test_gradients_pass_through_the_formula() -> None:
    waves = torch.rand(3, 2, 5, requires_grad=True)
    moved = kornia_cag.scenes.warp.displace(PLACES, waves)
    moved.square().sum().backward()
    assert isinstance(waves.grad, Tensor)
    assert (waves.grad != 0).all()
    with torch.no_grad():
        assert torch.equal(kornia_cag.scenes.warp.displace(PLACES, waves), moved)


@pytest.mark.compile
def test_a_program_is_not_given_up_for_many_kinds_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(formula: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
        code = formula.__code__.replace()
        return torch.compile(FunctionType(code, formula.__globals__), fullgraph=True, backend="eager")

    def total(first: Tensor, second: Tensor | None) -> Tensor:
        return first + 1 if second is None else first + second

    monkeypatch.setattr(kornia_cag.core.operations, "program", traced)
    monkeypatch.setattr(kornia_cag.core.operations, "has_triton", lambda: True)
    add = kornia_cag.core.operations.compiled(total)
    for n in (2, 3, 4, 5, 6, 7):
        for planes in (torch.rand(2, 3, n, n), torch.rand(n, 4, n, n + 1), torch.rand(1, 1, n, n)):
            plane = planes[:, 0]
            assert torch.equal(add(plane, None), plane + 1)
            assert torch.equal(add(plane, plane), 2 * plane)
