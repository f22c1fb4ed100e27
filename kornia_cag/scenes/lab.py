"""CIE Lab: colours in a space where statistics mean something, and what is known about those of a picture."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Linear sRGB to XYZ, in units of the white point: the rows sum to 1, so that greys have a = b = 0.
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ /= _XYZ.sum(axis=1, keepdims=True)
_TO_XYZ = _XYZ.tolist()
_TO_RGB = np.linalg.inv(_XYZ).tolist()
_KNEE = 6 / 29  # below it the cube root is replaced by a line


def rgb_to_lab(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """SRGB in [0, 1] to CIE Lab under D65: L in [0, 100], a and b about -100 to 100.

    Elementwise, with constants that are no tensors: kornia's conversion copies its matrices to the device each time,
    which waits, and multiplies them in a way that may round differently in another batch. Differentiable.
    """
    power = _power((images.clamp(min=0.04045) + 0.055) / 1.055, 2.4)
    linear = torch.where(images > 0.04045, power, images / 12.92)
    x, y, z = (torch.where(t > _KNEE**3, _power(t.clamp(min=_KNEE**3), 1 / 3), t / (3 * _KNEE**2) + 4 / 29)
               for t in _times(_TO_XYZ, linear))  # fmt: skip
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The inverse of :func:`rgb_to_lab`; colours that sRGB cannot show lie beyond [0, 1]."""
    y = (lab[:, 0] + 16) / 116
    roots = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], dim=1)
    linear = torch.stack(_times(_TO_RGB, torch.where(roots > _KNEE, roots**3, (roots - 4 / 29) * (3 * _KNEE**2))), 1)
    power = 1.055 * _power(linear.clamp(min=0.0031308), 1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, power, 12.92 * linear)


def _power(values: Float[Tensor, "*b"], exponent: float) -> Float[Tensor, "*b"]:
    """Powers of positive numbers. On a CPU torch's own round differently where a row's last few fill no vector."""
    return (exponent * values.log()).exp()


def _times(matrix: list[list[float]], images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b h w"]]:
    first, second, third = images.unbind(1)
    return [p * first + q * second + r * third for p, q, r in matrix]


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and covariances of pictures in Lab.

    Attributes:
        mean: (b, 3); of L, a and b.
        light: (b,); variance of L.
        color: (b, 3); covariance of a and b: of a, of a with b, of b.
    """

    mean: Float[Tensor, "b 3"]
    light: Float[Tensor, " b"]
    color: Float[Tensor, "b 3"]


def moments(lab: Float[Tensor, "b 3 h w"]) -> Moments:
    """Means and covariances over all pixels of each picture."""
    mean = lab.mean(dim=(2, 3))
    light, a, b = (lab - mean[:, :, None, None]).unbind(1)
    products = torch.stack([light * light, a * a, a * b, b * b], dim=1).mean(dim=(2, 3))
    return Moments(mean, products[:, 0], products[:, 1:])


def with_moments(lab: Float[Tensor, "b 3 h w"], wanted: Moments, floor: float) -> Float[Tensor, "b 3 h w"]:
    """Pictures in Lab with other moments, by an affine map of L and one of a and b together.

    Of all maps that give a and b the wanted covariance, this one moves colours least (Pitié and Kokaram 2007). It is
    the geometric mean of that covariance and the inverse of the picture's own, which for 2 × 2 matrices is
    ``M * sqrt(b / (a * det M))`` with ``M = adj(A) / a + B / b``, ``a`` and ``b`` the roots of their determinants.

    Args:
        lab: the pictures.
        wanted: moments for each of them.
        floor: variance added on both sides: what deviates by less than its root is not blown up.
    """
    own = moments(lab)
    gain = ((wanted.light + floor) / (own.light + floor)).sqrt()
    (p, q, r), (s, t, u) = own.color.unbind(1), wanted.color.unbind(1)
    p, r, s, u = p + floor, r + floor, s + floor, u + floor
    old, new = (p * r - q * q).sqrt(), (s * u - t * t).sqrt()
    aa, ab, bb = r / old + s / new, t / new - q / old, p / old + u / new
    scale = (new / (old * (aa * bb - ab * ab))).sqrt()
    light, a, b = (lab - own.mean[:, :, None, None]).unbind(1)
    gain, aa, ab, bb = (v[:, None, None] for v in (gain, scale * aa, scale * ab, scale * bb))
    return torch.stack([gain * light, aa * a + ab * b, ab * a + bb * b], dim=1) + wanted.mean[:, :, None, None]
