"""``SceneRange``: everything that varies between scenes, and how a scene is drawn from its row."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_range, check_tensor, describe, fail
from kornia_cag.core.draws import Choice, Draw, Draws, Number
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Blend, Over
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.finishes import Finish
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange
from kornia_cag.scenes.scene import Crop, Layer, Scene
from kornia_cag.scenes.strength import full_strength

Asked = dict[tuple[int, str], tuple[Draw, ...]]  # by layer and group
Values = dict[tuple[int, str], dict[str, Tensor]]  # by layer and group, then by slot


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
        objects, asked = rows.layers.unbind(1), self._around()
        for number in range(len(objects)):
            asked |= self._within(number, asked)
        values = draws.values(asked, s)
        layers = tuple(self._layer(ids, values, s, number) for number, ids in enumerate(objects))
        return replace(self._empty(draws.keys, rows.contexts, values), layers=layers)

    def surroundings(self, contexts: Int[Tensor, " b"], draws: Draws, strength: Float[Tensor, " b"]) -> Scene:
        """Draw a scene without objects: part of :meth:`sample`."""
        return self._empty(draws.keys, contexts, draws.values(self._around(), strength))

    def layer(self, objects: Int[Tensor, " b"], draws: Draws, strength: Float[Tensor, " b"]) -> Layer:
        """Draw one object of each sample: part of :meth:`sample`."""
        return self._layer(objects, draws.values(self._within(0, {}), strength), strength, 0)

    def _around(self) -> Asked:
        """What a scene without objects is read from."""
        crop = Number("context.crop", self.crop), Number("context.x"), Number("context.y")
        context = *crop, Choice("context.mirror", 0.5), Choice("chain.reset")
        color = self.color.draws()
        if self.context_color is not None:
            color += self.context_color.draws("context_color")
        return {(0, "context"): context, (0, "color"): color, (0, "camera"): self.camera.draws()}

    def _within(self, number: int, asked: Asked) -> Asked:
        """What layer ``number`` is read from, besides what is asked for already."""
        color = asked.get((number, "color"), ())
        if self.object_color is not None:
            color = (*color, *self.object_color.draws("object_color"))
        return {(number, "pose"): self.pose.draws(), (number, "color"): color}

    def _empty(self, keys: Int[Tensor, " b"], contexts: Int[Tensor, " b"], values: Values) -> Scene:
        own, light, color = values[0, "context"], values[0, "color"], None
        if self.context_color is not None:
            color = self.context_color.read(light, "context_color")
        crop = Crop(own["context.crop"], own["context.x"], own["context.y"], own["context.mirror"])
        camera = self.camera.read(values[0, "camera"])
        return Scene(keys, (), contexts, crop, self.color.read(light), color, camera, own["chain.reset"])

    def _layer(self, objects: Int[Tensor, " b"], values: Values, strength: Float[Tensor, " b"], number: int) -> Layer:
        color = None
        if self.object_color is not None:
            color = self.object_color.read(values[number, "color"], "object_color")
        return Layer(objects, self.pose.read(values[number, "pose"], strength), color)
