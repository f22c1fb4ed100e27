import pytest
import torch
import torch.nn.functional as F
from models import attacked_batch, network
from torch import nn

from kornia_cag import PGD, CAGCollate, InputError, OverfittingMonitor, PairSampler
from kornia_cag.loading.batch import Pair


def by_heart(objects, contexts):
    """The least linear model that is right, by formula: no training that a machine rounds its own way."""
    collate = CAGCollate(objects, contexts, 16)
    images, labels = collate(next(iter(PairSampler(objects.labels.cpu(), len(contexts), batch_size=35, seed=5))))
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


def test_a_model_that_withstands_pgd_is_not_overfitted(objects, contexts, device):
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).to(device)
    nn.init.zeros_(net[1].weight)
    batch = attacked_batch(objects, contexts, net)
    monitor = OverfittingMonitor(PGD(eps=0.1), 5, every=1)
    assert monitor.report() == {"columns": ["step", "attacked", "clean", "attack", "pgd"], "looks": [],
                                "overfitted": None}  # fmt: skip
    monitor(net, batch)
    assert monitor.report()["overfitted"] is None  # it knows nothing


def test_the_monitor_attacks_as_the_training_does_and_only_so_many(objects, contexts, device):
    """The object is safe: a network that looks at it alone is right under every attack on the context."""
    attack = PGD(eps=1.0, eps_object=0.0, steps=1)
    net = network(device)
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


def test_the_monitor_refuses_what_it_cannot_look_at(objects, contexts, device, untyped):
    net = network(device)
    batch = attacked_batch(objects, contexts, net)
    with pytest.raises(InputError, match=r'batch: expected Batch, .*returns="batch"'):
        OverfittingMonitor(PGD(eps=0.1), 5)(net, Pair(batch.images, batch.labels))
    with pytest.raises(InputError, match="batch: expected an attacked batch"):
        OverfittingMonitor(PGD(eps=0.1), 5)(net, batch._replace(attacked=None))
    with pytest.raises(InputError, match="state: expected the state_dict of an OverfittingMonitor"):
        OverfittingMonitor(PGD(eps=0.1), 5).load_state_dict({})
