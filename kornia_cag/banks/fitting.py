"""Checking the user's pictures and fitting them into the square that a bank keeps."""

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kornia_cag.banks.texels import EXTENT
from kornia_cag.banks.tiles import reduced, spare
from kornia_cag.core.checks import describe, fail

FAINT = 6  # of 255: alpha from which a texel of an object counts as visible


def _some_images(images: Any, kind: str) -> Sequence[Tensor] | Tensor:
    """Require a batch, or a sequence of its images."""
    batch = isinstance(images, Tensor) and not images.is_nested and images.layout == torch.strided and images.ndim
    if not batch and not isinstance(images, list | tuple):
        fail("images", f"a batch of {kind} images, or a list of them", describe(images))
    if not len(images):
        fail("images", f"at least one {kind} image", "none")
    some: Sequence[Tensor] | Tensor = images
    return some


def _as_ids(labels: Any) -> Tensor:
    """The user's labels, on the CPU."""
    try:
        return torch.as_tensor(labels, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # names, or numbers too large for 64 bits
        return fail("labels", "class ids 0 to C - 1, one per image", describe(labels), "Pass names as classes.")


def _to_uint8(image: Tensor) -> UInt8[Tensor, "c h w"]:
    return image if image.dtype == torch.uint8 else (image * 255).round().clamp(0, 255).to(torch.uint8)


def _longest(rgba: UInt8[Tensor, "h w 4"]) -> int:
    """Longest side of the visible part, pixels."""
    seen = rgba[..., 3] >= FAINT
    longest: int = max(span.stop - span.start for span in (_span(seen.any(dim=axis)) for axis in (0, 1)))
    return longest


def _check_alpha(name: str, rgba: UInt8[Tensor, "h w 4"]) -> None:
    low, high = rgba[..., 3].aminmax()
    if low == 255:
        fail(name, "a picture with transparency", "none",
             'Add an alpha channel, or read it with from_folder(key="white") if its background is white.')  # fmt: skip
    if high < FAINT:
        _fail_unseen(name, f"alpha of at most {int(high)} of 255")


def _fail_unseen(name: str, got: str) -> NoReturn:
    fail(name, f"an object that can be seen, alpha of at least {FAINT} of 255 somewhere", got,
         "Make it less transparent, or larger.")  # fmt: skip


def _fit(rgba: UInt8[Tensor, "h w 4"], size: int) -> Float[Tensor, "4 s s"]:
    """Premultiply, crop to the visible part, and fit the longest side into :data:`EXTENT` of a square."""
    seen = rgba[..., 3] >= FAINT
    if not seen.any():
        _fail_unseen("alpha", f"at most {int(rgba[..., 3].max())} of 255")
    cut = rgba[_span(seen.any(dim=1)), _span(seen.any(dim=0))]
    height, width = cut.shape[:2]
    inner = round(size * EXTENT)
    factor = spare(height, width, max(height, width) // inner)
    small = torch.from_numpy(reduced(cut.numpy(), factor)) if factor > 1 else cut
    h, w = (max(1, round(inner * side / max(height, width))) for side in (height, width))
    picture = torch.stack([_resized(channel, (h, w)) for channel in _premultiplied(small, factor > 1)]).clamp(0, 1)
    if picture[3].max() < 0.5 / 255:  # a few scattered dots
        _fail_unseen("alpha", f"what fades away when it is fitted into {inner} texels")
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(picture, (left, size - w - left, top, size - h - top))


def _span(seen: Bool[Tensor, " n"]) -> slice:
    """From the first visible entry to the last."""
    return slice(int(seen.byte().argmax()), len(seen) - int(seen.flip(0).byte().argmax()))


def _premultiplied(rgba: UInt8[Tensor, "h w 4"], already: bool) -> Iterator[Float[Tensor, "h w"]]:
    """The four planes one by one: a large picture is never held as floats."""
    alpha = rgba[..., 3].float() / 255
    for channel in range(3):
        plane = rgba[..., channel].float() / 255
        yield plane if already else plane * alpha
    yield alpha


def _square(rgb: UInt8[Tensor, "h w 3"], size: int) -> UInt8[Tensor, "3 s s"]:
    """The central square, resized."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = rgb[top : top + side, left : left + side]
    if side == size:
        return square.permute(2, 0, 1).contiguous()
    factor = spare(side, side, side // size)
    square = torch.from_numpy(reduced(square.numpy(), factor)) if factor > 1 else square
    planes = [_resized(square[..., channel].float(), (size, size)) for channel in range(3)]
    return torch.stack(planes).round().clamp(0, 255).byte()


def _resized(plane: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W"]:
    return F.interpolate(plane[None, None], size, mode="bilinear", antialias=True)[0, 0]
