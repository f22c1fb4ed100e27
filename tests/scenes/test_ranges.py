from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from composing import LENS, RANGES, WARPED, WILD_COLOR, bits, make_composer, rows, same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pose import pairs

from kornia_cag.core.checks import InputError
from kornia_cag.core.draws import Draws
from kornia_cag.core.records import tensors
from kornia_cag.scenes.blends import Hard, Over
from kornia_cag.scenes.camera import KINDS, Blur, Camera, CameraRange, Grain
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.light import Color, ColorRange
from kornia_cag.scenes.pose import Pose, PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Crop, Scene

ALL = replace(
    RANGES["all"], camera=replace(LENS, jpeg=(20.0, 90.0)), pose=replace(WARPED, waves=3), color=WILD_COLOR
)  # fmt: skip
NEUTRAL = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}  # of the others 0
TOP = 1 - 2**-24  # the largest number that is drawn


def lazily(kind: type, **values: Any) -> st.SearchStrategy[partial[Any]]:
    """Values of a range, of which :func:`built` makes it in the test: shape checks draw random numbers."""
    return st.fixed_dictionaries(values).map(lambda drawn: partial(kind, **drawn))


def built(value: Any) -> Any:
    if not isinstance(value, partial):
        return value
    return value.func(**{name: built(part) for name, part in value.keywords.items()})


poses = lazily(
    PoseRange, scale=pairs(0.01, 5), aspect=pairs(0.2, 5), angle=pairs(-360, 360), shear=pairs(-80, 80),
    translate=pairs(-2, 2), perspective=pairs(-0.45, 0.45), elastic=pairs(0, 1), wavelength=pairs(0.1, 50),
    waves=st.integers(1, 4), hole=pairs(0, 2), holes=st.integers(1, 3),
)  # fmt: skip
colors = lazily(
    ColorRange, brightness=pairs(0, 10), exposure=pairs(-10, 5), contrast=pairs(0, 10), saturation=pairs(0, 10),
    hue=pairs(-180, 180), tint=pairs(-1, 1), veil=pairs(0, 1), illumination=pairs(-1, 1), invert=st.floats(0, 1),
)  # fmt: skip
kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True).map(tuple)
cameras = lazily(
    CameraRange, low_resolution=pairs(0, 8), blur=st.floats(0, 1), kinds=kinds, gaussian=pairs(0.05, 10),
    box=pairs(1, 20), motion=pairs(0, 20), taps=st.just(21), noise=pairs(0, 1), grain=pairs(0, 1),
    grain_size=pairs(1, 50), jpeg=st.none() | pairs(1, 100),
)  # fmt: skip
scenes = lazily(
    SceneRange, pose=poses, framing=st.none() | lazily(Framing, side=st.floats(0.05, 3)), crop=pairs(0.01, 1),
    color=colors, object_color=st.none() | colors, context_color=st.none() | colors, camera=cameras,
    blend=st.sampled_from([Over(), Hard()]),
)  # fmt: skip


def between(value: torch.Tensor, low: float, high: float) -> bool:
    slack = 1e-4 * max(abs(low), abs(high), 1)
    return bool(((value >= low - slack) & (value <= high + slack)).all())


def check_pose(pose: Pose, ranges: PoseRange) -> None:
    for name in ("scale", "aspect", "angle", "shear"):
        assert between(getattr(pose, name), *getattr(ranges, name)), name
    for shift, tilt in ((pose.x, pose.tilt_x), (pose.y, pose.tilt_y)):
        assert between(shift, *ranges.translate)
        assert between(tilt, *ranges.perspective)
    assert pose.waves.shape[1] == (ranges.waves if ranges.elastic[1] else 0)
    assert pose.holes.shape[1] == (ranges.holes if ranges.hole[1] else 0)
    wavelength = 1 / pose.waves[..., :2].norm(dim=-1)
    assert between(wavelength, *ranges.wavelength)
    assert between(pose.waves[..., 2:4], *(5.8 * sign * ranges.elastic[1] * 2**0.5 for sign in (-1, 1)))
    assert between(pose.waves[..., 4], 0, 6.2832)
    assert between(pose.holes[..., :2], -1, 1)
    assert between(pose.holes[..., 2], 0, ranges.hole[1])
    assert between(pose.variant, 0, 1)


def check_color(color: Color, ranges: ColorRange) -> None:
    """Between the neutral value and the range's other end."""
    even = not any(ranges.illumination)
    assert (color.illumination is None) == (color.light_from is None) == even
    for field in fields(ranges):
        if field.name != "invert" and not (even and field.name == "illumination"):
            low, high = getattr(ranges, field.name)
            neutral = NEUTRAL.get(field.name, 0.0)
            assert between(getattr(color, field.name), min(low, neutral), max(high, neutral)), field.name
    assert color.tint.shape == (len(color.hue), 3)
    assert between(color.veil_level, 0.5, 1)
    assert color.light_from is None or between(color.light_from, 0, 1)
    assert color.inverted.dtype == torch.bool
    assert not color.inverted.any() or ranges.invert > 0


def check_blur(blur: Blur, ranges: CameraRange) -> None:
    assert set(blur.kind.tolist()) <= {-1, *(KINDS.index(kind) for kind in ranges.kinds)}
    assert between(blur.sigma, 0.05, ranges.gaussian[1])
    assert between(blur.width, 1, ranges.box[1])
    assert between(blur.height, 1, ranges.box[1])
    assert between(blur.length, 0, ranges.motion[1])
    assert between(blur.direction, 0, 0.5)
    assert blur.taps == ranges.taps


def check_grain(grain: Grain, ranges: CameraRange) -> None:
    assert between(grain.deviation, 0, ranges.grain[1])
    assert between(grain.size, *ranges.grain_size)
    assert between(grain.grey, 0, 1)


def check_camera(camera: Camera, ranges: CameraRange) -> None:
    assert between(camera.coarser, 0, ranges.low_resolution[1])
    assert (camera.blur is not None) == (ranges.blur > 0)
    assert (camera.noise is not None) == (ranges.noise[1] > 0)
    assert (camera.grain is not None) == (ranges.grain[1] > 0)
    assert (camera.quality is not None) == (ranges.jpeg is not None)
    if camera.blur is not None:
        check_blur(camera.blur, ranges)
    if camera.noise is not None:
        assert between(camera.noise, 0, ranges.noise[1])
    if camera.grain is not None:
        check_grain(camera.grain, ranges)
    if ranges.jpeg is not None:
        assert camera.quality is not None
        assert between(camera.quality, ranges.jpeg[0], 100)


def check_crop(crop: Crop, ranges: SceneRange) -> None:
    assert between(crop.share, *ranges.crop)
    assert between(crop.x, 0, 1)
    assert between(crop.y, 0, 1)
    assert crop.mirrored.dtype == torch.bool


def check_scene(scene: Scene, ranges: SceneRange) -> None:
    assert all(tensor.isfinite().all() for tensor in tensors(scene))
    for layer in scene.layers:
        check_pose(layer.pose, ranges.pose)
        assert (layer.color is None) == (ranges.object_color is None)
        if layer.color is not None and ranges.object_color is not None:
            check_color(layer.color, ranges.object_color)
    check_color(scene.light, ranges.color)
    assert (scene.context_color is None) == (ranges.context_color is None)
    if scene.context_color is not None and ranges.context_color is not None:
        check_color(scene.context_color, ranges.context_color)
    check_camera(scene.camera, ranges.camera)
    check_crop(scene.crop, ranges)
    assert between(scene.fresh, 0, 1)


@settings(max_examples=40, deadline=None)
@given(wild=scenes, strength=st.floats(0, 1, width=32), seed=st.integers(0, 2**62 - 1))
def test_every_field_lies_in_its_range(wild: Any, strength: float, seed: int) -> None:
    ranges, table = built(wild), rows(16, layers=2)
    table = table.replaced(seed=torch.full_like(table.seed, seed))
    scene = ranges.sample(table, torch.full((16,), strength))
    check_scene(scene, ranges)
    assert {len(tensor) for tensor in tensors(scene)} == {16}


@settings(max_examples=15, deadline=None)
@given(wild=scenes, strength=st.floats(0, 1, width=32))
def test_whatever_is_drawn_can_be_rendered(wild: Any, strength: float) -> None:
    composer = make_composer(built(wild), (8, 10))
    made = composer(rows(5, layers=2), torch.full((5,), strength))
    assert made.targets is not None
    for part in (made.images, made.targets.masks, made.targets.full):
        assert part.isfinite().all()
        assert between(part, 0, 1)


@settings(max_examples=40, deadline=None)
@given(wild=scenes, data=st.data())
def test_any_number_stays_in_every_range(wild: Any, data: st.DataObject) -> None:
    """An adversary may put whatever it likes into the draws."""
    ranges, table = built(wild), rows(4, layers=2)
    known = Draws(table.keys)
    ranges.sample(table, draws=known)
    number = st.sampled_from([0.0, TOP]) | st.floats(0, TOP, width=32)
    numbers = {
        slot: torch.tensor(data.draw(st.lists(number, min_size=4, max_size=4)))
        .reshape(4, *[1] * (value.ndim - 1))
        .expand_as(value)
        for slot, value in known.numbers.items()
    }
    scene = ranges.sample(table, draws=Draws(table.keys, numbers))
    check_scene(scene, ranges)


def test_check_scene_can_tell() -> None:
    """Every float that is drawn, moved out of its range, is found."""
    scene = ALL.sample(rows(4, layers=2))

    def moved(record: Any) -> Any:
        """All copies of a record in which one tensor is out of range."""
        for field in fields(record):
            value = getattr(record, field.name)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                yield field.name, replace(record, **{field.name: value + 1e3})
            elif isinstance(value, tuple):
                for place, item in enumerate(value):
                    for name, other in moved(item):
                        yield name, replace(record, layers=(*value[:place], other, *value[place + 1 :]))
            elif is_dataclass(value):
                for name, other in moved(value):
                    yield name, replace(record, **{field.name: other})

    def passes(other: Scene) -> bool:
        try:
            check_scene(other, ALL)
        except AssertionError:
            return False
        return True

    others = list(moved(scene))
    assert [name for name, other in others if passes(other)] == []
    assert len(others) == 2 * 11 + 4 * 10 + 2 + 5 + 3 + 1 + 3 + 1  # poses, colours, camera (5), crop, fresh


def test_ranges_are_filled() -> None:
    """Lowest and highest numbers give the ends of the ranges, at full strength."""
    table = rows(2)
    known = Draws(table.keys)
    ALL.sample(table, draws=known)
    ends = torch.tensor([0.0, TOP])
    numbers = {slot: ends.reshape(2, *[1] * (value.ndim - 1)).expand_as(value) for slot, value in known.numbers.items()}
    scene = ALL.sample(table, draws=Draws(table.keys, numbers))
    pose, color, camera = scene.pose, scene.light, scene.camera
    assert camera.blur is not None
    assert camera.grain is not None
    pairs = [
        *[(getattr(pose, name), getattr(WARPED, name)) for name in ("scale", "aspect", "angle", "shear")],
        (pose.x, WARPED.translate), (pose.tilt_y, WARPED.perspective), (pose.holes[:, 0, 2], WARPED.hole),
        *[(getattr(color, name), getattr(WILD_COLOR, name)) for name in (
            "brightness", "exposure", "contrast", "saturation", "hue", "veil", "illumination")],
        (color.tint[:, 2], WILD_COLOR.tint), (color.veil_level, (0.5, 1)), (color.light_from, (0, 1)),
        (camera.coarser, LENS.low_resolution), (camera.noise, LENS.noise), (camera.quality, (20, 90)),
        (camera.blur.sigma, LENS.gaussian), (camera.blur.width, LENS.box), (camera.blur.height, LENS.box),
        (camera.blur.length, LENS.motion), (camera.blur.direction, (0, 0.5)),
        (camera.grain.deviation, LENS.grain), (camera.grain.size, LENS.grain_size), (camera.grain.grey, (0, 1)),
        (scene.crop.share, ALL.crop), (scene.crop.x, (0, 1)), (scene.crop.y, (0, 1)),
    ]  # fmt: skip
    for got, expected in pairs:
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4)


def test_strength_zero_is_the_neutral_scene() -> None:
    """No turn, no shift, as the bank has it, in even light, by a perfect camera; only choices are left."""
    ranges = replace(ALL, color=replace(WILD_COLOR, invert=0.0), pose=replace(WARPED, elastic=(0, 0.2)))
    scene = ranges.sample(rows(9, layers=2), torch.zeros(9))
    for layer in scene.layers:
        neutral = {"scale": sum(WARPED.scale) / 2, "aspect": 1.0}
        for field in fields(layer.pose):
            value = getattr(layer.pose, field.name)
            if field.name in ("waves", "holes"):
                value = value[..., 2:4] if field.name == "waves" else value[..., 2]
            assert (value == neutral.get(field.name, 0.0)).all(), field.name
    identity = scene.light.tone()
    torch.testing.assert_close(identity.matrix, torch.eye(3).expand(9, 3, 3), rtol=0, atol=1e-6)
    assert identity.offset.abs().max() < 1e-6
    assert (identity.slope == 0).all()
    camera = scene.camera
    assert camera.blur is not None
    assert camera.grain is not None
    assert (camera.coarser == 0).all()
    assert (camera.noise == 0).all()
    assert (camera.grain.deviation == 0).all()
    assert (camera.quality == 100).all()
    assert between(camera.blur.sigma, 0.05, 0.05)
    assert between(camera.blur.width, 1, 1)
    assert between(camera.blur.height, 1, 1)
    assert (camera.blur.length == 0).all()
    assert same(scene.crop, ranges.sample(rows(9, layers=2)).crop)  # which part of a context is seen does not ramp


def test_same_row_same_scene_whatever_the_batch() -> None:
    table = rows(12, layers=3)
    whole = ALL.sample(table)
    part = ALL.sample(table[torch.tensor([7, 2])])
    for one, other in zip(tensors(part), tensors(whole), strict=True):
        assert torch.equal(bits(one), bits(other[[7, 2]]))


def test_draws_are_those_of_the_keys_and_groups_are_named() -> None:
    table = rows(6, layers=2)
    draws = Draws(table.keys)
    assert same(ALL.sample(table, draws=draws), ALL.sample(table))
    assert {group for _, group, _ in draws.numbers} == {"pose", "color", "context", "camera"}
    assert {layer for layer, group, _ in draws.numbers if group in ("pose", "color")} == {0, 1}
    assert {layer for layer, group, _ in draws.numbers if group in ("context", "camera")} == {0}
    again = ALL.sample(table, draws=Draws(table.keys, draws.numbers))
    assert same(again, ALL.sample(table))


def test_a_number_moves_its_own_field_alone() -> None:
    table = rows(6, layers=2)
    draws = Draws(table.keys)
    plain = ALL.sample(table, draws=draws)
    moved = Draws(table.keys, {**draws.numbers, (1, "pose", "pose.angle"): torch.full((6,), 0.5)})
    scene = ALL.sample(table, draws=moved)
    assert (scene.layers[1].pose.angle == 0).all()  # the middle of -180 to 180
    assert same(scene.posed(layer=1, angle=plain.layers[1].pose.angle), plain)


@pytest.mark.usefixtures("untyped")
def test_ranges_may_be_lists() -> None:
    """As they come from a JSON or YAML file."""
    table = rows(6)

    def ranges(pair: type) -> SceneRange:
        pose = PoseRange(scale=pair((0.4, 0.9)), elastic=pair((0.0, 0.1)), hole=pair((0.1, 0.3)))
        camera = CameraRange(blur=1, kinds=pair(("box", "gaussian")), noise=pair((0.0, 0.1)), jpeg=pair((20, 90)))
        return SceneRange(pose=pose, crop=pair((0.3, 0.9)), color=ColorRange(hue=pair((-9, 20))), camera=camera)

    assert same(ranges(list).sample(table), ranges(tuple).sample(table))


@pytest.mark.parametrize(
    ("name", "bad", "expected"),
    [
        ("crop", (0, 1), r"a pair \(low, high\) with 0.01 <= low <= high <= 1"),
        ("crop", 0.5, r"a pair"),
        (
            "blend",
            "over",
            r"a Blend, got 'over'. Pass blend=Over\(\), Hard\(\), Average\(\) or Difference\(\), or derive your own",
        ),
        ("blend", Over, r"a Blend, got .*Over.* Pass blend=Over\(\)"),
        ("blend", None, r"a Blend, got None. Pass blend=Over\(\)"),
        ("pose", ColorRange(), r"PoseRange, got ColorRange\(.* Pass pose=PoseRange\(\.\.\.\)\."),
        ("color", {"hue": (0, 1)}, r"ColorRange, got .* Pass color="),
        ("color", None, r"ColorRange, got None. Pass color="),
        ("camera", None, r"CameraRange, got None. Pass camera="),
        ("framing", PoseRange(), r"Framing or None, got .* Pass framing="),
        ("object_color", CameraRange(), r"ColorRange or None, got .* Pass object_color="),
        ("context_color", (0, 1), r"ColorRange or None, got \(0, 1\). Pass context_color="),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_scene_ranges(name: str, bad: Any, expected: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: expected {expected}"):
        SceneRange(**{name: bad})
