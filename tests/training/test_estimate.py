from dataclasses import replace

import pytest
import torch
from tinyrun import TINY, breaks_at, everything, training

from kornia_cag import ScenePGD


@pytest.mark.parametrize("first", [0, 1, 4])
def test_an_estimate_leaves_no_trace(first):
    """Of dropout, chain, hard pairing, adversaries, sampler, optimizer and random state."""
    recipe = replace(TINY, hard_pairing=True, scene_attack=ScenePGD(steps=1, fraction=0.5))
    straight = training(recipe)
    straight.run()
    want = everything(straight)
    run = training(recipe)
    if first:
        run.run(stop=lambda: run.steps == first)
    assert run.seconds_left() > 0
    assert (run.steps, run.seen) == (first, 30 * (first // 4) + 8 * (first % 4))
    run.run()
    got = everything(run)
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert straight.seen == run.seen
    assert run.seconds_left() == 0


@pytest.mark.parametrize("error", [None, ValueError, RuntimeError, KeyError])
def test_an_estimate_of_a_network_that_fails_is_none_and_raises_nothing(error):
    run = training(replace(TINY, attack=None))
    if error is None:
        breaks_at(run, 0)
    else:
        run.model.register_forward_pre_hook(lambda model, given: (_ for _ in ()).throw(error("an odd batch")))
    assert run.seconds_left() is None
    assert run.steps == 0
