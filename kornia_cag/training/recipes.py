"""Recipes: what to vary, how much, and why, for digits and signs. A recipe is data; :mod:`.train` runs it."""

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
from kornia_cag.scenes.blends import Average, Difference, Hard
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.training.architectures import convnet, dcgan_encoder, two_layers

Network = Literal["convnet", "dcgan", "two layers"]
SIDES: dict[Network, int] = {"dcgan": 64, "two layers": 28}  # the only side that these networks take, pixels


@dataclass(frozen=True)
class Recipe:
    """A training recipe: scenes, hardening, budget."""

    name: str
    size: int  # canvas side, pixels
    ranges: SceneRange
    ink: tuple[int, int, int] | None = None  # paint all objects in one colour: glyphs
    thickness: tuple[int, ...] = ()  # stroke radii to add, texels of a bank of side 64
    reset: float | None = 0.171  # of the context chain; None: no chain
    hard_pairing: bool = False  # put objects over those that the model mistakes them for
    scene_attack: WorstOf | ScenePGD | None = None
    attack: PGD | None = None
    strength: float | Ramp = 1.0
    images: int = 1_000_000  # budget
    batch_size: int = 128
    samples_per_class: int | None = None  # of an epoch; None: as PairSampler chooses
    learning_rate: float = 2e-3
    cosine: bool = True  # let the learning rate fall to 0, after a short start; else it stays
    weight_decay: float = 1e-2
    smoothing: float = 0.0  # of the labels: a share spread over all classes
    ema: float = 0.999  # decay of the averaged weights, which are the result
    network: Network = "convnet"
    width: int = 24
    grey: bool = False
    local: int = 0  # window of local contrast as a further input, pixels; 0 for none
    dropout: float = 0.3
    map_dropout: float = 0.0
    views: int = 1  # of a real picture that are averaged, see Averaged
    procedural: int = 188  # procedural contexts, beside the given ones
    kind: str = "mix"  # of the procedural contexts
    classes: str = field(default="", repr=False)  # glyphs that stand in where no objects are given

    @property
    def adversaries(self) -> tuple[Adversary, ...]:
        """What hardens a batch, in its order: the adversary of scenes, then the attack on pixels."""
        return tuple(stage for stage in (self.scene_attack, self.attack) if stage is not None)

    @property
    def texels(self) -> int:
        """Texels a side of its banks: 64, and on larger canvases the power of two that holds one."""
        return min(max(64, 1 << (self.size - 1).bit_length()), 4096)

    def objects(self, folder: str | None, *, key: str | None = None, device: Device = "auto") -> ObjectBank:
        """Load the objects, or render the recipe's glyphs where no folder is given, and prepare them."""
        if folder is not None:
            bank = ObjectBank.from_folder(folder, size=self.texels, key=key, device=device)
        elif self.classes:
            bank = ObjectBank.from_glyphs(self.classes, size=self.texels, device=device)
        else:
            fail("--objects", "a folder with one clean picture per class", "nothing",
                 "Pass --objects FOLDER.")  # fmt: skip
        if self.ink is not None:
            bank = bank.with_ink(self.ink)
        radii = [radius * self.texels // 64 for radius in self.thickness]
        return bank.with_thickness(radii) if radii else bank

    def contexts(
        self, folder: str | None, *, device: Device = "auto", seed: int = 0, hold_back: float = 0.0
    ) -> ContextBank:
        """The given photographs, less a share that is held back, and the recipe's procedural contexts."""
        made = ContextBank.procedural(self.kind, count=self.procedural, size=self.texels, seed=seed, device=device)
        if folder is None:
            return made
        photos = ContextBank.from_folder(folder, size=self.texels, device=device)
        return (photos.split(hold_back)[0] if hold_back else photos) + made

    def chain(self, classes: int) -> ContextChain | None:
        """A fresh, empty chain, or none."""
        if self.reset is None:
            return None
        return ContextChain(self.reset, pairing=HardPairing(classes) if self.hard_pairing else None)

    def model(self, classes: int) -> nn.Module:
        """A fresh, untrained network.

        Raises:
            InputError: for a canvas that the network does not take.
        """
        if (side := SIDES.get(self.network, self.size)) != self.size:
            fail("--size", f"{side}, which the network of {self.name!r} takes", str(self.size),
                 "Leave it out, or train another network by --model.")  # fmt: skip
        if self.network == "convnet":
            net = convnet(classes, self.size, width=self.width, grey=self.grey, dropout=self.dropout,
                          map_dropout=self.map_dropout, local=self.local)  # fmt: skip
        else:
            net = dcgan_encoder(classes, self.width) if self.network == "dcgan" else two_layers(classes)
        for parameter in net.parameters():
            if parameter.ndim == 4:  # convolutions are faster on pixels that lie together
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return net


SCENE_GRADIENT = ScenePGD(steps=1, fraction=0.5)  # as little of it as pays

RIGID_SIGNS = SceneRange(
    pose=PoseRange(
        scale=(0.46, 0.92),  # a detector's crop: the sign, and a border that is half of it around far signs
        aspect=(0.85, 1.18),  # crops are not square, and get squeezed into one
        angle=(-12, 12),  # poles lean
        shear=(-6, 6),
        translate=(-0.08, 0.08),
        perspective=(-0.2, 0.2),  # seen from a car
    ),
    color=ColorRange(
        exposure=(-3.5, 0.9),  # from deep shade to overexposed
        brightness=(0.9, 1.1),
        contrast=(0.5, 1.2),
        saturation=(0.2, 1.6),  # faded paint, grey days
        hue=(-10, 10),
        tint=(-0.2, 0.2),  # evening light, white balance
        veil=(0.0, 0.35),  # haze and glare
        illumination=(-0.4, 0.4),  # half in shade
    ),
    camera=CameraRange(
        low_resolution=(0.0, 1.6),  # far signs are 15 pixels wide
        blur=0.6,
        gaussian=(0.3, 1.5),
        box=(1, 4),
        motion=(1, 6),  # a moving car
        noise=(0.0, 0.025),
    ),
)
"""The scenes of signs that keep their shape, which CPU loaders can make, too."""

SIGNS = Recipe(
    name="signs",
    size=40,
    ranges=replace(
        RIGID_SIGNS,
        pose=replace(
            RIGID_SIGNS.pose,
            elastic=(0.0, 0.07),  # legends are narrower, smaller or set elsewhere on signs of another year
            wavelength=(1.0, 3.0),
            waves=4,
        ),
        camera=replace(RIGID_SIGNS.camera, grain=(0.0, 0.025)),  # small pictures are enlarged, noise and all
    ),
    scene_attack=SCENE_GRADIENT,  # half of the scenes are a little harder than chance would have them
    images=900_000,
    width=32,
    local=11,
)

HARDENED_SIGNS = replace(
    SIGNS,
    name="hardened-signs",
    ranges=replace(
        RIGID_SIGNS,
        pose=replace(RIGID_SIGNS.pose, scale=(0.7, 1.0)),  # cropped closely: less room for an adversary
        color=replace(RIGID_SIGNS.color, exposure=(-2.0, 0.6)),  # what is all but black has nothing to hold on to
    ),
    reset=0.1,
    scene_attack=None,
    # Some contexts change a little, others beyond recognition. The rest stays clean, or a network would learn to read
    # the label from the attack, which knows it.
    attack=PGD(eps=1.0, eps_min=8 / 255, eps_object=0.0, steps=3, alpha=0.5, random_start=False, fraction=0.7),
    images=200_000,
)

DIGITS = Recipe(
    name="digits",
    size=28,
    ink=(255, 255, 255),
    thickness=(-1, 1, 2, 3),
    ranges=SceneRange(
        pose=PoseRange(
            aspect=(0.6, 1.1),  # hands write narrower than fonts
            angle=(-15, 15),
            shear=(-30, 40),  # slant, more often to the right
            perspective=(-0.4, 0.4),  # one part large, another small: the bar of a 4 moves up
            elastic=(0.0, 0.25),  # no two strokes are alike
            wavelength=(1.5, 4.0),
            hole=(0.0, 0.25),  # broken strokes: the open top of a 4
            holes=2,
        ),
        framing=Framing(),
        context_color=ColorRange(brightness=(0.0, 0.4), contrast=(1.0, 1.0)),  # paper is darker than ink, here
        color=ColorRange(brightness=(0.7, 1.0), contrast=(1.0, 1.0)),
        camera=CameraRange(blur=0.3, gaussian=(0.3, 0.8), noise=(0.0, 0.05)),
        blend=Average(),
    ),
    reset=0.212,
    images=200_000,  # with more, the network learns too much of the glyphs' exact form
    learning_rate=2e-3,
    weight_decay=0.1,
    smoothing=0.1,
    width=32,
    grey=True,
    dropout=0.4,
    map_dropout=0.15,  # no stroke is to decide alone: hands leave out or bend any of them
    views=9,
    classes="0123456789",
)

PHOTO_DIGITS = replace(
    DIGITS,
    name="photo-digits",
    ranges=replace(
        DIGITS.ranges,
        context_color=ColorRange(brightness=(0.6, 1.2)),
        color=ColorRange(brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=(0.0, 0.0)),
        blend=Difference(),  # each stroke is the negative of what it covers, as in MNIST-M
    ),
    reset=None,  # an earlier digit would show as much as the one over it
    grey=False,
)

# What Jin and Rinard's code does, as far as this library's ranges say it. Apart from that: perspective is drawn as a
# tilt, not as displaced corners; digits are not made black and white after their blur; the largest gradient of an
# attack's step is that of the picture, not of the batch; weights decay apart from the gradient; digits' contexts, there
# grey and at most half as bright as ink, become so while the curriculum rises.

PAPER_SIGNS = Recipe(
    name="paper-signs",
    size=64,
    ranges=SceneRange(
        pose=PoseRange(
            scale=(0.65, 1.05),
            aspect=(1.0, 1.0),
            angle=(-5, 5),
            shear=(-5, 5),
            translate=(-0.15, 0.15),
            perspective=(-0.33, 0.33),
        ),
        crop=(1.0, 1.0),
        color=ColorRange(
            brightness=(0.2, 1.8),
            exposure=(-0.56, 0.57),  # a factor of 0.68 to 1.48
            contrast=(0.2, 1.8),
            saturation=(0.2, 1.8),
            hue=(-18, 18),
        ),
        camera=CameraRange(blur=1.0, kinds=("box",), box=(1.0, 9.0), taps=9),
        blend=Hard(),
    ),
    reset=0.171,
    attack=PGD(eps=16 / 255, eps_object=4 / 255, steps=8, random_start=False, schedule="paper"),
    strength=Ramp(2, 160),
    images=1_290_000,
    batch_size=215,
    samples_per_class=100,
    learning_rate=1e-4,
    cosine=False,
    weight_decay=1e-4,
    ema=0.0,
    network="dcgan",
    width=128,
    procedural=100,
    kind="pixel",
)

PAPER_DIGITS = Recipe(
    name="paper-digits",
    size=28,
    ink=(255, 255, 255),
    ranges=SceneRange(
        pose=PoseRange(
            scale=(0.75, 1.05),
            aspect=(1.0, 1.0),
            angle=(-15, 15),
            shear=(-40, 40),
            translate=(-0.15, 0.15),
            perspective=(-0.33, 0.33),
        ),
        crop=(1.0, 1.0),
        color=ColorRange(brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=(0.0, 0.0)),
        context_color=ColorRange(brightness=(0.5, 0.5), contrast=(1.0, 1.0), saturation=(0.0, 0.0), hue=(0.0, 0.0)),
        camera=CameraRange(blur=1.0, kinds=("box",), box=(1.0, 5.0)),
        blend=Average(),
    ),
    reset=0.212,
    attack=PGD(eps=12.8 / 255, steps=8, random_start=False, schedule="paper"),
    strength=Ramp(0, 50),
    images=300_000,
    batch_size=50,
    samples_per_class=100,
    learning_rate=1e-4,
    cosine=False,
    weight_decay=1e-4,
    ema=0.0,
    network="two layers",
    grey=True,
    procedural=100,
    kind="pixel",
    classes="0123456789",
)

RECIPES = {recipe.name: recipe for recipe in (DIGITS, SIGNS, HARDENED_SIGNS, PHOTO_DIGITS, PAPER_DIGITS, PAPER_SIGNS)}
