"""Harmony, sun and depth in whole scenes: on their own, together, in any batch, compiled, and never in a target."""

import io
import pickle
from dataclasses import replace

import pytest
import torch
from composing import (
    LENS,
    WILD_COLOR,
    WILD_POSE,
    bits,
    equal_when_compiled,
    make_composer,
    pictures,
    rows,
    same,
    scene_of,
)
from conftest import make_contexts
from devicewait import RefuseWaiting
from recorder import Strict

from kornia_cag import (
    Average,
    CAGCollate,
    DepthRange,
    Feather,
    Hard,
    HarmonyRange,
    Layout,
    OneOf,
    Over,
    PoseRange,
    Rows,
    ScenePGD,
    SceneRange,
    SunRange,
)  # fmt: skip
from kornia_cag.core.draws import Draws
from kornia_cag.scenes import chunks
from kornia_cag.scenes.capture import Captures
from kornia_cag.scenes.chunks import Renderer

SIZE = (26, 34)
PARTS = {
    "harmony": {"harmony": HarmonyRange(brightness=(0.3, 1), color=(0, 1), contrast=(0, 1))},
    "sun": {"sun": SunRange(darkness=(0.4, 0.8), shading=(0.2, 0.5), direction=(0, 1))},
    "depth": {"depth": DepthRange(haze=(0.1, 0.4), defocus=(0.5, 1.5))},
}
ALL = SceneRange(pose=replace(WILD_POSE, scale=(0.3, 0.7)), color=WILD_COLOR, camera=LENS, **PARTS["harmony"],
                 **PARTS["sun"], **PARTS["depth"])  # fmt: skip
LAID = replace(ALL, layout=Layout(count=(1, 2), side=(0.2, 0.5)))
PLAIN = SceneRange(pose=PoseRange(scale=(0.3, 0.6)))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layers", [1, 3])
def test_each_changes_pictures_alone_and_at_strength_0_nothing_to_the_bit(part: str, layers: int) -> None:
    table, still = rows(24, layers=layers), torch.zeros(24)
    plain, lit = make_composer(PLAIN, SIZE), make_composer(replace(PLAIN, **PARTS[part]), SIZE)
    assert same(pictures(lit(table, still)), pictures(plain(table, still)))
    before, after = plain(table), lit(table)
    assert ((before.images - after.images).abs().amax(dim=(1, 2, 3)) > 0.02).float().mean() > 0.6
    if part != "depth":  # defocus blurs alpha, too
        assert same(pictures(before)[1:], pictures(after)[1:])
    for one, other in zip(scene_of(before).layers, scene_of(after).layers, strict=True):
        assert same(one.pose, other.pose)  # other draws stay as they are


def test_a_shadow_leaves_its_own_object_and_those_in_front_as_they_are() -> None:
    table = rows(40, layers=2)
    plain, lit = make_composer(PLAIN, SIZE), make_composer(replace(PLAIN, sun=SunRange(shading=(0, 0))), SIZE)
    before, after = plain(table), lit(table)
    assert before.targets is not None
    masks = before.targets.masks
    change = (before.images - after.images)[:, 0]
    assert change.min() >= 0  # darker only
    assert change[masks[:, 1] == 1].abs().max() == 0  # the front one, on its own shadow and over that of the other
    back = (masks[:, 0] == 1) & (change > 0)
    assert back.flatten(1).any(dim=1).float().mean() > 0.2  # on the one behind falls the other's shadow,
    alone = make_composer(replace(PLAIN, sun=SunRange(shading=(0, 0))), SIZE)(
        Rows.of(table.layers[:, :1], table.contexts, table.index, epoch=2)
    )
    single = plain(Rows.of(table.layers[:, :1], table.contexts, table.index, epoch=2))
    assert single.targets is not None
    assert (single.images - alone.images)[:, 0][single.targets.masks[:, 0] == 1].abs().max() == 0  # not its own


def test_one_sun_for_all_objects_of_a_scene_and_for_its_illumination() -> None:
    scene = make_composer(ALL, SIZE).sample(rows(50, layers=3))
    assert scene.sun is not None
    assert scene.light.light_from is scene.sun.direction
    assert scene.light.illumination is not None
    assert (scene.light.illumination >= 0).all()
    assert scene.sun.direction.shape == (50,)
    a, b, _ = (layer.harmony for layer in scene.layers)
    assert a is not None
    assert b is not None
    assert not torch.equal(a.brightness, b.brightness)


def test_harmony_moves_the_object_in_the_picture_towards_what_lies_behind_it() -> None:
    table, fixed = rows(40), PoseRange(scale=(0.5, 0.6), translate=(0, 0))
    apart = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        harmony = HarmonyRange(brightness=(strength,) * 2, color=(0, 0), contrast=(0, 0))
        made = make_composer(SceneRange(pose=fixed, harmony=harmony), SIZE)(table)
        assert made.targets is not None
        mask = (made.targets.masks > 0.99).float()
        grey = made.images.mean(dim=1, keepdim=True)
        inside = (grey * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))
        off = made.targets.masks == 0
        around = (grey * off).sum(dim=(1, 2, 3)) / off.sum(dim=(1, 2, 3))
        apart.append(float((inside - around).abs().mean()))
    assert sorted(apart, reverse=True) == apart
    assert apart[-1] < 0.6 * apart[0]


@pytest.mark.parametrize("blend", [Over(), Hard(), Average(), OneOf((Over(), Feather(width=(1, 3)), Hard()))], ids=str)
def test_a_sample_does_not_depend_on_its_batch(blend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    table, maker = rows(9, layers=3), make_composer(replace(LAID, blend=blend), SIZE)
    whole = pictures(maker(table))
    for i in (0, 4, 8):
        assert same(tuple(x[i : i + 1] for x in whole), pictures(maker(table[i : i + 1])), layout=False)
    monkeypatch.setattr(chunks, "PIXELS", SIZE[0] * SIZE[1] * 4)
    assert same(whole, pictures(Renderer()(maker, table, 1.0, None, targets=True, scene=True)))


def test_nor_on_how_many_objects_a_row_could_have() -> None:
    maker, few, many = make_composer(LAID, SIZE), rows(12, layers=2), rows(12, layers=4)
    assert torch.equal(bits(maker(few).images), bits(maker(many).images))


def test_a_scene_can_be_saved_rendered_again_and_edited() -> None:
    maker = make_composer(ALL, SIZE)
    made = maker(rows(6, layers=2))
    file = io.BytesIO()
    torch.save(scene_of(made), file)
    file.seek(0)
    scene = torch.load(file, weights_only=True)
    assert same(pictures(maker.render(scene)), pictures(made))
    assert scene.sun is not None
    dark = maker.render(replace(scene, sun=replace(scene.sun, darkness=torch.ones(6))))
    assert not torch.equal(dark.images, made.images)
    bare = replace(scene, sun=None, depth=None)
    assert maker.render(bare).images.isfinite().all()
    assert pickle.loads(pickle.dumps(ALL)) == ALL


def test_pictures_are_differentiable_by_all_that_is_drawn() -> None:
    maker = make_composer(replace(ALL, camera=SceneRange().camera), SIZE)
    table = rows(4, layers=2)
    draws = Draws(table.keys)
    maker.sample(table, draws=draws)
    numbers = {slot: value.clone().requires_grad_() for slot, value in draws.numbers.items()}
    made = maker.render(maker.sample(table, draws=Draws(table.keys, numbers)))
    weights = torch.rand(made.images.shape, generator=torch.Generator().manual_seed(0))
    asked = [slot for slot in numbers if slot[1] in ("sun", "depth", "harmony")]
    assert len(asked) == 6 + 2 + 2 + 2 * 3
    found = torch.autograd.grad((made.images * weights).sum(), [numbers[slot] for slot in asked])
    for slot, gradient in zip(asked, found, strict=True):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, slot


def test_an_adversary_of_scenes_composes_with_them() -> None:
    maker = make_composer(ALL, SIZE)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE[0] * SIZE[1], 5))
    collate = CAGCollate(
        maker.objects, make_contexts(), SIZE, ranges=ALL, model=model, adversaries=(ScenePGD(steps=1),)
    )
    images, _ = collate(rows(6))
    assert images.isfinite().all()


def test_nothing_waits_and_captures_replay() -> None:
    maker, recorder = make_composer(LAID, SIZE), Strict()
    renderer = Renderer(Captures(recorder))
    maker(rows(30, layers=2)[24:])
    for start in range(0, 24, 6):
        table = rows(30, layers=2)[start : start + 6]
        table.keys  # noqa: B018
        with RefuseWaiting():
            made = maker(table)
        assert same(pictures(renderer(maker, table, 1.0, None, targets=True, scene=True)), pictures(made))
    assert recorder.replays == 3


@pytest.mark.compile
@pytest.mark.parametrize("layers", [1, 2])
def test_compiled(layers: int) -> None:
    equal_when_compiled(make_composer(ALL if layers == 1 else LAID, SIZE), layers)
