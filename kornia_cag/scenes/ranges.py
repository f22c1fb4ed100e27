"""``SceneRange``: everything that varies between scenes, and how a scene is drawn from its row."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_range, check_tensor, describe, fail
from kornia_cag.core.draws import Draws
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Blend, Over
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.finishes import Finish
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange
from kornia_cag.scenes.scene import Crop, Layer, Scene
from kornia_cag.scenes.strength import full_strength


@dataclass(frozen=True, kw_only=True)
class SceneRange:
    """Everything that varies between scenes, how layers are blended, and the stages after the camera.

    Attributes:
        pose: where the object lies: units in :class:`PoseRange`.
        framing: canonical framing, after the pose, as a share of the canvas; None: none.
        crop: visible part of the context, as a share of its side.
        color: light of the scene, on object and fresh context alike: units in :class:`ColorRange`.
        object_color: colours of the object only, before the light: faded paint, another printer; None: unchanged.
        context_color: colours of the fresh context only, before the light; None: unchanged.
        camera: blur, noise, JPEG: units in :class:`CameraRange`.
        blend: how an object is blended with what lies behind it: ``Over()``, ``Hard()`` (paste), ``Average()``,
            ``Difference()``, or your own.
        finish: stages after the camera, in order: functions of images (b, 3, h, w) in [0, 1] and keys (b,).
    """

    pose: PoseRange = field(default_factory=PoseRange)
    framing: Framing | None = None
    crop: tuple[float, float] = (0.4, 1.0)
    color: ColorRange = field(default_factory=ColorRange)
    object_color: ColorRange | None = None
    context_color: ColorRange | None = None
    camera: CameraRange = field(default_factory=CameraRange)
    blend: Blend = field(default_factory=Over)
    finish: tuple[Finish, ...] = ()

    def __post_init__(self) -> None:
        name: str
        kind: type
        for name, kind in (("pose", PoseRange), ("color", ColorRange), ("camera", CameraRange)):
            check_instance(name, getattr(self, name), kind, f"Pass {name}={kind.__name__}(...).")
        for name, kind in (("object_color", ColorRange), ("context_color", ColorRange), ("framing", Framing)):
            check_instance(name, getattr(self, name), (kind, type(None)), f"Pass {name}={kind.__name__}(...).")
        check_range("crop", self.crop, 0.01, 1)
        if not isinstance(self.blend, Blend) or isinstance(self.blend, type):
            fail("blend", "a Blend", describe(self.blend),
                 "Pass blend=Over(), Hard(), Average() or Difference(), or derive your own from Blend.")  # fmt: skip
        if not isinstance(self.finish, tuple | list):
            fail("finish", "a tuple of functions of images and keys", describe(self.finish), "Pass finish=(stage,).")
        object.__setattr__(self, "finish", tuple(self.finish))
        for stage in self.finish:
            if not callable(stage) or isinstance(stage, type | torch.nn.Module):
                fail("finish", "functions of images and keys", describe(stage),
                     "Wrap a module, such as a kornia augmentation: Unkeyed(module).")  # fmt: skip

    def sample(self, rows: Rows, strength: Float[Tensor, " b"] | None = None, *, draws: Draws | None = None) -> Scene:
        """Draw one scene per row: the same row always gives the same scene, in any batch.

        Args:
            rows: the samples' rows.
            strength: how far drawn amounts move from neutral, per sample in [0, 1]; choices (crop, mirror, negative,
                whether to blur) are not affected. Default 1.
            draws: the numbers to draw from. Default: hashed from the rows' keys.
        """
        draws = Draws(rows.keys) if draws is None else draws
        s = full_strength(draws.keys) if strength is None else strength
        check_tensor("strength", s, (len(draws.keys),), torch.float32, draws.keys.device, "One for each row.")
        objects = enumerate(rows.layers.unbind(1))
        layers = tuple(self.layer(ids, draws.layer(number), s) for number, ids in objects)
        return replace(self.surroundings(rows.contexts, draws, s), layers=layers)

    def surroundings(self, contexts: Int[Tensor, " b"], draws: Draws, strength: Float[Tensor, " b"]) -> Scene:
        """Draw a scene without objects: part of :meth:`sample`."""
        camera = self.camera.sample(draws.group("camera"), strength)
        light, context_color = self.color.sample(draws.group("color"), strength), None
        if self.context_color is not None:
            context_color = self.context_color.sample(draws.group("color"), strength, layer="context_color")
        return Scene(draws.keys, (), contexts, self._crop(draws.group("context")), light, context_color, camera)

    def layer(self, objects: Int[Tensor, " b"], draws: Draws, strength: Float[Tensor, " b"]) -> Layer:
        """Draw one object of each sample: part of :meth:`sample`."""
        color = None
        if self.object_color is not None:
            color = self.object_color.sample(draws.group("color"), strength, layer="object_color")
        return Layer(objects, self.pose.sample(draws.group("pose"), strength), color)

    def _crop(self, draws: Draws) -> Crop:
        return Crop(
            share=draws.uniform("context.crop", *self.crop),
            x=draws.uniform("context.x"),
            y=draws.uniform("context.y"),
            mirrored=draws.chance("context.mirror", 0.5),
        )
