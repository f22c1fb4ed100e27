import pytest
import torch
from devicewait import RefuseWaiting
from torch import nn

from kornia_cag.training.divergence import Found, Watch, floats

NAN, INF = float("nan"), float("inf")


def watch_steps(device, losses, weights):
    """A watch over steps with these losses, after which the last weight is the given one."""
    model = nn.Linear(3, 2).to(device)
    watch = Watch(model, device)
    for number, (loss, weight) in enumerate(zip(losses, weights, strict=True), start=1):
        with torch.no_grad():
            model.bias[1] = weight
        with RefuseWaiting():
            watch.step(number, torch.full((), loss, device=device), model)
    return watch


@pytest.mark.parametrize(
    ("losses", "weights", "found"),
    [
        ([1.0, 2.0], [0.0, 1.0], None),
        ([1.0, NAN, 1.0], [0.0, 0.0, 0.0], Found("a loss that is not", 2)),
        ([1.0, INF, NAN], [0.0, 0.0, NAN], Found("a loss that is not", 2)),
        ([1.0, 1.0, NAN], [0.0, -INF, NAN], Found("weights that are not", 2)),
        ([NAN, 1.0], [NAN, 0.0], Found("a loss that is not", 1)),
    ],
)
def test_the_first_step_is_kept_without_waiting(device, losses, weights, found):
    assert watch_steps(device, losses, weights).found() == found


def test_a_mask_of_minus_infinity_is_no_divergence(device):
    model = nn.Linear(3, 2).to(device)
    model.register_buffer("mask", torch.full((2,), -INF, device=device))
    model.register_buffer("scale", torch.ones(2, device=device))
    watch = Watch(model, device)
    watch.step(1, torch.ones((), device=device), model)
    assert watch.found() is None
    assert watch.finite(model)
    model.scale[0] = NAN
    assert not watch.finite(model)
    watch.step(2, torch.ones((), device=device), model)
    assert watch.found() == Found("weights that are not", 2)


def test_large_half_precision_weights_are_finite():
    model = nn.Linear(1000, 1000, dtype=torch.float16)
    nn.init.constant_(model.weight, 100.0)  # whose norm no half can hold
    watch = Watch(model, torch.device("cpu"))
    watch.step(1, torch.ones(()), model)
    assert watch.found() is None


def test_floats_of_several_widths_are_watched_together():
    model = nn.Linear(3, 2)
    model.register_buffer("mean", torch.full((3,), 1e100, dtype=torch.float64))  # beyond what float32 holds
    model.register_buffer("narrow", torch.ones(3, dtype=torch.bfloat16))
    model.register_buffer("empty", torch.ones(0))
    watch = Watch(model, torch.device("cpu"))
    watch.step(1, torch.ones(()), model)
    assert watch.found() is None
    model.mean[1] = NAN
    watch.step(2, torch.ones(()), model)
    assert watch.found() == Found("weights that are not", 2)


def test_a_copy_sees_nothing_of_what_the_other_sees():
    watch = watch_steps(torch.device("cpu"), [1.0], [0.0])
    other = watch.copy()
    other.step(2, torch.tensor(NAN), nn.Linear(3, 2))
    assert other.found() is not None
    assert watch.found() is None


def test_integers_are_no_floats():
    assert {name for name, _ in floats(nn.BatchNorm1d(2))} == {"weight", "bias", "running_mean", "running_var"}
