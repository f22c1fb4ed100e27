"""How fast are other libraries at the part of a scene that they can make, beside all of it here?

No peer puts external cut-outs on contexts in batches. Each of them varies pictures that are there already, and that is
measured: a batch of 128 ready images on the device (for albumentations: uint8 arrays, one after the other, in this
process) to float32 images in [0, 1], by the operations named here, ranges near those of rigid signs:

``kornia`` (eager and compiled): ``RandomAffine``, ``RandomPerspective``, ``RandomBrightness``, ``RandomContrast``,
``RandomSaturation``, ``RandomGaussianBlur``, ``RandomGaussianNoise``. No paste, no light, no mask.

``torchvision`` (transforms v2): ``RandomAffine``, ``RandomPerspective``, ``ColorJitter``, ``GaussianBlur``,
``GaussianNoise``. One draw for the whole batch, which is less than is done here.

``albumentations`` (the MIT line, 2.0): ``Affine``, ``Perspective``, ``ColorJitter``, ``Blur``, ``GaussNoise``.

``kornia_cag``: the whole scene, with cut-out and context; eager and compiled.

Each peer is skipped with a word where it is not installed. Everything in this process, threads as they come.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from common import BATCH, CUDA, endless, time_rounds
from torch import Tensor, nn

full = pytest.mark.full
SIDES = [64, pytest.param(224, marks=full)]
COUNT = 512 if CUDA else BATCH


@pytest.fixture
def images(device) -> Callable[[int], Tensor]:
    draw = torch.Generator().manual_seed(0)
    return lambda side: torch.rand(COUNT, 3, side, side, generator=draw).to(device)


@pytest.mark.parametrize("path", ["eager", pytest.param("compiled", marks=full)])
@pytest.mark.parametrize("side", SIDES)
def test_kornia_cag(benchmark, banks, collates, device, side, path):
    benchmark.group = f"peers {side}x{side}"
    batches = iter(endless(*banks(side), collates(side, path == "compiled"), COUNT))
    time_rounds(benchmark, device, lambda: next(batches), COUNT, batch=COUNT, side=side, what=f"kornia_cag {path}")


@pytest.mark.parametrize("path", ["eager", pytest.param("compiled", marks=full)])
@pytest.mark.parametrize("side", SIDES)
def test_kornia(benchmark, images, device, side, path):
    import kornia.augmentation as K

    given = images(side)
    model: Callable[[Tensor], Tensor] = nn.Sequential(
        K.RandomAffine(12.0, (0.08, 0.08), (0.65, 1.0), 6.0, p=1.0), K.RandomPerspective(0.2, p=1.0),
        K.RandomBrightness((0.5, 1.2), p=1.0), K.RandomContrast((0.5, 1.2), p=1.0),
        K.RandomSaturation((0.2, 1.6), p=1.0), K.RandomGaussianBlur((7, 7), (0.3, 1.5), p=0.6),
        K.RandomGaussianNoise(0.0, 0.0125, p=1.0),
    )  # fmt: skip
    model = torch.compile(model) if path == "compiled" else model
    measure(benchmark, device, lambda: model(given), side, f"kornia {path}")


@pytest.mark.parametrize("side", SIDES)
def test_torchvision(benchmark, images, device, side):
    T = pytest.importorskip("torchvision.transforms.v2")
    given = images(side)
    model = T.Compose([
        T.RandomAffine(12.0, (0.08, 0.08), (0.65, 1.0), 6.0), T.RandomPerspective(0.2, p=1.0),
        T.ColorJitter((0.5, 1.2), (0.5, 1.2), (0.2, 1.6), 0.03), T.RandomApply([T.GaussianBlur(7, (0.3, 1.5))], p=0.6),
        T.GaussianNoise(0.0, 0.0125),
    ])  # fmt: skip
    measure(benchmark, device, lambda: model(given), side, "torchvision")


@pytest.mark.parametrize("side", SIDES)
def test_albumentations(benchmark, images, device, side):
    A = pytest.importorskip("albumentations", minversion="2.0.0")
    given = list(images(side).mul(255).byte().permute(0, 2, 3, 1).cpu().numpy())
    model = A.Compose([
        A.Affine(scale=(0.65, 1.0), translate_percent=(-0.08, 0.08), rotate=(-12, 12), shear=(-6, 6), p=1.0),
        A.Perspective((0.05, 0.1), p=1.0), A.ColorJitter((0.5, 1.2), (0.5, 1.2), (0.2, 1.6), (-0.03, 0.03), p=1.0),
        A.Blur((3, 7), p=0.6), A.GaussNoise((0.0, 0.025), p=1.0),
    ])  # fmt: skip

    def batch() -> Tensor:
        changed = np.stack([model(image=image)["image"] for image in given])
        return torch.from_numpy(changed).to(device).permute(0, 3, 1, 2) / 255

    measure(benchmark, device, batch, side, "albumentations")


def measure(benchmark, device: torch.device, batch: Callable[[], Tensor], side: int, what: str) -> None:
    benchmark.group = f"peers {side}x{side}"
    with torch.no_grad():
        made = batch()
        time_rounds(benchmark, device, batch, COUNT, batch=COUNT, side=side, what=what)
    assert made.shape == (COUNT, 3, side, side)
    assert made.dtype == torch.float32
