"""The definition of a recipe: scenes, hardening, network and budget, as data."""

from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import nn

from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.scenes import ScenePGD
from kornia_cag.adversary.worst import WorstOf
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.procedural import KINDS
from kornia_cag.core.checks import InputError, check_choice, check_instance, check_int, check_number, describe, fail
from kornia_cag.core.devices import Device
from kornia_cag.evaluation.prepared import Fit
from kornia_cag.loading.chain import ContextChain
from kornia_cag.loading.confusion import HardPairing
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.scenes.choices import OneOf
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.training.architectures import SIDES, Network, built
from kornia_cag.training.task import DetectionTask

MADE_UP = 256  # distractors that are drawn, if there is no folder of them


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe: scenes, hardening, budget, network.

    Attributes:
        name: what reports call it.
        size: side of the canvas, pixels.
        ranges: what varies between scenes.
        ink: colour that glyphs are painted in, (red, green, blue) from 0 to 255; None: objects keep their own.
        thickness: stroke radii to add, in texels of a bank with side 64.
        classes: glyphs that stand for the classes if there is no folder of objects.
        distractors: number of objects without a class that each scene shows beside its own, in a recipe of detection:
            what it is not to find. Made up, or from a folder.
        procedural: number of procedural contexts, besides photographs.
        kind: kind of the procedural contexts: solid, gradient, noise, pixel, stripes, or mix.
        reset: probability that a slot of the chain of earlier composites starts afresh; None: no chain. In a recipe of
            detection, objects of the earlier composite stay targets.
        hard_pairing: whether objects are put over those that the model confuses them with; needs a chain.
        scene_attack: what chooses scenes that are hard for the model; None: nothing.
        attack: what attacks pixels; None: nothing.
        strength: how far what is drawn moves from neutral, from 0 to 1, or a ramp over the epochs.
        images: budget, in composed images.
        batch_size: number of scenes per step, over all ranks.
        samples_per_class: number per epoch; None: enough for an object to meet many contexts, see :class:`PairSampler`.
        learning_rate: the highest factor of a step.
        cosine: whether the learning rate decays to 0, after a short warm-up, instead of staying constant.
        weight_decay: decay of the weights, apart from the gradient, as a share of the learning rate.
        smoothing: of the labels: a share spread over all classes.
        ema: share of the averaged weights that a step keeps; they are the final ones; 0: no averaging.
        network: convnet, which knows places, for close crops; pooled for objects anywhere; dcgan takes 64 pixels, two
            layers 28; detector for a recipe of detection.
        width: number of channels of the network's first stage.
        grey: whether the network sees grey pictures.
        local: window of an additional local contrast input, pixels, odd; 0: none.
        dropout: share of features dropped before the last layer.
        map_dropout: share of feature maps dropped.
        views: number of slightly moved copies, the picture among them, that the network averages over, once trained.
        fit: how real pictures become squares: squash, for close crops; cover, for an object anywhere in a photograph;
            a detector sees them whole.
        all_blends: whether each scene is shown once under every blend of ranges.blend, a OneOf, in the same batch.
        detection: what makes it a recipe that finds objects and their boxes; null: one that names pictures.

    Raises:
        InputError: for a field out of range, or fields that do not go together.
    """

    name: str
    size: int
    ranges: SceneRange
    ink: tuple[int, int, int] | None = None
    thickness: tuple[int, ...] = ()
    classes: str = field(default="", repr=False)
    distractors: int = 0
    procedural: int = 188
    kind: str = "mix"
    reset: float | None = 0.171
    hard_pairing: bool = False
    scene_attack: WorstOf | ScenePGD | None = None
    attack: PGD | None = None
    strength: float | Ramp = 1.0
    images: int = 1_000_000
    batch_size: int = 128
    samples_per_class: int | None = None
    learning_rate: float = 2e-3
    cosine: bool = True
    weight_decay: float = 1e-2
    smoothing: float = 0.0
    ema: float = 0.999
    network: Network = "convnet"
    width: int = 24
    grey: bool = False
    local: int = 0
    dropout: float = 0.3
    map_dropout: float = 0.0
    views: int = 1
    fit: Fit = "squash"
    all_blends: bool = False
    detection: DetectionTask | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_task()
        for name, least, most in (
            ("size", 16, 2**15), ("distractors", 0, 100), ("procedural", 1, 2**20), ("images", 1, 2**50),
            ("batch_size", 1, 2**31 - 1), ("width", 1, 2**16), ("local", 0, 2**16), ("views", 1, 1000),
        ):  # fmt: skip
            check_int(name, getattr(self, name), least, most)
        if self.samples_per_class is not None:
            check_int("samples_per_class", self.samples_per_class, 1, 2**40)
        for name, low, high in (
            ("learning_rate", 0, 100), ("weight_decay", 0, 100), ("smoothing", 0, 1), ("ema", 0, 1), ("dropout", 0, 1),
            ("map_dropout", 0, 1),
        ):  # fmt: skip
            if check_number(name, getattr(self, name), low, high) == 1 and high == 1:
                fail(name, "a number of at least 0 and below 1", "1")
        if self.learning_rate == 0:
            fail("learning_rate", "a number above 0 and at most 100", "0")
        for name, several, least, most in (("ink", self.ink or (), 0, 255), ("thickness", self.thickness, -4, 4)):
            for value in several:
                check_int(name, value, least, most)
        if self.reset is not None:
            check_number("reset", self.reset, 0, 1)
        elif self.hard_pairing:
            fail("hard_pairing", "a recipe with a chain, whose slots it orders", "none")
        if isinstance(self.strength, float | int):
            check_number("strength", self.strength, 0, 1)
        if self.local and (self.local % 2 == 0 or self.local >= 2 * self.size):
            fail("local", f"0, or an odd window on a picture of {self.size} pixels", str(self.local))

    def _check_kinds(self) -> None:
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 100 or not self.name.isprintable():
            fail("name", "a name of 1 to 100 printable characters", describe(self.name))
        none = type(None)
        for name, kinds in (
            ("ranges", (SceneRange,)), ("scene_attack", (WorstOf, ScenePGD, none)), ("attack", (PGD, none)),
            ("strength", (float, int, Ramp)), ("ink", (tuple, list, none)), ("thickness", (tuple, list)),
            ("hard_pairing", (bool,)), ("cosine", (bool,)), ("grey", (bool,)), ("classes", (str,)),
            ("all_blends", (bool,)), ("detection", (DetectionTask, none)),
        ):  # fmt: skip
            check_instance(name, getattr(self, name), kinds)
        check_choice("network", self.network, get_args(Network))
        check_choice("fit", self.fit, get_args(Fit))
        check_choice("kind", self.kind, ("mix", *KINDS))

    def _check_task(self) -> None:
        """Require that scenes, network and task go together, and that every field has an effect."""
        task, layout = self.detection, self.ranges.layout
        if (self.network == "detector") != (task is not None):
            fix = "Without detection, set network, too, such as to pooled." if task is None else "Leave it at detector."
            fail("network", "detector in a recipe of detection, and another network in others", repr(self.network), fix)
        if self.all_blends and not isinstance(self.ranges.blend, OneOf):
            fail("all_blends", "false in a recipe with a single blend", "true", "Let ranges.blend be a OneOf.")
        for name in ("reset", "scene_attack"):  # they have one picture for a scene
            if self.all_blends and getattr(self, name) is not None:
                fail("all_blends", f"false in a recipe with {name}", "true", f"Set {name} to none.")
        if task is None and layout is not None:
            fail("ranges.layout", "none, since the recipe's network is shown one object", "a layout",
                 "Set detection to find several.")  # fmt: skip
        if task is None and self.distractors:
            fail("distractors", "0, since the recipe's network is shown one object", str(self.distractors),
                 "Set detection to find some among them.")  # fmt: skip
        if task is not None:
            task.check(vars(self), layout)

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """The classes that its network tells apart, of those that the objects have."""
        return classes if self.detection is None else self.detection.names(classes)

    def pairs(
        self, objects: ObjectBank, contexts: int, *, seed: int = 0, balanced: bool = True,
        batch_size: int | None = None, alone: bool = False,
    ) -> PairSampler:  # fmt: skip
        """The sampler of its scenes.

        Args:
            objects: prepared by :meth:`objects`.
            contexts: number of contexts.
            seed: seed of all pairs.
            balanced: pair objects and contexts by balanced graphs, see :class:`PairSampler`.
            batch_size: scenes per batch, over all ranks; None: the recipe's.
            alone: whether this process has whole batches, even if there are other ranks.
        """
        several = 1 if self.detection is None else self.detection.objects
        return PairSampler(
            objects.labels.cpu(), contexts, batch_size=self.batch_size if batch_size is None else batch_size, seed=seed,
            balanced=balanced, samples_per_class=self.samples_per_class, objects_per_scene=several,
            distractors_per_scene=self.distractors, rank=0 if alone else None, world_size=1 if alone else None,
            repeats=several > 1 and (not balanced or several > len(objects.classes)),
        )  # fmt: skip

    @property
    def pictures(self) -> int:
        """Images of a scene: one, or one under each blend."""
        return len(self.ranges.blend.blends) if self.all_blends and isinstance(self.ranges.blend, OneOf) else 1

    @property
    def texels(self) -> int:
        """Texels per side of its banks: 64, or for larger canvases the power of two that holds one."""
        return min(max(64, 1 << (self.size - 1).bit_length()), 4096)

    def objects(
        self, folder: str | None, *, distractors: str | None = None, key: str | None = None, on_error: str = "raise",
        device: Device = "auto",
    ) -> ObjectBank:  # fmt: skip
        """Load the objects, or render the recipe's glyphs without a folder, and prepare them, with distractors if any.

        Args:
            folder: as for :meth:`ObjectBank.from_folder`; None: the glyphs.
            distractors: a folder of objects that are not to be found, likewise; None: made-up ones, always the same.
            key: as for :meth:`ObjectBank.from_folder`.
            on_error: as for :meth:`ObjectBank.from_folder`.
            device: device of the bank; ``"auto"`` is a GPU if there is one.

        Raises:
            InputError: without a folder if there are no glyphs, with unused distractors, and for unusable pictures.
        """
        options: dict[str, Any] = {"size": self.texels, "key": key, "on_error": on_error, "device": device}
        if distractors is not None and not self.distractors:
            fail("distractors", "a recipe that shows some", "one with distractors=0", "Set distractors, such as to 2.")
        if folder is not None:
            bank = ObjectBank.from_folder(folder, **options)
        elif self.classes:
            bank = self._glyphs(device)
        else:
            fail("folder", "a folder with one clean picture per class", "nothing",
                 "Pass its path: recipe.objects('signs/').")  # fmt: skip
        if self.ink is not None:
            bank = bank.with_ink(self.ink)
        if distractors is not None:
            beside = ObjectBank.from_folder(distractors, **options)
            if {*beside.pyramid.checksums()} & {*bank.pyramid.checksums()}:
                fail("distractors", "pictures of what is not to be found", f"some of the objects in {distractors!r}",
                     "Leave them out there.")  # fmt: skip
            bank = bank + beside.unlabelled()
        elif self.distractors:
            bank = bank + ObjectBank.procedural(MADE_UP, size=self.texels, device=device)
        radii = [radius * self.texels // 64 for radius in self.thickness]
        return bank.with_thickness(radii) if radii else bank

    def _glyphs(self, device: Device) -> ObjectBank:
        try:
            return ObjectBank.from_glyphs(self.classes, size=self.texels, device=device)
        except InputError as error:
            if error.argument != "characters":
                raise
            raise InputError("classes" + str(error).removeprefix("characters"), "classes") from error

    def contexts(
        self, folder: str | None, *, device: Device = "auto", seed: int = 0, hold_out: float = 0.0,
        on_error: str = "raise",
    ) -> ContextBank:  # fmt: skip
        """The photographs, minus the share held out, and the recipe's procedural contexts.

        Args:
            folder: of photographs; None: procedural contexts only.
            device: device of the bank; ``"auto"`` is a GPU if there is one.
            seed: seed of the procedural contexts.
            hold_out: share of the photographs to leave out, in [0, 1).
            on_error: as for :meth:`ContextBank.from_folder`.

        Raises:
            InputError: for unusable pictures, and for a share that leaves no photograph on either side.
        """
        made = ContextBank.procedural(self.kind, count=self.procedural, size=self.texels, seed=seed, device=device)
        if folder is None:
            return made
        photos = ContextBank.from_folder(folder, size=self.texels, on_error=on_error, device=device)
        return (photos.split(hold_out)[0] if hold_out else photos) + made

    def chain(self, classes: int) -> ContextChain | None:
        """A new, empty chain, or None."""
        if self.reset is None:
            return None
        seen = 0 if self.detection is None else 1  # what a detector sees it has to find
        return ContextChain(self.reset, generations=seen, pairing=HardPairing(classes) if self.hard_pairing else None)

    def model(self, classes: int) -> nn.Module:
        """A new, untrained network.

        Raises:
            InputError: for a canvas that the network does not accept.
        """
        if (side := SIDES.get(self.network, self.size)) != self.size:
            fail("size", f"{side}, which the network of {self.name!r} takes", str(self.size),
                 "Keep it, or train another network with function=.")  # fmt: skip
        net = built(self.network, classes, self.size, width=self.width, grey=self.grey, dropout=self.dropout,
                    map_dropout=self.map_dropout, local=self.local)  # fmt: skip
        for parameter in net.parameters():
            if parameter.ndim == 4:  # convolutions are faster with the channels of a pixel together
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return net
