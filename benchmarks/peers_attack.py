"""torchattacks and foolbox, each called for an attack from the images themselves, without a random start."""

import warnings
from collections.abc import Callable
from types import ModuleType

import pytest
from torch import Tensor, nn

Peer = Callable[[nn.Module, Tensor, Tensor], Tensor]


def torchattacks(*, eps: float, alpha: float, steps: int, norm: str = "linf") -> Peer:
    """``FGSM`` for one step of the whole budget, else ``PGD`` or ``PGDL2``; torchattacks 3.5."""
    library = load("torchattacks")

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if norm == "l2":
            return library.PGDL2(model, eps=eps, alpha=alpha, steps=steps, random_start=False)(images, labels)
        if (steps, alpha) == (1, eps):
            return library.FGSM(model, eps=eps)(images, labels)
        return library.PGD(model, eps=eps, alpha=alpha, steps=steps, random_start=False)(images, labels)

    return attack


def foolbox(*, eps: float, alpha: float, steps: int, norm: str = "linf") -> Peer:
    """``LinfPGD.run`` or ``L2PGD.run``, without the pass in which a call then counts its successes; foolbox 3.3."""
    library = load("foolbox")
    kind = library.attacks.L2PGD if norm == "l2" else library.attacks.LinfPGD
    method = kind(abs_stepsize=alpha, steps=steps, random_start=False)

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        borrowed = library.PyTorchModel(model, bounds=(0, 1), device=images.device)
        return method.run(borrowed, images, labels, epsilon=eps)

    return attack


def load(name: str) -> ModuleType:
    """The library, or a skip that says what is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they import names that scipy has deprecated
        return pytest.importorskip(name)


PEERS = {"torchattacks": torchattacks, "foolbox": foolbox}
