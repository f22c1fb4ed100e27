import copy
import pickle
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import oracle
import pytest
import torch
from composing import LENS, RANGES, WILD_COLOR, WILD_POSE, make_composer, rows, same, scene_of
from conftest import make_contexts, make_objects
from test_ranges import ALL

from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import chance, uniform
from kornia_cag.core.records import mapped, tensors
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.front import Painter
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Crop

FLAT = PoseRange(scale=(0.8, 0.8), aspect=(1, 1), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", RANGES)
def test_drawn_and_rendered_is_composed(name, layers, device):
    composer = make_composer(RANGES[name], (20, 24), device)
    table, strength = rows(6, device, layers), torch.linspace(0.3, 1, 6, device=device)
    made = composer.render(composer.ranges.sample(table, strength))
    assert same(made, composer(table, strength))
    assert same(composer.render(scene_of(made)), made)
    bare = composer.render(scene_of(made), targets=False)
    assert bare.targets is None
    assert torch.equal(bare.images, made.images)


EDITS = {
    "scale": 0.5, "aspect": 0.7, "angle": 37.0, "shear": -20.0, "x": 0.2, "y": 0.2, "tilt_x": 0.25, "tilt_y": 0.25,
    "brightness": 0.6, "exposure": -1.5, "contrast": 0.5, "saturation": 1.7, "hue": 100.0, "tint": 0.2, "veil": 0.3,
    "illumination": 0.7, "inverted": True, "coarser": 1.0, "noise": 0.1, "quality": 40.0, "sigma": 1.3, "width": 3.5,
    "height": 3.5, "length": 4.5, "deviation": 0.15, "size": 2.5, "share": 0.6,
}  # fmt: skip
TOGETHER = {"x": "y", "y": "x", "tilt_x": "tilt_y", "tilt_y": "tilt_x", "width": "height", "height": "width"}
RANGE = {
    "x": "translate", "y": "translate", "tilt_x": "perspective", "tilt_y": "perspective", "coarser": "low_resolution",
    "quality": "jpeg", "sigma": "gaussian", "width": "box", "height": "box", "length": "motion", "deviation": "grain",
    "size": "grain_size", "share": "crop", "inverted": "invert",
}  # fmt: skip


def edited(record, names, value):
    """A record in which the fields of these names have another value, wherever they are."""
    changes = {}
    for field in fields(record):
        held = getattr(record, field.name)
        if field.name in names and not (field.name in "xy" and isinstance(record, Crop)):
            changes[field.name] = torch.full_like(held, value)
        elif field.name in ("light", "camera", "blur", "grain", "crop") and held is not None:
            changes[field.name] = edited(held, names, value)
        elif field.name == "layers":
            changes["layers"] = tuple(replace(layer, pose=edited(layer.pose, names, value)) for layer in held)
    return replace(record, **changes)


def narrowed(ranges, name, value):
    """Ranges fixed at a value, wherever a field of that name is."""
    changes = {}
    for field in fields(ranges):
        held = getattr(ranges, field.name)
        if field.name == name:
            changes[name] = float(value) if isinstance(held, float) else (value, value)
        elif field.name in ("pose", "color", "camera"):
            changes[field.name] = narrowed(held, name, value)
    return replace(ranges, **changes)


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_scene_is_the_scene_drawn_so(field):
    """A value written into a scene renders as ranges that leave no other: units and meaning are the same."""
    camera = CameraRange(low_resolution=(0, 1), blur=1.0, noise=(0, 0.1), grain=(0, 0.1), jpeg=(20, 90), taps=9)
    ranges = SceneRange(pose=WILD_POSE, color=WILD_COLOR, camera=camera)
    value, table = EDITS[field], rows(24)
    composer = make_composer(ranges, (24, 30))
    drawn = replace(composer, ranges=narrowed(ranges, RANGE.get(field, field), value))(table)
    changed = composer.render(edited(ranges.sample(table), {field, TOGETHER.get(field, field)}, value))
    plain = composer(table)
    assert not same(drawn.images, plain.images)
    apart = (changed.images - drawn.images).abs().amax((1, 2, 3))
    assert apart.median() < 1e-4
    assert (apart < 1e-3).sum() >= 23  # rounding may turn over a level, or a coefficient of a JPEG
    for name in ("masks", "boxes"):
        one, other = (getattr(made.targets, name).nan_to_num(-9) for made in (changed, drawn))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_a_scene_turned_by_hand_is_the_range_that_turns_so():
    composer, table = make_composer(RANGES["all"], (21, 30)), rows(8, layers=2)
    fixed = replace(composer, ranges=replace(composer.ranges, pose=replace(composer.ranges.pose, angle=(37, 37))))
    angle = torch.full((8,), 37.0)
    scene = scene_of(composer(table)).posed(angle=angle).posed(layer=1, angle=angle)
    assert same(composer.render(scene), fixed(table))


def test_an_object_enlarged_by_hand_is_as_sharp_as_one_drawn_so():
    """Ranges say what level of the bank is read at most; an edited scene may ask for a finer one."""
    small, large = (SceneRange(pose=replace(FLAT, scale=(scale, scale))) for scale in (0.5, 2.0))
    composer, table = Composer(make_objects(size=64), make_contexts(), (16, 16), small), rows(5)
    scene = composer.ranges.sample(table)
    edited = scene.posed(scale=torch.full_like(scene.pose.scale, 2.0))
    expected = replace(composer, ranges=large)(table).images
    assert torch.equal(composer.render(scene).images, composer(table).images)
    torch.testing.assert_close(composer.render(edited).images, expected, rtol=0, atol=1e-5)
    assert (composer.compose(edited).images - expected).abs().max() > 0.05


def test_what_holes_leave_is_as_sharp_as_the_bank(monkeypatch):
    """Framing enlarges a piece left by large holes more than it would enlarge the object."""
    ranges = SceneRange(pose=PoseRange(hole=(0.3, 2.0)), framing=Framing(0.2))
    composer, table = Composer(make_objects(size=64), make_contexts(), (48, 48), ranges), rows(48)
    images = composer(table).images
    monkeypatch.setattr(Painter, "_finest", lambda self: 0)
    torch.testing.assert_close(images, composer(table).images, rtol=0, atol=1e-5)


def test_what_holes_set_by_hand_leave_is_as_sharp(monkeypatch):
    ranges = SceneRange(pose=FLAT, framing=Framing(0.2))
    composer, table = Composer(make_objects(size=64), make_contexts(), (48, 48), ranges), rows(5)
    holes = torch.tensor([[[-0.6, 0.0, 1.0], [0.6, 0.6, 0.7]]]).expand(5, -1, -1)
    edited = composer.ranges.sample(table).posed(holes=holes)
    images, blurred = composer.render(edited).images, composer.compose(edited).images
    monkeypatch.setattr(Painter, "_finest", lambda self: 0)
    expected = composer.compose(edited).images
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert (blurred - expected).abs().max() > 0.05


def test_a_context_finer_than_fits_is_refused():
    composer, table = make_composer(SceneRange(pose=FLAT), (24, 24)), rows(3)
    scene = composer.ranges.sample(table)
    edited = replace(scene, camera=replace(scene.camera, coarser=torch.tensor([0.0, -0.5, 1.0])))
    with pytest.raises(InputError, match=r"^scene.camera.coarser: expected at least 0, got -0.5. Pass coarser.clamp"):
        composer.render(edited)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_turn_the_pixels(turns):
    """On a square canvas, clockwise; and as the oracle draws it."""
    composer, table = make_composer(SceneRange(pose=FLAT), (24, 24)), rows(5)
    scene = composer.ranges.sample(table)
    made, plain = composer.render(scene.posed(angle=scene.pose.angle + 90 * turns)), composer.render(scene)
    torch.testing.assert_close(made.targets.masks, plain.targets.masks.rot90(-turns, (2, 3)), rtol=0, atol=1e-4)
    assert not torch.equal(made.images, plain.images)
    fixed = replace(composer, ranges=SceneRange(pose=replace(FLAT, angle=(90 * turns, 90 * turns))))
    checked = 0
    for place, row in enumerate(table):
        expected = oracle.scene(fixed, row.layers[0].tolist(), int(row.contexts), row.keys)
        if expected.sure:
            checked += 1
            got = made.images[place].permute(1, 2, 0).numpy()
            assert np.abs(got - expected.image).max() < 1 / 255
    assert checked >= 4


def test_posed_changes_one_field_of_one_layer():
    scene = ALL.sample(rows(4, layers=3))
    shift = torch.tensor([0.0, 0.1, 0.2, 0.3])
    other = scene.posed(layer=1, x=shift)
    assert torch.equal(other.layers[1].pose.x, shift)
    assert same(other.posed(layer=1, x=scene.layers[1].pose.x), scene)
    assert other.layers[0] is scene.layers[0]
    assert other.layers[2] is scene.layers[2]
    assert scene.pose is scene.layers[0].pose
    assert torch.equal(scene.posed(x=shift).pose.x, shift)
    with pytest.raises(TypeError, match="turn"):
        scene.posed(turn=shift)
    with pytest.raises(IndexError):
        scene.posed(layer=3, x=shift)


def saved(scene, path):
    torch.save(scene, path)
    return torch.load(path, weights_only=True)


WAYS = {
    "torch.save": saved,
    "pickle": lambda scene, _: pickle.loads(pickle.dumps(scene)),
    "deepcopy": lambda scene, _: copy.deepcopy(scene),
    "mapped": lambda scene, _: mapped(torch.clone, scene),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_scene_that_was_kept_renders_the_same(way, tmp_path):
    composer = make_composer(ALL, (18, 24))
    made = composer(rows(5, layers=2))
    again = WAYS[way](made.scene, tmp_path / "scene.pt")
    assert same(again, made.scene, layout=False)
    assert again.camera.blur.taps == made.scene.camera.blur.taps
    assert [type(part) for part in (again, again.layers[1].pose, again.camera.grain)] == [
        type(part) for part in (made.scene, made.scene.layers[1].pose, made.scene.camera.grain)
    ]
    assert same(composer.render(again), made, layout=False)


def test_rows_are_kept_like_scenes(tmp_path):
    table = rows(5, layers=2)
    _ = table.keys  # what was computed goes along or not
    assert torch.equal(saved(table, tmp_path / "rows.pt").table, table.table)


def test_another_process_loads_a_scene_safely(tmp_path):
    scene = ALL.sample(rows(3, layers=2))
    torch.save(scene, tmp_path / "scene.pt")
    code = (
        "import sys, torch\n"
        "from kornia_cag import Scene\n"
        "scene = torch.load(sys.argv[1], weights_only=True)\n"
        "assert isinstance(scene, Scene)\n"
        "print(scene.layers[1].pose.angle.tolist())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scene.pt")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(scene.layers[1].pose.angle.tolist())


def test_a_scene_goes_to_a_device_and_back(device):
    scene = ALL.sample(rows(3, layers=2))
    there = mapped(lambda tensor: tensor.to(device), scene)
    assert {tensor.device.type for tensor in tensors(there)} == {device.type}
    assert same(mapped(torch.Tensor.cpu, there), scene, layout=False)


def test_scenes_of_several_batches_may_be_mixed():
    """A scene is a value of its own: samples of two batches, in any order."""
    composer = make_composer(ALL, (16, 20))
    one, other = composer(rows(4)), composer(rows(8))
    mixed = mapped(lambda a, b: torch.cat([b[5:7], a[:1]]), one.scene, other.scene)
    expected = torch.cat([other.images[5:7], one.images[:1]])
    assert torch.equal(composer.render(mixed).images, expected)


# ---- gradients


STEPS = {"angle": 0.1, "shear": 0.1, "x": 0.001, "y": 0.001, "tilt_x": 0.002, "tilt_y": 0.002}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("layer", [0, 1])
def test_gradients_reach_the_pose(name, layer):
    """As a central difference says, of a smooth function of the picture."""
    turned = SceneRange(pose=replace(FLAT, angle=(17, 17)))  # reads have kinks where an edge lies along pixels
    composer, table, step = make_composer(turned, (32, 32)), rows(4, layers=2), STEPS[name]
    scene = composer.ranges.sample(table).posed(x=torch.full((4,), -0.2))
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    weight = torch.stack([torch.sin(4 * x + 3 * y + c) for c in range(3)])

    def total(value):
        return (composer.render(scene.posed(layer=layer, **{name: value})).images.double() * weight).mean(dim=(1, 2, 3))

    start = getattr(scene.layers[layer].pose, name) + torch.tensor([0.01, 0.02, 0.03, 0.05])
    leaf = start.clone().requires_grad_()
    (found,) = torch.autograd.grad(total(leaf).sum(), leaf)
    with torch.no_grad():
        expected = (total(start + step) - total(start - step)) / (2 * step)
    assert expected.abs().max() * step > 1e-5  # it does move the picture
    torch.testing.assert_close(found.double(), expected, rtol=0.1, atol=0.03 * float(expected.abs().max()))


def test_gradients_reach_light_camera_and_crop():
    """All that is measured and not chosen."""
    ranges = replace(ALL, camera=replace(LENS, blur=1.0), color=replace(WILD_COLOR, invert=0))
    composer = make_composer(ranges, (20, 20))
    scene = mapped(
        lambda tensor: tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor,
        ranges.sample(rows(24)),
    )
    composer.render(scene, targets=False).images.square().sum().backward()
    still = {id(scene.pose.variant), id(scene.camera.coarser), id(scene.fresh)}
    for tensor in tensors(scene):
        if tensor.requires_grad and id(tensor) not in still:
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()
            assert tensor.grad.abs().max() > 0
    assert scene.pose.variant.grad is None


# ---- earlier composites


@pytest.mark.parametrize(
    ("behind", "shown", "taken"),
    [
        ([3], [2], True),
        ([2], [2], False),
        ([-1], [2], False),
        ([3, 4], [1, 2], True),
        ([3, 2], [1, 2], False),
        ([2, 3], [1, 2], False),
        ([3, -1], [1, 2], True),
        ([3, -1], [-1, 3], False),
        ([3, -1], [-1, 2], True),  # two distractors are not of one class
        ([-1, -1], [1, 2], False),
        ([0, 0], [1, 1], True),
    ],
)
def test_earlier_composites_are_taken_over_other_classes(behind, shown, taken):
    earlier = Earlier(torch.zeros(1, 3, 4, 4), torch.tensor([behind]))
    assert earlier.used(torch.tensor([shown]), torch.tensor([0.0])).tolist() == [taken]


@pytest.mark.parametrize("reset", [0.0, 0.3, 1.0])
def test_chance_starts_afresh(reset):
    keys = rows(4000).keys
    labels = torch.zeros(4000, 1, dtype=torch.int64)
    used = Earlier(torch.zeros(4000, 3, 1, 1), labels + 1, reset).used(labels, uniform(keys, "chain.reset"))
    assert torch.equal(used, ~chance(keys, "chain.reset", reset))
    assert abs(used.double().mean() - (1 - reset)) < 0.03


def test_earlier_composites_of_any_format():
    composer, table = make_composer(SceneRange(color=ColorRange()), (12, 16)), rows(5)
    images = torch.randint(0, 256, (5, 3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.full((5, 1), 9)
    plain = composer(table, earlier=Earlier(images / 255, labels))
    assert plain.chained.all()
    torch.testing.assert_close(composer(table, earlier=Earlier(images, labels)).images, plain.images)
    half = composer(table, earlier=Earlier((images / 255).half(), labels))
    torch.testing.assert_close(half.images, plain.images, rtol=0, atol=1e-3)
