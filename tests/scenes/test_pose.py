import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import object_to_canvas, pose_row
from stacked import canvas_points, displace, outline, project, warp
from torch import Tensor

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.framing import Framing, extent
from kornia_cag.scenes.pose import PoseRange, axes, homographies, to_canvas
from kornia_cag.scenes.warp import CELL, draft

FIXED = PoseRange(
    scale=(1, 1), aspect=(1, 1), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0)
)  # fmt: skip
WILD = PoseRange(
    scale=(0.1, 2), aspect=(1 / 3, 3), angle=(-180, 180), shear=(-50, 50), translate=(-1, 1), perspective=(-0.4, 0.4),
    elastic=(0, 0.3), wavelength=(0.2, 3), waves=5, hole=(0.1, 0.5), holes=3,
)  # fmt: skip
FIELDS = ("scale", "angle", "shear", "x", "y", "tilt_x", "tilt_y")
BOUNDS = dict(
    zip(FIELDS, ("scale", "angle", "shear", "translate", "translate", "perspective", "perspective"), strict=True)
)


def keys(n: int, seed: int = 0) -> Tensor:
    index = torch.arange(n)
    return sample_keys(torch.full_like(index, seed), 0 * index, index)


def to_object(ranges: PoseRange, canvas: list[tuple[float, float]], size: tuple[int, int] = (40, 40)) -> Tensor:
    """Where in the object canvas points are read."""
    homography = homographies(ranges.sample(keys(1)), size)
    return project(homography, torch.tensor(canvas, dtype=torch.float32))[0]


def close(got: Tensor, *expected: tuple[float, float]) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-5)


def test_convention_centre_and_edges() -> None:
    """Canvas to object; the canvas's centre is the object's, and its edges, not its outer pixel centres, are ±1."""
    close(to_object(FIXED, [(20, 20), (40, 20), (20, 0), (0.5, 20)]), (0, 0), (1, 0), (0, -1), (-0.975, 0))


def test_convention_scale_of_the_short_side() -> None:
    half = replace(FIXED, scale=(0.5, 0.5))
    close(to_object(half, [(40, 10), (50, 10), (40, 15)], size=(20, 80)), (0, 0), (2, 0), (0, 1))


def test_convention_angle_is_clockwise_on_screen() -> None:
    """A quarter turn brings the object's right side down and its top to the right."""
    turned = replace(FIXED, angle=(90, 90))
    close(to_object(turned, [(20, 40), (40, 20)]), (1, 0), (0, -1))
    close(to_object(replace(FIXED, angle=(30, 30)), [(20 + 20 * math.cos(math.pi / 6), 30)]), (1, 0))


def test_convention_shear_leans_the_top_to_the_right() -> None:
    """As in torchvision's and kornia's affine maps."""
    sheared = replace(FIXED, shear=(-45, -45))
    close(to_object(sheared, [(40, 40), (0, 0), (40, 20)]), (0, 1), (0, -1), (1, 0))


def test_convention_aspect_is_width_over_height() -> None:
    wide = replace(FIXED, aspect=(4, 4))
    close(to_object(wide, [(60, 20), (20, 30)]), (1, 0), (0, 1))


def test_convention_shift() -> None:
    shifted = replace(FIXED, translate=(0.25, 0.25))
    close(to_object(shifted, [(40, 25), (50, 25)], size=(40, 60)), (0, -0.25), (0.5, -0.25))


def test_convention_tilt_puts_the_right_side_farther() -> None:
    """At depth ``1 + tilt`` the right edge is nearer to the centre on the canvas."""
    tilted = homographies(replace(FIXED.sample(keys(1)), tilt_x=torch.tensor([0.25])), (40, 40))
    points = torch.tensor([[20 + 20 / 1.25, 20], [20 - 20 / 0.75, 20], [20, 20], [20 + 20 / 1.25, 20 + 20 / 1.25]])
    close(project(tilted, points)[0], (1, 0), (-1, 0), (0, 0), (1, 1))


def test_shear_comes_before_rotation() -> None:
    both = replace(FIXED, angle=(90, 90), shear=(-45, -45))
    close(to_object(both, [(0, 40), (20, 40)]), (0, 1), (1, 0))


def test_homographies_invert_forward_matrices(device: torch.device) -> None:
    pose = WILD.sample(keys(64).to(device))
    for size in ((40, 40), (17, 50)):
        got = homographies(pose, size).double().cpu().numpy()
        for row in range(64):
            expected = np.linalg.inv(object_to_canvas(pose_row(pose, row), size))
            np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_centre_has_depth_one() -> None:
    pose = WILD.sample(keys(16))
    homography = homographies(pose, (30, 50))
    centre = torch.stack([25 + 30 * pose.x, 15 + 30 * pose.y, torch.ones(16)], dim=1)
    torch.testing.assert_close((homography[:, 2] * centre).sum(1), torch.ones(16), rtol=0, atol=1e-4)


def test_same_key_same_pose(device: torch.device) -> None:
    all_keys = keys(33).to(device)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0)).to(device)
    whole = WILD.sample(all_keys)
    for rows in (1, 3, 16):
        parts = [WILD.sample(part) for part in all_keys[order].split(rows)]
        for name, value in vars(whole).items():
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), value[order]), name


def test_draws_of_one_field_do_not_depend_on_other_ranges() -> None:
    few = replace(FIXED, angle=WILD.angle)
    assert torch.equal(few.sample(keys(9)).angle, WILD.sample(keys(9)).angle)


def test_different_keys_different_poses() -> None:
    pose = WILD.sample(keys(256))
    for name in FIELDS:
        assert len(getattr(pose, name).unique()) > 250


@st.composite
def pairs(draw: st.DrawFn, low: float, high: float) -> tuple[float, float]:
    a, b = (draw(st.floats(low, high)) for _ in range(2))
    return min(a, b), max(a, b)


@settings(max_examples=40, deadline=None)
@given(
    scale=pairs(0.01, 5), aspect=pairs(0.2, 5), angle=pairs(-360, 360), shear=pairs(-80, 80), translate=pairs(-2, 2),
    perspective=pairs(-0.45, 0.45), elastic=pairs(0, 1), wavelength=pairs(0.1, 50), hole=pairs(0, 2),
    strength=st.floats(0, 1, width=32),
)  # fmt: skip
def test_ranges_are_respected(strength: float, **ranges: tuple[float, float]) -> None:
    limits = PoseRange(**ranges)
    pose = limits.sample(keys(32), torch.full((32,), strength))
    homography = homographies(pose, (20, 30))
    assert homography.isfinite().all()
    for name in FIELDS:
        low, high = ranges[BOUNDS[name]]
        drawn, slack = getattr(pose, name), 1e-5 * max(abs(low), abs(high), 1)
        assert drawn.min() >= low - slack, name
        assert drawn.max() <= high + slack, name
    low, high = ranges["aspect"]
    assert pose.aspect.min() >= low * 0.9999
    assert pose.aspect.max() <= high * 1.0001
    assert (pose.holes[..., :2].abs() <= 1).all()
    assert ((pose.holes[..., 2] >= 0) & (pose.holes[..., 2] <= ranges["hole"][1] * 1.0001)).all()
    assert pose.variant.min() >= 0
    assert pose.variant.max() < 1
    wavelength = 1 / pose.waves[..., :2].norm(dim=-1)
    low, high = ranges["wavelength"]
    assert ((wavelength >= low * 0.999) & (wavelength <= high * 1.001)).all()


def test_ranges_are_filled() -> None:
    pose = WILD.sample(keys(4096))
    for name in FIELDS:
        low, high = getattr(WILD, BOUNDS[name])
        drawn = getattr(pose, name)
        assert drawn.min() < low + 0.01 * (high - low)
        assert drawn.max() > high - 0.01 * (high - low)
    assert abs(pose.aspect.log().mean()) < 0.05  # as often wide as high


def test_strength_zero_is_neutral() -> None:
    pose = WILD.sample(keys(5), torch.zeros(5))
    for name, neutral in zip(FIELDS, (1.05, 0, 0, 0, 0, 0, 0), strict=True):
        torch.testing.assert_close(getattr(pose, name), torch.full((5,), float(neutral)))
    assert (pose.aspect == 1).all()
    assert (pose.variant == 0).all()
    assert (pose.waves[..., 2:4] == 0).all()
    assert (pose.holes[..., 2] == 0).all()


def test_strength_zero_stays_in_a_range_without_the_neutral_value() -> None:
    pose = replace(FIXED, angle=(10, 20), aspect=(0.5, 0.8)).sample(keys(3), torch.zeros(3))
    torch.testing.assert_close(pose.angle, torch.full((3,), 10.0))
    torch.testing.assert_close(pose.aspect, torch.full((3,), 0.8))


def test_strength_is_linear_and_per_sample() -> None:
    strength = torch.tensor([0.0, 0.25, 1.0])
    full = WILD.sample(keys(3))
    part = WILD.sample(keys(3), strength)
    for name in ("angle", "shear", "x", "tilt_y"):
        torch.testing.assert_close(getattr(part, name), strength * getattr(full, name))
    torch.testing.assert_close(part.waves[..., 2:4], strength[:, None, None] * full.waves[..., 2:4])
    torch.testing.assert_close(WILD.sample(keys(3), torch.ones(3)).angle, full.angle, rtol=0, atol=0)


def test_elastic_displacement_has_the_stated_size() -> None:
    """Root mean square along each axis, over poses and places."""
    pose = replace(FIXED, elastic=(0.1, 0.1)).sample(keys(2000))
    points = (torch.rand(2000, 30, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 3
    moved = displace(points, pose.waves) - points
    torch.testing.assert_close(moved.square().mean((0, 1)).sqrt(), torch.tensor([0.1, 0.1]), rtol=0.05, atol=0)
    assert abs(torch.corrcoef(moved.flatten(0, 1).T)[0, 1]) < 0.05


@pytest.mark.parametrize("bank", ["shapes", "digits"])
@pytest.mark.parametrize("size", [(28, 28), (28, 36)])
def test_framing(bank: str, size: tuple[int, int]) -> None:
    """The way MNIST was made: longest side 20 of 28 pixels, centre of mass in the middle."""
    objects = make_objects(size=64) if bank == "shapes" else ObjectBank.from_glyphs("0123456789", size=64)
    mild = PoseRange(translate=(-0.3, 0.3), shear=(-30, 30), perspective=(-0.4, 0.4))
    n = 100
    pose, ids = mild.sample(keys(n)), torch.arange(n) % len(objects)

    lines, seen = draft(objects.pyramid, ids, pose.waves, pose.holes)
    there = extent(pose, axes(pose, size), lines, seen, torch.ones(n), 0.5 * CELL * min(size) * pose.scale)
    framing = Framing().apply(homographies(pose, size), there, size)
    framed = warp(objects.pyramid, ids, framing, pose.waves, pose.holes, torch.zeros(n), size)[:, 3:]
    points = canvas_points(size, torch.device("cpu"))
    boxes = outline(framed).boxes
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert abs(longest.mean() - 20) < 0.8  # soft edges: whole pixels above one half
    assert (longest - 20).abs().max() <= 2  # of whole pixels, and a draft knows a side to half a cell
    mass = (framed * points.permute(2, 0, 1)).sum((2, 3)) / framed.sum((2, 3))
    assert (mass - torch.tensor([size[1] / 2, size[0] / 2])).abs().max() < 0.5


def test_to_canvas_inverts_homographies() -> None:
    pose = WILD.sample(keys(64))
    points = torch.rand(50, 2) * 2 - 1
    there, depth = to_canvas(pose, points[None, :, 0], points[None, :, 1], axes(pose, (30, 40)))
    back = torch.stack([project(h[None], p.T)[0] for h, p in zip(homographies(pose, (30, 40)), there, strict=True)])
    assert torch.where(depth[..., None] > 0.05, back - points, 0.0).abs().max() < 1e-3


def test_framing_is_exact_for_a_known_alpha() -> None:
    """Columns 4 to 13 of a canvas 20 wide: ten pixels, brought to fifteen, heavy side to the middle."""
    alpha = torch.zeros(1, 20, 20)
    alpha[0, 8:12, 4:14] = 1.0
    pose = replace(FIXED, scale=(0.1, 0.1)).sample(keys(1))  # an object unit is a pixel
    own, lines = axes(pose, (20, 20)), torch.arange(20) - 9.5
    there = extent(pose, own, lines, alpha, torch.ones(1), torch.ones(1))
    framed = Framing(side=0.75).apply(homographies(pose, (20, 20), own), there, (20, 20))
    back = project(framed, torch.tensor([[10.0, 10.0], [17.5, 10.0], [10.0, 13.0]]))[0] + 10
    close(back, (9, 10), (14, 10), (9, 12))


def test_an_extent_is_that_of_all_points() -> None:
    """In front of the horizon, with the canvas's area at each: what an object unit takes there, by depth ** -3."""
    n, size = 200, (30, 40)
    pose, lines = WILD.sample(keys(n)), torch.linspace(-1.6, 1.6, 33)
    alpha = torch.rand(n, 33, 33, generator=torch.Generator().manual_seed(0)) ** 4
    alpha[0], alpha[1] = 0, 0.01 * alpha[1]
    opacity, own = torch.linspace(0.5, 1, n), axes(pose, size)
    got = extent(pose, own, lines, alpha, opacity, torch.full((n,), 0.5))
    y, x = (v.flatten()[None] for v in torch.meshgrid(lines, lines, indexing="ij"))
    places, depth = to_canvas(pose, x, y, own)
    seen = alpha.flatten(1) * (depth > 0.05)
    bound = torch.minimum(0.5 * opacity, 0.625 * seen.amax(1))
    mass = seen * depth.clamp(min=0.05) ** -3
    for row in range(1, n):
        bounded = places[row][:, seen[row] > bound[row]]
        longest = (bounded.amax(1) - bounded.amin(1)).max() + 0.5
        torch.testing.assert_close(got.longest[row], longest, rtol=1e-5, atol=1e-4)
        middle = (places[row] * mass[row]).sum(1) / mass[row].sum()
        torch.testing.assert_close(got.mass[row], middle, rtol=1e-4, atol=1e-3)
    assert got.visible.tolist() == [False] + [True] * (n - 1)
    assert (depth < 0).any()


def test_framing_leaves_an_object_out_of_sight_alone() -> None:
    pose, size = WILD.sample(keys(2)), (20, 20)
    homography, own = homographies(pose, size), axes(pose, size)
    there = extent(pose, own, torch.linspace(-1, 1, 9), torch.zeros(2, 9, 9), torch.ones(2), torch.ones(2))
    framed = Framing().apply(homography, there, size)
    torch.testing.assert_close(framed, homography, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("scale", (0, 1)), ("scale", (2, 1)), ("scale", 0.5), ("aspect", (0, 1)), ("angle", (-400, 0)),
        ("shear", (-90, 90)), ("translate", (0, 3)), ("perspective", (-0.5, 0.5)), ("elastic", (-0.1, 0.1)),
        ("wavelength", (0, 1)), ("hole", (-1, 0)), ("angle", (0, float("nan"))), ("angle", "10"), ("waves", 0),
        ("waves", 2.0), ("holes", 65),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_bad_ranges(field: str, bad: object) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected .*, got "):
        PoseRange(**{field: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [0, -1, 11, float("nan"), "1"])
@pytest.mark.usefixtures("untyped")
def test_bad_framing(side: float) -> None:
    with pytest.raises(InputError, match=r"^side"):
        Framing(side=side)
