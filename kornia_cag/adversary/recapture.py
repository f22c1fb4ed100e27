"""Photographing a picture: what happens to a print before a model sees it. Differentiable, one draw per key."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_tensor, fail
from kornia_cag.core.formats import memory_format
from kornia_cag.core.precision import FLOATS, widen
from kornia_cag.core.randomness import fold_in
from kornia_cag.scenes.camera import CameraRange, photograph
from kornia_cag.scenes.light import ColorRange, light, whole
from kornia_cag.scenes.pose import PoseRange, homographies
from kornia_cag.scenes.warp import canvas_points, displace, project

_NUMBER = 0x70686F74  # folded into keys, so that draws are independent of the scene with the same key


@dataclass(frozen=True)
class Recapture:
    """Photographs a picture with the library's camera: slight changes of pose and light, blur, noise, JPEG.

    Called with images ``(b, 3, h, w)`` in [0, 1] and keys ``(b,)``, it returns images of the same shape and dtype. The
    same key always gives the same photograph. Beyond the picture, its border is repeated.

    Pass it to :class:`kornia_cag.PGD` as ``transform`` for attacks that survive being photographed. Sources:
    expectation over transformation, Athalye et al. 2018; photographed prints, Kurakin et al. 2017.

    Attributes:
        pose: of the picture in front of the camera: units in :class:`PoseRange`.
        color: light on it: units in :class:`ColorRange`.
        camera: blur, noise, JPEG: units in :class:`CameraRange`.
    """

    pose: PoseRange = field(
        default_factory=lambda: PoseRange(
            scale=(0.9, 1.1),  # picture over frame
            aspect=(0.95, 1.05),
            angle=(-6, 6),
            shear=(-3, 3),
            translate=(-0.05, 0.05),
            perspective=(-0.1, 0.1),
        )
    )
    color: ColorRange = field(
        default_factory=lambda: ColorRange(
            brightness=(0.7, 1.2), contrast=(0.7, 1.1), saturation=(0.7, 1.2), hue=(-5, 5), tint=(-0.05, 0.05),
            illumination=(-0.2, 0.2),
        )
    )  # fmt: skip
    camera: CameraRange = field(
        default_factory=lambda: CameraRange(
            blur=0.8, kinds=("gaussian",), gaussian=(0.3, 1.0), noise=(0.0, 0.02), jpeg=(50.0, 95.0)
        )
    )

    def __post_init__(self) -> None:
        for part, kind in (("pose", PoseRange), ("color", ColorRange), ("camera", CameraRange)):
            check_instance(part, getattr(self, part), kind)
        for name, bounds in (("hole", self.pose.hole), ("low_resolution", self.camera.low_resolution)):
            if bounds[1]:
                fail(name, "(0, 0) in a photograph of a picture", repr(bounds), "Leave it out; blur instead.")

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Photograph each picture once."""
        check_tensor("images", images, ("b", 3, "h", "w"), FLOATS, fix="Images are float BCHW in [0, 1].")
        check_tensor(
            "keys", keys, (len(images),), torch.int64, images.device, fix="One key per image: see sample_keys."
        )
        if len(images) == 0:
            return images.clone()
        with torch.autocast(images.device.type, enabled=False):
            keys = fold_in(keys, _NUMBER)
            moved = self._moved(widen(images), keys)
            lit = whole(light(moved.unbind(1), self.color.sample(keys).tone()))
            shots = photograph(lit, self.camera.sample(keys), keys)
            return shots.to(images.dtype).contiguous(memory_format=memory_format(images))

    def _moved(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        height, width = images.shape[-2:]
        pose = self.pose.sample(keys)
        points = project(homographies(pose, (height, width)), *canvas_points((height, width), images.device))
        x, y = displace(points, pose.waves).unbind(1)
        short = min(height, width)  # an object unit is half of it
        grid = torch.stack([x * (short / width), y * (short / height)], dim=-1).to(images.dtype)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
