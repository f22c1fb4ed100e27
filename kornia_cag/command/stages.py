"""A sample's way from cut-out to photograph, as pictures: one scene, rendered again and again with more of it."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_int
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Over
from kornia_cag.scenes.camera import Camera
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.scene import Scene

SQUARES = 16  # along the canvas's short side: they show through where there is nothing
WHITE = 0.9  # mean of the colours of ink that light squares would hide


def stages(
    composer: Composer, rows: Rows, scene: Scene, earlier: Earlier | None = None
) -> dict[str, Float[Tensor, "3 h w"]]:
    """What each stage of composing makes of one sample, in order, by name.

    ``cut-out``: the object without a pose, on squares. ``context``: the picture of which the scene shows a part,
    stretched to the canvas, or ``earlier composite``, if the scene takes that. ``warped``: the object in its pose, on
    squares. ``pasted``: on its context, both in the colours of their files. ``lit``: in the colours and the light of
    the scene. ``photographed``: by its camera. ``finished``: after ``ranges.finish``, if there is any.

    Args:
        composer: of the scene's banks, ranges and canvas.
        rows: one row.
        scene: as drawn for the row, or edited.
        earlier: the earlier composite that the chain offered.

    Raises:
        InputError: for another number of rows than one.
    """
    check_instance("rows", rows, Rows, "Build them with Rows.of(objects, contexts, index).")
    check_int("number of rows", len(rows), 1, 1)
    ranges = replace(composer.ranges, finish=())
    camera = replace(composer, ranges=ranges, warn=False)
    cutter = replace(camera, ranges=replace(ranges, blend=Over()), warn=False)
    squares, plain = _squares(composer, scene), _plain(scene)
    photographed = camera.render(scene, earlier)
    if earlier is not None and bool(photographed.chained):
        name, behind = "earlier composite", earlier.images
    else:
        name, behind = "context", _whole_context(composer, scene)
    found = {
        "cut-out": cutter.render(_resting(composer, rows, plain), squares).images,
        name: behind,
        "warped": cutter.render(plain, squares).images,
        "pasted": camera.render(plain, earlier).images,
        "lit": camera.render(replace(scene, camera=plain.camera), earlier).images,
        "photographed": photographed.images,
    }
    if composer.ranges.finish:
        found["finished"] = composer.finish(photographed.images, scene.keys)
    return {stage: images[0] for stage, images in found.items()}


def _resting(composer: Composer, rows: Rows, scene: Scene) -> Scene:
    """The scene with neutral poses."""
    rest = composer.sample(rows, torch.zeros_like(scene.fresh))
    poses = zip(scene.layers, rest.layers, strict=True)
    return replace(scene, layers=tuple(replace(own, pose=still.pose) for own, still in poses))


def _plain(scene: Scene) -> Scene:
    """The scene in the colours of its files, seen by an ideal camera."""
    zeros, ones = torch.zeros_like(scene.fresh), torch.ones_like(scene.fresh)
    light = replace(
        scene.light, brightness=ones, exposure=zeros, contrast=ones, saturation=ones, hue=zeros,
        tint=torch.zeros_like(scene.light.tint), veil=zeros, illumination=None, light_from=None,
        inverted=torch.zeros_like(scene.light.inverted),
    )  # fmt: skip
    layers = tuple(replace(layer, color=None, harmony=None, size=None) for layer in scene.layers)
    camera = Camera(zeros, None, None, None, None)
    return replace(scene, layers=layers, light=light, context_color=None, camera=camera, sun=None, depth=None)


def _squares(composer: Composer, scene: Scene) -> Earlier:
    """Light squares, or dark ones for white ink, as an earlier composite of a class that is none of the objects'."""
    bank, (height, width) = composer.objects, composer.size
    side = max(1, min(height, width) // SQUARES)
    row, column = (torch.arange(length, device=bank.device) // side for length in (height, width))
    *ink, alpha = bank.pyramid.level(0)[scene.layers[0].objects * bank.variants][0].float().mean(dim=(1, 2))
    darkest = 0.4 if bool(sum(ink) > 3 * WHITE * alpha) else 0.86
    picture = darkest + 0.14 * ((row[:, None] + column) % 2)
    label = torch.full((1, 1), len(bank.classes), device=bank.device)
    return Earlier(picture.expand(1, 3, height, width), label)


def _whole_context(composer: Composer, scene: Scene) -> Float[Tensor, "1 3 h w"]:
    pictures: Tensor = composer.contexts.pyramid.level(0)[scene.contexts][:, :3].float() / 255
    return F.interpolate(pictures, composer.size, mode="area")
