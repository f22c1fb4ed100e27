"""Several ranks compose the images and find the gradients of one process; what they save goes on with other ranks."""

from collections import Counter

import pytest
import rankjobs
import torch
from ranked import on_ranks

from kornia_cag import PGD, ScenePGD, WorstOf
from kornia_cag.core import ranks
from kornia_cag.core.ranks import Share
from kornia_cag.training.shared import GlobalBatchNorm, weighed

# Epochs of 30 samples in batches of 7: the last has two, fewer than four ranks.
ATTACKS = {
    "pixels": (((PGD(eps=0.1, steps=2),), True), [2, 4]),
    "scenes": (((ScenePGD(steps=1, fraction=0.5),), False), [3]),
    "rivals": (((WorstOf(k=3, fraction=0.6),), False), [4]),
}


CASES = [(name, n, False) for name, (_, counts) in ATTACKS.items() for n in counts] + [("rivals", 2, True)]


@pytest.mark.parametrize(("attack", "count", "stream"), CASES)
def test_images_are_those_of_one_process_to_the_bit(attack, count, stream):
    """With a chain, a pairing that moves composites between ranks, and an attack; in rounding, if of scenes."""
    (adversaries, warm), _ = ATTACKS[attack]
    alone = rankjobs.composed(7, adversaries, warm, stream)
    parts = on_ranks(count, "rankjobs:composed", 7, adversaries, warm, stream)
    assert sorted(sample for part in parts for sample in part["samples"]) == sorted(alone["samples"])
    assert any(bool(chained) for _, _, chained, _ in alone["samples"].values())
    for part in parts:
        torch.testing.assert_close(part["confusion"], alone["confusion"])
        for sample, found in part["samples"].items():
            for one, other in zip(found, alone["samples"][sample], strict=True):
                room = 1e-5 if attack == "scenes" else 0
                torch.testing.assert_close(one, other, rtol=0, atol=room, equal_nan=True)


def close(found, wanted, tolerance=1e-5):
    """Whether tensors by name agree within rounding, as a share of each's largest value."""
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= tolerance * tensor.abs().max() + 1e-7, name


@pytest.mark.parametrize("count", [2, 4])
def test_gradients_and_weights_are_those_of_one_process(count):
    """With BatchNorm and dropout, and a last batch of two, of which a rank of four may have nothing."""
    alone, parts = rankjobs.trained(7, 64), on_ranks(count, "rankjobs:trained", 7, 64)
    assert min(alone["totals"]) == 2
    assert Counter(sample for part in parts for sample in part["samples"]) == Counter(alone["samples"])
    for part in parts:
        assert (part["seen"], part["steps"], part["totals"]) == (alone["seen"], alone["steps"], alone["totals"])
        assert torch.equal(part["rng"], alone["rng"])
        assert part["report"]["ranks"] == count
        assert part["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert part["weights"].keys() == alone["weights"].keys()
        assert all(torch.equal(value, parts[0]["weights"][name]) for name, value in part["weights"].items())
        close(part["gradients"][0], alone["gradients"][0])
        close(part["gradients"][4], alone["gradients"][4], 1e-3)
        close(
            {n: v.float() for n, v in part["average"].items()},
            {n: v.float() for n, v in alone["average"].items()},
            1e-2,
        )


def test_a_detector_weighs_by_objects():
    """Whose number differs between the ranks."""
    alone, parts = rankjobs.found(), on_ranks(3, "rankjobs:found")
    assert Counter(sample for part in parts for sample in part["samples"]) == Counter(alone["samples"])
    for part in parts:
        close(part["gradients"][0], alone["gradients"][0], 1e-4)
        assert part["loss"] == pytest.approx(alone["loss"], rel=1e-2)


def test_a_network_may_have_weights_that_nothing_uses():
    alone = rankjobs.unused()
    for part in on_ranks(2, "rankjobs:unused"):
        assert part["seen"] == alone["seen"]
        close(
            {n: v.float() for n, v in part["average"].items()},
            {n: v.float() for n, v in alone["average"].items()},
            1e-2,
        )


def test_the_monitor_counts_the_samples_of_one_process():
    alone, parts = rankjobs.monitored(), on_ranks(2, "rankjobs:monitored")
    attacked = [look[:2] for look in alone["looks"]]
    assert attacked
    for part in parts:
        assert part == parts[0]
        assert [look[:2] for look in part["looks"]] == attacked


@pytest.mark.parametrize("count", [1, 2])
def test_four_ranks_are_resumed_by_fewer(count, tmp_path):
    """No sample is lost or seen twice, and the weights are those of a run that nothing stopped."""
    whole, file = rankjobs.trained(7, 120), tmp_path / "run.pt"
    begun = on_ranks(4, "rankjobs:stopped", str(file), 7)
    rest = on_ranks(count, "rankjobs:resumed", str(file)) if count > 1 else [rankjobs.resumed(file)]
    samples = [sample for part in begun for sample in part] + [sample for part in rest for sample in part["samples"]]
    assert Counter(samples) == Counter(whole["samples"])
    for part in rest:
        assert part["seen"] == whole["seen"]
        close(
            {n: v.float() for n, v in part["average"].items()},
            {n: v.float() for n, v in whole["average"].items()},
            1e-2,
        )


def normalised(shape, momentum, affine):
    """What a rank of two makes of the longer or the shorter part of a batch, and the gradients of it."""
    torch.manual_seed(0)
    whole = torch.randn(5, *shape, dtype=torch.float64).float() * 3 + 2
    up = torch.randn_like(whole)
    layer = GlobalBatchNorm(shape[0], momentum=momentum, affine=affine)
    rank, count = ranks.here()
    share = Share(rank, count, 5) if count > 1 else Share(total=5)
    x = share.own(whole).clone().requires_grad_()
    out = layer(x)
    (out * share.own(up)).sum().backward()
    weights = {name: ranks.summed(weight.grad) for name, weight in layer.named_parameters()}
    return {"out": out.detach(), "grad": x.grad, "weights": weights, "state": layer.state_dict()}


@pytest.mark.parametrize(
    ("shape", "momentum", "affine"), [((3, 4, 4), 0.1, True), ((6,), None, True), ((2, 5), 0.3, False)]
)
def test_batchnorm_over_ranks_is_torch_s_over_the_whole(shape, momentum, affine):
    torch.manual_seed(0)
    whole = (torch.randn(5, *shape, dtype=torch.float64).float() * 3 + 2).requires_grad_()
    up = torch.randn_like(whole)
    kind = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm2d}[len(shape)]
    layer = kind(shape[0], momentum=momentum, affine=affine)
    out = layer(whole)
    (out * up).sum().backward()
    for rank, part in enumerate(on_ranks(2, "training.test_ranked_training:normalised", shape, momentum, affine)):
        own = Share(rank, 2, 5).own
        torch.testing.assert_close(part["out"], own(out.detach()), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(part["grad"], own(whole.grad), rtol=1e-4, atol=1e-5)
        for name, weight in layer.named_parameters():
            torch.testing.assert_close(part["weights"][name], weight.grad, rtol=1e-4, atol=1e-5)
        assert part["state"].keys() == layer.state_dict().keys()
        for name, value in layer.state_dict().items():
            torch.testing.assert_close(part["state"][name], value, rtol=1e-5, atol=1e-6)


def test_the_loss_of_one_process_is_not_touched():
    loss = torch.tensor(2.0, requires_grad=True)
    mine, whole = weighed(loss, torch.tensor(3), Share(total=3))
    assert mine is loss
    assert float(whole) == 2.0


def test_layers_that_are_derived_from_torchs_stay_as_they_are():
    first, second = on_ranks(2, "rankjobs:derived")
    assert (first["same"], second["same"]) == (True, True)
    assert first["kinds"] == second["kinds"] == ["Activated", "AlphaDropout", "GlobalBatchNorm"]
    assert (first["told"], second["told"]) == (["Activated", "AlphaDropout"], [])
