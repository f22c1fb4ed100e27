"""``SceneRange``: everything that varies between scenes, and how a scene is drawn from its row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_range, check_tensor, describe, fail
from kornia_cag.core.draws import Choice, Draw, Draws, Number, Place, Plan, plan
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Blend, Over
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.depth import DepthRange
from kornia_cag.scenes.finishes import Finish
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.harmony import HarmonyRange
from kornia_cag.scenes.layout import Layout, Wish
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.scene import Crop, Layer, Scene
from kornia_cag.scenes.shadows import SunRange
from kornia_cag.scenes.strength import full_strength


@dataclass(frozen=True, kw_only=True)
class SceneRange:
    """Everything that varies between scenes, how layers are blended, and the stages after the camera.

    Attributes:
        pose: where the object lies: units in :class:`PoseRange`.
        layout: where several objects lie, instead of ``scale`` and ``translate`` of the pose; None: each has a pose
            of its own, whatever lies there.
        framing: canonical framing, after the pose, as a share of the canvas; None: none.
        crop: visible part of the context, as a share of its side.
        color: light of the scene, on object and fresh context alike: units in :class:`ColorRange`.
        object_color: colours of the object only, before the light: faded paint, another printer; None: unchanged.
        context_color: colours of the fresh context only, before the light; None: unchanged.
        harmony: how far an object's light is drawn towards that of its surroundings; None: not at all.
        sun: the one light of a scene that shades its objects and casts their shadows; None: there are none.
        depth: haze and defocus of objects by how far away they are; None: there is neither.
        camera: blur, noise, JPEG: units in :class:`CameraRange`.
        blend: how an object is blended with what lies behind it: ``Over()``, ``Hard()`` (paste), ``Average()``,
            ``Difference()``, ``Feather()``, ``Eroded()``, ``Smeared()``, ``MultiBand()``, ``Poisson()``, your own, or
            for each sample ``OneOf()`` several.
        finish: stages after the camera, in order: functions of images (b, 3, h, w) in [0, 1] and keys (b,).
    """

    pose: PoseRange = field(default_factory=PoseRange)
    layout: Layout | None = None
    framing: Framing | None = None
    crop: tuple[float, float] = (0.4, 1.0)
    color: ColorRange = field(default_factory=ColorRange)
    object_color: ColorRange | None = None
    context_color: ColorRange | None = None
    harmony: HarmonyRange | None = None
    sun: SunRange | None = None
    depth: DepthRange | None = None
    camera: CameraRange = field(default_factory=CameraRange)
    blend: Blend = field(default_factory=Over)
    finish: tuple[Finish, ...] = ()

    def __post_init__(self) -> None:
        name: str
        kind: type
        for name, kind in (("pose", PoseRange), ("color", ColorRange), ("camera", CameraRange)):
            check_instance(name, getattr(self, name), kind, f"Pass {name}={kind.__name__}(...).")
        for name, kind in (("object_color", ColorRange), ("context_color", ColorRange), ("framing", Framing),
                           ("layout", Layout), ("harmony", HarmonyRange), ("sun", SunRange),
                           ("depth", DepthRange)):  # fmt: skip
            check_instance(name, getattr(self, name), (kind, type(None)), f"Pass {name}={kind.__name__}(...).")
        if self.layout is not None and self.framing is not None:
            fail("framing", "None with a layout", describe(self.framing), "A layout decides on size and place.")
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

        Raises:
            InputError: with a layout, which needs a canvas and the objects: :meth:`Composer.sample` has both.
        """
        if self.layout is not None:
            fail(
                "layout",
                "None",
                describe(self.layout),
                "What fits depends on canvas and objects: composer.sample(rows).",
            )
        return self.asked(rows, strength, draws=draws, size=(1, 1))[0]

    def asked(
        self, rows: Rows, strength: Float[Tensor, " b"] | None = None, *, draws: Draws | None = None,
        size: tuple[int, int], known: Int[Tensor, " n"] | None = None,
    ) -> tuple[Scene, tuple[Wish, ...]]:  # fmt: skip
        """Draw one scene per row, and what its layout wants on a canvas of ``size = (height, width)`` pixels.

        ``known``: (n,); class of each object of the bank, -1: none; None: all have one.
        """
        draws = Draws(rows.keys) if draws is None else draws
        s = full_strength(draws.keys) if strength is None else strength
        check_tensor("strength", s, (len(draws.keys),), torch.float32, draws.keys.device, "One for each row.")
        plan = self.plan(layers=rows.layers.shape[1], device=draws.keys.device)
        return self.drawn(rows, s, draws, plan, size=size, known=known)

    @property
    def scale(self) -> tuple[float, float]:
        """Longest side of an object as drawn, before any framing, over the canvas's short side."""
        return self.pose.scale if self.layout is None else self.layout.side

    def longest(self, size: tuple[int, int]) -> float:
        """Longest side of an object, pixels, as far as it is on a canvas of ``size = (height, width)`` pixels."""
        share = self.scale[1] if self.framing is None else self.framing.side
        return min(float(max(size)), share * min(size))

    def plan(self, *, layers: int, device: torch.device) -> Plan:
        """What the scenes of ``layers`` objects are drawn from, with its constants on a device; made once for both."""
        plans: dict[tuple[int, torch.device], Plan] = self.__dict__.setdefault("_plans", {})
        if (layers, device) not in plans:
            if self.layout is not None:
                self.layout.check_layers(layers)
            plans[layers, device] = plan(tuple(self._asked(layers).items()), device)
        return plans[layers, device]

    def _asked(self, layers: int) -> dict[Place, tuple[Draw, ...]]:
        crop = Number("context.crop", self.crop), Number("context.x"), Number("context.y")
        color, blend = self.color.draws(), self.blend.draws()
        own = () if self.object_color is None else self.object_color.draws("object_color")
        if self.context_color is not None:
            color += self.context_color.draws("context_color")
        asked: dict[Place, tuple[Draw, ...]] = {
            (0, "context"): (*crop, Choice("context.mirror", 0.5), Choice("chain.reset")),
            (0, "color"): color,
            (0, "camera"): self.camera.draws(),
        }
        if self.sun is not None:
            asked[0, "sun"] = self.sun.draws()
        if self.depth is not None:
            asked[0, "depth"] = self.depth.draws()
        for number in range(layers):
            asked[number, "pose"] = self.pose.draws()
            asked[number, "color"] = asked.get((number, "color"), ()) + own
            if self.layout is not None:
                asked[number, "layout"] = self.layout.draws(number)
            if blend:
                asked[number, "blend"] = blend
            if self.harmony is not None:
                asked[number, "harmony"] = self.harmony.draws()
            if self.depth is not None:
                asked[number, "depth"] = (*asked.get((number, "depth"), ()), *self.depth.sizes())
        return asked

    def drawn(
        self, rows: Rows, strength: Float[Tensor, " b"], draws: Draws, plan: Plan, *, size: tuple[int, int],
        known: Int[Tensor, " n"] | None = None,
    ) -> tuple[Scene, tuple[Wish, ...]]:  # fmt: skip
        """Draw by a plan: the part of :meth:`asked` that can be compiled.

        Args:
            rows: the samples' rows.
            strength: how far drawn amounts move from neutral, in [0, 1].
            draws: the numbers to draw from.
            plan: from :meth:`plan`.
            size: canvas ``(height, width)``, pixels.
            known: as for :meth:`asked`.
        """
        values = draws.values(plan, strength)
        context, light = values[0, "context"], values[0, "color"]
        paint = None if self.context_color is None else self.context_color.read(light, "context_color")
        layers = [
            self._layer(objects, values, number, strength) for number, objects in enumerate(rows.layers.unbind(1))
        ]
        crop = Crop(*(context[f"context.{name}"] for name in ("crop", "x", "y", "mirror")))
        wishes: tuple[Wish, ...] = ()
        found, wanted = tuple(layers), None
        if self.layout is not None:
            asked = [values[number, "layout"] for number in range(len(layers))]
            found, wishes, wanted = self.layout.read(asked, layers, size, crop, rows.contexts, known)
        lit, sun = self.color.read(light), None if self.sun is None else self.sun.read(values[0, "sun"])
        if sun is not None and lit.illumination is not None:  # one light, not two
            lit = replace(lit, illumination=lit.illumination.abs(), light_from=sun.direction)
        depth = None if self.depth is None else self.depth.read(values[0, "depth"])
        camera, fresh = self.camera.read(values[0, "camera"]), context["chain.reset"]
        scene = Scene(draws.keys, found, rows.contexts, crop, lit, paint, camera, fresh, wanted, sun, depth)
        return scene, wishes

    def _layer(
        self, objects: Int[Tensor, " b"], values: Mapping[Place, Mapping[str, Tensor]], number: int,
        strength: Float[Tensor, " b"],
    ) -> Layer:  # fmt: skip
        """Layer ``number`` of the scenes that drawn values give."""
        color = harmony = size = None
        if self.object_color is not None:
            color = self.object_color.read(values[number, "color"], "object_color")
        blend = self.blend.read(values[number, "blend"]) if (number, "blend") in values else None
        if self.harmony is not None:
            harmony = self.harmony.read(values[number, "harmony"])
        if self.depth is not None:
            size = values[number, "depth"]["depth.size"]
        pose = self.pose.read(values[number, "pose"], strength)
        return Layer(objects, pose, color, blend=blend, harmony=harmony, size=size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}  # made anew elsewhere
