"""Blends with numbers of their own, and one of several for each sample of a batch."""

import io
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from composing import WARPED, WILD_COLOR, WILD_POSE, equal_when_compiled, make_composer, pictures, rows, same, scene_of
from devicewait import RefuseWaiting
from recorder import Strict
from torch import Tensor

from kornia_cag import (
    Average,
    Composer,
    Composites,
    Difference,
    Draws,
    Eroded,
    Feather,
    Hard,
    InputError,
    Layout,
    MultiBand,
    OneOf,
    Over,
    Poisson,
    SceneRange,
    Smeared,
)  # fmt: skip
from kornia_cag.core.records import cut
from kornia_cag.scenes import chunks
from kornia_cag.scenes.blends import Blend
from kornia_cag.scenes.capture import Captures
from kornia_cag.scenes.choices import Chosen
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.edges import Edge
from kornia_cag.scenes.light import illumination, whole

KNOWN = (Over(), Hard(), Average(0.6), Difference())
SOFT = (Feather(width=(0.5, 4)), Feather(width=(1, 3), kind="box"), Eroded(pixels=(0.5, 2)), Smeared(length=(1, 4)))
WHOLE = (MultiBand(levels=2), Poisson(), Poisson(mixed=True))
EVERY = (*KNOWN, *SOFT, *WHOLE)
SIZE = (18, 22)
RANGES = SceneRange(pose=WARPED, crop=(0.2, 0.9), color=WILD_COLOR, object_color=WILD_COLOR)


def composer(blend: Blend, size: tuple[int, int] = SIZE, ranges: SceneRange = RANGES, device: Any = "cpu") -> Composer:
    return make_composer(replace(ranges, blend=blend), size, device)


def which(made: Composites, layer: int = 0) -> Tensor:
    blend = scene_of(made).layers[layer].blend
    assert isinstance(blend, Chosen)
    assert blend.which is not None
    return blend.which


@pytest.mark.parametrize("layers", [1, 3])
def test_each_sample_gets_its_own_blend_s_picture_to_the_bit(layers: int, device: torch.device) -> None:
    """As if the whole batch were made with each of them alone."""
    table = rows(80, device, layers)
    made = composer(OneOf(EVERY), device=device)(table)
    alone = [pictures(composer(OneOf(EVERY, only=place), device=device)(table)) for place in range(len(EVERY))]
    if layers == 1:
        assert len(which(made).unique()) == len(EVERY)
        for i, place in enumerate(which(made).tolist()):
            assert same(tuple(x[i] for x in pictures(made)), tuple(x[i] for x in alone[place]))
    else:
        assert not torch.equal(which(made), which(made, 1))
        assert not any(same(pictures(made), one) for one in alone)


@pytest.mark.parametrize("blend", KNOWN)
@pytest.mark.parametrize("layers", [1, 2])
def test_blends_without_numbers_stay_as_they_are(blend: Blend, layers: int, device: torch.device) -> None:
    table = rows(9, device, layers)
    made = composer(blend, device=device)(table)
    assert scene_of(made).layers[0].blend is None
    for one in (OneOf((blend,)), OneOf(EVERY, only=EVERY.index(blend))):
        assert same(pictures(made), pictures(composer(one, device=device)(table)))


@pytest.mark.parametrize("blend", [*SOFT, *WHOLE, OneOf(EVERY)], ids=str)
def test_a_sample_does_not_depend_on_its_batch(blend: Blend, monkeypatch: pytest.MonkeyPatch) -> None:
    table, maker = rows(9, layers=2), composer(blend)
    whole = pictures(maker(table))
    for i in (0, 4, 8):
        assert same(tuple(x[i : i + 1] for x in whole), pictures(maker(table[i : i + 1])), layout=False)
    monkeypatch.setattr(chunks, "PIXELS", SIZE[0] * SIZE[1] * 4)
    assert same(whole, pictures(Renderer()(maker, table, 1.0, None, targets=True, scene=True)))


@pytest.mark.parametrize("blend", SOFT)
def test_a_soft_edge_takes_away_and_its_mask_says_so(blend: Blend) -> None:
    """Outside the mask lies the context alone; at no strength, nothing is taken away."""
    table = rows(12)
    plain, soft = composer(Over()), composer(blend)
    over, made, still = (pictures(m) for m in (plain(table), soft(table), soft(table, torch.zeros(12))))
    assert (made[1] <= over[1]).all()
    assert (made[1] < over[1] - 0.05).flatten(1).any(dim=1).float().mean() > 0.8
    bare = replace(plain.objects.pyramid, atlas=torch.zeros_like(plain.objects.pyramid.atlas))
    nothing = replace(plain, objects=replace(plain.objects, pyramid=bare))(table).images
    outside = (made[1] == 0).expand(-1, 3, -1, -1)
    torch.testing.assert_close(made[0][outside], nothing[outside], rtol=0, atol=1e-6)
    assert same(still, pictures(plain(table, torch.zeros(12))))


def test_what_is_drawn() -> None:
    """In its range, evenly, for each layer apart, and by the key alone."""
    table = rows(4000, layers=2)
    scene = composer(OneOf(EVERY)).ranges.sample(table)
    again = composer(OneOf(EVERY)).ranges.sample(table[1000:])
    blends = [layer.blend for layer in scene.layers]
    for blend in blends:
        assert isinstance(blend, Chosen)
        assert blend.which is not None
        assert (blend.which.bincount(minlength=len(EVERY)) - 4000 / len(EVERY)).abs().max() < 90
        feather, smear = blend.parts[4], blend.parts[7]
        assert isinstance(feather, Edge) and isinstance(smear, Edge)  # noqa: PT018
        assert feather.width is not None and smear.direction is not None  # noqa: PT018
        assert 0.5 <= float(feather.width.min()) < 0.52
        assert 3.98 < float(feather.width.max()) < 4
        assert 0.49 < float(smear.direction.max()) < 0.5
    assert not torch.equal(blends[0].which, blends[1].which)  # type: ignore[union-attr, arg-type]
    assert same(cut(blends[1], [1000])[1], again.layers[1].blend, layout=False)


@pytest.mark.parametrize("blend", [*EVERY, OneOf(EVERY)], ids=str)
def test_what_a_layout_leaves_out_blends_nothing(blend: Blend) -> None:
    """The picture is that of the shown objects alone, painted one by one, to the bit; and at any batch size."""
    layout = Layout(count=(0, 3), side=(0.3, 0.7), visible=0.7)
    maker, table = composer(blend, ranges=replace(RANGES, layout=layout)), rows(14, layers=3)
    made = maker(table)
    scene = scene_of(made)
    shown = torch.stack([layer.shown for layer in scene.layers if layer.shown is not None], dim=1)
    assert len(shown.sum(dim=1).unique()) == 4  # from none to all
    assert scene.left_out.any()
    for i, own in enumerate(cut(scene, range(1, 14))):
        assert same(pictures(maker(table[i : i + 1])), tuple(x[i : i + 1] for x in pictures(made)), layout=False)
        tone, paint = own.tones()
        gain = illumination(tone.slope, SIZE)
        picture = maker.backdrop(own, tone, paint, gain, None, torch.zeros(1, dtype=torch.bool))
        for layer, visible in zip(own.layers, shown[i].tolist(), strict=True):
            if visible:
                alone = replace(layer, shown=None)
                picture, _ = maker.paste(alone, picture, own, tone, gain, None, targets=True)
        assert torch.equal(whole(maker.expose(picture, own.camera, own.keys)), made.images[i : i + 1])


def test_weights() -> None:
    scene = composer(OneOf((Over(), Hard(), Feather()), weights=(3, 0, 1))).ranges.sample(rows(4000))
    blend = scene.layers[0].blend
    assert isinstance(blend, Chosen)
    assert blend.which is not None
    counts = blend.which.bincount(minlength=3).tolist()
    assert counts[1] == 0
    assert abs(counts[0] - 3000) < 100


def test_a_blend_of_all_does_not_move_any_other_draw() -> None:
    table = rows(7, layers=2)
    one, other = (composer(blend).ranges.sample(table) for blend in (Over(), OneOf(EVERY)))
    bare = replace(other, layers=tuple(replace(layer, blend=None) for layer in other.layers))
    assert same(one, bare)


def test_scenes_are_saved_edited_and_rendered_again() -> None:
    maker, table = composer(OneOf(EVERY)), rows(12)
    made = maker(table)
    torch.save(scene_of(made), file := io.BytesIO())
    file.seek(0)
    scene = torch.load(file, weights_only=True)
    assert same(pictures(maker.render(scene)), pictures(made))
    layer = scene.layers[0]
    hard = replace(layer.blend, which=torch.full_like(layer.blend.which, 1))
    edited = maker.render(replace(scene, layers=(replace(layer, blend=hard),)))
    assert same(pictures(edited), pictures(composer(Hard())(table)))
    with pytest.raises(InputError, match=r"^scene\.layers: expected blends drawn from a OneOf, got None\. Draw"):
        maker.render(scene_of(composer(Over())(table)))


def test_gradients_reach_the_scene() -> None:
    """Through every blend: what moves an object moves the picture."""
    table, maker = rows(22), composer(OneOf(EVERY), ranges=SceneRange(pose=WILD_POSE))
    draws = Draws(table.keys)
    maker.ranges.sample(table, draws=draws)
    place = 0, "pose", "pose.x"
    moved = draws.numbers[place].clone().requires_grad_()
    scene = maker.ranges.sample(table, draws=Draws(table.keys, {**draws.numbers, place: moved}))
    maker.render(scene).images.square().sum().backward()
    assert moved.grad is not None
    assert moved.grad.isfinite().all()
    assert (moved.grad != 0).float().mean() > 0.9


def test_nothing_waits_and_a_strict_recorder_can_replay() -> None:
    maker, recorder = composer(OneOf(EVERY)), Strict()
    renderer = Renderer(Captures(recorder))
    for start in range(0, 24, 6):
        table = rows(30, layers=2)[start : start + 6]
        table.keys  # noqa: B018
        with RefuseWaiting():
            made = maker(table)
        assert same(pictures(renderer(maker, table, 1.0, None, targets=True, scene=True)), pictures(made))
    assert recorder.replays == 3


@pytest.mark.parametrize("blend", [*SOFT, *WHOLE, OneOf(EVERY, weights=(1.0,) * len(EVERY))])
def test_a_blend_is_a_value(blend: Blend) -> None:
    assert pickle.loads(pickle.dumps(blend)) == blend
    assert hash(blend) == hash(pickle.loads(pickle.dumps(blend)))
    assert isinstance(blend, Blend)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("blend", "layers"), [(Feather(), 1), (Poisson(), 1), (OneOf(EVERY), 1), (OneOf((Average(), *SOFT[2:], *WHOLE)), 2)]
)  # fmt: skip
def test_compiled(blend: Blend, layers: int) -> None:
    """Two batches of other sizes by the same graphs, where soft and whole blends are one operation each."""
    layout = None if layers == 1 else Layout(visible=0.7)
    equal_when_compiled(composer(blend, (14, 18), SceneRange(layout=layout)), layers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOf(()), r"^blends: expected a tuple of blends, got "),
        (lambda: OneOf(Over()), r"^blends: expected a tuple of blends, got "),
        (lambda: OneOf((Over,)), r"^blends: expected blends, none of them a OneOf, got "),
        (lambda: OneOf((OneOf((Over(),)),)), r"^blends: expected blends, none of them a OneOf, got "),
        (lambda: OneOf((Over(), Hard()), weights=(1,)), r"^weights: expected a number for each of 2 blends, got "),
        (lambda: OneOf((Over(), Hard()), weights=(1, -1)), r"^weights: expected a number in \[0, inf\], got -1"),
        (lambda: OneOf((Over(), Hard()), weights=(0, 0)), r"^weights: expected one above 0 at least, got "),
        (lambda: OneOf((Over(), Hard()), only=2), r"^only: expected an integer of at least 0 and at most 1, got 2"),
        (lambda: OneOf((Over(),))(*torch.ones(3, 1, 1)), r"^blend: expected a scene drawn from ranges with this OneOf"),
        (lambda: Feather(width=(2, 1)), r"^width: expected a pair"),
        (lambda: Feather(kind="round"), r"^kind: expected one of 'gaussian', 'box', got 'round'"),
        (lambda: Eroded(pixels=(0, 99)), r"^pixels: expected a pair"),
        (lambda: Smeared(length=3), r"^length: expected a pair"),
        (lambda: MultiBand(levels=0), r"^levels: expected an integer of at least 1"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
