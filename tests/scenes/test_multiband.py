"""Multi-band blending against OpenCV's pyramids, and its limits."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_cag.core.compiling import program
from kornia_cag.scenes.multiband import doubled, halved, multiband


def layers(size: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Premultiplied colour, alpha and a picture behind."""
    generator = torch.Generator().manual_seed(seed)
    straight, behind = (torch.rand(2, 3, *size, generator=generator, dtype=dtype) for _ in range(2))
    alpha = torch.rand(2, 1, *size, generator=generator, dtype=dtype)
    return straight * alpha, alpha, behind


def reflected(size: tuple[int, int]) -> tuple[slice, slice]:
    """Where OpenCV's borders, which reflect, and ours, which repeat, do not matter."""
    return slice(4, size[0] - 4), slice(4, size[1] - 4)


@pytest.mark.parametrize("size", [(32, 32), (31, 40), (17, 23)])
def test_pyramids_are_opencv_s(size: tuple[int, int], device: torch.device) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    array = picture[0].permute(1, 2, 0).numpy()
    down, inner = cv2.pyrDown(array), tuple(slice(2, (n + 1) // 2 - 2) for n in size)
    got = halved(picture.to(device))[0].permute(1, 2, 0).cpu().numpy()
    assert got.shape == down.shape
    assert np.abs(got - down)[inner].max() < 1e-5
    up = doubled(torch.from_numpy(down).permute(2, 0, 1)[None].to(device), size)[0].permute(1, 2, 0).cpu().numpy()
    assert np.abs(up - cv2.pyrUp(down, dstsize=size[::-1]))[reflected(size)].max() < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 6), (24, 31)])
@pytest.mark.parametrize("levels", [1, 3, 6])
def test_limits(size: tuple[int, int], levels: int, device: torch.device) -> None:
    """Opaque everywhere: the object. Transparent everywhere: the context. Alike: nothing happens."""
    rgb, alpha, behind = (plane.to(device) for plane in layers(size))
    full = torch.ones_like(alpha)
    torch.testing.assert_close(multiband(rgb, full, behind, levels=levels), rgb, rtol=0, atol=1e-5)
    assert torch.equal(multiband(0 * rgb, 0 * alpha, behind, levels=levels), behind)
    torch.testing.assert_close(multiband(alpha * behind, alpha, behind, levels=levels), behind, rtol=0, atol=1e-5)


def test_it_is_burt_and_adelson_s_spline() -> None:
    """Band by band, both pictures of their own."""
    rgb, alpha, behind = layers((26, 21))
    front = rgb + (1 - alpha) * behind
    total, masks, sizes = [], [alpha], [alpha.shape[2:]]
    one, other = front, behind
    for _ in range(3):
        masks.append(halved(masks[-1]))
        sizes.append(masks[-1].shape[2:])
    for level, mask in enumerate(masks):
        low = (halved(one), halved(other)) if level < 3 else None
        bands = [p if low is None else p - doubled(q, tuple(sizes[level]))
                 for p, q in zip((one, other), low or (None, None), strict=True)]  # fmt: skip
        total.append(mask * bands[0] + (1 - mask) * bands[1])
        one, other = low or (one, other)
    result = total[-1]
    for band in total[-2::-1]:
        result = doubled(result, tuple(band.shape[2:])) + band
    torch.testing.assert_close(multiband(rgb, alpha, behind, levels=3), result, rtol=0, atol=1e-5)


def test_coarse_colour_fades_over_more_pixels_than_fine_detail() -> None:
    """Far from an object only its colour is seen, not its stripes; nothing is darker than both."""
    x = torch.arange(64)
    alpha = (x < 32).float().expand(1, 1, 64, 64).contiguous()
    stripes = (0.6 + 0.3 * (x % 2)).expand(1, 3, 64, 64)
    out = multiband(stripes * alpha, alpha, torch.full((1, 3, 64, 64), 0.2), levels=4)[0, 0, 32]
    assert (out[33:37] > 0.21).all()
    assert float((out[24:30:2] - out[25:31:2]).abs().mean()) > 0.25
    assert float((out[33:39:2] - out[34:40:2]).abs().max()) < 0.12
    assert float(out.min()) > 0.15
    assert abs(float(out[-1]) - 0.2) < 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
def test_a_batch_equals_its_samples(height: int, width: int, levels: int) -> None:
    rgb, alpha, behind = layers((height, width))
    whole = multiband(rgb, alpha, behind, levels=levels)
    for i in range(2):
        one = slice(i, i + 1)
        assert torch.equal(whole[one], multiband(rgb[one], alpha[one], behind[one], levels=levels))
        for c in range(3):
            plane = multiband(rgb[one, c : c + 1], alpha[one], behind[one, c : c + 1], levels=levels)
            torch.testing.assert_close(whole[one, c : c + 1], plane)


def test_coarser_products_of_the_caller_s_do_not_reach_it() -> None:
    given = layers((26, 21))
    fine = multiband(*given, levels=3)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(multiband(*given, levels=3), fine)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_gradcheck() -> None:
    inputs = tuple(plane.requires_grad_() for plane in layers((5, 7), dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *given: multiband(*given, levels=2), inputs)


@pytest.mark.compile
def test_compiled() -> None:
    torch._dynamo.reset()
    given = layers((14, 19))
    fast = program(multiband, given[0].device)(*given, levels=3)
    torch.testing.assert_close(fast, multiband(*given, levels=3), rtol=0, atol=1e-5)
