import pytest
import torch
import torch.nn.functional as F
from models import attacked_batch, network
from torch import nn

from kornia_cag import (
    PGD,
    HardPairing,
    InputError,
    attacked_loss,
    mixed_loss,
    trades_loss,
)
from kornia_cag.adversary.losses import kl
from kornia_cag.loading.batch import Pair


def test_the_losses_are_their_formulas(objects, contexts, device):
    net = network(device)
    batch = attacked_batch(objects, contexts, net)
    clean, attacked = net(batch.clean), net(batch.images)
    y = batch.labels
    torch.testing.assert_close(attacked_loss(net, batch), F.cross_entropy(attacked, y))
    want = 0.7 * F.cross_entropy(clean, y) + 0.3 * F.cross_entropy(attacked, y)
    torch.testing.assert_close(mixed_loss(net, batch, weight=0.3), want)
    divergence = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")
    torch.testing.assert_close(trades_loss(net, batch, beta=2.0), F.cross_entropy(clean, y) + 2 * divergence)
    smooth = F.cross_entropy(attacked, y, label_smoothing=0.1)
    torch.testing.assert_close(attacked_loss(net, batch, smoothing=0.1), smooth)


def test_both_ways_into_trades_carry_gradients(objects, contexts, device):
    """The clean logits are no constant in the divergence (Zhang et al., equation 5)."""
    net = network(device)
    batch = attacked_batch(objects, contexts, net, PGD(eps=0.1, steps=2, loss=kl))
    trades_loss(net, batch, beta=1.0).backward()
    have = net[3].weight.grad.clone()
    net.zero_grad()
    (F.cross_entropy(net(batch.clean), batch.labels) + kl(net(batch.images), net(batch.clean)).mean()).backward()
    torch.testing.assert_close(have, net[3].weight.grad, atol=1e-5, rtol=1e-4)


def test_a_pairing_is_told_of_the_attacked_images(objects, contexts):
    """By the same forward pass."""
    net = network(objects.device)
    batch = attacked_batch(objects, contexts, net)
    want = HardPairing(5)
    want.observe(net(batch.images), batch.labels)
    for loss in (attacked_loss, mixed_loss, trades_loss):
        passes = []
        handle = net.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        told = HardPairing(5)
        torch.testing.assert_close(loss(net, batch, pairing=told), loss(net, batch))
        handle.remove()
        torch.testing.assert_close(told.confusion, want.confusion, atol=1e-5, rtol=0)
        assert len(passes) == 2


def test_bad_weights_are_refused(objects, contexts, untyped):
    net = network(objects.device)
    batch = attacked_batch(objects, contexts, net)
    plain = batch._replace(attacked=None)
    for call, words in (
        (lambda: mixed_loss(net, batch, weight=1.5), r"weight: expected a number in \[0, 1\]"),
        (lambda: trades_loss(net, batch, beta=-1), "beta: expected a number"),
        (lambda: attacked_loss(net, batch, smoothing=2), r"smoothing: expected a number in \[0, 1\]"),
        (lambda: attacked_loss(net, Pair(batch.images, batch.labels)), r'batch: expected Batch, .*returns="batch"'),
        (lambda: trades_loss(net, Pair(batch.images, batch.labels)), r'batch: expected Batch, .*returns="batch"'),
        (lambda: mixed_loss(nn.Identity(), batch), r"model output: expected .*Wrap a model with other outputs"),
        (lambda: mixed_loss(net, plain), "batch: expected an attacked batch, got a batch from a collate without"),
        (lambda: trades_loss(net, plain), "batch: expected an attacked batch, got a batch from a collate without"),
        (lambda: attacked_loss(net, plain), "batch: expected an attacked batch, got a batch from a collate without"),
    ):
        with pytest.raises(InputError, match=words):
            call()
