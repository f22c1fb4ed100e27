"""The sensor: noise and grain of a photographed picture."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.compiling import fusing, kept, natural, once, threads
from kornia_cag.core.fields import MEAN, UNIT, noise, noise_words, sums_of, word_part
from kornia_cag.core.operations import one_operation

NOISE, GRAIN = "camera.noise_field", "camera.grain_field"  # slots


@one_operation("sensed(Tensor x, Tensor keys, Tensor? noise, Tensor? grain, Tensor? size, Tensor? grey) -> Tensor")
def sensed(
    picture: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"], deviation: Float[Tensor, " b"] | None,
    grain: Float[Tensor, " b"] | None, size: Float[Tensor, " b"] | None, grey: Float[Tensor, " b"] | None,
) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
    """The picture with noise and grain, clipped.

    Args:
        picture: not yet clipped.
        keys: of the samples.
        deviation: standard deviation of the noise, in units of [0, 1]; None: no noise.
        grain: standard deviation of the grain, in the same units; None: no grain.
        size: of the grains, pixels, at least 1.
        grey: share of the grain that is the same in all channels.
    """
    if threads(picture):
        return torch.stack(sensed_planes(picture.unbind(1), keys, deviation, grain, size, grey), dim=1)
    shape = 3, picture.shape[2], picture.shape[3]
    if deviation is not None:
        picture = torch.addcmul(picture, deviation[:, None, None, None], noise(keys, NOISE, shape))
    if grain is not None and size is not None and grey is not None:
        picture = torch.addcmul(picture, grain[:, None, None, None], _grains(keys, size, grey, shape))
    return picture.clamp(0, 1)


def sensed_planes(
    planes: Sequence[Float[Tensor, "b h w"]], keys: Int[Tensor, " b"], deviation: Float[Tensor, " b"] | None,
    grain: Float[Tensor, " b"] | None, size: Float[Tensor, " b"] | None, grey: Float[Tensor, " b"] | None,
) -> list[Float[Tensor, "b h w"]]:  # fmt: skip
    """:func:`sensed` for a GPU, each channel by itself: a thread computes them all, which share most work."""
    (height, width), found = planes[0].shape[1:], list(planes)
    if deviation is not None:
        each = deviation[:, None, None] * UNIT
        sums = sums_of(keys, NOISE, (3, height, width)).unbind(1)
        found = [torch.addcmul(plane, each, (own - MEAN).float()) for plane, own in zip(found, sums, strict=True)]
    if grain is not None and size is not None and grey is not None:
        # The sum of the channels is mixed in after the interpolation: the same, as both are linear.
        amount, mixed = UNIT * grain, grey / math.sqrt(3)
        own, common, share = (v[:, None, None] for v in once(amount * (1 - grey), amount * mixed, 1 / size))
        grains = _enlarged_words(noise_words(keys, GRAIN, (3, height, width)), share)
        rest = common * (grains[0] + grains[1] + grains[2]) - MEAN * (own + 3 * common)
        found = [torch.addcmul(plane, own, part) + rest for plane, part in zip(found, grains, strict=True)]
    return [plane.clamp(0, 1) for plane in found]


def _enlarged_words(words: Int[Tensor, "b h w"], share: Float[Tensor, "b 1 1"]) -> list[Float[Tensor, "b h w"]]:
    """The sums of bytes of each channel, linearly interpolated at the pixels of a ``1 / share`` times larger one."""
    b, height, width = words.shape
    (row, down), (column, across) = (_between(side, share) for side in (height, width))
    row, down = row.mT, down.mT
    start = torch.arange(b, dtype=torch.int32, device=words.device)[:, None, None] * (height * width)
    place = natural(start + row * width + column)
    flat, below, right = words.flatten()[:, None], width if height > 1 else 0, 1 if width > 1 else 0
    corners = [F.embedding(place, flat[step:])[..., 0] for step in (0, right, below, below + right)]
    found = []
    for channel in range(3):
        p, q, r, s = (word_part(corner, channel).float() for corner in corners)
        upper, lower = (torch.addcmul(first, across, second - first) for first, second in ((p, q), (r, s)))
        found.append(torch.addcmul(upper, down, lower - upper))
    return found


def _between(side: int, share: Float[Tensor, "b 1 1"]) -> tuple[Int[Tensor, "b 1 n"], Float[Tensor, "b 1 n"]]:
    """Along one axis: the number before each pixel's place in the smaller picture, and how far it is from there."""
    middle = torch.arange(side, dtype=torch.float32, device=share.device) + 0.5
    place = torch.addcmul(torch.full_like(share, -0.5), middle, share).clamp(0, side - 1)
    before = place.to(torch.int32).clamp(max=max(side - 2, 0))  # the last one is all of the number after it
    return before, place - before.float()


def _grains(
    keys: Int[Tensor, " b"], size: Float[Tensor, " b"], grey: Float[Tensor, " b"], shape: tuple[int, int, int]
) -> Float[Tensor, "b 3 h w"]:
    """Noise of a smaller picture, linearly interpolated at the pixels of the larger one."""
    field = kept(noise(keys, GRAIN, shape))
    mixed = torch.lerp(field, math.sqrt(3) * field.mean(dim=1, keepdim=True), grey[:, None, None, None])
    if fusing():
        return _enlarged(_enlarged(kept(mixed), size).mT, size).mT
    # The same in one pass, which no compiler needs.
    y, x = (torch.arange(0.5, side, device=keys.device, dtype=torch.float32) * (2 / side) for side in shape[1:])
    place = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    return F.grid_sample(mixed, place / size[:, None, None, None] - 1, padding_mode="border", align_corners=False)


def _enlarged(field: Float[Tensor, "b c h w"], factor: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """The upper part of a field, stretched downwards."""
    height = field.shape[2]
    place = ((torch.arange(height, dtype=torch.float32, device=field.device) + 0.5) / factor[:, None] - 0.5).clamp(
        0, height - 1
    )
    above = place.floor()
    part = (place - above)[:, None, :, None]
    first, second = (field.gather(2, row.long()[:, None, :, None].expand(field.shape)) for row in (above, place.ceil()))
    return first + part * (second - first)
