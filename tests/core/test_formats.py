import pytest
import torch

from kornia_cag.core.formats import DTYPES, to_float, to_format


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 0), (torch.bfloat16, 2**-9), (torch.float16, 2**-12),
                                              (torch.uint8, 0.5 / 255 + 1e-6)])  # fmt: skip
@pytest.mark.parametrize("channels_last", [False, True])
def test_there_and_back(dtype: torch.dtype, error: float, channels_last: bool) -> None:
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    there = to_format(images, dtype, channels_last)
    assert there.dtype == dtype
    assert there.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    back = to_float(there)
    assert back.dtype == torch.float32
    assert (back - images).abs().max() <= error


def test_every_grey_level_survives() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_format(to_float(levels), torch.uint8), levels)


def test_black_and_white_are_exact_in_every_format() -> None:
    ends = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    for dtype in DTYPES:
        assert torch.equal(to_float(to_format(ends, dtype)), ends)
