"""``fronted``: one object of each sample, warped and lit, before it is blended with what lies behind it."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.texels import EXTENT
from kornia_cag.core.compiling import fusing, kept
from kornia_cag.core.records import mapped, tensors
from kornia_cag.scenes.blends import Hard, Over
from kornia_cag.scenes.choices import chosen
from kornia_cag.scenes.framing import extent
from kornia_cag.scenes.light import Picture, Tone, illumination, light, planes_of, recolor, whole
from kornia_cag.scenes.pose import Pose, axes, homographies
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.scene import Layer, Scene
from kornia_cag.scenes.spots import Spot, spots
from kornia_cag.scenes.tiles import Tiles, covering, worthwhile
from kornia_cag.scenes.warp import CELL, Outline, draft, finest_level, fit_level, outline, warp

WIDE = 0.5  # total radius of discs, object units, that may leave any part of an object, which framing then enlarges
LOCAL = Over, Hard  # blends that leave a pixel as it is where alpha is 0, and look at no other pixel


class Front(NamedTuple):
    """Objects of ``b`` samples, on canvases or on tiles.

    Attributes:
        ink: their lit, premultiplied colour.
        alpha: their alpha, to paste with.
        opacity: (b,); highest alpha of each in the bank.
        seen: their outlines; None: not asked for.
        spot: where they are; None: nothing depends on it.
    """

    ink: Picture
    alpha: Float[Tensor, "b h w"]
    opacity: Float[Tensor, " b"]
    seen: Outline | None
    spot: Spot | None


@dataclass(frozen=True)
class Painter:
    """Draws the objects of a bank on canvases of ``size = (height, width)`` pixels.

    Attributes:
        bank: the bank.
        ranges: what varies.
        size: canvas ``(height, width)``, pixels.
    """

    bank: ObjectBank
    ranges: SceneRange
    size: tuple[int, int]

    def front(
        self, layer: Layer, scene: Scene, tone: Tone, gain: Float[Tensor, "b h w"] | None,
        far: Float[Tensor, " b"] | None, *, outlined: bool, edited: bool = False, at: Tiles | None = None,
    ) -> Front:  # fmt: skip
        """Warp and light one object of each sample, or of each tile.

        Args:
            layer: the object.
            scene: what it belongs to; its own layers do not matter.
            tone: light of the scene.
            gain: its plane of light.
            far: how far away the object is.
            outlined: whether to make its outline.
            edited: whether it may be larger than the ranges say.
            at: tiles, each of which has the values of its own object and sample; None: whole canvases.
        """
        ranges = self.ranges
        planes, opacity = self._placed(layer, scene.camera.coarser, edited, at)
        if ranges.depth is not None and scene.depth is not None and far is not None:
            planes = scene.depth.defocused(planes, far, most=ranges.depth.defocus[1])
            tone = scene.depth.hazed(tone, scene.light.air(), far)
        *ink, alpha = planes
        if layer.shown is not None:
            alpha = torch.where(layer.shown[:, None, None], alpha, 0)
        blend = chosen(ranges.blend, layer.blend)
        (*ink, alpha), seen = blend.softened(ink, alpha), None
        if outlined or at is not None:
            alpha = kept(alpha)
        if outlined:
            seen = outline(alpha.detach(), opacity)
        if layer.color is not None:
            own = layer.color.tone()
            ink = planes_of(recolor(ink, own, alpha, illumination(own.slope, self.size, at)))
        spot = None if scene.sun is None and layer.harmony is None else spots(kept(alpha))
        if ranges.sun is not None and scene.sun is not None and spot is not None:
            gain = scene.sun.shaded(gain, spot, self.size)
        return Front(light(ink, tone, blend.cover(alpha), gain), alpha, opacity, seen, spot)

    def in_tiles(
        self, scene: Scene, tone: Tone, edited: bool, layer: Layer, far: Float[Tensor, " m"] | None, at: Tiles
    ) -> tuple[Float[Tensor, "n 3 u v"], Float[Tensor, "n u v"]]:
        """Lit, premultiplied colour of tiles, and alpha.

        Args:
            scene: what the objects belong to; its own layers do not matter.
            tone: light of the scene.
            edited: whether objects may be larger than the ranges say.
            layer: m objects: of all samples one, then of all samples the next.
            far: how far away they are.
            at: the tiles.
        """
        layer, far = mapped(lambda values: kept(values[at.objects]), (layer, far))
        scene, tone = mapped(lambda values: kept(values[at.samples]), (replace(scene, layers=()), tone))
        gain = illumination(tone.slope, self.size, at)
        front = self.front(layer, scene, tone, gain, far, outlined=False, edited=edited, at=at)
        return whole(front.ink), front.alpha

    @property
    def sparse(self) -> bool:
        """Whether several objects of a sample are drawn in tiles: on a CPU, if each changes a part of its canvas."""
        ranges = self.ranges
        usual = math.sqrt(ranges.scale[0] * ranges.scale[1]) * min(self.size)
        local = type(ranges.blend) in LOCAL and ranges.framing is None and ranges.sun is None and ranges.harmony is None
        blurred = ranges.depth is not None and ranges.depth.defocus[1] > 0
        return self.bank.device.type == "cpu" and local and not blurred and worthwhile(usual, self.size)

    def tiled(self, scene: Scene) -> bool:
        """Whether this scene's are, whatever was changed of it by hand: of one kind, and no gradient asked for."""
        layers = scene.layers
        if not self.sparse or len(layers) < 2 or fusing() or scene.sun is not None:
            return False
        if any(layer.blend is not None or layer.harmony is not None for layer in layers):
            return False
        kinds = {(x.color is None, x.shown is None, x.size is None, *(v.shape for v in tensors(x))) for x in layers}
        return len(kinds) == 1 and not any(values.requires_grad for values in tensors(scene))

    def tiles(self, layer: Layer, coarser: Float[Tensor, " b"]) -> tuple[Tiles, list[int]]:
        """The tiles of several objects of each sample, and how many belong to each layer, see :func:`covering`."""
        bank, pose = self.bank, layer.pose
        pictures, homography = self._pictures(layer), homographies(pose, self.size)
        level = fit_level(homography, bank.pyramid, coarser.repeat(len(pictures) // len(coarser)) + 0.01)
        texel = 2.0**level * (1.5 * 2 / (EXTENT * bank.size))  # a read reaches that far
        grown = pose.waves[:, :, 2:4].abs().sum(dim=1) + texel[:, None]
        return covering(bank.hulls[pictures], homography, grown, layer.shown, self.size, len(coarser))

    def opacity(self, layer: Layer) -> Float[Tensor, " b"]:
        """Highest alpha of each object in the bank."""
        return self.bank.opacity[self._pictures(layer)]

    def _pictures(self, layer: Layer) -> Int[Tensor, " b"]:
        """Which pictures of the bank show the objects."""
        variant = (layer.pose.variant * self.bank.variants).long().clamp(max=self.bank.variants - 1)
        return layer.objects * self.bank.variants + variant

    def _placed(
        self, layer: Layer, coarser: Float[Tensor, " b"], edited: bool, at: Tiles | None
    ) -> tuple[tuple[Float[Tensor, "b h w"], ...], Float[Tensor, " b"]]:
        """Warp each object onto an empty canvas: premultiplied RGB and alpha; also its opacity."""
        pose, bank, framing = layer.pose, self.bank, self.ranges.framing
        if framing is not None:
            pose = replace(pose, x=0 * pose.x, y=0 * pose.y)  # framing replaces scale and shift
        pictures, own = self._pictures(layer), axes(pose, self.size)
        opacity, homography = bank.opacity[pictures], homographies(pose, self.size, own)
        if framing is not None:
            lines, alpha = draft(bank.pyramid, pictures, pose.waves, pose.holes)
            cell = 0.5 * CELL * min(self.size) * pose.scale
            homography = framing.apply(homography, extent(pose, own, lines, alpha, opacity, cell), self.size)
        finest = 0 if edited else self._finest()
        planes = warp(bank.pyramid, pictures, homography, pose.waves, pose.holes, coarser, self.size, finest, at)
        return planes, opacity

    def _finest(self) -> int:
        """The finest level of objects that the ranges ask for; of framed ones, if a pose at most halves them."""
        framing, pose = self.ranges.framing, self.ranges.pose
        if framing is not None and pose.holes * pose.hole[1] > WIDE:
            return 0
        largest = self.ranges.scale[1] if framing is None else 2 * framing.side
        return finest_level(self.bank.pyramid, largest * min(self.size))

    def as_drawn(self, pose: Pose) -> bool:
        """Whether objects need no finer level than the ranges ask for, wherever they may have been edited."""
        if self.ranges.framing is None:
            return bool((pose.scale <= self.ranges.scale[1]).all())
        return bool((pose.holes[..., 2].sum(dim=1) <= WIDE).all())
