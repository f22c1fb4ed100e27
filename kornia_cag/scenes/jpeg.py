"""JPEG for a batch with one quality per picture, using kornia's codec, without waiting for the device."""

import torch
from jaxtyping import Float
from kornia.enhance import jpeg_codec_differentiable
from torch import Tensor

from kornia_cag.core.compiling import constant

# ITU-T T.81 (1992), Annex K: the quantisation tables of quality 50, row by row.
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)


def jpeg(picture: Float[Tensor, "b 3 h w"], quality: Float[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
    """Encode and decode pictures in [0, 1] at qualities from 1 to 100; 100 leaves a picture unchanged.

    Kornia reads the qualities on the host to check them, and then copies them to the device. So it gets a single one,
    50, on the CPU, and tables already scaled to each picture's own quality by libjpeg's rule.
    """
    scale = torch.where(quality < 50, 5000 / quality.clamp(min=1), 200 - 2 * quality).floor()
    luma, chroma = (
        ((constant(table, quality.dtype, quality.device).view(8, 8) * scale[:, None, None] + 50) / 100).clamp(1, 255)
        for table in (_LUMA, _CHROMA)
    )
    # Matrix products round differently in a batch of one, so a single picture is processed twice.
    batch = [torch.cat([x, x]) if len(x) == 1 else x for x in (picture, luma.floor(), chroma.floor())]
    fifty = torch.full((1,), 50.0, dtype=torch.float32, device="cpu")  # kornia waits if it is pinned
    coded = jpeg_codec_differentiable(batch[0], fifty, batch[1], batch[2])
    return torch.where(quality[:, None, None, None] < 100, coded[: len(picture)].clamp(0, 1), picture)
