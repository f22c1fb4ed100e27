"""``SceneRange``: everything that varies from scene to scene."""

from dataclasses import dataclass, field

from kornia_cag.core.checks import check_choice, check_instance, check_number, check_range
from kornia_cag.scenes.blends import MODES, BlendMode
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange


@dataclass(frozen=True)
class SceneRange:
    """Everything that varies from scene to scene, and how the two layers are blended.

    Attributes:
        pose: where the object lies: units in :class:`PoseRange`.
        framing: canonical framing, after the pose, as a share of the canvas; None: none.
        crop: part of the context that is seen, as a share of its side.
        color: the light of the scene, on object and fresh context alike: units in :class:`ColorRange`.
        object_color: the same of the object alone, before the light: faded paint, another printer; None: none.
        context_color: the same of the fresh context alone, before the light; None: none.
        camera: blur, noise, JPEG: units in :class:`CameraRange`.
        blend: how the layers are put together: ``"over"``, ``"hard"`` (paste), ``"average"`` or
            ``"difference"``.
        opacity: share of the object in the mean, for ``blend="average"``.
    """

    pose: PoseRange = field(default_factory=PoseRange)
    framing: Framing | None = None
    crop: tuple[float, float] = (0.4, 1.0)
    color: ColorRange = field(default_factory=ColorRange)
    object_color: ColorRange | None = None
    context_color: ColorRange | None = None
    camera: CameraRange = field(default_factory=CameraRange)
    blend: BlendMode = "over"
    opacity: float = 2 / 3

    def __post_init__(self) -> None:
        name: str
        kind: type
        for name, kind in (("pose", PoseRange), ("color", ColorRange), ("camera", CameraRange)):
            check_instance(name, getattr(self, name), kind, f"Pass {name}={kind.__name__}(...).")
        for name, kind in (("object_color", ColorRange), ("context_color", ColorRange), ("framing", Framing)):
            check_instance(name, getattr(self, name), (kind, type(None)), f"Pass {name}={kind.__name__}(...).")
        check_range("crop", self.crop, 0.01, 1)
        check_choice("blend", self.blend, MODES)
        check_number("opacity", self.opacity, 0, 1)
