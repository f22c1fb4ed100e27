"""The networks of recipes. Normalisation is part of the model, so attacks see pictures in [0, 1]."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.enhance import equalize
from torch import Tensor, nn

from kornia_cag.training.detector import Detector

Network = Literal["convnet", "pooled", "dcgan", "two layers", "detector"]
SIDES: dict[Network, int] = {"dcgan": 64, "two layers": 28}  # the only side these networks accept, pixels


def built(
    kind: Network, classes: int, size: int, *, width: int, grey: bool, dropout: float, map_dropout: float, local: int
) -> nn.Module:
    """A new, untrained network of a kind for pictures of ``size`` pixels; other fields as in a recipe."""
    if kind == "detector":
        return Detector(classes, width=width)
    if kind == "convnet":
        return convnet(classes, size, width=width, grey=grey, dropout=dropout, map_dropout=map_dropout, local=local)
    if kind == "pooled":
        return pooled(classes, width=width, grey=grey, dropout=dropout, map_dropout=map_dropout, local=local)
    return dcgan_encoder(classes, width) if kind == "dcgan" else two_layers(classes)


class Standardize(nn.Module):
    """Subtract each picture's own mean and divide by its own standard deviation, over all channels and pixels.

    Removes exposure and haze, so that dark pictures look like bright ones to the layers that follow.

    Args:
        grey: average the channels first and return one channel.
        floor: added to the variance, so that a flat picture stays flat.
    """

    def __init__(self, grey: bool = False, floor: float = 4e-4) -> None:
        super().__init__()
        self.grey, self.floor = grey, floor

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Standardise a batch; ``d`` is 1 for ``grey``, else ``c``."""
        images = images.float()
        if self.grey:
            images = images.mean(dim=1, keepdim=True)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        variance = ((images - mean) ** 2).mean(dim=(1, 2, 3), keepdim=True)
        return (images - mean) / (variance + self.floor).sqrt()


class LocalContrast(nn.Module):
    """Brightness minus its local mean, divided by its local deviation: shows detail despite shade and glare.

    Source: local contrast normalisation, Jarrett et al., 2009, here with a box window.

    Args:
        side: side of the window, pixels, odd.
        floor: share of the picture's mean local variance added to the local one, so that flat parts stay flat.
    """

    def __init__(self, side: int = 11, floor: float = 0.1) -> None:
        super().__init__()
        self.side, self.floor = side, floor

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Normalise a batch."""
        brightness = images.float().mean(dim=1, keepdim=True)
        mean = self._around(brightness)
        variance = (self._around(brightness**2) - mean**2).clamp(min=0)
        usual = variance.mean(dim=(1, 2, 3), keepdim=True)
        normal: Tensor = (brightness - mean) / (variance + self.floor * usual + 1e-5).sqrt()
        return normal

    def _around(self, values: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        reach = self.side // 2
        return F.avg_pool2d(F.pad(values, (reach, reach, reach, reach), mode="reflect"), self.side, 1)


class Inputs(nn.Module):
    """The outputs of several modules on the same pictures, concatenated as channels."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.views = nn.ModuleList(modules)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Concatenate along the channels."""
        return torch.cat([module(images) for module in self.views], dim=1)


class Pooled(nn.Module):
    """The largest value of each channel over all places, and the mean: twice as many numbers as channels."""

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Pool a batch."""
        return torch.cat([maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))], dim=1)


def convnet(
    classes: int,
    size: int,
    *,
    width: int = 32,
    grey: bool = False,
    dropout: float = 0.3,
    map_dropout: float = 0.0,
    local: int = 0,
) -> nn.Sequential:
    """A plain convolutional classifier: stride 2 three times, width doubling, standardised input.

    Args:
        classes: number of classes.
        size: canvas side, pixels; at least 16.
        width: channels of the first layer.
        grey: use brightness only.
        dropout: before the last layer.
        map_dropout: of whole feature maps after every convolution, so that the network does not rely on a single
            detector (Tompson et al., 2015).
        local: window of an additional :class:`LocalContrast` input, pixels; 0 for none.
    """
    w, side = width, -(-size // 8)
    seen, channels = _inputs(grey, local)
    return nn.Sequential(
        seen,
        *_layer(channels, w, dropped=map_dropout),
        *_layer(w, 2 * w, 2, dropped=map_dropout),
        *_layer(2 * w, 2 * w, dropped=map_dropout),
        *_layer(2 * w, 4 * w, 2, dropped=map_dropout),
        *_layer(4 * w, 4 * w, dropped=map_dropout),
        *_layer(4 * w, 8 * w, 2, dropped=map_dropout),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * w * side * side, classes),
    )


def pooled(
    classes: int,
    *,
    width: int = 24,
    grey: bool = False,
    dropout: float = 0.2,
    map_dropout: float = 0.0,
    local: int = 0,
) -> nn.Sequential:
    """A convolutional classifier of objects anywhere in a picture of any size, and however small.

    The last layer sees how strong each feature is (:class:`Pooled`), not where: stride 2 three times, first of all to
    afford a finer canvas.

    Args:
        classes: number of classes.
        width: as for :func:`convnet`, like all that follow.
        grey: use brightness only.
        dropout: before the last layer.
        map_dropout: of whole feature maps.
        local: window of an additional input, pixels.
    """
    w = width
    seen, channels = _inputs(grey, local)
    return nn.Sequential(
        seen,
        *_layer(channels, w, 2, side=5, dropped=map_dropout),
        *_layer(w, 2 * w, dropped=map_dropout),
        *_layer(2 * w, 2 * w, 2, dropped=map_dropout),
        *_layer(2 * w, 4 * w, dropped=map_dropout),
        *_layer(4 * w, 4 * w, 2, dropped=map_dropout),
        *_layer(4 * w, 8 * w, dropped=map_dropout),
        Pooled(),
        nn.Dropout(dropout),
        nn.Linear(16 * w, classes),
    )


def _inputs(grey: bool, local: int) -> tuple[nn.Module, int]:
    """What the first layer sees, and its number of channels."""
    inputs = Inputs(Standardize(grey), LocalContrast(local)) if local else Standardize(grey)
    return inputs, (1 if grey else 3) + bool(local)


def _layer(c_in: int, c_out: int, stride: int = 1, *, side: int = 3, dropped: float = 0.0) -> list[nn.Module]:
    convolution = nn.Conv2d(c_in, c_out, side, stride, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True), *([nn.Dropout2d(dropped)] if dropped else [])]


class Equalize(nn.Module):
    """Stretch each channel's contrast, clipping one percent at both ends, and equalise its histogram.

    Gradients pass through unchanged.
    """

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Equalise a batch in [0, 1]."""
        with torch.no_grad():
            values = images.float().flatten(2)
            low, high = torch.quantile(
                values, torch.tensor([0.01, 0.99], dtype=values.dtype, device=values.device), dim=2, keepdim=True
            )
            stretched = ((values - low) / (high - low).clamp(min=1 / 255)).clamp(0, 1)
            even: Tensor = equalize(stretched.view(images.shape)) - images
        return images + even


def dcgan_encoder(classes: int, width: int = 128) -> nn.Sequential:
    """The discriminator of DCGAN (Radford et al., 2016) for 64×64 as an encoder, and a linear layer without bias.

    The network of Jin and Rinard's signs, including their histogram equalisation.
    """

    def layer(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]

    w = width
    return nn.Sequential(
        Equalize(),
        nn.Conv2d(3, w, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        *layer(w, 2 * w),
        *layer(2 * w, 4 * w),
        *layer(4 * w, 8 * w),
        nn.Conv2d(8 * w, 100, 4, bias=False),
        nn.Flatten(),
        nn.Linear(100, classes, bias=False),
    )


class _Scaled(nn.Module):
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        return (images.mean(dim=1, keepdim=True) - 0.1307) / 0.3801


def two_layers(classes: int) -> nn.Sequential:
    """Two convolutions and two linear layers for 28×28: the network of Jin and Rinard's digits."""
    return nn.Sequential(
        _Scaled(),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 128, 3, padding=1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 14 * 14, 256, bias=False),
        nn.BatchNorm1d(256),
        nn.ReLU(inplace=True),
        nn.Linear(256, classes),
    )
