"""``Scene``: everything that was drawn for a batch, as a value: to look at, to save, to change, and to render again.

Every field is a tensor over the batch, in physical units: degrees, pixels, stops. Nothing here is random any more.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from kornia_cag.core.randomness import chance
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.camera import Blur, Camera, Grain
from kornia_cag.scenes.light import Color
from kornia_cag.scenes.pose import Pose


@dataclass(frozen=True)
class Crop:
    """What is seen of the context of ``b`` samples: a rectangle of the canvas's shape.

    Attributes:
        share: (b,); its longer side, as a share of the context's side.
        x: (b,); place from left (0) to right (1).
        y: (b,); place from top (0) to bottom (1).
        mirrored: (b,); whether left and right change places.
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
    """

    objects: Int[Tensor, " b"]
    pose: Pose
    color: Color | None


@dataclass(frozen=True)
class Scene:
    """What was drawn for ``b`` samples, by :meth:`SceneRange.sample`; :meth:`Composer.render` makes pictures of it.

    ``torch.save`` and ``torch.load`` keep it; :meth:`posed` and ``dataclasses.replace`` change it.

    Attributes:
        keys: (b,); keys of the noise fields, which are too large to be kept here.
        layers: objects from back to front, K of them.
        contexts: (b,); ids in the bank.
        crop: what is seen of the context.
        light: light on objects and fresh context alike.
        context_color: the fresh context's own colours, before the light; None: as in the bank.
        camera: blur, noise, grain, JPEG.
    """

    keys: Int[Tensor, " b"]
    layers: tuple[Layer, ...]
    contexts: Int[Tensor, " b"]
    crop: Crop
    light: Color
    context_color: Color | None
    camera: Camera

    @property
    def pose(self) -> Pose:
        """The pose of the lowest layer, which is the only one where a sample shows one object."""
        return self.layers[0].pose

    def posed(self, *, layer: int = 0, **changes: Tensor) -> "Scene":
        """The same scene with other values of a layer's pose: ``scene.posed(angle=scene.pose.angle + 90)``.

        Args:
            layer: place among the layers.
            changes: fields of :class:`Pose`.
        """
        layers = list(self.layers)
        layers[layer] = replace(layers[layer], pose=replace(layers[layer].pose, **changes))
        return replace(self, layers=tuple(layers))


@dataclass(frozen=True)
class Earlier:
    """Earlier composites, one offered to each of ``b`` samples as its context.

    A sample takes it, unless chance says to start afresh, or it shows an object of a class that the sample shows too:
    the label of the object behind must differ.

    Attributes:
        images: (b, 3, h, w); in [0, 1], or uint8.
        labels: (b, K); classes that they show, -1 where there is none yet.
        reset: probability of a fresh context, in [0, 1].
    """

    images: Shaped[Tensor, "b 3 h w"]
    labels: Int[Tensor, "b k"]
    reset: float = 0.0

    def used(self, labels: Int[Tensor, "b k"], keys: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which samples, of these classes and keys, take theirs."""
        apart = (self.labels[:, :, None] != labels[:, None, :]).flatten(1).all(dim=1)
        taken: Tensor = (self.labels >= 0).all(dim=1) & apart & ~chance(keys, "chain.reset", self.reset)
        return taken


RECORDS: tuple[Any, ...] = (Rows, Crop, Layer, Scene, Pose, Color, Camera, Blur, Grain)
torch.serialization.add_safe_globals([*RECORDS])  # so that torch.load takes a saved scene with weights_only=True
