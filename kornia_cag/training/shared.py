"""A network whose steps are taken by several ranks at once, each with its share of a batch, as if by one process.

The gradient of a global batch is the mean of what the ranks find, if each weighs its loss by its share; and if the
layers that mix samples do so over all of them: BatchNorm, and dropout, which draws for the whole batch on every rank.
"""

import warnings
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from kornia_cag.core import ranks
from kornia_cag.core.ranks import Share
from kornia_cag.loading.detections import Detections

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAPS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # these drop whole channels


class Forward(nn.Module):
    """One call for either kind of network: its logits, or the loss of a detector.

    Args:
        network: to be trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b 3 h w"], known: Int[Tensor, " b"] | Detections) -> Any:
        """Logits, or what a detector's ``loss`` says of what is to be found."""
        network: Any = self.network
        return network.loss(images, known) if isinstance(known, Detections) else network(images)


def forward_of(network: nn.Module, *, own: bool) -> nn.Module:
    """What a step calls: the network itself, or one whose gradients are averaged over the ranks in its backward pass.

    Args:
        network: from :func:`over_ranks`.
        own: whether it is one of this package, all of whose weights take part in every step; a user's may have others.
    """
    forward = Forward(network)
    if ranks.here()[1] == 1:
        return forward
    return DistributedDataParallel(forward, find_unused_parameters=not own)


def over_ranks(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with BatchNorm and dropout over the batches of all ranks; it has the same weights and names.

    Torch's own layers alone are replaced. What is derived from them, and may do more, stays, and a warning says so.

    Args:
        network: on its device.
        device: the device.
    """
    if ranks.here()[1] == 1:
        return network
    for name, child in network.named_children():
        setattr(network, name, over_ranks(child, device))
    kind = type(network)
    if kind in _NORMS:
        if device.type == "cuda":
            synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            return synced
        return _like(network, GlobalBatchNorm(cast(_BatchNorm, network).num_features))
    if kind in (nn.Dropout, *_MAPS):
        return _like(network, GlobalDropout(cast(nn.Dropout, network).p, maps=kind in _MAPS))
    if isinstance(network, _BatchNorm | _DropoutNd) and kind is not nn.SyncBatchNorm and ranks.here()[0] == 0:
        warnings.warn(f"{kind.__qualname__}: on several ranks it sees the samples of one alone, or drops the same on "
                      "all; use torch's own layer beside it.", stacklevel=2)  # fmt: skip
    return network


def deal(network: nn.Module, share: Share) -> None:
    """Tell the layers of :func:`over_ranks` what share of a global batch comes next."""
    for layer in network.modules():
        if isinstance(layer, GlobalDropout):
            layer.share = share


def weighed(
    loss: Float[Tensor, ""], count: Int[Tensor, ""], share: Share
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What this rank differentiates, so that the mean over ranks is the loss of the global batch; and that loss.

    Args:
        loss: of this rank's samples: a sum, divided by ``count``, or by 1 if that is 0.
        count: how many samples or objects the loss is a mean over.
        share: of the batch.
    """
    if share.ranks == 1:
        return loss, loss.detach()
    weight = count.to(loss.dtype).clamp(min=1)
    total = ranks.summed(count).to(loss.dtype).clamp(min=1)
    mine = loss * (weight / total)
    return mine * share.ranks, ranks.summed(mine)


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance in training are those of the batches of all ranks; for a CPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes any number of dimensions."""

    def forward(self, input: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        """Normalise the rank's samples."""
        if not self.training and self.running_mean is not None:
            normal: Tensor = super().forward(input)
            return normal
        apply: Any = _Normalised.apply
        out, mean, variance, count = apply(input, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None and self.running_var is not None:
            factor = self._factor()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)
        found: Tensor = out
        return found

    def _factor(self) -> float:
        if self.num_batches_tracked is None:
            return self.momentum or 0.0
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


class _Normalised(torch.autograd.Function):
    """Normalise by the statistics of all ranks; every rank's samples have a part in every rank's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        over, channels = [0, *range(2, x.ndim)], x.shape[1]
        values, n = x.float(), x.numel() // channels
        mean = values.mean(dim=over) if n else values.new_zeros(channels)
        spread = (values - _column(mean, x)).square().sum(dim=over)
        parts = ranks.stacked(
            torch.cat([torch.stack([mean, spread]).double().flatten(), mean.new_tensor([n]).double()])
        )
        counts = parts[:, -1:]
        means, spreads = parts[:, :channels], parts[:, channels:-1]
        count = counts.sum()
        mean = (counts * means).sum(dim=0) / count
        variance = (spreads + counts * (means - mean).square()).sum(dim=0) / count
        scale = (variance + eps).rsqrt().float()
        mean = mean.float()
        ctx.save_for_backward(x, weight, mean, scale, count)
        normal = (values - _column(mean, x)) * _column(scale, x)
        if weight is not None and bias is not None:
            normal = normal * _column(weight, x) + _column(bias, x)
        ctx.mark_non_differentiable(mean, variance, count)
        return normal.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        over, up = [0, *range(2, x.ndim)], grads[0].float()
        normal = (x.float() - _column(mean, x)) * _column(scale, x)
        along, level = (up * normal).sum(dim=over), up.sum(dim=over)
        total_along, total_level = ranks.summed(torch.stack([along, level])) / count.float()
        back = (up - _column(total_level, x) - normal * _column(total_along, x)) * _column(scale, x)
        if weight is None:
            return back.to(x.dtype), None, None, None
        back = back * _column(weight, x)
        return back.to(x.dtype), along.to(weight.dtype), level.to(weight.dtype), None


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 2))


class GlobalDropout(nn.Module):
    """Dropout that draws for the batch of all ranks and keeps the rank's part: the masks of a single process.

    Args:
        p: share that is dropped, in [0, 1].
        maps: drop whole channels.
    """

    def __init__(self, p: float, *, maps: bool) -> None:
        super().__init__()
        self.p, self.maps = p, maps
        self.share = Share()

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Drop some of the rank's samples' values, in training."""
        if not self.training or not self.p:
            return x
        if len(x) != self.share.mine:  # a network that has made other rows of its samples
            return F.dropout(x, self.p)
        inner = [x.shape[1], *[1] * (x.ndim - 2)] if self.maps else x.shape[1:]
        kept = F.dropout(torch.ones(self.share.pictures, *inner, dtype=x.dtype, device=x.device), self.p)
        return x * self.share.own(kept)


def _like(old: nn.Module, new: nn.Module) -> nn.Module:
    """The new layer with the settings, weights and mode of the old one."""
    new.__dict__.update(
        {**new.__dict__, **{name: value for name, value in old.__dict__.items() if name in new.__dict__}}
    )
    return new
