"""``cropped``: the visible part of each context, read onto the canvas."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.banks.pyramid import Pyramid, Window, sample_pyramid, window_side
from kornia_cag.core.compiling import constant, once
from kornia_cag.scenes.scene import Crop


def cropped(
    pyramid: Pyramid, ids: Int[Tensor, " b"], crop: Crop, coarser: Float[Tensor, " b"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Read each context's crop, which has the canvas's aspect ratio: red, green and blue.

    Args:
        pyramid: opaque pictures.
        ids: picture per sample.
        crop: which part of it.
        coarser: pyramid levels to add to the fitting one: low resolution.
        size: canvas ``(height, width)``, pixels.
    """
    height, width = size
    texels = torch.log2(crop.share * (pyramid.size / max(size))) + coarser
    level = texels.round().clamp(0, pyramid.levels - 1).long()
    share = crop.share / max(size)
    span = share[:, None] * constant((width, height), share.dtype, share.device)
    place = 2 * torch.stack([crop.x, crop.y], dim=1) - 1
    middle = torch.addcmul(place, span, place, value=-1)
    x, y = middle.unbind(1)
    x, y, across, down = (v[:, None, None] for v in once(x, y, torch.where(crop.mirrored, -share, share), share))
    # Twice their distance from the middle: a picture's side is 2.
    row, column = (torch.arange(1 - n, n, 2, device=share.device, dtype=torch.float32) for n in size)
    points = torch.addcmul(x, across, column), torch.addcmul(y, down, row[:, None])
    window = Window(window_side(max(size)), middle - span)
    return sample_pyramid(pyramid, ids, points, level, window=window)
