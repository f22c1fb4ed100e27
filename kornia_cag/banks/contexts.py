"""Contexts: opaque pictures to put objects on, loaded once and kept on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kornia_cag.banks import folders, procedural
from kornia_cag.banks.fitting import _some_images, _square, _to_uint8
from kornia_cag.banks.pyramid import Pyramid, build_pyramid
from kornia_cag.banks.texels import MADE, Size, chosen_texels, file_sides, for_contexts
from kornia_cag.core.checks import check_number, check_pixels, check_tensor, fail
from kornia_cag.core.devices import Device, chosen_device, upload


def held_out(count: int, share: float) -> list[bool]:
    """Which of ``count`` contexts :meth:`ContextBank.split` holds out."""
    return [round((i + 1) * share) > round(i * share) for i in range(count)]


@dataclass(frozen=True, eq=False, repr=False)
class ContextBank:
    """Opaque RGB pictures to put objects on; any crop of them will do.

    ``size`` is the side of the finest level, in texels. ``"auto"`` keeps the pictures' resolution: it is the smallest
    power of two that holds the shorter side of half of the pictures, limited to 64 to 512, and less if the bank would
    take more than 1 GiB. Procedural pictures get 128: 512 pictures of 256 texels take seconds to make and 200 MiB. You
    get a warning if the canvas enlarges a bank's pictures by more than a quarter.

    Attributes:
        pyramid: RGB of all pictures with all mip levels, uint8 texels.
    """

    pyramid: Pyramid

    @classmethod
    def from_folder(
        cls, path: str | Path, *, size: Size = "auto", on_error: str = "raise", device: Device = "auto"
    ) -> "ContextBank":
        """Read every picture below a folder and keep its central square.

        Raises:
            InputError: naming the unusable file and how to fix it.
        """
        device = chosen_device(device)
        paths = folders.context_files(path) if size == "auto" else []
        texels = chosen_texels(size, for_contexts(file_sides(paths)), len(paths))
        pictures = folders.read_contexts(
            path,
            on_error=on_error,
            apply=lambda rgb: _square(torch.from_numpy(rgb), texels).numpy(),
            side=texels,
        )
        stack = torch.stack([torch.from_numpy(picture) for picture in pictures])
        return cls(build_pyramid(stack.to(device), replicate=True))

    @classmethod
    def from_tensors(
        cls,
        images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"] | Sequence[Tensor],
        *,
        size: Size = "auto",
        device: Device = "auto",
    ) -> "ContextBank":
        """Build from RGB tensors, uint8 or float in [0, 1], of equal or different sizes; keeps the central square."""
        device, texels = chosen_device(device), None if size == "auto" else chosen_texels(size, 0, 1)
        for i, image in enumerate(_some_images(images, "RGB")):
            check_tensor(f"images[{i}]", image, (3, "h", "w"), (torch.uint8, torch.float32))
            check_pixels(f"images[{i}]", image)
        texels = texels or chosen_texels("auto", for_contexts([tuple(i.shape[1:]) for i in images]), len(images))
        stack = torch.stack([_square(_to_uint8(image).permute(1, 2, 0).cpu(), texels) for image in images])
        return cls(build_pyramid(upload(stack, device), replicate=True))

    @classmethod
    def procedural(
        cls, kind: str = "mix", *, count: int = 512, size: Size = "auto", seed: int = 0, device: Device = "auto"
    ) -> "ContextBank":
        """Generate contexts, so that training needs no photos at all.

        Args:
            kind: ``"solid"``, ``"gradient"``, ``"noise"`` (smooth, several octaves), ``"pixel"`` (noise), ``"stripes"``
                (and checks), or ``"mix"``.
            count: number of contexts.
            size: texels per side, a power of two from 8 to 4096, or ``"auto"``, see above.
            seed: seed of the pictures.
            device: device of the bank; ``"auto"`` is a GPU if there is one.
        """
        texels, device = chosen_texels(size, MADE, 1), chosen_device(device)
        return cls(build_pyramid(procedural.render(kind, count, texels, seed, device), replicate=True))

    def __add__(self, other: "ContextBank") -> "ContextBank":
        """Both banks' contexts in one bank; sizes and devices must match."""
        if not isinstance(other, ContextBank):
            return NotImplemented
        if (self.size, self.device) != (other.size, other.device):
            fail("contexts", f"a bank of size {self.size} on {self.device}", f"size {other.size} on {other.device}",
                 f"Load both with the same device and size, such as size={max(self.size, other.size)}.")  # fmt: skip
        return ContextBank(replace(self.pyramid, atlas=torch.cat([self.pyramid.atlas, other.pyramid.atlas])))

    def split(self, share: float) -> tuple["ContextBank", "ContextBank"]:
        """Hold out a share of the contexts, evenly spaced; returns the training contexts and the held-out ones.

        Raises:
            InputError: for a share that leaves one of the two without contexts.
        """
        check_number("share", share, 0, 1)
        held = torch.tensor(held_out(len(self), share), device=self.device)
        if not held.any() or held.all():
            fail("share held out", f"one that leaves some of {len(self)} contexts on both sides", f"{share:g}")
        return (ContextBank(replace(self.pyramid, atlas=self.pyramid.atlas[~held])),
                ContextBank(replace(self.pyramid, atlas=self.pyramid.atlas[held])))  # fmt: skip

    @property
    def size(self) -> int:
        """Texels per side of the finest level."""
        return self.pyramid.size

    @property
    def device(self) -> torch.device:
        """The device of the bank."""
        return self.pyramid.atlas.device

    def __len__(self) -> int:
        return len(self.pyramid)

    def to(self, device: Device) -> "ContextBank":
        """The same bank on another device."""
        return ContextBank(self.pyramid.to(chosen_device(device)))

    def __repr__(self) -> str:
        return (f"ContextBank(contexts={len(self)}, size={self.size}, device='{self.device}', "
                f"bytes={self.pyramid.atlas.numel():_})")  # fmt: skip
