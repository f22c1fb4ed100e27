"""The compiled programs: rows to composites as one graph, or one graph per stage if there are several layers.

One object per sample takes one graph, in which each pixel goes from context to object without passing through memory.
Several objects take three graphs: the backdrop, one layer (reused for each object), and the camera, so that compile
time does not grow with the number of objects. A program writes its per-pixel results into memory passed to it, under
the names that :func:`outputs` lists.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.compiling import any_batch, program
from kornia_cag.core.draws import Draws
from kornia_cag.core.randomness import uniform
from kornia_cag.core.records import tensors
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.composer import Composer, chained, targets_of
from kornia_cag.scenes.scene import Earlier, Layer, Scene
from kornia_cag.scenes.strength import Ramp, given_strength
from kornia_cag.scenes.targets import Composites
from kornia_cag.scenes.warp import Outline

Written = dict[str, Tensor]  # large tensors, by name


def outputs(
    composer: Composer, b: int, *, layers: int, targets: bool, staged: bool
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of the per-pixel outputs of ``b`` samples."""
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
        any_batch(rows.table, rows.keys, composer.contexts.pyramid.atlas, *tensors(earlier), *into.values())
        if "canvas" not in into:
            made: Composites = self._program(composed, composer)(
                composer, strength, rows.table, rows.keys, earlier, into, targets, scene
            )
            return made
        # The stages' inputs have the same shape for any number of objects, or they would be recompiled.
        keys, labels = rows.keys, composer.objects.labels[rows.layers]
        used, layers, seen = chained(earlier, labels, uniform(keys, "chain.reset")), [], []
        given = keys, given_strength(strength, rows.epoch)
        contexts = rows.contexts.contiguous()
        any_batch(*given, used, contexts)
        images = None if earlier is None else earlier.images
        drawn = self._program(_opened, composer)(composer, *given, contexts, images, used, into["canvas"])
        for number, objects in enumerate(rows.layers.unbind(1)):
            own = (
                Draws(keys).layer(number).keys.clone()
            )  # never ``keys`` itself, or the first layer is a case of its own
            alpha = into["canvas"].new_empty(len(rows), *composer.size) if targets else None
            objects = objects.contiguous()
            any_batch(own, objects, alpha)
            layer, edge = self._program(_laid, composer)(composer, *given, objects, own, into["canvas"], alpha)
            layers.append(layer)
            seen.append((cast(Tensor, alpha), edge))
        self._program(_exposed, composer)(composer, *given, into["canvas"], into["images"])
        known = targets_of(labels, seen) if targets else None
        if known is not None:
            into["masks"].copy_(known.masks)
            into["full"].copy_(known.full)
        whole = replace(drawn, layers=tuple(layers)) if scene else None
        return placed(Composites(into["images"], labels, keys, used, known, whole), into)

    def _program(self, function: Callable[..., Any], composer: Composer) -> Callable[..., Any]:
        name = function.__name__
        if name not in self._made:
            self._made[name] = program(function, composer.objects.device)
        return self._made[name]


def composed(
    composer: Composer, strength: float | Ramp, table: Int[Tensor, "b n"], keys: Int[Tensor, " b"],
    earlier: Earlier | None, into: Written | None, targets: bool, scene: bool,
) -> Composites:  # fmt: skip
    """Rows to composites, up to the camera.

    Args:
        composer: the composer to use.
        strength: in [0, 1], or a ramp over epochs.
        table: table of the rows.
        keys: keys of the rows.
        earlier: the context offered to each row.
        into: where to write the large tensors; None: allocate them.
        targets: also make masks and boxes.
        scene: also return the scenes.
    """
    rows = Rows(table)
    drawn = composer.ranges.sample(rows, given_strength(strength, rows.epoch), draws=Draws(keys))
    made = composer.shoot(drawn, earlier, targets=targets)
    if into is not None:
        into["images"].copy_(made.images)
        if made.targets is not None:
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
    return replace(made, images=into["images"], targets=targets)


def _opened(
    composer: Composer, keys: Int[Tensor, " b"], strength: Float[Tensor, " b"], contexts: Int[Tensor, " b"],
    images: Shaped[Tensor, "b 3 h w"] | None, used: Bool[Tensor, " b"], canvas: Float[Tensor, "b 3 h w"],
) -> Scene:  # fmt: skip
    """Render the backdrop onto the canvas; return the scene, still without objects."""
    scene = composer.ranges.surroundings(contexts, Draws(keys), strength)
    with torch.autocast(canvas.device.type, enabled=False):
        canvas.copy_(torch.stack(composer.backdrop(scene, scene.light.tone(), images, used), dim=1))
    return scene


def _laid(
    composer: Composer, keys: Int[Tensor, " b"], strength: Float[Tensor, " b"], objects: Int[Tensor, " b"],
    own: Int[Tensor, " b"], canvas: Float[Tensor, "b 3 h w"], full: Float[Tensor, "b h w"] | None,
) -> tuple[Layer, Outline | None]:  # fmt: skip
    """Draw one object, by its own keys, over the canvas; its alpha goes into ``full``."""
    ranges, draws = composer.ranges, Draws(keys)
    tone, camera = ranges.color.sample(draws, strength).tone(), ranges.camera.sample(draws, strength)
    layer = ranges.layer(objects, Draws(own), strength)
    with torch.autocast(canvas.device.type, enabled=False):
        behind = canvas.unbind(1)
        picture, seen = composer.paste(layer, behind, tone, camera.coarser, targets=full is not None)
        canvas.copy_(torch.stack(picture, dim=1))
    if full is None or seen is None:
        return layer, None
    full.copy_(seen[0])
    return layer, seen[1]


def _exposed(
    composer: Composer, keys: Int[Tensor, " b"], strength: Float[Tensor, " b"], canvas: Float[Tensor, "b 3 h w"],
    images: Shaped[Tensor, "b 3 h w"],
) -> None:  # fmt: skip
    """Photograph the canvas."""
    camera = composer.ranges.camera.sample(Draws(keys), strength)
    with torch.autocast(canvas.device.type, enabled=False):
        images.copy_(composer.expose(canvas.unbind(1), camera, keys))
