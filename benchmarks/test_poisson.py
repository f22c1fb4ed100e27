"""Is solving a whole batch of gradient-domain blends faster than OpenCV, one picture at a time?

Measured: :func:`kornia_cag.scenes.poisson.poisson` on 64 canvases of 128x128, each with a disc of radius 36 whose edge
is soft, in eager mode, beside ``cv2.seamlessClone`` of the same discs, one after the other, in bytes, as it wants them.
The two take turns, so ``beside`` is a paired ratio: below 1, we are faster. Both use as many threads as asked for.
"""

import cv2
import pytest
import torch
from common import time_rounds
from torch.nn import functional as F

from kornia_cag.scenes.poisson import poisson

BATCH, SIDE, RADIUS = 64, 128, 36


@pytest.mark.parametrize("mixed", [False, True], ids=["normal", "mixed"])
@pytest.mark.parametrize("count", [2, pytest.param(1, marks=pytest.mark.full)])
def test_poisson(benchmark, device, threads, count, mixed):
    benchmark.group = f"poisson {SIDE}x{SIDE}"
    used = threads(count)
    cv2.setNumThreads(used)
    coarse = torch.rand(2 * BATCH, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    color, behind = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1).chunk(2)
    place = torch.arange(0.5, SIDE) - SIDE / 2
    alpha = (RADIUS + 0.5 - (place**2 + place[:, None] ** 2).sqrt()).clamp(0, 1).expand(BATCH, 1, -1, -1).contiguous()
    first, second = ([(255 * one).byte().permute(1, 2, 0).contiguous().numpy() for one in many]
                     for many in (color, behind))  # fmt: skip
    mask = (255 * (alpha[0, 0] > 0.5)).byte().numpy()
    how, middle = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE, (SIDE // 2, SIDE // 2)
    given = [plane.to(device) for plane in (color * alpha, alpha, behind)]

    def theirs() -> None:
        for front, back in zip(first, second, strict=True):
            cv2.seamlessClone(front, back, mask, middle, how)

    time_rounds(benchmark, device, lambda: poisson(*given, mixed=mixed), BATCH, batch=BATCH, beside=theirs,
                side=SIDE, threads=used, what="mixed" if mixed else "normal")  # fmt: skip
