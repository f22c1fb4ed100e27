from dataclasses import dataclass, replace

import kornia.augmentation as K
import pytest
import torch
from composing import RANGES, make_composer, rows, same, scene_of
from conftest import make_contexts, make_objects
from torch import Tensor, nn

from kornia_cag import CameraRange, InputError, PoseRange, Recapture
from kornia_cag.core.draws import Draws
from kornia_cag.scenes import chunks
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.finishes import Unkeyed, finished
from kornia_cag.scenes.ranges import SceneRange


@dataclass(frozen=True)
class Dim:
    """A keyed stage of one's own: less light, by a factor of each sample's own."""

    low: float = 0.3

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        return images * Draws(keys).uniform("dim", self.low, 1.0)[:, None, None, None]


def glare(images, keys):
    return images + 0.4


def halved(images, keys):
    return images * 0.5


def composer_of(*stages, name="all"):
    return make_composer(replace(RANGES[name], finish=stages), (20, 24))


def test_a_keyed_stage_of_ones_own():
    table, strength = rows(9, layers=2), torch.linspace(0.5, 1, 9)
    composer = composer_of(Dim())
    plain, made = composer_of()(table, strength), composer(table, strength)
    factor = Draws(table.keys).uniform("dim", 0.3, 1.0)
    torch.testing.assert_close(made.images, plain.images * factor[:, None, None, None])
    assert same(replace(made, images=plain.images), plain)  # nothing else changes
    part = composer(table[4:6], strength[4:6])
    assert torch.equal(part.images, made.images[4:6])
    assert same(composer.render(scene_of(made)), made)  # and a scene renders with it
    shot = composer.shoot(scene_of(made))
    assert torch.equal(shot.images, plain.images)
    assert torch.equal(composer.finish(shot.images, shot.keys), made.images)


def test_stages_go_in_their_order_and_are_clipped_one_by_one():
    table = rows(6)
    images = composer_of()(table).images
    lit = composer_of(glare, halved)(table).images
    torch.testing.assert_close(lit, 0.5 * (images + 0.4).clamp(max=1))
    twice = composer_of(Dim(), Dim())(table).images / images.clamp(min=0.1)
    factor = Draws(table.keys).uniform("dim", 0.3, 1.0)
    assert ((twice.amax((1, 2, 3)) - factor**2).abs() > 0.01).any()  # equal stages draw apart
    dim = composer_of(Dim(), glare)(table).images
    torch.testing.assert_close(dim, (Dim()(images, table.keys) + 0.4).clamp(max=1))
    assert not torch.equal(lit, dim)
    assert (images + 0.4).max() > 1.1
    assert finished(images, table.keys, (glare,)).max() == 1
    assert finished(images, table.keys, ()) is images


def test_recapture_is_a_stage():
    """Each photograph is that of its own key, also next to others."""
    shot = Recapture(PoseRange(), camera=CameraRange(noise=(0, 0.05)))
    table = rows(7)
    composer = composer_of(shot, name="pose")
    made, plain = composer(table).images, composer_of(name="pose")(table).images
    assert torch.equal(made, shot(plain, table.keys).clamp(0, 1))
    assert (made - plain).abs().amax((1, 2, 3)).min() > 0.02
    assert torch.equal(composer(table[5:]).images, made[5:])


def test_an_unkeyed_module_repeats_under_a_seed():
    table = rows(8)
    crop = K.RandomResizedCrop((20, 24), scale=(0.3, 0.6), p=1.0)
    composer, plain = composer_of(Unkeyed(crop)), composer_of()(table)

    def composed(seed):
        torch.manual_seed(seed)
        return composer(table)

    one, again, other = composed(3), composed(3), composed(4)
    assert same(one, again)
    assert not torch.equal(one.images, other.images)
    torch.manual_seed(3)
    assert torch.equal(one.images, crop(plain.images).clamp(0, 1))
    assert repr(Unkeyed(nn.Identity())) == "Unkeyed(Identity())"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_stages_get_the_images_as_they_are_asked_for(dtype, channels_last):
    seen = []

    def look(images, keys):
        seen.append((images.dtype, images.is_contiguous(memory_format=torch.channels_last), keys))
        return images

    composer = replace(composer_of(look), dtype=dtype, channels_last=channels_last, warn=False)
    table = rows(4)
    made = composer(table)
    assert made.images.dtype == dtype
    assert seen[0][:2] == (dtype, channels_last)
    assert torch.equal(seen[0][2], table.keys)


def test_stages_see_whole_batches_however_these_are_cut(monkeypatch):
    sizes = []

    def count(images, keys):
        sizes.append(len(images))
        return Dim()(images, keys)

    composer, table = composer_of(count), rows(12)
    monkeypatch.setattr(chunks, "PIXELS", 20 * 24 * 3)
    made = Renderer()(composer, table, 1.0, None, targets=True, scene=True)
    assert sizes == [12]
    assert torch.equal(made.images, composer(table).images)


def test_gradients_reach_through_stages():
    composer, table = composer_of(Dim(), Recapture(), name="default"), rows(3)
    scene = composer.ranges.sample(table)
    angle = scene.pose.angle.clone().requires_grad_()
    composer.render(scene.posed(angle=angle)).images.square().sum().backward()
    assert (angle.grad != 0).all()


TUPLE = "finish: expected a tuple of functions of images and keys, got {}. Pass finish=(stage,)."
MODULE = (
    "finish: expected functions of images and keys, got {}. "
    "Wrap a module, such as a kornia augmentation: Unkeyed(module)."
)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, TUPLE.format("None")),
        ("x", TUPLE.format("'x'")),
        (Dim(), TUPLE.format("Dim(low=0.3)")),
        ((3,), MODULE.format("3")),
        ((nn.Identity(),), MODULE.format("Identity()")),
        ((Dim(), "x"), MODULE.format("'x'")),
        ((Unkeyed,), MODULE.format("<class 'kornia_cag.scenes.finishes.Unkeyed'>")),
        ((nn.Identity,), MODULE.format("<class 'torch.nn.modules.linear.Identity'>")),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_are_no_stages(bad, said):
    with pytest.raises(InputError) as error:
        SceneRange(finish=bad)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("stage", "got"),
    [
        (lambda images, keys: images[:, :1], "float32 (3, 1, 8, 8)"),
        (lambda images, keys: images[:2], "float32 (2, 3, 8, 8)"),
        (lambda images, keys: (images * 255).byte(), "uint8 (3, 3, 8, 8)"),
        (lambda images, keys: images.to("meta"), "float32 (3, 3, 8, 8) on meta"),
        (lambda images, keys: None, "None"),
        (Unkeyed(nn.Upsample(scale_factor=2)), "float32 (3, 3, 16, 16)"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_stages_that_change_more_than_pixels(stage, got):
    composer = Composer(make_objects(), make_contexts(), (8, 8), SceneRange(finish=(Dim(), stage)))
    with pytest.raises(InputError) as error:
        composer(rows(3))
    assert str(error.value) == (
        f"finish[1]: expected float16 or bfloat16 or float32 or float64 (3, 3, 8, 8) on cpu, got {got}. "
        "A stage after the camera must keep shape and device."
    )


@pytest.mark.parametrize("bad", [glare, nn.Identity, None])
@pytest.mark.usefixtures("untyped")
def test_only_modules_need_the_adapter(bad):
    with pytest.raises(
        InputError, match=r"^module: expected Module, got .* Pass a function of images and keys directly"
    ):
        Unkeyed(bad)


def test_uint8_has_no_room_for_stages():
    with pytest.raises(InputError) as error:
        Composer(make_objects(), make_contexts(), (8, 8), SceneRange(finish=(Dim(),)), torch.uint8)
    assert str(error.value) == "dtype: expected a float dtype with finish=..., got torch.uint8."
