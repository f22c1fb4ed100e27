"""Gradient-domain blending against a sparse solver, OpenCV, and what can be said without either."""

import cv2
import numpy as np
import oracle
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_cag.core.compiling import program
from kornia_cag.scenes.poisson import poisson


def smooth(size: tuple[int, int], seed: int, b: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    coarse = torch.rand(b, 3, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=True).clamp(0, 1)


def disc(size: tuple[int, int], radius: float, b: int = 1) -> Tensor:
    y, x = (torch.arange(0.5, n) - n / 2 - 1 for n in size)
    return (radius + 0.5 - (x**2 + y[:, None] ** 2).sqrt()).clamp(0, 1).expand(b, 1, *size).contiguous()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("size", "radius"), [((17, 22), 6.0), ((12, 9), 20.0)])
def test_it_solves_its_equations(size: tuple[int, int], radius: float, mixed: bool, device: torch.device) -> None:
    """Inside the canvas, and cut off by it on all sides."""
    color, behind = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(2)).unbind(0)
    alpha = disc(size, radius)
    got = poisson(*(plane.to(device) for plane in (color * alpha, alpha, behind)), mixed=mixed).cpu()
    for c in range(3):
        planes = (plane.double().numpy() for plane in (color[0, c], alpha[0, 0], behind[0, c]))
        assert np.abs(got[0, c].double().numpy() - oracle.poisson(*planes, mixed)).max() < 1e-4


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("radius", [36, 50])
def test_it_is_opencv_s_on_smooth_scenes(radius: int, mixed: bool) -> None:
    """OpenCV erodes the object by three pixels, and holds what is around a box, which a trace of alpha marks here.

    Mixed, it looks at a pixel's differences to the right and down, and asks how much they differ from each other: so
    pictures that change along one axis only are those where it takes the larger gradient.
    """
    size, inside = (128, 128), disc((128, 128), radius)[0, 0] > 0.5
    rim, core = (torch.from_numpy(cv2.erode(inside.numpy().astype(np.uint8), np.ones((3, 3)), iterations=n)) > 0
                 for n in (1, 3))  # fmt: skip
    ys, xs = inside.nonzero().unbind(1)
    middle = int(xs.amin() + (xs.amax() - xs.amin() + 1) // 2), int(ys.amin() + (ys.amax() - ys.amin() + 1) // 2)
    for seed in range(4):
        color, behind = smooth(size, 2 * seed), smooth(size, 2 * seed + 1)
        if mixed:
            color, behind = (plane[:, :, 40:41].expand(-1, -1, 128, -1) for plane in (color, behind))
        color, behind = ((255 * plane).round() / 255 for plane in (color, behind))
        weight = torch.where(core, 1.0, torch.where(rim, 0.005, 0.0))[None, None]
        given = color * weight, weight, behind
        first, second = ((255 * p[0]).round().byte().permute(1, 2, 0).contiguous().numpy() for p in (color, behind))
        how = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
        theirs = cv2.seamlessClone(first, second, inside.numpy().astype(np.uint8) * 255, middle, how)
        apart, other, plain = (
            (255 * picture.clamp(0, 1)[0] - torch.from_numpy(theirs).permute(2, 0, 1)).abs()
            for picture in (poisson(*given, mixed=mixed), poisson(*given, mixed=not mixed), color)
        )
        assert apart[:, core].mean() < 2
        assert apart[:, ~inside].mean() < 2
        assert min(other[:, core].mean(), plain[:, core].mean()) > 5  # the test can fail


@pytest.mark.parametrize("mixed", [False, True])
def test_limits(mixed: bool, device: torch.device) -> None:
    """No object, one that looks like the context, and one that is the context in another light."""
    behind = smooth((20, 27), 3, b=2).to(device)
    nothing = torch.zeros_like(behind[:, :1])
    assert torch.equal(poisson(0 * behind, nothing, behind, mixed=mixed), behind)
    alpha = disc((20, 27), 7, b=2).to(device)
    for brighter in (0.0, 0.2):
        same = poisson((behind + brighter) * alpha, alpha, behind, mixed=mixed)
        torch.testing.assert_close(same, behind, rtol=0, atol=1e-4)


def test_an_object_that_is_even_near_its_edge_keeps_its_detail_and_takes_the_colour_of_the_context() -> None:
    """Exactly: a bump of brightness on white becomes the same bump on grey."""
    alpha, bump = disc((24, 31), 9.0), 0.3 * disc((24, 31), 4.0).expand(-1, 3, -1, -1)
    out = poisson((1 - bump) * alpha, alpha, torch.full_like(bump, 0.6))
    torch.testing.assert_close(out, 0.6 - bump, rtol=0, atol=1e-5)


def test_black_behind_the_edge_of_a_cut_out_does_not_bleed() -> None:
    """The colour of transparent pixels is never read: only the object's own gradients are."""
    alpha, behind = disc((24, 24), 8), smooth((24, 24), 5)
    color = smooth((24, 24), 6)
    other = torch.where(alpha > 0, color, 1 - color)
    assert torch.equal(poisson(color * alpha, alpha, behind), poisson(other * alpha, alpha, behind))
    flat = poisson(0.9 * alpha.expand(-1, 3, -1, -1), alpha, torch.full_like(behind, 0.3))
    torch.testing.assert_close(flat, torch.full_like(behind, 0.3), rtol=0, atol=1e-4)


def test_a_batch_equals_its_samples() -> None:
    alpha = torch.cat([disc((18, 21), radius) for radius in (3, 7, 0.1, 30)])
    color, behind = smooth((18, 21), 7, b=4), smooth((18, 21), 8, b=4)
    whole = poisson(color * alpha, alpha, behind)
    for i in range(4):
        one = slice(i, i + 1)
        assert torch.equal(whole[one], poisson((color * alpha)[one], alpha[one], behind[one]))


def test_coarser_products_of_the_caller_s_do_not_reach_it() -> None:
    alpha, color, behind = disc((18, 21), 7), smooth((18, 21), 7), smooth((18, 21), 8)
    fine = poisson(color * alpha, alpha, behind)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(poisson(color * alpha, alpha, behind), fine)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("mixed", [False, True])
def test_gradcheck(mixed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    rgb, behind = (torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    alpha = 0.2 + 0.8 * torch.rand(1, 1, 5, 6, generator=generator, dtype=torch.float64)
    inputs = rgb.requires_grad_(), alpha.requires_grad_(), behind.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: poisson(*given, mixed=mixed), inputs)


@pytest.mark.compile
@pytest.mark.parametrize("mixed", [False, True])
def test_compiled(mixed: bool) -> None:
    torch._dynamo.reset()
    alpha = torch.cat([disc((18, 21), radius) for radius in (3, 7, 30)])
    color, behind = smooth((18, 21), 7, b=3), smooth((18, 21), 8, b=3)
    given = color * alpha, alpha, behind
    fast = program(poisson, alpha.device)(*given, mixed=mixed)
    torch.testing.assert_close(fast, poisson(*given, mixed=mixed), rtol=0, atol=1e-4)
