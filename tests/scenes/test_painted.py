"""Laid-out scenes of several objects under every blend, painted a second time by the oracle, object by object."""

from dataclasses import replace

import pytest
import torch
from composing import LENS, WILD_COLOR, WILD_POSE, compare, make_composer, scene_of

from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Average, Difference, Hard, MultiBand, Over, Poisson
from kornia_cag.scenes.choices import OneOf
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.edges import Eroded, Feather, Smeared
from kornia_cag.scenes.layout import Band, Layout
from kornia_cag.scenes.ranges import SceneRange

BLENDS = {
    "over": Over(),
    "hard": Hard(),
    "average": Average(0.6),
    "difference": Difference(),
    "feather": Feather((0.0, 5.0)),
    "box feather": Feather((0.5, 4.0), "box"),
    "eroded": Eroded((0.0, 2.5)),
    "smeared": Smeared((0.0, 6.0)),
    "bands": MultiBand(3),
}
EVERY = OneOf(tuple(BLENDS.values()), weights=(1, 2, 1, 1, 1, 1, 1, 1, 1))
WARPED = replace(WILD_POSE, elastic=(0.02, 0.06), hole=(0.05, 0.3), holes=2)
CROWDED = Layout(count=(1, 5), side=(0.3, 0.9), visible=0.6, inside=0.5, stacked=0.3, tries=2)  # some find no place
POISSONS = {"poisson": Poisson(), "mixed": Poisson(mixed=True), "any": OneOf((Poisson(), Poisson(mixed=True), Hard()))}


def rows(b: int, layers: int) -> Rows:
    """Ten objects, of which the last five have no class, on seven contexts."""
    place = torch.arange(b)
    objects = torch.stack([(place * 3**layer + 2 * layer) % 10 for layer in range(layers)], dim=1)
    return Rows.of(objects, place % 7, place, epoch=1)


def painter(ranges: SceneRange, size: tuple[int, int] = (32, 40)) -> Composer:
    plain = make_composer(ranges, size)
    return replace(plain, objects=plain.objects + plain.objects.unlabelled(), warn=False)


@pytest.mark.parametrize("name", [*BLENDS, "one of all"])
def test_laid_out_scenes_equal_the_oracle(name: str) -> None:
    """1 to 5 objects, warped, with holes, cut off by the canvas, some left out, some without a class."""
    composer = painter(SceneRange(pose=WARPED, layout=CROWDED, blend=BLENDS.get(name, EVERY)))
    table = rows(60 if name == "one of all" else 20, 5)
    made = composer(table)
    scene = scene_of(made)
    assert scene.left_out.any()
    assert made.targets is not None
    edges = torch.cat([made.targets.full[:, :, 0], made.targets.full[..., 0]], dim=2)
    assert (edges.amax(dim=(1, 2)) > 0.9).any()  # one is cut off
    assert ((made.targets.full.amax(dim=(2, 3)) > 0.5) & (made.labels < 0)).any()  # a distractor is painted
    assert compare(composer, table, made) >= 0.6 * len(table)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_any_number_of_objects_in_any_light_equals_the_oracle(layers: int) -> None:
    layout = Layout(side=(0.2, 0.7), place=Band(top=0.2, bottom=0.9), visible=0.3, inside=0.4)
    lit = {"color": WILD_COLOR, "object_color": WILD_COLOR, "context_color": WILD_COLOR, "camera": LENS}
    composer, table = painter(SceneRange(pose=WARPED, layout=layout, blend=EVERY, **lit), (24, 30)), rows(20, layers)
    assert compare(composer, table, composer(table)) >= 12


def test_scenes_over_an_earlier_composite_equal_the_oracle() -> None:
    composer, table = painter(SceneRange(pose=WARPED, layout=CROWDED, blend=EVERY), (24, 30)), rows(20, 5)
    images = torch.rand(20, 3, 24, 30, generator=torch.Generator().manual_seed(0))
    made = composer(table, earlier=Earlier(images, torch.full((20, 5), 99)))
    assert made.chained.all()
    assert compare(composer, table, made, earlier=images) >= 12


@pytest.mark.parametrize("name", POISSONS)
def test_poisson_scenes_equal_the_oracle_s_sparse_solver(name: str) -> None:
    composer = painter(SceneRange(pose=WARPED, layout=CROWDED, blend=POISSONS[name]), (20, 24))
    table = rows(12, 5)
    assert compare(composer, table, composer(table)) >= 5


def test_the_oracle_can_tell() -> None:
    """Narrower edges, or an object more than it is told of."""
    composer, table = painter(SceneRange(pose=WARPED, layout=CROWDED, blend=Feather((3.0, 5.0)))), rows(4, 5)
    scene = composer.sample(table)
    sharp = [replace(one, blend=replace(one.blend, width=0.5 * one.blend.width)) for one in scene.layers]
    every = [replace(one, shown=torch.ones_like(one.shown)) for one in scene.layers]
    for layers in (sharp, every):
        made = composer.compose(replace(scene, layers=tuple(layers)))
        with pytest.raises(AssertionError):
            compare(composer, table, replace(made, scene=scene))
