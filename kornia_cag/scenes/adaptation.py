"""Finishes that make composites look like unlabelled photos of where a model will be used: by amplitudes or colours."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kornia_cag.core.checks import check_instance, check_range, check_tensor
from kornia_cag.core.draws import Draws
from kornia_cag.core.formats import memory_format
from kornia_cag.core.precision import FLOATS, widen
from kornia_cag.scenes.lab import Moments, lab_to_rgb, rgb_to_lab, with_moments
from kornia_cag.scenes.matching import low_pass, with_amplitudes, with_histograms
from kornia_cag.scenes.references import References

# Variance in Lab: deviations below half a unit, which nobody sees, are not blown up to be those of a photo.
FLOOR = 0.25


@dataclass(frozen=True)
class FourierMix:
    """Slow changes of light and colour are as strong as in a photo: FDA (Yang and Soatto 2020).

    At the lowest frequencies amplitudes become those of a photo, while phases stay, and with them all shapes. The
    window of frequencies is symmetric; the published one was not, which left an imaginary part.

    A stage after the camera: ``SceneRange(finish=(FourierMix(References("photos/")),))``. Each sample draws a photo,
    ``beta`` and ``strength`` by its key.

    Attributes:
        references: the photos.
        beta: half a side of the window, as a share of the picture's shorter side; at 0 it holds the mean alone.
        strength: share of the change that is made: 0 leaves a picture as it is, at 1 it has the photo's amplitudes.
    """

    references: References
    _: KW_ONLY
    beta: tuple[float, float] = (0.0, 0.05)
    strength: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self.references, self.strength)
        check_range("beta", self.beta, 0, 0.5)

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Change the amplitudes of each picture; may leave [0, 1], to which stages are clipped."""
        draws = Draws(keys)

        def changed(images: Tensor, which: Tensor) -> Tensor:
            short = min(images.shape[2:])
            radius = min(math.ceil(self.beta[1] * short), (short - 1) // 2)
            reach = (short * draws.uniform("fourier.beta", *self.beta)).to(images.dtype)
            amplitudes = self.references.amplitudes(radius)[which].to(images.dtype)
            return with_amplitudes(images, amplitudes, low_pass(radius, reach))

        return _adapted(images, draws, self.references, "fourier", self.strength, changed)


@dataclass(frozen=True)
class _FromPhotos:
    """What gives pictures something of photos, as far as a drawn strength goes."""

    references: References
    _: KW_ONLY
    strength: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self.references, self.strength)


@dataclass(frozen=True)
class LabStatistics(_FromPhotos):
    """Brightness, contrast and colours are spread as in a photo: means and covariances in CIE Lab.

    L gets a photo's mean and deviation, a and b its means and covariance. Sources: Reinhard et al. 2001; with
    covariances, for detectors, arXiv 2005.12551. What is nearly grey stays so.

    A stage after the camera, like :class:`FourierMix`.

    Attributes:
        references: the photos.
        strength: share of the change that is made: 0 leaves a picture as it is, at 1 it has the photo's statistics.
    """

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Change the colours of each picture; may leave [0, 1], to which stages are clipped."""

        def changed(images: Tensor, which: Tensor) -> Tensor:
            known = self.references.moments
            mean, light, color = (part[which].to(images.dtype) for part in (known.mean, known.light, known.color))
            return lab_to_rgb(with_moments(rgb_to_lab(images), Moments(mean, light, color), FLOOR))

        return _adapted(images, Draws(keys), self.references, "lab", self.strength, changed)


@dataclass(frozen=True)
class Histograms(_FromPhotos):
    """Red, green and blue each have the histogram of a photo: 256 bins per sample and channel.

    A stage after the camera, like :class:`FourierMix`. It changes more than :class:`LabStatistics`: colours are matched
    channel by channel, so a picture with few colours may get others than the photo has.

    Attributes:
        references: the photos.
        strength: share of the change that is made: 0 leaves a picture as it is, at 1 it has the photo's histograms.
    """

    def __call__(self, images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
        """Change the values of each picture; a gradient takes the curve that maps them as given."""

        def changed(images: Tensor, which: Tensor) -> Tensor:
            return with_histograms(images, self.references.shares[which].to(images.dtype))

        return _adapted(images, Draws(keys), self.references, "histograms", self.strength, changed)


def _check(references: References, strength: tuple[float, float]) -> None:
    check_instance("references", references, References, 'Pass References("photos/").')
    check_range("strength", strength, 0, 1)


def _adapted(
    images: Float[Tensor, "b 3 h w"], draws: Draws, references: References, name: str, strength: tuple[float, float],
    changed: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
    """Images on their way to ``changed(images, photos)``, as far as each sample's strength goes."""
    check_tensor("images", images, ("b", 3, "h", "w"), FLOATS, references.device,
                 "Images are float BCHW in [0, 1], on the device of the references.")  # fmt: skip
    check_tensor("keys", draws.keys, (len(images),), torch.int64, images.device, "One key per image: see sample_keys.")
    if not images.numel():
        return images.clone()
    with torch.autocast(images.device.type, enabled=False):
        wide = widen(images).contiguous()
        which = (draws.uniform(f"{name}.reference") * len(references)).long().clamp(max=len(references) - 1)
        share = draws.uniform(f"{name}.strength", *strength).to(wide.dtype)[:, None, None, None]
        found = torch.lerp(wide, changed(wide, which), share)
        return found.to(images.dtype).contiguous(memory_format=memory_format(images))
