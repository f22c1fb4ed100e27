"""The compiled programs: rows to composites as one graph, or one graph per stage if there are several layers.

One object per sample takes one graph, in which each pixel goes from context to object without passing through memory.
Several objects take four graphs: all draws (a small one for each number of objects), the backdrop, one layer (reused
for each object), and the camera, so that compile time hardly grows with the number of objects. A program writes its
per-pixel results into memory passed to it, under the names that :func:`outputs` lists.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.compiling import any_batch, channels, program
from kornia_cag.core.draws import Draws, Plan
from kornia_cag.core.records import copied, tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.camera import Camera
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier, chained
from kornia_cag.scenes.layout import Layout, Wish
from kornia_cag.scenes.light import Picture, Tone, illumination, planes_of, whole
from kornia_cag.scenes.overlay import Inked, overlaid
from kornia_cag.scenes.placing import Ground, laid_out, put
from kornia_cag.scenes.scene import Layer, Scene
from kornia_cag.scenes.strength import Ramp, given_strength
from kornia_cag.scenes.targets import Composites, Targets, targets_of
from kornia_cag.scenes.tiles import Tiles
from kornia_cag.scenes.warp import Outline

Written = dict[str, Tensor]  # large tensors, by name
CHANNELS = "red", "green", "blue"  # names of the images' channels, where these are written one by one
PLACES = 8  # objects: the program that finds places is compiled for up to so many, twice as many …


def outputs(
    composer: Composer, b: int, *, layers: int, targets: bool, staged: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of the per-pixel outputs of ``b`` samples, with targets of ``layers`` objects."""
    height, width = composer.size
    found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"images": ((b, 3, height, width), composer.dtype)}
    if targets:
        found["masks"] = (b, layers, height, width), torch.float32
    if targets and layers > 1:
        found["full"] = found["masks"]
    if staged:
        found["canvas"] = (b, 3, height, width), torch.float32
    return found


class Programs:
    """The compiled graphs of one collate, each compiled on first use."""

    def __init__(self) -> None:
        self._made: dict[str, Callable[..., Any]] = {}

    def __call__(
        self, composer: Composer, strength: float | Ramp, rows: Rows, earlier: Earlier | None, into: Written, *,
        targets: bool, scene: bool,
    ) -> Composites:  # fmt: skip
        """Compose rows, as :func:`composed` does."""
        plan, images = composer.plan(rows.layers.shape[1]), into["images"]
        into = {**apart(composer, into.pop("images")), **into}
        any_batch(rows.table, rows.keys, composer.contexts.pyramid.atlas, *tensors(earlier), *into.values())
        if "canvas" not in into:
            made: Composites = self._program(composed, composer)(
                composer, strength, rows.table, rows.keys, plan, earlier, into, targets, scene
            )
            return replace(made, images=images)
        # The stages' inputs have the same shape for any number of objects, or they would be recompiled.
        # Nor may their fields lie in one memory, whose offsets would count as shapes.
        asked = copied(self._program(_drawn, composer)(composer, strength, rows.table, rows.keys, plan))
        drawn = self._laid_out(composer, *asked)
        labels = drawn.labels(composer.objects.labels)
        used = chained(earlier, labels, drawn.fresh)
        held, around = None if earlier is None else earlier.images, replace(drawn, layers=())
        any_batch(*tensors(around), used)
        tone = self._program(_opened, composer)(composer, around, held, used, into["canvas"])
        behind, classes = None if earlier is None else earlier.targets, labels if targets else None
        if composer.painter.tiled(drawn):
            step, room = (
                partial(self._inked, composer, around, tone),
                (into["masks"], into["full"]) if targets else None,
            )
            known = overlaid(composer.painter, drawn, into["canvas"], step, classes, behind, used, room)
        else:
            known = self._pasted(composer, drawn, around, tone, into["canvas"], classes, behind, used)
        self._program(_exposed, composer)(composer, drawn.camera, rows.keys, into["canvas"], apart(composer, images))
        if known is not None and known.masks is not into["masks"]:
            into["masks"].copy_(known.masks)
            into["full"].copy_(known.full)
        made = Composites(images, labels, rows.keys, used, known, drawn if scene else None)
        return placed(made, into)

    def _pasted(
        self, composer: Composer, drawn: Scene, around: Scene, tone: Tone, canvas: Float[Tensor, "b 3 h w"],
        labels: Int[Tensor, "b k"] | None, behind: Targets | None, used: Bool[Tensor, " b"],
    ) -> Targets | None:  # fmt: skip
        """Draw objects over the whole canvas, layer by layer; return their targets, if there are labels."""
        seen = []
        for layer, far in zip(drawn.layers, drawn.distances(composer.ranges.scale[1]), strict=True):
            layer = copied(layer)  # a layout may have put fields into one memory, see above
            alpha = None if labels is None else canvas.new_empty(len(canvas), *composer.size)
            any_batch(*tensors(layer), *tensors(tone), far, alpha)
            edge = self._program(_laid, composer)(composer, layer, around, tone, far, canvas, alpha)
            seen.append((cast(Tensor, alpha), edge))
        return None if labels is None else targets_of(labels, seen, behind, used)

    def _inked(
        self, composer: Composer, around: Scene, tone: Tone, layer: Layer, far: Float[Tensor, " m"] | None, at: Tiles
    ) -> Inked:
        """As :meth:`Painter.in_tiles` does, by one program."""
        count, b, m = len(at), len(around.keys), len(layer.objects)
        if not count:
            at = Tiles(*(torch.zeros(1, dtype=torch.int64) for _ in range(4)))
        at = at.padded(b, m)
        any_batch(*tensors(layer), *tensors(tone), far, *tensors(at))
        ink, alpha = self._program(_inked, composer)(composer, around, tone, layer, far, at)
        return ink[:count], alpha[:count]

    def _laid_out(self, composer: Composer, scene: Scene, wishes: tuple[Wish, ...]) -> Scene:
        """As :meth:`Composer.laid` does, by one program for up to :data:`PLACES` objects."""
        if composer.ranges.layout is None:
            return scene

        def step(layer: Layer, wish: Wish, ground: Ground, here: Bool[Tensor, " m"]) -> tuple[Layer, Ground]:
            any_batch(*tensors(layer), *tensors(wish), *tensors(ground))
            put_there: tuple[Layer, Ground] = self._program(_put, composer)(composer, layer, wish, ground, here)
            return put_there

        return laid_out(scene, wishes, step, multiple=PLACES)

    def _program(self, function: Callable[..., Any], composer: Composer) -> Callable[..., Any]:
        name = function.__name__
        if name not in self._made:
            self._made[name] = program(function, composer.objects.device)
        return self._made[name]


def composed(
    composer: Composer, strength: float | Ramp, table: Int[Tensor, "b n"], keys: Int[Tensor, " b"], plan: Plan,
    earlier: Earlier | None, into: Written | None, targets: bool, scene: bool,
) -> Composites:  # fmt: skip
    """Rows to composites, up to the camera.

    Args:
        composer: the composer to use.
        strength: in [0, 1], or a ramp over epochs.
        table: table of the rows.
        keys: keys of the rows.
        plan: what their scenes are drawn from.
        earlier: the context offered to each row.
        into: where to write the large tensors; None: allocate them.
        targets: also make masks and boxes.
        scene: also return the scenes.
    """
    rows = Rows(table)
    s = given_strength(strength, rows.epoch)
    known = composer.objects.labels
    drawn = composer.laid(*composer.ranges.drawn(rows, s, Draws(keys), plan, size=composer.size, known=known))
    store = whole if into is None else partial(written, into)
    room = None if into is None or "full" not in into else (into["masks"], into["full"])
    made = composer.shoot(drawn, earlier, targets=targets, store=store, room=room)
    if into is not None:
        if made.targets is not None and made.targets.masks is not into["masks"]:
            into["masks"].copy_(made.targets.masks)
            if "full" in into:
                into["full"].copy_(made.targets.full)
        made = placed(made, into)
    return made if scene else replace(made, scene=None)


def placed(made: Composites, into: Written) -> Composites:
    """Composites that use the large tensors where they were written."""
    targets = made.targets
    if targets is not None:
        targets = replace(targets, masks=into["masks"], full=into.get("full", into["masks"]))
    return replace(made, targets=targets)


def apart(composer: Composer, images: Shaped[Tensor, "b 3 h w"]) -> Written:
    """Where a program writes images: on a GPU into each channel by itself, so that a thread computes a whole pixel.

    They are matrices, since torch sees of these that they do not overlap; and of channels that begin at multiples of 16
    bytes, as inductor wants it.
    """
    count = images.shape[2] * images.shape[3]
    if composer.objects.device.type == "cpu" or composer.channels_last or count * images.element_size() % 16:
        return {"images": images}
    flat = images.view(len(images), -1)
    return {name: flat[:, place * count : (place + 1) * count].detach() for place, name in enumerate(CHANNELS)}


def written(into: Written, parts: Picture) -> Tensor:
    """Write images, given as a whole or by channel, as :func:`apart` says; return where the first of them is."""
    if "images" in into:
        return into["images"].copy_(whole(parts))
    for name, plane in zip(CHANNELS, planes_of(parts), strict=True):
        into[name].copy_(plane.flatten(1))
    return into[CHANNELS[0]]


def _drawn(
    composer: Composer, strength: float | Ramp, table: Int[Tensor, "b n"], keys: Int[Tensor, " b"], plan: Plan
) -> tuple[Scene, tuple[Wish, ...]]:
    """Draw the scenes of rows, and what their layout wants."""
    rows, known = Rows(table), composer.objects.labels
    s = given_strength(strength, rows.epoch)
    return composer.ranges.drawn(rows, s, Draws(keys), plan, size=composer.size, known=known)


def _put(
    composer: Composer, layer: Layer, wish: Wish, ground: Ground, here: Bool[Tensor, " m"]
) -> tuple[Layer, Ground]:
    """Find a place for one object."""
    return put(cast(Layout, composer.ranges.layout), composer.objects, composer.size, layer, wish, ground, here)


def _opened(
    composer: Composer, scene: Scene, images: Shaped[Tensor, "b 3 h w"] | None, used: Bool[Tensor, " b"],
    canvas: Float[Tensor, "b 3 h w"],
) -> Tone:  # fmt: skip
    """Render the backdrop onto the canvas; return the light."""
    with torch.autocast(canvas.device.type, enabled=False):
        tone, paint = scene.tones()
        gain = illumination(tone.slope, composer.size)
        canvas.copy_(whole(composer.backdrop(scene, tone, paint, gain, images, used)))
    return tone


def _laid(
    composer: Composer, layer: Layer, around: Scene, tone: Tone, far: Float[Tensor, " b"] | None,
    canvas: Float[Tensor, "b 3 h w"], full: Float[Tensor, "b h w"] | None,
) -> Outline | None:  # fmt: skip
    """Draw one object over the canvas; its alpha goes into ``full``."""
    with torch.autocast(canvas.device.type, enabled=False):
        gain = illumination(tone.slope, composer.size)
        behind = tuple(canvas[:, own] for own in channels(canvas))
        picture, seen = composer.paste(layer, behind, around, tone, gain, far, targets=full is not None)
        canvas.copy_(whole(picture))
    if full is None or seen is None:
        return None
    full.copy_(seen[0])
    return seen[1]


def _inked(
    composer: Composer, around: Scene, tone: Tone, layer: Layer, far: Float[Tensor, " m"] | None, at: Tiles
) -> Inked:
    """Draw several layers' objects in tiles."""
    with torch.autocast(around.keys.device.type, enabled=False):
        return composer.painter.in_tiles(around, tone, False, layer, far, at)


def _exposed(
    composer: Composer, camera: Camera, keys: Int[Tensor, " b"], canvas: Float[Tensor, "b 3 h w"], into: Written
) -> None:
    """Photograph the canvas."""
    with torch.autocast(canvas.device.type, enabled=False):
        written(into, composer.expose((canvas,), camera, keys))
