"""Drawn objects without a class."""

import numpy as np
import pytest
import torch

from kornia_cag.banks.furniture import _KINDS, furniture
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import InputError


def test_they_have_no_class_and_are_all_different(device):
    bank = ObjectBank.procedural(256, size=16, device=str(device))
    assert bank.labels.tolist() == [-1] * 256
    assert bank.classes == ()
    assert bank.device.type == device.type
    assert len(set(bank.pyramid.checksums())) == 256
    assert "distractors=256" in repr(bank)


def test_more_extend_fewer_and_seeds_differ():
    few, more = ObjectBank.procedural(9, size=32, seed=5), ObjectBank.procedural(17, size=32, seed=5)
    assert torch.equal(few.pyramid.level(0), more.pyramid.level(0)[:9])
    other = ObjectBank.procedural(9, size=32, seed=6)
    assert (few.pyramid.level(0) != other.pyramid.level(0)).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("number", range(3 * len(_KINDS)))
def test_each_fills_its_picture_and_has_an_edge(number):
    picture = furniture(number, 256, seed=1)
    alpha = picture[..., 3] > 127
    spans = [np.ptp(np.flatnonzero(alpha.any(axis=axis))) for axis in (0, 1)]
    assert max(spans) > 0.6 * 256
    assert 0.02 < alpha.mean() < 0.97
    assert not alpha[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_kinds_take_turns():
    """A wheel is dark at its rim, and a lamp alone in having a soft one."""
    wheel = furniture(3, 256, seed=2)
    assert wheel[128, 8, :3].max() < 80
    shares = [((a := furniture(n, 256, seed=2)[..., 3]) > 0).mean() - (a == 255).mean() for n in range(64)]
    assert {n % len(_KINDS) for n, share in enumerate(shares) if share > 0.05} == {5}


def test_numbers_out_of_range():
    with pytest.raises(InputError, match="count: expected"):
        ObjectBank.procedural(0)
    with pytest.raises(InputError, match="seed: expected"):
        ObjectBank.procedural(1, seed=-1)
    with pytest.raises(InputError, match="size: expected a power of two"):
        ObjectBank.procedural(1, size=30)
