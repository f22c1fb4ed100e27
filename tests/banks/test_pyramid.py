import itertools
import math

import numpy as np
import pytest
import torch
from oracle import mips, read
from stacked import sample_pyramid
from torch import Tensor

from kornia_cag.banks.pyramid import Window, build_pyramid, check_texels, level_count, window_side
from kornia_cag.banks.pyramid import sample_pyramid as planes
from kornia_cag.core.checks import InputError


def pictures(n: int = 3, c: int = 4, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, c, size, size), generator=generator, dtype=torch.uint8)


def texel_centres(side: int) -> Tensor:
    place = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)


@pytest.mark.parametrize(("size", "levels"), [(8, 2), (16, 3), (32, 4), (64, 5), (4096, 11)])
def test_level_count(size: int, levels: int) -> None:
    assert level_count(size) == levels
    assert size >> (levels - 1) == 4


@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_levels_are_box_means(device: torch.device, size: int, replicate: bool) -> None:
    source = pictures(size=size)
    pyramid = build_pyramid(source.to(device), replicate)
    assert pyramid.levels == level_count(size)
    assert len(pyramid) == 3
    for i in range(3):
        expected = mips(source[i].permute(1, 2, 0).numpy())
        assert len(expected) == pyramid.levels
        for level, picture in enumerate(expected):
            got = pyramid.level(level)[i].permute(1, 2, 0).cpu().numpy()
            assert (got == np.rint(picture * 255)).all()


def test_levels_do_not_overlap() -> None:
    """Marked one at a time in the atlas, with gutters, the levels never touch."""
    for size in (8, 16, 64):
        pyramid = build_pyramid(torch.zeros(1, 4, size, size, dtype=torch.uint8), replicate=False)
        for level in range(pyramid.levels):
            pyramid.level(level)[...] += 1
        atlas = pyramid.atlas[..., :1]
        assert atlas.max() == 1
        assert (atlas == 1).sum() == sum((size >> level) ** 2 for level in range(pyramid.levels))
        area = torch.nn.functional.max_pool2d(atlas.permute(0, 3, 1, 2).float(), 3, 1, 1)
        rings = sum(((size >> level) + 2) ** 2 for level in range(pyramid.levels))
        assert area[0, 0].sum() == rings  # each level's ring of gutter is its own


def test_float_pictures() -> None:
    source = pictures()
    assert torch.equal(build_pyramid(source / 255, True).atlas, build_pyramid(source, True).atlas)


def test_many_pictures_are_built_as_few() -> None:
    source = pictures(n=300, c=1, size=8)
    whole = build_pyramid(source, False)
    assert torch.equal(whole.atlas[290:], build_pyramid(source[290:], False).atlas)


@pytest.mark.parametrize("replicate", [False, True])
def test_reads_texels_exactly_at_their_centres(device: torch.device, replicate: bool) -> None:
    pyramid = build_pyramid(pictures().to(device), replicate)
    ids = torch.tensor([2, 0], device=device)
    for level in range(pyramid.levels):
        points = texel_centres(32 >> level).to(device).expand(2, -1, -1, -1)
        got = sample_pyramid(pyramid, ids, points, torch.full((2,), level, device=device))
        torch.testing.assert_close(got, pyramid.level(level)[ids] / 255.0, rtol=0, atol=2e-5)


def test_convention_points() -> None:
    """``(x, y)``, from the left upper corner (0, 0) to the right lower corner (1, 1)."""
    source = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    source[0, 0, 2, 5] = 255  # row 2, column 5
    pyramid = build_pyramid(source, replicate=False)
    points = torch.tensor([[5.5, 2.5], [2.5, 5.5], [6.0, 2.5], [5.5, 2.25], [6.5, 2.5]])[None, None] / 8
    got = sample_pyramid(pyramid, torch.tensor([0]), points, torch.tensor([0]))[0, 0, 0]
    torch.testing.assert_close(got, torch.tensor([1.0, 0.0, 0.5, 0.75, 0.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("replicate", [False, True])
def test_random_points_equal_four_texel_reads(device: torch.device, replicate: bool) -> None:
    """Also far outside: empty, or the border's value."""
    source = pictures()
    pyramid = build_pyramid(source.to(device), replicate)
    points = torch.rand(8, 9, 11, 2, generator=torch.Generator().manual_seed(1)) * 2 - 0.5
    ids = torch.tensor([0, 1, 2, 1, 0, 2, 1, 2], device=device)
    level = torch.tensor([0, 1, 2, 3, 1, 0, 3, 2], device=device)
    got = sample_pyramid(pyramid, ids, points.to(device), level).cpu()
    for row, (i, k) in enumerate(zip(ids.tolist(), level.tolist(), strict=True)):
        picture = mips(source[i].permute(1, 2, 0).numpy())[k]
        place = points[row].double().numpy() * picture.shape[0]
        expected = read(picture, place[..., 0], place[..., 1], "border" if replicate else "empty")
        np.testing.assert_allclose(got[row].permute(1, 2, 0), expected, rtol=0, atol=1e-4)


def crops(share: float, mirrored: bool, size: tuple[int, int], n: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Points of ``n`` crops of a share of the picture's side, from one corner to the other, and their own corners."""
    height, width = size
    at = torch.linspace(0, 1, n)
    steps = share / max(size)
    x, y = ((1 - steps * side) * (2 * at - 1) for side in (width, height))
    row, column = (torch.arange(1, 2 * side, 2) - side for side in size)
    points = (x[:, None, None] + (-steps if mirrored else steps) * column, (y[:, None] + steps * row)[:, :, None])
    return points, torch.stack([x - steps * width, y - steps * height], dim=1)


@pytest.mark.parametrize("size", [(16, 16), (9, 20), (20, 9), (3, 2), (40, 40)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_window_is_read_as_the_whole_level(device: torch.device, size: tuple[int, int], mirrored: bool) -> None:
    """At every level and place, the last picture's last corner included."""
    pyramid, n = build_pyramid(pictures(size=64).to(device), replicate=True), 7
    ids = torch.tensor([2, 1, 0, 1, 2, 2, 2], device=device)
    for level in range(pyramid.levels):
        for share in (0.7, 1.0, 1.4):  # texels a pixel
            whole = min(1.0, share * max(size) / (64 >> level))
            points, corner = crops(whole, mirrored, size, n)
            points, corner = tuple(line.to(device) for line in points), corner.to(device)
            window = Window(window_side(max(size)), corner)
            levels = torch.full((n,), level, device=device)
            got = planes(pyramid, ids, points, levels, window=window)
            full = torch.stack(torch.broadcast_tensors(*points), dim=1)
            for other in (planes(pyramid, ids, points, levels), planes(pyramid, ids, full, levels)):
                torch.testing.assert_close(torch.stack(got), torch.stack(other), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shift", [(-0.7, 0.0), (0.0, -0.7), (0.7, 0.7), (-2.5, 2.5)])
def test_a_window_may_reach_beyond_the_picture(shift: tuple[float, float]) -> None:
    """There it reads the gutter, as the whole level does."""
    pyramid, size = build_pyramid(pictures(size=64), replicate=True), (16, 16)
    for level in range(pyramid.levels):
        (x, y), corner = crops(min(1.0, 16 / (64 >> level)), False, size, 3)
        points = torch.stack(torch.broadcast_tensors(x + shift[0], y + shift[1]), dim=1)
        given = pyramid, torch.tensor([0, 1, 2]), points, torch.full((3,), level)
        got = planes(*given, window=Window(19, corner + torch.tensor(shift)))
        torch.testing.assert_close(torch.stack(got), torch.stack(planes(*given)), rtol=0, atol=2e-5)


def test_a_window_of_a_whole_level_is_read_as_the_largest() -> None:
    """From far outside, at each level that the window holds."""
    pyramid = build_pyramid(pictures(size=64), replicate=False)
    points = 3 * torch.rand(3, 2, 7, 8, generator=torch.Generator().manual_seed(3)) - 1.5
    for finest in range(pyramid.levels):
        for level in range(finest, pyramid.levels):
            given = pyramid, torch.tensor([2, 0, 1]), points, torch.full((3,), level)
            one = planes(*given, extent=0.8, window=Window((64 >> finest) + 2))
            torch.testing.assert_close(torch.stack(one), torch.stack(planes(*given, extent=0.8)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("far", [-1e30, -50.0, 51.0, 1e30])
def test_far_outside(far: float) -> None:
    source = torch.full((1, 2, 16, 16), 200, dtype=torch.uint8)
    for replicate, value in ((False, 0.0), (True, 200 / 255)):
        pyramid = build_pyramid(source, replicate)
        for level, axis in itertools.product(range(3), range(2)):
            points = torch.full((1, 1, 1, 2), 0.5)
            points[..., axis] = far
            got = sample_pyramid(pyramid, torch.tensor([0]), points, torch.tensor([level]))
            assert (got - value).abs().max() < 1e-5


def test_gradcheck() -> None:
    pyramid = build_pyramid(pictures(), replicate=True)
    points = torch.rand(2, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
    args = torch.tensor([0, 2]), points.requires_grad_(), torch.tensor([0, 1])
    assert torch.autograd.gradcheck(lambda p: sample_pyramid(pyramid, args[0], p, args[2]), args[1])


@pytest.mark.parametrize("bad", [0, 4, 7, 12, 33, 8192, 16.0, True, "16", None])
@pytest.mark.usefixtures("untyped")
def test_bad_size(bad: object) -> None:
    with pytest.raises(InputError, match=r"^size: expected a power of two from 8 to 4096, got"):
        check_texels("size", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 4, 16, 32), (4, 16, 16), (1, 4, 12, 12)])
@pytest.mark.usefixtures("untyped")
def test_bad_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^pictures"):
        build_pyramid(torch.zeros(shape), replicate=False)


def test_to_device(device: torch.device) -> None:
    pyramid = build_pyramid(pictures(), replicate=False).to(device)
    assert pyramid.atlas.device.type == device.type
    assert pyramid.size == 32


def test_equal_pictures_have_equal_checksums():
    pictures = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures[3] = pictures[1]
    one = build_pyramid(pictures, replicate=True).checksums()
    assert one[3] == one[1]
    assert len(set(one)) == 3
    assert build_pyramid(pictures[1:2], replicate=True).checksums() == one[1:2]  # wherever it lies


@pytest.mark.parametrize("pixels", [1, 8, 12, 17, 28, 64])
def test_a_window_holds_what_a_row_of_pixels_reads(pixels: int) -> None:
    """From any place in a texel, at the most texels a pixel; a smaller window would not do."""
    corner = torch.linspace(0, 1, 4097, dtype=torch.float64)[:, None]
    places = corner + math.sqrt(2) * (torch.arange(pixels, dtype=torch.float64) + 0.5)
    first, last = (corner + 0.5).floor(), (places + 0.5).floor() + 1  # texels by their centres, half a texel in
    most = (last - first + 1).amax()
    assert window_side(pixels) == most
