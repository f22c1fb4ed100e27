"""``Scene``: everything drawn for a batch, as a value that you can inspect, save, edit and render again.

Every field is a tensor over the batch, in physical units: degrees, pixels, stops. Nothing in it is random.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Average, Blend, Difference, Hard, MultiBand, Over, Poisson
from kornia_cag.scenes.camera import Blur, Camera, Grain
from kornia_cag.scenes.choices import Chosen
from kornia_cag.scenes.depth import FARTHEST, Depth
from kornia_cag.scenes.edges import Edge
from kornia_cag.scenes.harmony import Harmony
from kornia_cag.scenes.light import Color, Tone, tones
from kornia_cag.scenes.pose import Pose
from kornia_cag.scenes.shadows import Sun


@dataclass(frozen=True)
class Crop:
    """The visible part of the context of ``b`` samples: a rectangle with the canvas's aspect ratio.

    Attributes:
        share: (b,); its longer side, as a share of the context's side.
        x: (b,); position from left (0) to right (1).
        y: (b,); position from top (0) to bottom (1).
        mirrored: (b,); whether it is flipped left to right.
    """

    share: Float[Tensor, " b"]
    x: Float[Tensor, " b"]
    y: Float[Tensor, " b"]
    mirrored: Bool[Tensor, " b"]


@dataclass(frozen=True)
class Layer:
    """One object of every sample.

    Attributes:
        objects: (b,); ids in the bank.
        pose: where it lies, see :class:`Pose`.
        color: its own colours, before the light; None: as in the bank.
        shown: (b,); which samples show it; None: all. Where it is not shown, its label is -1.
        blend: how it is blended, with the numbers drawn for that; None: as the ranges say, without any.
        harmony: how far its light is drawn towards that of its surroundings; None: not at all.
        size: (b,); its true size over the usual one, which says how far away it is; None: depth changes nothing.
    """

    objects: Int[Tensor, " b"]
    pose: Pose
    color: Color | None
    shown: Bool[Tensor, " b"] | None = None
    blend: Blend | Chosen | None = None
    harmony: Harmony | None = None
    size: Float[Tensor, " b"] | None = None


@dataclass(frozen=True)
class Scene:
    """The scenes of ``b`` samples, drawn by :meth:`SceneRange.sample` and rendered by :meth:`Composer.render`.

    Save it with ``torch.save``, load it with ``torch.load``; edit it with :meth:`posed` or ``dataclasses.replace``.

    Attributes:
        keys: (b,); keys of the noise fields, which are too large to store here.
        layers: objects from back to front, K of them.
        contexts: (b,); ids in the bank.
        crop: visible part of the context.
        light: light on objects and fresh context alike.
        context_color: the fresh context's own colours, before the light; None: as in the bank.
        camera: blur, noise, grain, JPEG.
        fresh: (b,); number in [0, 1), a fresh context if it is below the chance of one that an ``Earlier`` has.
        wanted: (b,); how many objects the layout wanted to show; None: there is no layout.
        sun: the light that objects cast shadows in; None: they cast none.
        depth: haze and defocus of distant objects; None: there is neither.
    """

    keys: Int[Tensor, " b"]
    layers: tuple[Layer, ...]
    contexts: Int[Tensor, " b"]
    crop: Crop
    light: Color
    context_color: Color | None
    camera: Camera
    fresh: Float[Tensor, " b"]
    wanted: Int[Tensor, " b"] | None = None
    sun: Sun | None = None
    depth: Depth | None = None

    @property
    def left_out(self) -> Int[Tensor, " b"]:
        """(b,); how many objects were wanted and found no place: 0 without a layout."""
        if self.wanted is None:
            return torch.zeros_like(self.contexts)
        shown = [torch.ones_like(self.fresh, dtype=torch.bool) if x.shown is None else x.shown for x in self.layers]
        return self.wanted - torch.stack(shown).sum(dim=0)

    def labels(self, known: Int[Tensor, " n"]) -> Int[Tensor, "b k"]:
        """(b, K); classes of the objects, -1 where one has none or is not shown.

        Args:
            known: (n,); class of each object of the bank.
        """
        found = [known[layer.objects] for layer in self.layers]
        parts = zip(found, self.layers, strict=True)
        return torch.stack([x if layer.shown is None else torch.where(layer.shown, x, -1) for x, layer in parts], dim=1)

    def distances(self, largest: float) -> list[Float[Tensor, " b"] | None]:
        """How far away each object is, see :class:`DepthRange`; None where that changes nothing.

        Args:
            largest: scale of an object of usual size at a distance of 1.
        """
        found: list[Tensor | None] = []
        for layer in self.layers:
            if layer.size is None:
                found.append(None)
                continue
            own = largest * layer.size / layer.pose.scale
            if layer.shown is not None:
                own = torch.where(layer.shown, own, FARTHEST)
            behind = [far for far in found if far is not None]
            found.append(torch.minimum(behind[-1], own) if behind else own)
        return found

    @property
    def pose(self) -> Pose:
        """The pose of the lowest layer: the only one if samples show one object."""
        return self.layers[0].pose

    def tones(self) -> tuple[Tone, Tone | None]:
        """The tones of the light, and of the context's own colours."""
        if self.context_color is None:
            return self.light.tone(), None
        light, paint = tones([self.light, self.context_color])
        return light, paint

    def posed(self, *, layer: int = 0, **changes: Tensor) -> "Scene":
        """A copy with changes to one layer's pose: ``scene.posed(angle=scene.pose.angle + 90)``.

        Args:
            layer: index of the layer.
            changes: fields of :class:`Pose`.
        """
        layers = list(self.layers)
        layers[layer] = replace(layers[layer], pose=replace(layers[layer].pose, **changes))
        return replace(self, layers=tuple(layers))


BLENDS = (Over, Hard, Average, Difference, MultiBand, Poisson, Edge, Chosen)
RECORDS: tuple[Any, ...] = (Rows, Crop, Layer, Scene, Pose, Color, Camera, Blur, Grain, Harmony, Sun, Depth, *BLENDS)
torch.serialization.add_safe_globals([*RECORDS])  # lets torch.load read a saved scene with weights_only=True
