import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kornia_cag import (
    PGD,
    CAGCollate,
    Free,
    HardPairing,
    InputError,
    OverfittingMonitor,
    PairSampler,
    attacked_loss,
    mixed_loss,
    trades_loss,
)
from kornia_cag.adversary.losses import kl
from kornia_cag.loading.batch import Pair


def network(device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 5)).to(device)


def attacked_batch(objects, contexts, net, attack=None):
    attack = attack or PGD(eps=0.1, eps_object=0.02, steps=2)
    collate = CAGCollate(objects, contexts, 16, model=net, adversaries=(attack,), returns="batch")
    return collate(next(iter(PairSampler(objects.labels.cpu(), len(contexts), 20, seed=5))))


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
    net = network()
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
        (lambda: attacked_loss(net, Pair(batch.images, batch.labels)), r"batch: expected Batch, .*returns=.batch.\)"),
        (lambda: trades_loss(net, Pair(batch.images, batch.labels)), r"batch: expected Batch, .*returns=.batch.\)"),
        (lambda: mixed_loss(nn.Identity(), batch), r"model output: expected .*Wrap a model of another kind"),
        (lambda: mixed_loss(net, plain), "batch: expected one that was attacked, got a batch of a collate without"),
        (lambda: trades_loss(net, plain), "batch: expected one that was attacked, got a batch of a collate without"),
        (lambda: attacked_loss(net, plain), "batch: expected one that was attacked, got a batch of a collate without"),
    ):
        with pytest.raises(InputError, match=words):
            call()


# --- free


def test_free_is_the_formula_and_moves_on(device):
    torch.manual_seed(1)
    net, images = network(device), torch.rand(4, 3, 16, 16, device=device)
    labels, free = torch.arange(4, device=device), Free(eps=0.1, replays=3, alpha=0.04)
    change = torch.zeros_like(images)
    for attacked in free(images):
        torch.testing.assert_close(attacked.detach(), (images + change).clamp(0, 1))
        loss = F.cross_entropy(net(attacked), labels)
        net.zero_grad()
        loss.backward()
        change = (change + 0.04 * attacked.grad.sign()).clamp(-0.1, 0.1)
    torch.testing.assert_close(free.change, change)
    first = next(iter(free(images.flip(0))))  # the next batch starts where this one ended, slot by slot
    torch.testing.assert_close(first.detach(), (images.flip(0) + change).clamp(0, 1))


@pytest.mark.parametrize("seed", range(3))
def test_free_training_withstands_what_plain_training_does_not(objects, contexts, seed):
    """A convex problem, which every machine solves alike: over five seeds 0.23 to 0.31 more are right."""
    collate = CAGCollate(objects, contexts, 16)
    images, labels = collate(next(iter(PairSampler(objects.labels.cpu(), len(contexts), 35, seed=5))))
    keys = torch.arange(len(labels))
    accuracy = []
    for free in (Free(eps=0.0, replays=1), Free(eps=0.05, replays=4)):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 5)).to(images.device)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(80 // free.replays):
            for attacked in free(images):
                optimizer.zero_grad()
                F.cross_entropy(net(attacked), labels).backward()
                optimizer.step()
        assert (net(images).argmax(1) == labels).float().mean() > 0.9
        hurt = PGD(eps=0.05, steps=10)(net, images, labels, keys=keys)
        accuracy.append((net(hurt).argmax(1) == labels).float().mean())
    assert accuracy[1] > accuracy[0] + 0.1


def test_free_budgets_go_by_the_mask():
    net, images, free = network(), torch.full((2, 3, 16, 16), 0.5), Free(eps=0.2, eps_object=0.05, replays=4)
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    for attacked in free(images, mask):
        F.cross_entropy(net(attacked), torch.tensor([0, 1])).backward()
    moved = free.change.abs()
    assert moved[..., :8].max() <= 0.05 + 1e-6
    assert 0.05 < moved[..., 8:].max() <= 0.2 + 1e-6


def test_free_steps_are_in_proportion_to_the_budget():
    """As those of PGD: half a budget at a time, on object and context, whose mask may be bool."""
    net, images, free = network(), torch.full((2, 3, 16, 16), 0.5), Free(eps=0.2, eps_object=0.05, replays=1, alpha=0.1)
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    for attacked in free(images, mask):
        F.cross_entropy(net(attacked), torch.tensor([0, 1])).backward()
    moved = free.change.abs()
    assert {round(float(v), 4) for v in moved[..., :8].unique()} <= {0.0, 0.025}
    assert {round(float(v), 4) for v in moved[..., 8:].unique()} <= {0.0, 0.1}
    other = Free(eps=0.2, eps_object=0.05)
    other.load_state_dict(free.state_dict())
    assert torch.equal(next(iter(other(images, mask))), next(iter(free(images, mask))))
    moved = Free(eps=0.2, eps_object=0.05)
    moved.load_state_dict(free.state_dict(), "meta")  # another device than the images'
    assert next(iter(moved(images.to("meta"), mask.to("meta")))).device.type == "meta"
    fresh = Free(eps=0.2)
    fresh.load_state_dict(Free(eps=0.2).state_dict())
    assert fresh.change is None


def test_batches_of_other_sizes_and_shapes():
    net, free = network(), Free(eps=0.1, replays=1)

    def go(count):
        for attacked in free(torch.full((count, 3, 16, 16), 0.5)):
            F.cross_entropy(net(attacked), torch.arange(count) % 5).backward()

    go(4)
    kept = free.change[3].clone()
    go(2)
    assert torch.equal(free.change[3], kept)
    go(6)
    assert len(free.change) == 6
    for attacked in free(torch.full((2, 3, 8, 8), 0.5)):
        attacked.sum().backward()
    assert free.change.shape == (2, 3, 8, 8)


def test_free_says_what_is_missing(untyped):
    with pytest.raises(InputError, match=r"eps: expected a number in \[0, 1\].*8 / 255"):
        Free(eps=8)
    with pytest.raises(InputError, match="mask: expected the objects' mask, since eps_object is set"):
        next(iter(Free(eps=0.1, eps_object=0.01)(torch.zeros(2, 3, 8, 8))))
    with pytest.raises(InputError, match=r"free: expected a loss that was called backward\(\) on"):
        for _ in Free(eps=0.1)(torch.zeros(2, 3, 8, 8)):
            pass
    with pytest.raises(InputError, match="state: expected the state_dict of a Free"):
        Free(eps=0.1).load_state_dict({})


# --- catastrophic overfitting


def by_heart(objects, contexts):
    """The least linear model that is right, by formula: no training that a machine rounds its own way."""
    collate = CAGCollate(objects, contexts, 16)
    images, labels = collate(next(iter(PairSampler(objects.labels.cpu(), len(contexts), 35, seed=5))))
    pictures = images.flatten(1).double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(pictures.shape[1], 5, bias=False)).to(images.device)
    weights = torch.linalg.solve(pictures @ pictures.T + 0.1 * torch.eye(35).to(pictures), pictures)
    with torch.no_grad():
        net[1].weight.copy_(F.one_hot(labels, 5).T.double() @ weights)
    return net


@pytest.mark.parametrize("fraction", [1.0, 0.6])
def test_the_monitor_compares_with_a_stronger_attack(objects, contexts, fraction):
    """A training attack that does nothing looks like a model that withstands it, until PGD asks."""
    net = by_heart(objects, contexts)
    attack = PGD(eps=0.1, alpha=0.0, steps=1, random_start=False, fraction=fraction)
    monitor = OverfittingMonitor(attack, 5, every=2, samples=20)
    batch = attacked_batch(objects, contexts, net, attack)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for _ in range(4):
        monitor(net, batch)
    report = monitor.report()
    assert report["columns"] == ["step", "attacked", "clean", "attack", "pgd"]
    assert [look[0] for look in report["looks"]] == [2, 4]
    assert report["looks"][0][1] == 20 if fraction == 1 else report["looks"][0][1] < 16
    assert report["looks"][0][2] == report["looks"][0][3] > 0.5
    assert report["looks"][0][4] < 0.2
    assert report["overfitted"] is True
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    again = OverfittingMonitor(attack, 5, every=2)
    again.load_state_dict(monitor.state_dict())
    assert again.report() == report


def test_a_model_that_withstands_pgd_is_not_overfitted(objects, contexts):
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
    nn.init.zeros_(net[1].weight)
    batch = attacked_batch(objects, contexts, net)
    monitor = OverfittingMonitor(PGD(eps=0.1), 5, every=1)
    assert monitor.report() == {"columns": ["step", "attacked", "clean", "attack", "pgd"], "looks": [],
                                "overfitted": None}  # fmt: skip
    monitor(net, batch)
    assert monitor.report()["overfitted"] is None  # it knows nothing


def test_the_monitor_attacks_as_the_training_does_and_only_so_many(objects, contexts):
    """The object is safe: a network that looks at it alone is right under every attack on the context."""
    attack = PGD(eps=1.0, eps_object=0.0, steps=1)
    net = network()
    batch = attacked_batch(objects, contexts, net, attack)

    class Oracle(nn.Module):
        def forward(self, x):
            same = (x[:, None] - batch.clean).abs() * batch.masks.ge(
                1
            )  # pixels of the object that are those of a clean one
            logits = F.one_hot(batch.labels, 5).float()[same.flatten(2).amax(2).argmin(1)]
            return 9 * logits + 0 * x.sum()

    monitor = OverfittingMonitor(attack, 5, every=1, samples=7)
    monitor(Oracle(), batch)
    assert monitor.report()["looks"] == [[1, 7, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("counts", "overfitted"),
    [
        ([64, 60, 40, 1], True),
        ([64, 60, 40, 19], False),  # less than half by one: chance
        ([64, 3, 2, 0], None),  # an untrained network, of 43 classes
        ([64, 60, 0, 0], None),
        ([64, 64, 50, 30], False),
        ([20, 20, 18, 1], True),
        ([6, 6, 5, 0], False),
        ([1, 1, 1, 0], False),
        ([0, 0, 0, 0], None),
    ],
)
def test_only_what_is_sure_is_called_overfitting(counts, overfitted):
    monitor = OverfittingMonitor(PGD(eps=0.1), 43)
    monitor.load_state_dict({"step": 1, "looks": [(1, torch.tensor(counts))]})
    assert monitor.report()["overfitted"] is overfitted


def test_the_monitor_refuses_what_it_cannot_look_at(objects, contexts, untyped):
    net = network()
    batch = attacked_batch(objects, contexts, net)
    with pytest.raises(InputError, match=r"batch: expected Batch, .*returns=.batch.\)"):
        OverfittingMonitor(PGD(eps=0.1), 5)(net, Pair(batch.images, batch.labels))
    with pytest.raises(InputError, match="batch: expected one that was attacked"):
        OverfittingMonitor(PGD(eps=0.1), 5)(net, batch._replace(attacked=None))
    with pytest.raises(InputError, match="state: expected the state_dict of an OverfittingMonitor"):
        OverfittingMonitor(PGD(eps=0.1), 5).load_state_dict({})
