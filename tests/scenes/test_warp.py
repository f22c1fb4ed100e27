import math
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from conftest import make_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry import warp_perspective
from stacked import canvas_points, displace, outline, project, warp
from torch import Tensor

from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.pose import PoseRange, homographies
from kornia_cag.scenes.warp import finest_level, fit_level

STILL = PoseRange(
    scale=(EXTENT, EXTENT), aspect=(1, 1), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0)
)  # fmt: skip
NO_WAVES, NO_HOLES = torch.zeros(1, 0, 5), torch.zeros(1, 0, 3)


def keys(n: int) -> Tensor:
    index = torch.arange(n)
    return sample_keys(0 * index + 5, 0 * index, index)


def still(n: int, size: tuple[int, int]) -> Tensor:
    return homographies(STILL.sample(keys(n)), size)


def test_canvas_points() -> None:
    points = canvas_points((2, 3), torch.device("cpu"))
    assert points.tolist() == [[[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]], [[0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_identity_is_the_picture(device: torch.device, level: int) -> None:
    """A canvas as large as a level, the whole bank picture on it: that level, texel by texel."""
    bank = make_objects(device)
    side = 32 >> level
    ids = torch.tensor([0, 3, 4], device=device)
    pose = STILL.sample(keys(3).to(device))
    homography = homographies(pose, (side, side))
    empty = NO_WAVES.to(device).expand(3, -1, -1), NO_HOLES.to(device).expand(3, -1, -1)
    got = warp(bank.pyramid, ids, homography, *empty, torch.zeros(3, device=device), (side, side))
    torch.testing.assert_close(got, bank.pyramid.level(level)[ids] / 255.0, rtol=0, atol=2e-5)


def test_matches_kornia_on_one_level() -> None:
    """kornia counts pixels from their centres, so both of its coordinates are half a pixel less."""
    bank = make_objects()
    n, size = 12, (30, 37)
    pose = PoseRange(angle=(-180, 180), shear=(-30, 30), perspective=(-0.3, 0.3)).sample(keys(n))
    homography = homographies(pose, size)
    ids = torch.arange(n) % 5
    got = warp(bank.pyramid, ids, homography, pose.waves, pose.holes, torch.full((n,), -9.0), size)
    to_texel = torch.tensor([[EXTENT * 16, 0, 16.0], [0, EXTENT * 16, 16.0], [0, 0, 1]]).double()
    half = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).double()
    pull = torch.linalg.inv(half) @ to_texel @ homography.double() @ half
    source = bank.pyramid.level(0)[ids].double() / 255
    expected = warp_perspective(source, torch.linalg.inv(pull), size, "bilinear", "zeros", align_corners=True)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    assert got[:, 3].amax((1, 2)).min() > 0.9


def test_matches_the_oracle(device: torch.device) -> None:
    bank = make_objects(device)
    bank = replace(bank, pyramid=build_pyramid(bank.pyramid.level(0), replicate=False))
    wild = PoseRange(
        scale=(0.3, 1.4), angle=(-180, 180), shear=(-40, 40), perspective=(-0.4, 0.4), translate=(-0.4, 0.4),
        elastic=(0.05, 0.2), hole=(0.0, 0.6), holes=3,
    )  # fmt: skip
    n, size = 24, (23, 31)
    pose = wild.sample(keys(n).to(device))
    ids = torch.arange(n, device=device) % 5
    coarser = torch.linspace(-1, 3, n)
    got = warp(bank.pyramid, ids, homographies(pose, size), pose.waves, pose.holes, coarser.to(device), size)
    checked = 0
    for row in range(n):
        sure: list[bool] = []
        levels = oracle.mips(bank.pyramid.level(0)[row % 5].permute(1, 2, 0).cpu().numpy())
        drawn = oracle.pose_row(pose, row)
        expected = oracle.warp(levels, oracle.object_to_canvas(drawn, size), drawn, float(coarser[row]), size, sure)
        if all(sure):
            np.testing.assert_allclose(got[row].permute(1, 2, 0).cpu(), expected, rtol=0, atol=1e-4)
            checked += 1
    assert checked >= n - 2


def test_layer_stays_premultiplied() -> None:
    bank, n = make_objects(), 16
    pose = PoseRange(angle=(-90, 90), hole=(0.1, 0.4)).sample(keys(n))
    layer = warp(bank.pyramid, torch.arange(n) % 5, homographies(pose, (25, 25)), pose.waves, pose.holes,
                 torch.zeros(n), (25, 25))  # fmt: skip
    assert layer.min() >= 0
    assert layer.max() <= 1 + 1e-6
    assert (layer[:, :3] - layer[:, 3:]).max() <= 1e-6


@pytest.mark.parametrize(("scale", "level"), [(1.0, 0), (0.5, 1), (0.25, 2), (0.125, 3), (0.01, 3), (4.0, 0)])
def test_level_fits_the_scale(scale: float, level: int) -> None:
    bank = make_objects()
    pose = STILL.sample(keys(1))
    homography = homographies(replace(pose, scale=pose.scale * scale, angle=torch.tensor([33.0])), (32, 32))
    assert fit_level(homography, bank.pyramid, torch.zeros(1)).tolist() == [level]
    assert fit_level(homography, bank.pyramid, torch.ones(1)).tolist() == [min(level + 1, 3)] or scale > 1


@pytest.mark.parametrize("longest", [3.0, 7.0 * 2**0.5, 9.9, 14.0 * 2**0.5, 30.0, 28.0 * 2**0.5, 500.0])
def test_finest_level(longest: float) -> None:
    """No object of that size or less has a finer one, however it lies; where rounding decides, one more may be held."""
    bank, ranges = make_objects(), PoseRange(angle=(-180, 180), shear=(-40, 40), perspective=(-0.4, 0.4))
    pose = replace(ranges.sample(keys(500)), scale=torch.full((500,), longest / 20))
    found = fit_level(homographies(pose, (20, 30)), bank.pyramid, torch.zeros(500))
    finest = finest_level(bank.pyramid, longest)
    assert finest in (found.min(), found.min() - 1)
    assert fit_level(homographies(pose, (20, 30)), bank.pyramid, torch.full((500,), -9.0), finest).unique() == finest


def test_shrinking_does_not_alias() -> None:
    """Fine stripes, shrunk eight times, are grey, not stripes of another width."""
    stripes = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    stripes[:, 3], stripes[:, :3, :, ::2] = 255, 255
    layer = warp(build_pyramid(stripes, False), torch.tensor([0]), still(1, (8, 8)), NO_WAVES, NO_HOLES,
                 torch.zeros(1), (8, 8))  # fmt: skip
    torch.testing.assert_close(layer[:, :3], torch.full((1, 3, 8, 8), 0.5), rtol=0, atol=0.01)


def test_holes() -> None:
    solid = torch.full((2, 4, 32, 32), 255, dtype=torch.uint8)
    hole = torch.tensor([[[0.3, -0.2, 0.4]], [[0.3, -0.2, 0.0]]])  # the second has no radius: no hole at all
    layer = warp(build_pyramid(solid, False), torch.tensor([0, 1]), still(2, (32, 32)), NO_WAVES.expand(2, -1, -1),
                 hole, torch.zeros(2), (32, 32))  # fmt: skip
    points = project(still(1, (32, 32)), canvas_points((32, 32), torch.device("cpu")))[0]
    distance = (points - torch.tensor([0.3, -0.2])).norm(dim=-1)
    assert (layer[0, :, distance < 0.35] == 0).all()
    assert (distance < 0.35).any()
    assert (layer[0, :, distance > 0.45] > 0.999).all()
    assert (layer[1] > 0.999).all()


def test_waves_by_hand() -> None:
    """One wave along x of length 2 that moves y by 0.1."""
    wave = torch.tensor([[[0.5, 0.0, 0.0, 0.1, 0.0]]])
    points = torch.tensor([[[0.0, 0.3], [0.5, 0.3], [-0.5, 0.0], [1.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.3], [0.5, 0.4], [-0.5, -0.1], [1.0, 1.0]]])
    torch.testing.assert_close(displace(points, wave), expected, rtol=0, atol=1e-6)


def test_behind_the_horizon_nothing_is_drawn() -> None:
    homography = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-1, 0, 5]]])  # depth 5 - x
    points = torch.tensor([[4.0, 1.0], [5.0, 1.0], [6.0, 1.0], [50.0, 1.0]])
    got = project(homography, points)[0]
    assert got.isfinite().all()
    assert got[0].tolist() == [4.0, 1.0]
    assert (got[1:].abs().amax(dim=1) > 100).all()


def test_boxes_by_hand(device: torch.device) -> None:
    alpha = torch.zeros(6, 1, 10, 12, device=device)
    alpha[0, 0, 5, 3] = 1.0  # one pixel
    alpha[1, 0, 2:7, 4:9] = 0.6  # a block
    alpha[3, 0, 0, 0], alpha[3, 0, 9, 11] = 1.0, 1.0  # opposite corners; row 2 is empty
    alpha[4], alpha[4, 0, 3, 3] = 0.5, 0.8  # at the threshold is not above it
    alpha[5, 0, 4, :], alpha[5, 0, 4, 6] = 0.4, 0.9
    alpha[2] = 0.99 / 255  # less than a level
    expected = [[3, 5, 4, 6], [4, 2, 9, 7], None, [0, 0, 12, 10], [3, 3, 4, 4], [6, 4, 7, 5]]
    threshold, boxes, visible = outline(alpha)
    assert boxes.dtype == torch.float32
    assert visible.tolist() == [True, True, False, True, True, True]
    assert boxes[2].isnan().all()
    assert [box.tolist() if seen else None for box, seen in zip(boxes, visible, strict=True)] == expected
    torch.testing.assert_close(threshold.cpu(), torch.tensor([0.5, 0.375, torch.inf, 0.5, 0.5, 0.5]))
    half = outline(alpha, 0.6)
    assert half.boxes[5].tolist() == [0, 4, 12, 5]
    assert half.threshold[5] == 0.3


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(1 / 255, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_whatever_is_seen_has_a_box(h: int, w: int, opacity: float, share: float, seed: int) -> None:
    """Around its highest alpha at least, and inside the canvas; what is below one level has none."""
    alpha = opacity * share * torch.rand(3, 1, h, w, generator=torch.Generator().manual_seed(seed))
    threshold, boxes, visible = outline(alpha, opacity)
    assert torch.equal(visible, alpha.flatten(1).amax(1) >= 1 / 255)
    for picture, box, bound, seen in zip(alpha[:, 0], boxes, threshold, visible, strict=True):
        y, x = (picture > bound).nonzero().unbind(1)
        assert bool(seen) == bool(len(x))
        if seen:
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        else:
            assert box.isnan().all()


def test_gradcheck_of_points() -> None:
    generator = torch.Generator().manual_seed(0)
    homography = torch.eye(3, dtype=torch.float64) + 0.1 * torch.rand(2, 3, 3, dtype=torch.float64, generator=generator)
    points = torch.rand(5, 2, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(project, (homography.requires_grad_(), points.requires_grad_()))
    waves = torch.rand(2, 3, 5, dtype=torch.float64, generator=generator)
    points = torch.rand(2, 4, 2, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(displace, (points.requires_grad_(), waves.requires_grad_()))


def test_gradcheck_of_the_warp() -> None:
    """In all that bends the object: homography, waves, holes."""
    bank = make_objects()
    size = (5, 6)
    pose = PoseRange(elastic=(0.02, 0.02), waves=2, hole=(0.3, 0.3)).sample(keys(2))
    inputs = [v.double().requires_grad_() for v in (homographies(pose, size), pose.waves, pose.holes)]
    level = torch.zeros(2)

    def layer(*values: Tensor) -> Tensor:
        return warp(bank.pyramid, torch.tensor([1, 2]), *values, level, size)  # type: ignore[call-arg]

    assert torch.autograd.gradcheck(layer, inputs, eps=1e-7, atol=1e-4)


def test_area_of_a_disc() -> None:
    """Drawn at scale ``s`` on a short side of 40, a disc covers ``pi (20 s)²`` pixels."""
    bank = make_objects(size=64)
    for scale in (0.3, 0.6, 0.9):
        pose = replace(STILL, scale=(scale, scale)).sample(keys(1))
        layer = warp(bank.pyramid, torch.tensor([0]), homographies(pose, (40, 60)), NO_WAVES, NO_HOLES,
                     torch.zeros(1), (40, 60))  # fmt: skip
        covered, edge = layer[0, 3].sum().item(), 1 / 16  # the alpha ramp's middle lies inside the outermost trace
        assert covered == pytest.approx(math.pi * (20 * scale * (1 - edge)) ** 2, rel=0.08)
