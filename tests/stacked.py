"""The library's kernels on planes, for tests that hold pictures ``(b, c, h, w)`` and points ``(…, 2)``."""

import torch
from torch import Tensor

from kornia_cag.banks import pyramid
from kornia_cag.banks.pyramid import Pyramid
from kornia_cag.scenes import light
from kornia_cag.scenes import warp as warping
from kornia_cag.scenes.blends import Average, Blend, Hard, Over
from kornia_cag.scenes.light import Tone


def blend(how: Blend, fg: Tensor, bg: Tensor) -> Tensor:
    return how(fg[..., :3, :, :], fg[..., 3:, :, :], bg)


def over(fg: Tensor, bg: Tensor) -> Tensor:
    return blend(Over(), fg, bg)


def hard(fg: Tensor, bg: Tensor) -> Tensor:
    return blend(Hard(), fg, bg)


def average(fg: Tensor, bg: Tensor, opacity: float) -> Tensor:
    return blend(Average(opacity), fg, bg)


def recolor(picture: Tensor, tone: Tone, alpha: Tensor | None = None) -> Tensor:
    return light.whole(light.recolor(picture.unbind(1), tone, None if alpha is None else alpha[:, 0]))


def illumination(slope: Tensor, size: tuple[int, int]) -> Tensor:
    return light.illumination(slope, size)[:, None]


def sample_pyramid(bank: Pyramid, ids: Tensor, points: Tensor, level: Tensor) -> Tensor:
    return torch.stack(pyramid.sample_pyramid(bank, ids, 2 * points.movedim(-1, 1) - 1, level), dim=1)


def canvas_points(size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*warping.canvas_points(size, device)), dim=-1)


def project(homography: Tensor, points: Tensor) -> Tensor:
    return warping.project(homography, points[..., 0], points[..., 1]).movedim(1, -1)


def displace(points: Tensor, waves: Tensor) -> Tensor:
    return warping.displace(points.movedim(-1, 1), waves).movedim(1, -1)


def warp(*arguments: object) -> Tensor:
    return torch.stack(warping.warp(*arguments), dim=1)  # type: ignore[arg-type]


def outline(alpha: Tensor, opacity: float = 1.0) -> warping.Outline:
    return warping.outline(alpha[:, 0], torch.full_like(alpha[:, 0, 0, 0], opacity))
