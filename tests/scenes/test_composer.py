import random
from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from conftest import make_contexts, make_objects
from devicewait import RefuseWaiting
from stacked import outline
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.pyramid import build_pyramid
from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.blends import BlendMode
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Earlier, Scene
from kornia_cag.training.recipes import RECIPES

WILD_POSE = PoseRange(
    scale=(0.3, 1.2), aspect=(0.6, 1.6), angle=(-180, 180), shear=(-35, 35), translate=(-0.3, 0.3),
    perspective=(-0.35, 0.35),
)  # fmt: skip
WILD_COLOR = ColorRange(
    brightness=(0.4, 1.5), exposure=(-2, 1), contrast=(0.3, 1.6), saturation=(0, 2), hue=(-180, 180), tint=(-0.3, 0.3),
    veil=(0, 0.4), illumination=(-0.8, 0.8), invert=0.3,
)  # fmt: skip
WARPED = replace(WILD_POSE, elastic=(0.02, 0.15), hole=(0.05, 0.4), holes=2)
LENS = CameraRange(blur=0.8, gaussian=(0.4, 1.5), box=(1, 5), motion=(1, 6), noise=(0, 0.1), grain=(0, 0.1),
                   low_resolution=(0, 2))  # fmt: skip

RANGES = {
    "default": SceneRange(),
    "hard": SceneRange(pose=WILD_POSE, blend="hard"),
    "difference": SceneRange(pose=WILD_POSE, blend="difference"),
    "average": SceneRange(pose=WILD_POSE, blend="average", opacity=0.6),
    "pose": SceneRange(pose=WILD_POSE, crop=(0.05, 1.0)),
    "elastic": SceneRange(pose=replace(WILD_POSE, elastic=(0.02, 0.2), wavelength=(0.4, 2))),
    "holes": SceneRange(pose=replace(WILD_POSE, hole=(0.0, 0.5), holes=3)),
    "framing": SceneRange(pose=WARPED, framing=Framing()),
    "framing, large": SceneRange(pose=WILD_POSE, framing=Framing(1.4), blend="average"),
    "low resolution": SceneRange(camera=CameraRange(low_resolution=(0, 3))),
    "blur": SceneRange(camera=replace(LENS, noise=(0, 0), grain=(0, 0), low_resolution=(0, 0))),
    "grain": SceneRange(camera=CameraRange(grain=(0.02, 0.2), grain_size=(1.0, 4.0))),
    "noise": SceneRange(camera=CameraRange(noise=(0.02, 0.2))),
    "color": SceneRange(color=WILD_COLOR),
    "own colors": SceneRange(color=WILD_COLOR, object_color=WILD_COLOR, context_color=WILD_COLOR),
    "all": SceneRange(WARPED, None, (0.2, 0.9), WILD_COLOR, WILD_COLOR, WILD_COLOR, LENS),
    "all, hard": SceneRange(WARPED, Framing(), (0.2, 0.9), WILD_COLOR, WILD_COLOR, None, LENS, "hard"),
    "all, average": SceneRange(WARPED, Framing(), (0.2, 0.9), WILD_COLOR, None, WILD_COLOR, LENS, "average", 0.7),
}


def rows(n: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Object ids, context ids, keys."""
    index = torch.arange(n, device=device)
    return index % 5, index % 7, sample_keys(torch.zeros_like(index), torch.zeros_like(index) + 2, index)


def make_composer(ranges: SceneRange, size: tuple[int, int], device: torch.device | str = "cpu") -> Composer:
    """With thickness variants, and levels that follow from the finest one alone."""
    bank = make_objects().with_thickness([-1, 1])
    bank = replace(bank, pyramid=build_pyramid(bank.pyramid.level(0), replicate=False))
    return Composer(bank.to(device), make_contexts(device), size, ranges)


def compare(
    composer: Composer, scene: Scene, keys: Tensor, strength: float = 1.0, earlier: Tensor | None = None
) -> int:
    """Hold every scene against the oracle; say how many have no rounding tie."""
    sure = 0
    for i, (obj, ctx) in enumerate(zip(scene.objects.tolist(), scene.contexts.tolist(), strict=True)):
        behind = None if earlier is None else earlier[i].permute(1, 2, 0).double().cpu().numpy()
        expected = oracle.scene(composer, obj, ctx, keys[i], strength, behind)
        if expected.sure:
            image, mask = scene.images[i].permute(1, 2, 0).cpu().numpy(), scene.masks[i, 0].cpu().numpy()
            assert np.abs(mask - expected.alpha).max() < 1 / 255
            assert np.abs(image - expected.image).max() < 1 / 255
            assert scene.visible[i] == (expected.box is not None)
            box = tuple(scene.boxes[i].tolist())
            assert box == expected.box if scene.visible[i] else scene.boxes[i].isnan().all()
            assert scene.labels[i] == obj
            sure += 1
    return sure


@pytest.mark.parametrize("size", [(28, 28), (19, 33), (40, 24)])
@pytest.mark.parametrize("name", RANGES)
def test_equals_the_oracle(device: torch.device, name: str, size: tuple[int, int]) -> None:
    composer = make_composer(RANGES[name], size, device)
    objects, contexts, keys = rows(12, device)
    assert compare(composer, composer(objects, contexts, keys), keys) >= 9


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_recipes_equal_the_oracle(device: torch.device, name: str, strength: float) -> None:
    recipe = RECIPES[name]
    composer = make_composer(replace(recipe.ranges, camera=replace(recipe.ranges.camera, jpeg=None)),
                             (recipe.size, recipe.size), device)  # fmt: skip
    objects, contexts, keys = rows(12, device)
    scene = composer(objects, contexts, keys, torch.full((12,), strength, device=device))
    assert compare(composer, scene, keys, strength) >= 9


@pytest.mark.parametrize("name", ["all", "all, hard", "all, average"])
def test_earlier_composites_equal_the_oracle(device: torch.device, name: str) -> None:
    composer = make_composer(RANGES[name], (20, 30), device)
    objects, contexts, keys = rows(10, device)
    images = torch.rand(10, 3, 20, 30, generator=torch.Generator().manual_seed(0)).to(device)
    every = Earlier(images, torch.ones(10, dtype=torch.bool, device=device))
    scene = composer(objects, contexts, keys, earlier=every)
    assert compare(composer, scene, keys, earlier=images) >= 7
    some = torch.arange(10, device=device) % 3 == 0
    mixed, fresh = composer(objects, contexts, keys, earlier=Earlier(images, some)), composer(objects, contexts, keys)
    assert torch.equal(mixed.images[some], scene.images[some])
    assert torch.equal(mixed.images[~some], fresh.images[~some])


def test_oracle_can_tell() -> None:
    """A scene held against the draws of another one fails."""
    composer = make_composer(RANGES["pose"], (28, 28))
    objects, contexts, keys = rows(6)
    with pytest.raises(AssertionError):
        compare(composer, composer(objects, contexts, keys), keys.roll(1))


@pytest.mark.parametrize("name", [*RANGES, *RECIPES, "jpeg"])
def test_each_scene_depends_on_its_own_row_only(device: torch.device, name: str) -> None:
    ranges = RANGES.get(name) or (
        RECIPES[name].ranges if name in RECIPES else SceneRange(camera=CameraRange(jpeg=(20, 90)))
    )
    composer = make_composer(ranges, (21, 26), device)
    n = 48
    objects, contexts, keys = rows(n, device)
    strength = torch.linspace(0.2, 1, n, device=device)
    whole = composer(objects, contexts, keys, strength)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).to(device)
    for size in (1, 3, 16):
        for part in order.split(size)[: 48 // size if size > 1 else 20]:
            scene = composer(objects[part], contexts[part], keys[part], strength[part])
            for field, value in vars(whole).items():
                assert torch.equal(getattr(scene, field), value[part]), (field, size)


@pytest.mark.parametrize("name", ["all", "framing", "all, average"])
def test_boxes_and_masks_agree(device: torch.device, name: str) -> None:
    scene = make_composer(RANGES[name], (32, 45), device)(*rows(40, device))
    threshold, boxes, visible = outline(scene.masks)
    assert torch.equal(scene.boxes[visible], boxes[visible])
    assert torch.equal(scene.visible, visible)
    assert scene.masks.shape == (40, 1, 32, 45)
    assert scene.boxes[~visible].isnan().all()
    shapes = (scene.masks[:, 0] > threshold[:, None, None])[visible].cpu()
    for alpha, box in zip(shapes, scene.boxes[visible].long().tolist(), strict=True):
        inside = torch.zeros_like(alpha)
        inside[box[1] : box[3], box[0] : box[2]] = True
        assert not (alpha & ~inside).any()  # nothing outside
        cut = alpha[box[1] : box[3], box[0] : box[2]]  # and every side of the box touches the object
        assert cut[0].any()
        assert cut[-1].any()
        assert cut[:, 0].any()
        assert cut[:, -1].any()


def test_a_thin_bar_has_a_box_wherever_it_is_seen() -> None:
    """It is 1 to 1.5 pixels wide: where it falls between two columns, neither is covered by half."""
    bar = ObjectBank.from_glyphs("|", size=64, device="cpu")
    index = torch.arange(300)
    row = (0 * index, 0 * index, sample_keys(0 * index, 0 * index, index))
    scenes = {mode: Composer(bar, make_contexts(), (28, 28), SceneRange(blend=mode))(*row) for mode in ("over", "hard")}
    soft, pasted = scenes["over"], scenes["hard"]
    peak = soft.masks.flatten(1).amax(1)
    assert (peak < 0.5).float().mean() > 0.1
    assert soft.visible.all()
    assert (soft.boxes[:, 3] - soft.boxes[:, 1] > 10).all()
    for scene in (soft, pasted):
        inside = outline(scene.masks * 1.0)
        assert torch.equal(scene.boxes, inside.boxes)
    assert torch.equal(pasted.boxes, soft.boxes)
    assert (pasted.masks.flatten(1).sum(1) > 10).all()  # drawn, thin as it is


@pytest.mark.parametrize("blend", ["over", "hard"])
def test_a_transparent_object_has_the_outline_of_an_opaque_one(blend: BlendMode) -> None:
    shape = torch.zeros(4, 48, 48, dtype=torch.uint8)
    shape[0], shape[3, 8:40, 4:44] = 255, 255
    glass = shape.clone()
    glass[3] = torch.where(shape[3] > 0, 102, 0)
    banks = [ObjectBank.from_tensors([picture], size=32, device="cpu") for picture in (shape, glass)]
    assert [bank.opacity.tolist() for bank in banks] == [[1.0], [pytest.approx(0.4)]]
    index = torch.arange(40)
    row = (0 * index, index % 7, sample_keys(0 * index, 0 * index, index))
    for framing in (None, Framing()):
        ranges = SceneRange(pose=replace(WILD_POSE, translate=(-1, 1)), framing=framing, blend=blend)
        one, other = (Composer(bank, make_contexts(), (30, 30), ranges)(*row) for bank in banks)
        assert other.visible.sum() > 20
        equal = (one.boxes - other.boxes).nan_to_num().abs() <= 1  # 0.4 is no whole number of levels at every edge
        assert equal[one.visible & other.visible].float().mean() > 0.98
        if blend == "hard":
            assert (other.masks.flatten(1).amax(1) == other.visible).all()
            assert (one.images - other.images).abs().flatten(1).amax(1).median() < 0.02  # pasted with its own colour
        else:
            torch.testing.assert_close(other.masks, 0.4 * one.masks, rtol=0, atol=0.01)


def test_what_is_out_of_sight_is_said_and_has_no_box() -> None:
    ranges = SceneRange(pose=PoseRange(translate=(1.2, 1.2)))
    scene = make_composer(ranges, (24, 24))(*rows(10))
    assert not scene.masks.any()
    assert not scene.visible.any()
    assert scene.boxes.isnan().all()
    assert make_composer(ranges, (24, 24))(*rows(10), masks=False).visible is None


def test_opacity_follows_the_pictures() -> None:
    shape = torch.zeros(4, 48, 48, dtype=torch.uint8)
    shape[0], shape[3, 8:40, 4:44] = 255, 51
    bank = ObjectBank.from_tensors([shape, shape * 2], size=32, device="cpu")
    for changed in (bank, bank.with_ink((0, 0, 9)), bank.to("cpu")):
        assert changed.opacity.tolist() == [pytest.approx(0.2), pytest.approx(0.4)]
    thick = bank.with_thickness([1])  # half transparent, it does not vanish
    assert thick.opacity.tolist() == [pytest.approx(v) for v in (0.2, 0.2, 0.4, 0.4)]


def test_masks_are_where_the_object_is() -> None:
    """A black object on white contexts darkens exactly its mask."""
    objects, contexts, keys = rows(20)
    composer = make_composer(
        SceneRange(pose=WARPED, color=ColorRange((1, 1), (0, 0), (1, 1), (1, 1), (0, 0))), (30, 30)
    )
    composer = replace(composer, objects=composer.objects.with_ink((0, 0, 0)) if composer.objects.variants == 1
                       else make_objects().with_ink((0, 0, 0)))  # fmt: skip
    composer.contexts.pyramid.atlas.fill_(255)
    scene = composer(objects, contexts, keys)
    torch.testing.assert_close(scene.images, 1 - scene.masks.expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


def test_scene_fields(device: torch.device) -> None:
    objects, contexts, keys = rows(6, device)
    bank = make_objects(device)
    bank = ObjectBank(bank.pyramid, torch.tensor([2, 0, 1, 0, 2], device=device), ("a", "b", "c"))
    scene = Composer(bank, make_contexts(device), (16, 16))(objects, contexts, keys)
    assert scene.images.shape == (6, 3, 16, 16)
    assert scene.images.dtype == torch.float32
    assert scene.labels.tolist() == [2, 0, 1, 0, 2, 2]
    assert torch.equal(scene.objects, objects)
    assert torch.equal(scene.contexts, contexts)
    assert {value.device.type for value in vars(scene).values()} == {device.type}


@pytest.mark.parametrize("name", RANGES)
def test_images_stay_in_range(name: str) -> None:
    scene = make_composer(RANGES[name], (24, 24))(*rows(64))
    assert scene.images.min() >= 0
    assert scene.images.max() <= 1
    assert scene.masks.min() >= 0
    assert scene.masks.max() <= 1 + 1e-6


def test_same_key_same_scene_other_key_other_scene() -> None:
    composer = make_composer(RANGES["all"], (24, 24))
    objects, contexts, keys = rows(8)
    first, again = composer(objects, contexts, keys), composer(objects, contexts, keys)
    assert torch.equal(first.images, again.images)
    other = composer(objects, contexts, keys + 1)
    assert ((first.images - other.images).abs().amax((1, 2, 3)) > 0.01).all()


def test_more_variation_of_one_kind_leaves_the_others_alone() -> None:
    """The geometry of a scene is the same in any light and through any lens."""
    plain, lit = (
        SceneRange(pose=WILD_POSE),
        SceneRange(pose=WILD_POSE, color=WILD_COLOR, camera=CameraRange(noise=(0.1, 0.1))),
    )
    scenes = [make_composer(r, (24, 24))(*rows(8)) for r in (plain, lit)]
    assert torch.equal(scenes[0].masks, scenes[1].masks)
    assert not torch.equal(scenes[0].images, scenes[1].images)


def test_all_variants_are_drawn() -> None:
    composer = make_composer(SceneRange(), (24, 24))
    objects, contexts, keys = rows(200)
    still = replace(
        PoseRange(), scale=(0.9, 0.9), angle=(0, 0), shear=(0, 0), translate=(0, 0), perspective=(0, 0), aspect=(1, 1)
    )
    scene = replace(composer, ranges=SceneRange(pose=still))(objects * 0, contexts, keys)
    covered = scene.masks.sum((1, 2, 3))
    assert len((covered * 100).round().unique()) == 3
    weak = replace(composer, ranges=SceneRange(pose=still))(objects * 0, contexts, keys, torch.zeros(200))
    assert len((weak.masks.sum((1, 2, 3)) * 100).round().unique()) == 1  # as drawn


@pytest.mark.parametrize("name", RANGES)
def test_nothing_waits_for_the_device(device: torch.device, name: str) -> None:
    composer = make_composer(RANGES[name], (20, 24), device)
    args = rows(4, device)
    earlier = Earlier(torch.rand(4, 3, 20, 24, device=device), torch.ones(4, dtype=torch.bool, device=device))
    composer(*args)  # what is cached may wait once
    with RefuseWaiting():
        composer(*args, torch.ones(4, device=device), earlier)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            composer(*args, torch.ones(4, device=device), earlier)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("untyped")
def test_global_random_state_untouched() -> None:
    composer = make_composer(RANGES["all"], (20, 20))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    composer(*rows(4))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_device_does_not_matter(device: torch.device) -> None:
    here, there = (make_composer(RANGES["all"], (24, 24), d)(*rows(16, d)) for d in ("cpu", device))
    torch.testing.assert_close(there.images.cpu(), here.images, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (torch.zeros(4, dtype=torch.int32), r"int32 \(4,\)"),
        (torch.zeros(4), r"float32 \(4,\)"),
        (torch.zeros(4, 1, dtype=torch.int64), r"int64 \(4, 1\)"),
        (torch.zeros((), dtype=torch.int64), r"int64 \(\)"),
        (torch.zeros(4, dtype=torch.int64, device="meta"), r"int64 \(4,\) on meta"),
        ([0, 1, 2, 3], r"\[0, 1, 2, 3\]"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_ids(place: int, bad: Any, got: str) -> None:
    args: list[Any] = list(rows(4))
    args[place] = bad
    name = ("objects", "contexts", "keys")[place]
    with pytest.raises(InputError, match=rf"^{name}: expected int64 \(\w+\) on cpu, got {got}"):
        make_composer(SceneRange(), (8, 8))(*args)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.usefixtures("untyped")
def test_ids_of_unequal_length(place: int) -> None:
    args = list(rows(4))
    args[place] = args[place][:3]
    name = ("objects", "contexts", "keys")[place]
    with pytest.raises(InputError, match=rf"^{name}: expected int64 \(4\) on cpu, got int64 \(3,\)"):
        make_composer(SceneRange(), (8, 8))(*args)


def test_banks_on_two_devices() -> None:
    with pytest.raises(InputError, match=r"^contexts: expected a bank on cpu, .* Move it with contexts.to\('cpu'\)"):
        Composer(make_objects(), ContextBank(make_contexts().pyramid.to("meta")), (8, 8))


@pytest.mark.parametrize("size", [0, (8, 0), (8, 8, 8), "8", 8.0, (8.0, 8)])
@pytest.mark.usefixtures("untyped")
def test_bad_size(size: Any) -> None:
    with pytest.raises(InputError, match=r"^size: expected "):
        Composer(make_objects(), make_contexts(), size)


@pytest.mark.parametrize(
    ("field", "bad"), [("crop", (0, 1)), ("crop", 0.5), ("blend", "add"), ("opacity", 1.5), ("opacity", None)]
)
@pytest.mark.usefixtures("untyped")
def test_bad_scene_ranges(field: str, bad: Any) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected .*, got "):
        SceneRange(**{field: bad})


def test_a_thin_bar_is_framed() -> None:
    """A draft of cells twice as wide as it has no alpha above one half."""
    bar = ObjectBank.from_glyphs("|", size=64, device="cpu")
    index = torch.arange(60)
    ranges = SceneRange(pose=replace(WILD_POSE, perspective=(0, 0)), framing=Framing())
    scene = Composer(bar, make_contexts(), (28, 28), ranges)(
        0 * index, 0 * index, sample_keys(0 * index, 0 * index, index)
    )
    longest = (scene.boxes[:, 2:] - scene.boxes[:, :2]).amax(1)
    assert scene.visible.all()
    assert ((longest - 20).abs() <= 3).all()


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("pose", ColorRange(), "PoseRange"),
        ("color", {"hue": (0, 1)}, "ColorRange"),
        ("camera", None, "CameraRange"),
        ("framing", PoseRange(), "Framing or None"),
        ("object_color", CameraRange(), "ColorRange or None"),
        ("context_color", (0, 1), "ColorRange or None"),
    ],
)
def test_ranges_in_each_others_places_are_refused(name: str, value: Any, kind: str, untyped: None):
    with pytest.raises(InputError, match=rf"^{name}: expected {kind}, got .* Pass {name}="):
        SceneRange(**{name: value})
