"""``Composer``: from a scene to pictures. ``Composer.shoot`` holds the stages of a batch in their order."""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from types import NoneType
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.texels import EXTENT, warn_if_soft
from kornia_cag.core.checks import check_choice, check_instance, check_size, check_tensor, fail
from kornia_cag.core.compiling import channels
from kornia_cag.core.draws import Draws, Plan
from kornia_cag.core.formats import DTYPES, to_float, to_format
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.camera import Camera, photographed
from kornia_cag.scenes.choices import chosen
from kornia_cag.scenes.cropping import cropped
from kornia_cag.scenes.earlier import Earlier, chained
from kornia_cag.scenes.finishes import finished
from kornia_cag.scenes.front import Painter
from kornia_cag.scenes.harmony import harmonised
from kornia_cag.scenes.layout import Wish
from kornia_cag.scenes.light import Picture, Tone, illumination, light, planes_of, recolor, whole
from kornia_cag.scenes.overlay import Room, overlaid
from kornia_cag.scenes.placing import laid_out, put
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Layer, Scene
from kornia_cag.scenes.targets import Composites, Pasted, targets_of


@dataclass(frozen=True)
class Composer:
    """Composes batches of ``size = (height, width)`` pixels from two banks on one device.

    Images have ``dtype``: float32, bfloat16 or float16 in [0, 1], or uint8; optionally in torch's memory format
    channels_last.

    Attributes:
        objects: bank of objects to recognise.
        contexts: bank of contexts to put them on, on the same device.
        size: canvas ``(height, width)``, pixels.
        ranges: what varies; units in its fields.
        dtype: dtype of the images: float32, bfloat16, float16 in [0, 1], or uint8 in 0 to 255.
        channels_last: whether images use torch's memory format of that name.
        warn: whether to warn about banks that are too coarse for the canvas.
        painter: draws the objects.
    """

    objects: ObjectBank
    contexts: ContextBank
    size: tuple[int, int]
    ranges: SceneRange = field(default_factory=SceneRange)
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    warn: InitVar[bool] = True
    painter: Painter = field(init=False, repr=False, compare=False)

    def __post_init__(self, warn: bool) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        if self.ranges.finish and self.dtype == torch.uint8:
            fail("dtype", "a float dtype with finish=...", "torch.uint8")
        object.__setattr__(self, "size", check_size("size", self.size))
        object.__setattr__(self, "painter", Painter(self.objects, self.ranges, self.size))
        if self.objects.device != self.contexts.device:
            here = self.objects.device
            fail("contexts", f"a bank on {here}, where the objects are", f"one on {self.contexts.device}",
                 f"Move it with contexts.to('{here}').")  # fmt: skip
        if warn:
            warn_if_coarse(self.objects, self.contexts, self.size, self.ranges, stacklevel=3)

    def __call__(
        self,
        rows: Rows,
        strength: Float[Tensor, " b"] | None = None,
        earlier: Earlier | None = None,
        *,
        targets: bool = True,
    ) -> Composites:
        """Draw a scene for each row, and render it.

        Args:
            rows: on the banks' device.
            strength: how far drawn amounts move from neutral, see :meth:`SceneRange.sample`. Default 1.
            earlier: earlier composites to use instead of bank contexts.
            targets: also make masks and boxes.

        Returns:
            Composites; each depends only on its own row, not on the rest of the batch.
        """
        check_instance("rows", rows, Rows, "Build them with Rows.of(objects, contexts, index).")
        return self.compose(self.sample(rows, strength), earlier, targets=targets)

    def sample(self, rows: Rows, strength: Float[Tensor, " b"] | None = None, *, draws: Draws | None = None) -> Scene:
        """Draw one scene per row, as :meth:`SceneRange.sample` does, and lay its objects out on the canvas."""
        known = self.objects.labels
        return self.laid(*self.ranges.asked(rows, strength, draws=draws, size=self.size, known=known))

    def laid(self, scene: Scene, wishes: tuple[Wish, ...]) -> Scene:
        """The scene with its objects where they find a place; as it is, if there is no layout."""
        if self.ranges.layout is None:
            return scene
        return laid_out(scene, wishes, partial(put, self.ranges.layout, self.objects, self.size))

    def compose(self, scene: Scene, earlier: Earlier | None = None, *, targets: bool = True) -> Composites:
        """Render a scene as it was drawn from these ranges, without a look at its values.

        Args:
            scene: from :meth:`SceneRange.sample` of the same ranges, not edited: see :meth:`render`.
            earlier: earlier composites to use instead of bank contexts.
            targets: also make masks and boxes.
        """
        return self._finished(self.shoot(scene, earlier, targets=targets))

    def render(self, scene: Scene, earlier: Earlier | None = None, *, targets: bool = True) -> Composites:
        """Render a scene to pictures; the only random part is the noise fields of its keys.

        Args:
            scene: from :meth:`SceneRange.sample`, edited or not, on the banks' device.
            earlier: earlier composites to use instead of bank contexts.
            targets: also make masks and boxes.
        """
        self._check(scene, earlier)
        drawn = all(self.painter.as_drawn(layer.pose) for layer in scene.layers)
        return self._finished(self.shoot(scene, earlier, targets=targets, edited=not drawn))

    def _finished(self, made: Composites) -> Composites:
        return replace(made, images=self.finish(made.images, made.keys)) if self.ranges.finish else made

    def _check(self, scene: Any, earlier: Any) -> None:
        """Require a scene of these banks; where they are on a CPU, reading ids does not wait for a device."""
        check_instance("scene", scene, Scene, "Draw it with ranges.sample(rows).")
        check_instance("earlier", earlier, (Earlier, NoneType), "Pass batch.earlier.")
        if not scene.layers:
            fail("scene.layers", "at least one object per sample", "none", "Draw the scene with ranges.sample(rows).")
        ids = {f"scene.layers[{place}].objects": layer.objects for place, layer in enumerate(scene.layers)}
        for name, values in {**ids, "scene.contexts": scene.contexts}.items():
            count = len(self.contexts if name == "scene.contexts" else self.objects)
            check_tensor(name, values, (len(scene.keys),), torch.int64, self.objects.device)
            known = np.asarray(values) if values.device.type == "cpu" and len(values) else None
            if known is not None and known.view(np.uint64).max() >= count:  # a negative id is a very high one
                fail(name, f"ids from 0 to {count - 1}", f"{known.min()} to {known.max()}",
                     "Render a scene on the banks that its rows are of.")  # fmt: skip
        lowest = scene.camera.coarser.amin() if len(scene.keys) else 0.0
        if lowest < 0:
            fail("scene.camera.coarser", "at least 0", f"{float(lowest):g}", "Pass coarser.clamp(min=0).")
        if earlier is not None:
            earlier.check(len(scene.keys), self.size, self.objects.device)

    def plan(self, layers: int) -> Plan:
        """What the scenes of ``layers`` objects are drawn from."""
        return self.ranges.plan(layers=layers, device=self.objects.device)

    def shoot(
        self, scene: Scene, earlier: Earlier | None = None, *, targets: bool = True, edited: bool = False,
        store: Callable[[Picture], Tensor] = whole, room: Room | None = None,
    ) -> Composites:  # fmt: skip
        """Render up to the camera, without the stages of ``ranges.finish``: the part that can be compiled.

        ``edited``: objects may ask for a finer level than the ranges do. ``store``: makes one tensor of the images.
        ``room``: masks may be written there, see :func:`overlaid`.
        """
        with torch.autocast(scene.keys.device.type, enabled=False):  # samples do not depend on the caller's precision
            labels = scene.labels(self.objects.labels)
            used = chained(earlier, labels, scene.fresh)
            tone, paint = scene.tones()
            gain = illumination(tone.slope, self.size)
            held = None if earlier is None else earlier.images
            picture, seen = self.backdrop(scene, tone, paint, gain, held, used), []
            behind = None if earlier is None else earlier.targets
            if self.painter.tiled(scene):
                step, asked = partial(self.painter.in_tiles, scene, tone, edited), labels if targets else None
                known = overlaid(self.painter, scene, whole(picture), step, asked, behind, used, room)
            else:
                for layer, far in zip(scene.layers, scene.distances(self.ranges.scale[1]), strict=True):
                    picture, part = self.paste(layer, picture, scene, tone, gain, far, targets=targets, edited=edited)
                    seen.append(part)
                known = targets_of(labels, cast("list[Pasted]", seen), behind, used) if targets else None
            picture = self.expose(picture, scene.camera, scene.keys)
            return Composites(store(picture), labels, scene.keys, used, known, scene)

    def finish(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """The stages after the camera."""
        return finished(images, keys, self.ranges.finish)

    def backdrop(
        self, scene: Scene, tone: Tone, paint: Tone | None, gain: Float[Tensor, "b h w"] | None,
        earlier: Shaped[Tensor, "b 3 h w"] | None, used: Bool[Tensor, " b"],
    ) -> Picture:  # fmt: skip
        """The lit context, or an earlier composite, which was lit when it was composed."""
        behind = cropped(self.contexts.pyramid, scene.contexts, scene.crop, scene.camera.coarser, self.size)
        if paint is not None:
            behind = tuple(planes_of(recolor(behind, paint)))
        lit = light(behind, tone, gain=gain)
        if earlier is None:
            return lit
        use, parts = used[:, None, None, None], zip(channels(earlier), lit, strict=True)
        return tuple(torch.where(use, to_float(earlier[:, own]), new) for own, new in parts)

    def paste(
        self, layer: Layer, behind: Picture, scene: Scene, tone: Tone, gain: Float[Tensor, "b h w"] | None,
        far: Float[Tensor, " b"] | None, *, targets: bool, edited: bool = False,
    ) -> tuple[Picture, Pasted | None]:  # fmt: skip
        """Blend one lit object over the picture; also return its pasted alpha and outline, if requested.

        ``scene`` is that of the layer, whose own layers do not matter; ``far`` is how far away the object is.
        """
        blend, ranges = chosen(self.ranges.blend, layer.blend), self.ranges
        outlined = targets or blend.pastes
        front = self.painter.front(layer, scene, tone, gain, far, outlined=outlined, edited=edited)
        lit, alpha, _, seen, spot = front
        ground = behind
        if ranges.sun is not None and scene.sun is not None and spot is not None:
            ground = scene.sun.shadowed(behind, alpha, spot, most=ranges.sun.widest(ranges.longest(self.size)))
        if layer.harmony is not None and spot is not None:
            lit = harmonised(lit, alpha, behind, spot, layer.harmony)
        picture = blend(lit, alpha, ground, None if seen is None else seen.threshold)
        if layer.shown is not None:
            pairs, shown = zip(picture, behind, strict=True), layer.shown[:, None, None, None]
            picture = tuple(torch.where(shown, new, back) for new, back in pairs)
        if not targets or seen is None:
            return picture, None
        mask = blend.mask(alpha, seen.threshold)
        return picture, (mask.clamp(0, 1), seen)  # interpolation weights sum to 1 only up to rounding

    def expose(self, picture: Picture, camera: Camera, keys: Int[Tensor, " b"]) -> Picture:
        """Photograph the blended picture, into images of the composer's format."""
        shot = photographed(whole(picture), camera, keys)
        shot = (whole(shot),) if self.channels_last else shot
        return tuple(to_format(part, self.dtype, self.channels_last) for part in shot)


def warn_if_coarse(
    objects: ObjectBank, contexts: ContextBank | None, size: tuple[int, int], ranges: SceneRange, *, stacklevel: int
) -> None:
    """Warn about banks whose pictures look soft when enlarged to a canvas of ``(height, width)`` pixels.

    ``stacklevel`` points to the user's line; the caller is 1.
    """
    scale = ranges.scale if ranges.framing is None else (ranges.framing.side, ranges.framing.side)
    longest, usual = scale[1] * min(size), sum(scale) / 2 * min(size)
    warn_if_soft("objects", objects.size, longest, EXTENT * objects.size, stacklevel + 2)
    objects.warn_if_unsuited(longest=longest, usual=usual, stacklevel=stacklevel + 1)
    if contexts is not None:
        warn_if_soft("contexts", contexts.size, max(size), contexts.size, stacklevel + 2)
