"""Models on which an attack might leave its traces, and everything that it must leave as it was."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_cag import PGD, CAGCollate, PairSampler
from kornia_cag.core.randomness import sample_keys

EPS = 8 / 255


HALF_ULP = {torch.float16: 2.0**-12, torch.bfloat16: 2.0**-9, torch.float32: 0.0, torch.float64: 0.0}  # just below 1


class Net(nn.Module):
    """Begins with an in-place operation, has a batch norm, a dropout and a parameter without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.tail = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(6, 5)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))
        self.register_buffer("gain", torch.full((1, 6, 1, 1), 1.5))
        self.mean: Tensor
        self.gain: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(F.gelu(self.norm(self.conv(x.sub_(self.mean)) * self.gain)))
        return self.head(self.drop(x.mean((2, 3))))


class Slope(nn.Module):
    """Two classes, and the loss of class 0 rises along ``sign(weight)`` everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Restless(nn.Module):
    """Draws random numbers, writes its buffers and raises on demand, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Net()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("swapped", torch.zeros(()))
        self.register_buffer("expanded", torch.ones(1).expand(4))
        self.count: Tensor
        self.seen: Tensor
        self.swapped: Tensor
        self.calls, self.raise_at = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        self.seen.data.copy_(x.detach().mean((0, 2, 3)))
        self.swapped = self.swapped + 1
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            out = self.body(F.dropout(x, 0.1, training=True))
            if self.calls == self.raise_at:
                raise RuntimeError("out of paper")
        return out.float()


def make_keys(n: int, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
    index = torch.arange(n, device=device)
    return sample_keys(torch.full_like(index, seed), torch.zeros_like(index), index)


def make_batch(n: int = 4, size: int = 6, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    images, labels = torch.rand((n, 3, size, size), generator=generator), torch.randint(5, (n,), generator=generator)
    return {"images": images.to(device), "labels": labels.to(device), "keys": make_keys(n, device)}


def make_mixed(cls: type[nn.Module] = Net) -> Any:
    """A model in the middle of training, with flags and gradients of every kind."""
    torch.manual_seed(0)
    model = cls().train()
    net = model if isinstance(model, Net) else model.body
    net.norm.eval()
    net.conv.bias.requires_grad_(False)
    F.cross_entropy(net(torch.rand(4, 3, 6, 6)), torch.tensor([0, 1, 2, 3])).backward()
    net.head.bias.grad = None
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that an attack must leave as it was; tensors by value, gradients and buffers by identity too."""
    return {
        "training": {name: m.training for name, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        "grad ids": {name: None if p.grad is None else id(p.grad) for name, p in model.named_parameters()},
        "values": {name: t.tolist() for name, t in model.state_dict().items()},
        "buffer ids": {name: id(b) for name, b in model.named_buffers()},
        "versions": {name: t._version for name, t in model.named_parameters()},
        "random": torch.get_rng_state().tolist(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "grad mode": torch.is_grad_enabled(),
    }


def linear(weight: Tensor) -> Any:
    return lambda x: (x * weight).sum((1, 2, 3))


def bits(x: Tensor) -> list[Any]:
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]).tolist()


def network(device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 5)).to(device)


def attacked_batch(objects, contexts, net, attack=None):
    attack = attack or PGD(eps=0.1, eps_object=0.02, steps=2)
    collate = CAGCollate(objects, contexts, 16, model=net, adversaries=(attack,), returns="batch")
    return collate(next(iter(PairSampler(objects.labels.cpu(), len(contexts), batch_size=20, seed=5))))
