"""The definition of a recipe: scenes, hardening, network and budget, as data."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.scenes import ScenePGD, WorstOf
from kornia_cag.adversary.stage import Adversary
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import fail
from kornia_cag.core.devices import Device
from kornia_cag.loading.chain import ContextChain
from kornia_cag.loading.confusion import HardPairing
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.training.architectures import convnet, dcgan_encoder, pooled, two_layers

Network = Literal["convnet", "pooled", "dcgan", "two layers"]
SIDES: dict[Network, int] = {"dcgan": 64, "two layers": 28}  # the only side these networks accept, pixels


@dataclass(frozen=True)
class Recipe:
    """A training recipe: scenes, hardening, budget."""

    name: str
    size: int  # canvas side, pixels
    ranges: SceneRange
    ink: tuple[int, int, int] | None = None  # paint all objects in one colour: glyphs
    thickness: tuple[int, ...] = ()  # stroke radii to add, in texels of a bank with side 64
    reset: float | None = 0.171  # of the context chain; None: no chain
    hard_pairing: bool = False  # put objects over those the model confuses them with
    scene_attack: WorstOf | ScenePGD | None = None
    attack: PGD | None = None
    strength: float | Ramp = 1.0
    images: int = 1_000_000  # budget
    batch_size: int = 128
    samples_per_class: int | None = None  # per epoch; None: PairSampler's default
    learning_rate: float = 2e-3
    cosine: bool = True  # decay the learning rate to 0, after a short warm-up; else keep it constant
    weight_decay: float = 1e-2
    smoothing: float = 0.0  # of the labels: a share spread over all classes
    ema: float = 0.999  # decay of the averaged weights, which are the final ones
    network: Network = "convnet"
    width: int = 24
    grey: bool = False
    local: int = 0  # window of an additional local contrast input, pixels; 0 for none
    dropout: float = 0.3
    map_dropout: float = 0.0
    views: int = 1  # views averaged per real picture, see Averaged
    procedural: int = 188  # number of procedural contexts, besides photographs
    kind: str = "mix"  # kind of the procedural contexts
    classes: str = field(default="", repr=False)  # glyphs to use if there are no objects

    @property
    def adversaries(self) -> tuple[Adversary, ...]:
        """The adversaries that harden a batch, in order: scenes first, then pixels."""
        return tuple(stage for stage in (self.scene_attack, self.attack) if stage is not None)

    def at_precision(self, dtype: torch.dtype | None) -> "Recipe":
        """The same recipe, with autocast of its adversaries' forward passes to ``dtype``; None: as in the caller."""
        scenes, pixels = self.scene_attack, self.attack
        return replace(
            self,
            scene_attack=None if scenes is None else replace(scenes, autocast=dtype),
            attack=None if pixels is None else replace(pixels, autocast=dtype),
        )

    @property
    def texels(self) -> int:
        """Texels per side of its banks: 64, or for larger canvases the power of two that holds one."""
        return min(max(64, 1 << (self.size - 1).bit_length()), 4096)

    def objects(self, folder: str | None, *, key: str | None = None, device: Device = "auto") -> ObjectBank:
        """Load the objects, or render the recipe's glyphs without a folder, and prepare them.

        Raises:
            InputError: without a folder if the recipe has no glyphs, and for unusable pictures.
        """
        if folder is not None:
            bank = ObjectBank.from_folder(folder, size=self.texels, key=key, device=device)
        elif self.classes:
            bank = ObjectBank.from_glyphs(self.classes, size=self.texels, device=device)
        else:
            fail("folder", "a folder with one clean picture per class", "nothing",
                 "Pass its path: recipe.objects('signs/').")  # fmt: skip
        if self.ink is not None:
            bank = bank.with_ink(self.ink)
        radii = [radius * self.texels // 64 for radius in self.thickness]
        return bank.with_thickness(radii) if radii else bank

    def contexts(
        self, folder: str | None, *, device: Device = "auto", seed: int = 0, hold_out: float = 0.0
    ) -> ContextBank:
        """The photographs, minus the share held out, and the recipe's procedural contexts."""
        made = ContextBank.procedural(self.kind, count=self.procedural, size=self.texels, seed=seed, device=device)
        if folder is None:
            return made
        photos = ContextBank.from_folder(folder, size=self.texels, device=device)
        return (photos.split(hold_out)[0] if hold_out else photos) + made

    def chain(self, classes: int) -> ContextChain | None:
        """A new, empty chain, or None."""
        if self.reset is None:
            return None
        return ContextChain(self.reset, pairing=HardPairing(classes) if self.hard_pairing else None)

    def model(self, classes: int) -> nn.Module:
        """A new, untrained network.

        Raises:
            InputError: for a canvas that the network does not accept.
        """
        if (side := SIDES.get(self.network, self.size)) != self.size:
            fail("size", f"{side}, which the network of {self.name!r} takes", str(self.size),
                 "Keep it, or train another network with function=.")  # fmt: skip
        if self.network == "convnet":
            net = convnet(classes, self.size, width=self.width, grey=self.grey, dropout=self.dropout,
                          map_dropout=self.map_dropout, local=self.local)  # fmt: skip
        elif self.network == "pooled":
            net = pooled(classes, width=self.width, grey=self.grey, dropout=self.dropout,
                         map_dropout=self.map_dropout, local=self.local)  # fmt: skip
        else:
            net = dcgan_encoder(classes, self.width) if self.network == "dcgan" else two_layers(classes)
        for parameter in net.parameters():
            if parameter.ndim == 4:  # convolutions are faster with the channels of a pixel together
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return net
