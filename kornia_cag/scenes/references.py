"""Unlabelled photos of where a model will be used, and what finishes take from them: kept on one device."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.texels import Size
from kornia_cag.core.checks import fail
from kornia_cag.core.devices import Device
from kornia_cag.core.formats import to_float
from kornia_cag.core.records import joined
from kornia_cag.scenes.lab import Moments, moments, rgb_to_lab
from kornia_cag.scenes.matching import lowest, shares_below

_PIXELS = 2**22  # of the photos that are looked at together


class References:
    """Unlabelled photos that finishes adapt composites to, such as :class:`FourierMix`; no label is read.

    A few dozen photos from where the model will be used are enough for these finishes: they take colours, contrast and
    slow changes of light from a photo, nothing of what it shows. What they take is computed once, when first needed.

    Args:
        photos: a folder, a bank, or RGB tensors as for :meth:`ContextBank.from_tensors`. Of a picture that is not
            square, the central square is kept.
        size: texels per side, a power of two from 8 to 4096, or ``"auto"``, as for :class:`ContextBank`.
        device: device of the photos; ``"auto"`` is a GPU if there is one. A bank stays where it is.

    Attributes:
        photos: the bank that holds them.

    Raises:
        InputError: naming a photo that cannot be used, and how to fix it.
    """

    def __init__(
        self, photos: str | Path | ContextBank | Shaped[Tensor, "n 3 h w"] | Sequence[Tensor], *,
        size: Size = "auto", device: Device = "auto",
    ) -> None:  # fmt: skip
        if isinstance(photos, ContextBank):
            if (size, device) != ("auto", "auto"):
                fail("photos", "a folder or tensors with size=... or device=...", "a bank, which has its own",
                     "Load the bank with them.")  # fmt: skip
            self.photos = photos
        elif isinstance(photos, str | Path):
            self.photos = ContextBank.from_folder(photos, size=size, device=device)
        else:
            self.photos = ContextBank.from_tensors(photos, size=size, device=device)
        self._amplitudes: dict[int, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """The device of the photos."""
        return self.photos.device

    def __len__(self) -> int:
        return len(self.photos)

    def __repr__(self) -> str:
        return f"References(photos={len(self)}, size={self.photos.size}, device='{self.device}')"

    def to(self, device: Device) -> "References":
        """The same photos on another device."""
        return References(self.photos.to(device))

    @cached_property
    def moments(self) -> Moments:
        """Means and covariances of each photo in Lab."""
        with torch.inference_mode(False), torch.no_grad():
            return joined([moments(rgb_to_lab(part)) for part in self._parts()])

    @cached_property
    def shares(self) -> Float[Tensor, "n 3 257"]:
        """Of each photo and channel, the share of pixels below each edge of a bin, see :func:`shares_below`."""
        with torch.inference_mode(False), torch.no_grad():
            return torch.cat([shares_below(part) for part in self._parts()])

    def amplitudes(self, radius: int) -> Float[Tensor, "n 3 rows columns"]:
        """Of each photo and channel, amplitudes at frequencies up to ``radius`` cycles per picture, see :func:`lowest`.

        Raises:
            InputError: for photos too small to have such frequencies.
        """
        if 2 * radius >= self.photos.size:
            fail("references", f"photos of more than {2 * radius} texels per side for these images and this beta",
                 f"{self.photos.size}", "Load them larger, or lower beta.")  # fmt: skip
        if radius not in self._amplitudes:
            with torch.inference_mode(False), torch.no_grad():
                parts = [lowest(torch.fft.rfft2(part, norm="forward"), radius).abs() for part in self._parts()]
                self._amplitudes[radius] = torch.cat(parts)
        return self._amplitudes[radius]

    def _parts(self) -> Iterator[Float[Tensor, "b 3 s s"]]:
        """The photos, a few at a time."""
        photos = self.photos.pyramid.level(0)
        return (to_float(part).contiguous() for part in photos.split(max(1, _PIXELS // self.photos.size**2)))
