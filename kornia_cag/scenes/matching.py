"""Kernels that give pictures the amplitudes or the histograms of others."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

LEVELS = 256  # bins of a histogram: one for each 8-bit value, from half a level below it to half a level above
FAINT = 1e-5  # amplitude, of pictures in [0, 1]: waves about as weak as this are rounding errors, and stay as they are


def lowest(spectrum: Complex[Tensor, "b c h f"], radius: int) -> Complex[Tensor, "b c rows columns"]:
    """Frequencies of up to ``radius`` cycles per picture either way, of a spectrum by ``rfft2``.

    ``radius`` is below half of the picture's sides, so no frequency is its own mirror image but the mean.

    Returns:
        Rows 0 to ``radius``, then ``-radius`` to -1; columns 0 to ``radius``.
    """
    height = spectrum.shape[2]
    return torch.cat([spectrum[:, :, : radius + 1, : radius + 1],
                      spectrum[:, :, height - radius :, : radius + 1]], dim=2)  # fmt: skip


def low_pass(radius: int, reach: Float[Tensor, " b"]) -> Float[Tensor, "b 1 rows columns"]:
    """A square window over the frequencies of :func:`lowest`: 1 up to ``reach`` cycles per picture, 0 one beyond it.

    A fraction of a cycle takes the next ring of frequencies in part. Opposite frequencies have equal weights: with any
    others a picture would get an imaginary part.
    """
    column = torch.arange(radius + 1, device=reach.device, dtype=reach.dtype)
    row = torch.cat([column, column[1:].flip(0)])
    ring = torch.maximum(row[:, None], column)
    return (1 + reach[:, None, None, None] - ring).clamp(0, 1)


def with_amplitudes(
    images: Float[Tensor, "b c h w"], amplitudes: Float[Tensor, "b c rows columns"],
    window: Float[Tensor, "b 1 rows columns"],
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """Pictures with other amplitudes at their lowest frequencies, where phases stay (Yang and Soatto 2020).

    Only the change goes back through the transform, so a picture that has these amplitudes comes out as it was.
    """
    (height, width), radius = images.shape[2:], window.shape[3] - 1
    low = lowest(torch.fft.rfft2(images, norm="forward"), radius)
    own = low.abs()
    change = low * (window * ((amplitudes - own) / (own + FAINT)))
    whole = change.new_zeros(*images.shape[:2], height, width // 2 + 1)
    whole[:, :, : radius + 1, : radius + 1] = change[:, :, : radius + 1]
    whole[:, :, height - radius :, : radius + 1] = change[:, :, radius + 1 :]
    changed: Tensor = torch.fft.irfft2(whole, s=(height, width), norm="forward")
    return images + changed


def shares_below(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c edges"]:
    """The share of each channel's pixels below each of the 257 edges of bins: from 0 to 1, never falling."""
    shape, pixels = images.shape[:2], images.shape[2] * images.shape[3]
    first = LEVELS * torch.arange(shape[0] * shape[1], device=images.device)
    bins = (_bins(images).flatten(2).reshape(-1, pixels) + first[:, None]).flatten()
    counts = torch.zeros(LEVELS * len(first), dtype=torch.int32, device=images.device)
    counts = counts.scatter_add(0, bins, torch.ones_like(bins, dtype=torch.int32))
    below = counts.view(*shape, LEVELS).cumsum(dim=2)
    return torch.cat([torch.zeros_like(below[:, :, :1]), below], dim=2).to(images.dtype) / pixels


def _bins(images: Float[Tensor, "b c h w"]) -> Tensor:
    return (images.detach() * (LEVELS - 1) + 0.5).floor().clamp(0, LEVELS - 1).long()


def with_histograms(images: Float[Tensor, "b c h w"], wanted: Float[Tensor, "b c edges"]) -> Float[Tensor, "b c h w"]:
    """Pictures whose channels have other histograms, given as by :func:`shares_below`.

    A value goes where the same share of pixels lies below it. That is exact for values of 8 bits, which lie in the
    middle of their bins, and straight between there and the edges of the bin. A gradient takes these lines as given.
    """
    shares = shares_below(images)
    start, end = shares[:, :, :-1], shares[:, :, 1:]
    edges = [_quantile(wanted, start, first=False), _quantile(wanted, 0.5 * (start + end)), _quantile(wanted, end)]
    bins = _bins(images).flatten(2)
    low, middle, high = (edge.gather(2, bins) for edge in edges)
    part = 2 * (images * (LEVELS - 1) + 0.5).flatten(2) - 2 * bins
    found = torch.where(part < 1, low + (middle - low) * part, middle + (high - middle) * (part - 1))
    return ((found - 0.5) / (LEVELS - 1)).view(images.shape)


def _quantile(
    shares: Float[Tensor, "b c edges"], wanted: Float[Tensor, "b c n"], first: bool = True
) -> Float[Tensor, "b c n"]:
    """Where a share is reached, counted in bins: at the first place, or the last where several bins are empty."""
    place = torch.searchsorted(shares.contiguous(), wanted.contiguous(), right=not first) - 1
    place = place.clamp(0, LEVELS - 1)
    low, high = shares.gather(2, place), shares.gather(2, place + 1)
    part = (wanted - low) / torch.where(high > low, high - low, 1)
    return place + part.clamp(0, 1)
