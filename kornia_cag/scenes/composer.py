"""``Composer``: ids and keys to a ``Scene``. ``Composer._compose`` holds the stages of a batch in their order."""

from dataclasses import InitVar, dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.pyramid import sample_pyramid
from kornia_cag.banks.texels import EXTENT, warn_if_soft
from kornia_cag.core.checks import (
    check_choice,
    check_size,
    check_tensor,
    fail,
)
from kornia_cag.core.compiling import kept, once
from kornia_cag.core.formats import DTYPES, to_float, to_format
from kornia_cag.core.randomness import chance, uniform
from kornia_cag.scenes.blends import blend
from kornia_cag.scenes.camera import photograph
from kornia_cag.scenes.light import light, recolor
from kornia_cag.scenes.pose import homographies, to_canvas
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Earlier, Scene
from kornia_cag.scenes.warp import CELL, SEEN, canvas_points, draft, outline, warp


@dataclass(frozen=True)
class Composer:
    """Composes batches of scenes of ``size = (height, width)`` pixels from two banks on one device.

    Images are of ``dtype``: float32, bfloat16 or float16 in [0, 1], or uint8; in torch's memory format channels_last if
    asked for.

    Attributes:
        objects: bank of what to recognise.
        contexts: bank of what to put it on, on the same device.
        size: canvas ``(height, width)``, pixels.
        ranges: what varies, with units in its own fields.
        dtype: of the images: float32, bfloat16, float16 in [0, 1], or uint8 in 0 to 255.
        channels_last: whether images are in torch's memory format of that name.
        warn: whether to warn of banks that are too coarse for the canvas.
    """

    objects: ObjectBank
    contexts: ContextBank
    size: tuple[int, int]
    ranges: SceneRange = field(default_factory=SceneRange)
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    warn: InitVar[bool] = True

    def __post_init__(self, warn: bool) -> None:
        check_choice("dtype", self.dtype, DTYPES)
        object.__setattr__(self, "size", check_size("size", self.size))
        if self.objects.device != self.contexts.device:
            here = self.objects.device
            fail("contexts", f"a bank on {here}, where the objects are", f"one on {self.contexts.device}",
                 f"Move it with contexts.to('{here}').")  # fmt: skip
        if warn:
            warn_if_coarse(self.objects, self.contexts, self.size, self.ranges, stacklevel=3)

    def __call__(
        self,
        objects: Int[Tensor, " b"],
        contexts: Int[Tensor, " b"],
        keys: Int[Tensor, " b"],
        strength: Float[Tensor, " b"] | None = None,
        earlier: Earlier | None = None,
        *,
        masks: bool = True,
    ) -> Scene:
        """Compose one scene per row.

        Args:
            objects: object ids.
            contexts: context ids.
            keys: see :func:`kornia_cag.core.randomness.sample_keys`; all else is drawn from them.
            strength: how far drawn amounts move from neutral, in [0, 1]; choices (crop, mirror, negative, whether to
                blur) do not. Default 1.
            earlier: composites to use in place of bank contexts.
            masks: make masks and boxes as well.

        Returns:
            Scenes; each is a function of its own row alone, whatever else the batch holds.
        """
        for name, ids in (("objects", objects), ("contexts", contexts), ("keys", keys)):
            rows = "b" if ids is objects else len(objects)
            check_tensor(name, ids, (rows,), torch.int64, self.objects.device)
        strength = torch.ones(len(keys), dtype=torch.float32, device=keys.device) if strength is None else strength
        with torch.autocast(keys.device.type, enabled=False):  # a sample does not depend on the precision around it
            return self._compose(objects, contexts, keys, strength, earlier, masks)

    def _compose(
        self, objects: Int[Tensor, " b"], contexts: Int[Tensor, " b"], keys: Int[Tensor, " b"],
        strength: Float[Tensor, " b"], earlier: Earlier | None, masks: bool,
    ) -> Scene:  # fmt: skip
        ranges = self.ranges
        camera = ranges.camera.sample(keys, strength)
        color = ranges.color.sample(keys, strength, "color")

        (*colors, alpha), opacity = self._place(objects, keys, strength, camera.coarser)
        ink, seen = tuple(colors), None
        if masks or ranges.blend == "hard":
            alpha = kept(alpha)
            seen = outline(alpha.detach(), opacity)
        if ranges.object_color is not None:
            ink = recolor(ink, ranges.object_color.sample(keys, strength, "object_color"), alpha)
        behind = self._crop(contexts, keys, camera.coarser)
        if ranges.context_color is not None:
            behind = recolor(behind, ranges.context_color.sample(keys, strength, "context_color"))
        behind = light(behind, color)
        if earlier is not None:  # an earlier composite was lit when it was made
            use = earlier.use[:, None, None]
            behind = tuple(
                torch.where(use, to_float(old), new) for old, new in zip(earlier.images.unbind(1), behind, strict=True)
            )
        ink = light(ink, color, None if ranges.blend == "average" else alpha)  # there, an object lies on black
        threshold = 0.5 if seen is None else seen.threshold[:, None, None]
        layers = [blend(c, alpha, k, ranges.blend, ranges.opacity, threshold) for c, k in zip(ink, behind, strict=True)]
        picture = torch.stack(layers, dim=1).clamp(min=0)  # no light is less than none; the camera clips too much
        images = photograph(picture, camera, keys)
        images, labels = to_format(images, self.dtype, self.channels_last), self.objects.labels[objects]
        if not masks or seen is None:
            return Scene(images, labels, None, None, None, objects, contexts)
        if ranges.blend == "hard":  # the mask of what was pasted
            alpha = (alpha > seen.threshold[:, None, None]).to(alpha.dtype)
        alpha = alpha.clamp(0, 1)  # interpolation weights add up to 1 but for rounding
        return Scene(images, labels, alpha[:, None], seen.boxes, seen.visible, objects, contexts)

    def _place(
        self, objects: Int[Tensor, " b"], keys: Int[Tensor, " b"], strength: Float[Tensor, " b"],
        coarser: Float[Tensor, " b"],
    ) -> tuple[tuple[Float[Tensor, "b h w"], ...], Float[Tensor, " b"]]:  # fmt: skip
        """Draw each object in its pose on an empty canvas: premultiplied RGB and alpha; and its opacity."""
        pose = self.ranges.pose.sample(keys, strength)
        if self.ranges.framing is not None:
            pose = replace(pose, x=0 * pose.x, y=0 * pose.y)  # framing replaces scale and shift
        variant = (pose.variant * self.objects.variants).long().clamp(max=self.objects.variants - 1)
        pictures = objects * self.objects.variants + variant
        opacity, homography = self.objects.opacity[pictures], homographies(pose, self.size)
        if self.ranges.framing is not None:
            plane, seen = draft(self.objects.pyramid, pictures, pose.waves, pose.holes)
            points, depth = to_canvas(pose, plane, self.size)
            seen = torch.where(depth > 0.05, seen, 0.0) / opacity.clamp(min=SEEN)[:, None]
            cell = 0.5 * CELL * min(self.size) * pose.scale
            homography = self.ranges.framing.apply(
                homography, points, seen, self.size, cell, depth.clamp(min=0.05) ** -3
            )
        planes = warp(self.objects.pyramid, pictures, homography, pose.waves, pose.holes, coarser, self.size)
        return planes, opacity

    def _crop(
        self, contexts: Int[Tensor, " b"], keys: Int[Tensor, " b"], coarser: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b h w"], ...]:
        """Read a random crop of each context with the canvas's aspect ratio, mirrored half of the time."""
        height, width = self.size
        share = uniform(keys, "context.crop", *self.ranges.crop) / max(self.size)
        mirror = 1 - 2 * chance(keys, "context.mirror", 0.5).float()
        x = 0.5 + (1 - share * width) * (uniform(keys, "context.x") - 0.5)
        y = 0.5 + (1 - share * height) * (uniform(keys, "context.y") - 0.5)
        pyramid = self.contexts.pyramid
        level = (torch.log2(share * pyramid.size) + coarser).round().clamp(0, pyramid.levels - 1).long()
        x, y, across, down = (v[:, None, None] for v in once(x, y, mirror * share, share))
        column, row = canvas_points(self.size, keys.device)
        return sample_pyramid(
            pyramid, contexts, x + across * (column - 0.5 * width), y + down * (row - 0.5 * height), level
        )


def warn_if_coarse(
    objects: ObjectBank, contexts: ContextBank | None, size: tuple[int, int], ranges: SceneRange, *, stacklevel: int
) -> None:
    """Warn of banks whose pictures a canvas of ``(height, width)`` pixels enlarges so much that they look soft.

    ``stacklevel`` is that of the user's line, the caller being 1.
    """
    share = ranges.pose.scale[1] if ranges.framing is None else ranges.framing.side
    warn_if_soft("objects", objects.size, share * min(size), EXTENT * objects.size, stacklevel + 2)
    if contexts is not None:
        warn_if_soft("contexts", contexts.size, max(size), contexts.size, stacklevel + 2)
