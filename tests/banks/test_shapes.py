"""Points that stand for a shape."""

import math
from itertools import pairwise

import torch
from conftest import make_objects

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.shapes import AREA, _hilbert
from kornia_cag.banks.texels import EXTENT


def test_a_hilbert_curve_goes_from_neighbour_to_neighbour_through_all_texels():
    for side in (1, 2, 8, 64):
        order = _hilbert(side)
        assert sorted(order) == list(range(side * side))
        steps = {abs(a % side - b % side) + abs(a // side - b // side) for a, b in pairwise(order)}
        assert steps <= {1}


def test_shares_cut_off_by_a_line_are_nearly_those_of_the_points(rng):
    for bank in (make_objects(size=64), ObjectBank.from_glyphs("ILW/-xO", size=64)):
        alpha = bank.pyramid.level(0)[:, 3].float()
        line = ((torch.arange(64) + 0.5) / 32 - 1) / EXTENT
        errors = []
        for angle, far in torch.rand(200, 2, generator=rng).tolist():
            cos, sin, far = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle), 1.2 * far - 0.6
            beyond = cos * line + sin * line[:, None] > far
            share = (alpha * beyond).sum((1, 2)) / alpha.sum((1, 2))
            x, y = bank.points[:, :, :AREA].unbind(1)
            errors.append((cos * x + sin * y > far).float().mean(dim=1) - share)
        errors = torch.stack(errors)
        assert errors.std() < 0.025
        assert errors.abs().max() < 0.09


def test_the_rim_bounds_the_shape():
    for bank in (make_objects(size=64), ObjectBank.from_glyphs("ILW/-xO", size=64)):
        opaque = bank.pyramid.level(0)[:, 3] > 127
        line = ((torch.arange(64) + 0.5) / 32 - 1) / EXTENT
        for axis, reduced in ((0, 1), (1, 2)):
            seen = torch.where(opaque.any(dim=reduced), line, torch.nan)
            rim = bank.points[:, axis, AREA:]
            texel = 2 / 64 / EXTENT
            assert (rim.amin(dim=1) <= seen.nan_to_num(9.0).amin(dim=1) + texel).all()
            assert (rim.amax(dim=1) >= seen.nan_to_num(-9.0).amax(dim=1) - texel).all()
