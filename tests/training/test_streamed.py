import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tinyrun import TINY, everything

from kornia_cag import ContextStream, InputError, Training

RECIPE = replace(TINY, images=100)


def pictures():
    for number in itertools.count():
        yield np.random.default_rng(number).integers(0, 256, (70, 64, 3), np.uint8)


def training(slots=6):
    contexts = ContextStream(pictures, slots=slots, size=RECIPE.texels, device="cpu", workers=2)
    return Training(RECIPE, RECIPE.objects(None, device="cpu"), contexts, seed=3), contexts


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_stop_and_resume_is_bit_identical(stop, tmp_path):
    whole, all_along = training()
    whole.seconds_left(0.1)  # its steps begin at the first epoch, and change nothing
    whole.run()
    first, before = training()
    first.run(save=tmp_path / "run.pt", stop=lambda: first.steps == stop)
    first.seconds_left(0.1)
    resumed, after = training()
    resumed.load(tmp_path / "run.pt")
    assert resumed.steps == stop
    resumed.run()
    for name, value in everything(whole).items():
        assert torch.equal(value, everything(resumed)[name]), name
    assert torch.equal(all_along.bank.pyramid.words, after.bank.pyramid.words)
    for contexts in (all_along, before, after):
        contexts.close()


def test_a_run_on_other_slots_is_refused(tmp_path):
    first, contexts = training()
    first.run(save=tmp_path / "run.pt", stop=lambda: True)
    with pytest.raises(InputError, match="count"):
        training(slots=12)[0].load(tmp_path / "run.pt")
    contexts.close()
