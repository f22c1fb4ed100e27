from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, training

from kornia_cag.training.schedule import average, schedule


def test_learning_rate_schedule():
    assert 0 < schedule(0, 10**6) < 1e-4
    assert schedule(20_000, 10**6) > 0.99
    assert schedule(500_000, 10**6) == pytest.approx(0.5)
    assert schedule(10**6, 10**6) == schedule(10**6 + 100, 10**6) == pytest.approx(0)
    assert schedule(1_000, 30_000) < 0.5 < schedule(3_000, 30_000)
    falling = [schedule(seen, 10**6) for seen in range(20_000, 10**6, 20_000)]
    assert falling == sorted(falling, reverse=True)


def test_averaged_weights_are_the_formula(monkeypatch):
    run = training(replace(TINY, ema=0.5), images=40)
    seen = []

    def spy(*given):
        average(*given)
        seen.append({name: value.clone() for name, value in run.model.state_dict().items()})

    monkeypatch.setattr("kornia_cag.training.learner.average", spy)
    run.run()
    assert len(seen) == 5 + 1  # an epoch ends in a batch of 6
    want = {name: value.double() for name, value in seen[0].items()}
    for count, state in enumerate(seen[1:], start=1):
        weight = max(0.5, 9 / (10 + count))
        want = {name: (1 - weight) * want[name] + weight * value.double() for name, value in state.items()}
    for name, value in run.learner.average.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), want[name], rtol=1e-4, atol=1e-6), name
        else:
            assert value == len(seen)
    assert not any(value.requires_grad for value in run.learner.average.parameters())
    assert all(
        a.data_ptr() != m.data_ptr()
        for a, m in zip(run.learner.average.parameters(), run.model.parameters(), strict=True)
    )


def test_a_mask_of_minus_infinity_is_averaged_as_it_is():
    run = training(replace(TINY, attack=None), images=24)
    for network in (run.model, run.learner.average):
        network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    run.learner.watch = type(run.learner.watch)(run.model, run.objects.device)
    run.run()
    assert run.learner.average.mask.tolist() == [0.0, -torch.inf]
