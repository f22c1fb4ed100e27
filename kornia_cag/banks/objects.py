"""Objects: cut-outs with classes, loaded once and kept on one device.

``ObjectBank`` holds premultiplied RGBA, so that resampling never mixes in the colour of transparent pixels;
``ContextBank`` holds RGB. Both hold mip pyramids in uint8. Nothing is read from disk after construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from kornia.morphology import dilation, erosion
from torch import Tensor

from kornia_cag.banks import folders, hints
from kornia_cag.banks.fitting import _as_ids, _check_alpha, _fit, _longest, _some_images, _to_uint8
from kornia_cag.banks.furniture import furniture
from kornia_cag.banks.pyramid import Pyramid, build_pyramid
from kornia_cag.banks.shapes import hulls, shape_points
from kornia_cag.banks.texels import EXTENT, GLYPHS, MADE, Size, chosen_texels, file_sides, for_objects
from kornia_cag.core.checks import check_int, check_pixels, check_tensor, describe, fail
from kornia_cag.core.devices import Device, chosen_device

FINER = 4  # times a bank's side: the side of a drawing, which has hard edges


@dataclass(frozen=True, eq=False, repr=False)
class ObjectBank:
    """Cut-out objects with their classes.

    Object ``i`` has class ``labels[i]``, or none if that is -1, and comes in ``variants`` stroke thicknesses; variant
    ``v`` is picture ``i * variants + v`` of the pyramid, from the thickness as drawn to the one farthest from it.

    ``size`` is the side of the finest level, in texels; an object's longest side takes 7/8 of it. ``"auto"`` keeps the
    pictures' resolution: it is the smallest power of two that holds the largest picture (for files by their headers,
    for tensors by the visible part), limited to 64 to 512, and less if the bank would take more than 1 GiB. Glyphs,
    which have no pixels, get 256. You get a warning if the canvas enlarges a bank's pictures by more than a quarter; a
    bank much finer than its canvas costs only memory.

    Attributes:
        pyramid: premultiplied RGBA of ``m = n * variants`` pictures with all mip levels, uint8 texels.
        labels: (n,); class of each object, 0 to C - 1; -1: none, a distractor, see :meth:`unlabelled`.
        classes: C names.
        variants: number of stroke thicknesses per object.
        sides: longest side of each object in its file, pixels; 0 or empty: it comes from none.
        opacity: (m,); highest alpha of each picture, in (0, 1].
        points: (m, 2, 96); points that stand for each picture's shape, see :func:`shape_points`.
    """

    pyramid: Pyramid
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    variants: int = 1
    sides: tuple[int, ...] = field(default=(), kw_only=True)
    opacity: Float[Tensor, " m"] = field(init=False)
    points: Float[Tensor, "m 2 96"] = field(init=False)

    def __post_init__(self) -> None:
        highest = self.pyramid.level(0)[:, -1].flatten(1).amax(dim=1)
        object.__setattr__(self, "opacity", highest.float() / 255)
        object.__setattr__(self, "points", shape_points(self.pyramid))

    @cached_property
    def hulls(self) -> Float[Tensor, "m 8"]:
        """(m, 8); octagons around all that the pictures show, see :func:`kornia_cag.banks.shapes.hulls`."""
        return hulls(self.pyramid)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        size: Size = "auto",
        key: str | None = None,
        on_error: str = "raise",
        device: Device = "auto",
    ) -> "ObjectBank":
        """Read one RGBA file per class, or one folder of files per class; the sorted names are the class names.

        Args:
            path: the folder.
            size: texels per side of the finest level, a power of two from 8 to 4096, or ``"auto"``, see above.
            key: ``"white"`` makes white that touches a picture's border transparent, for files without alpha.
            on_error: ``"skip"`` skips bad files with one warning; a class without a good file is still an error.
            device: device of the bank; ``"auto"`` is a GPU if there is one.

        Raises:
            InputError: naming the unusable file and how to fix it.
        """
        device, paths = chosen_device(device), []
        if size == "auto":
            paths = folders.object_files(path)
        texels = chosen_texels(size, for_objects([max(pair) for pair in file_sides(paths)]), len(paths))
        sides: list[int] = []

        def fitted(rgba: UInt8[np.ndarray, "h w 4"]) -> Float[np.ndarray, "4 s s"]:
            picture = _fit(torch.from_numpy(rgba), texels)
            sides.append(_longest(torch.from_numpy(rgba)))
            return picture.numpy()

        classes, pictures = folders.read_objects(path, key=key, on_error=on_error, apply=fitted)
        stack = torch.stack([torch.from_numpy(picture) for _, picture in pictures])
        labels = torch.tensor([label for label, _ in pictures], device="cpu")
        bank = cls._build(stack, labels, tuple(classes), device, sides)
        names = [classes[label] for label, _ in pictures]
        hints.warn_of_twins(str(path), names, bank.pyramid.checksums(), stacklevel=3)
        hints.warn_if_empty(str(path), names, stack[:, 3], stacklevel=3)
        return bank

    @classmethod
    def from_tensors(
        cls,
        images: UInt8[Tensor, "n 4 h w"] | Float[Tensor, "n 4 h w"] | Sequence[Tensor],
        labels: Int[Tensor, " n"] | Sequence[int] | None = None,
        *,
        classes: Sequence[str] | None = None,
        size: Size = "auto",
        device: Device = "auto",
    ) -> "ObjectBank":
        """Build from straight (not premultiplied) RGBA tensors, uint8 or float in [0, 1], of equal or different sizes.

        Args:
            images: a batch, or a sequence of ``(4, h, w)``.
            labels: class per image, 0 to C - 1, each class at least once. Default: one class per image.
            classes: class names. Default: the numbers.
            size: texels per side of the finest level, a power of two from 8 to 4096, or ``"auto"``, see above.
            device: device of the bank; ``"auto"`` is a GPU if there is one.
        """
        device, texels = chosen_device(device), None if size == "auto" else chosen_texels(size, 0, 1)
        for i, image in enumerate(_some_images(images, "RGBA")):
            check_tensor(f"images[{i}]", image, (4, "h", "w"), (torch.uint8, torch.float32),
                         fix="Give straight RGBA; from_folder(key='white') makes alpha.")  # fmt: skip
            check_pixels(f"images[{i}]", image)
        targets = torch.arange(len(images), device="cpu") if labels is None else _as_ids(labels)
        check_tensor("labels", targets, (len(images),), (torch.int64, torch.int32))
        count = len(set(targets.tolist()))
        if sorted(set(targets.tolist())) != list(range(count)):
            fail("labels", "class ids 0 to C - 1, each with an object", f"ids {sorted(set(targets.tolist()))}")
        if classes is not None and (isinstance(classes, str) or not isinstance(classes, Sequence)):
            fail("classes", f"a list of {count} names", describe(classes))
        names = tuple(classes) if classes is not None else tuple(map(str, range(count)))
        if len(names) != count:
            fail("classes", f"{count} names", f"{len(names)}")
        pictures = [_to_uint8(image).permute(1, 2, 0).cpu() for image in images]
        for i, picture in enumerate(pictures):
            _check_alpha(f"images[{i}]", picture)
        texels = texels or chosen_texels("auto", for_objects([_longest(p) for p in pictures]), len(pictures))
        stack = torch.stack([_fit(picture, texels) for picture in pictures])
        return cls._build(stack, targets.long(), names, device)

    @classmethod
    def from_glyphs(cls, characters: str, *, size: Size = "auto", device: Device = "auto") -> "ObjectBank":
        """Render one black object per character, in the font that comes with Pillow."""
        texels, device = chosen_texels(size, GLYPHS, len(characters)), chosen_device(device)
        if not characters or len(set(characters)) != len(characters):
            fail("characters", "at least one character, none twice", repr(characters))
        drawn = (folders.glyph(character, 2 * texels, "characters") for character in characters)
        stack = torch.stack([_fit(torch.from_numpy(picture), texels) for picture in drawn])
        return cls._build(stack, torch.arange(len(characters), device="cpu"), tuple(characters), device)

    @classmethod
    def procedural(
        cls, count: int = 64, *, size: Size = "auto", seed: int = 0, device: Device = "auto"
    ) -> "ObjectBank":
        """Draw objects without a class: distractors, for those who have no cut-outs of what a model is not to find.

        They look like what stands about: boards, discs, wheels, lamps, arrows, posts. No two are alike; a larger count
        extends a smaller one. ``signs + ObjectBank.procedural(size=signs.size)`` is a bank of both.

        Args:
            count: number of objects.
            size: texels per side, a power of two from 8 to 4096, or ``"auto"``, see above.
            seed: seed of the drawings.
            device: device of the bank; ``"auto"`` is a GPU if there is one.
        """
        check_int("count", count)
        check_int("seed", seed, 0, 2**62 - 1)
        texels, device = chosen_texels(size, MADE, 1), chosen_device(device)
        drawn = (furniture(number, FINER * texels, seed) for number in range(count))
        stack = torch.stack([_fit(torch.from_numpy(picture), texels) for picture in drawn])
        return cls._build(stack, torch.full((count,), -1, device="cpu"), (), device)

    @classmethod
    def _build(
        cls, stack: Float[Tensor, "n 4 s s"], labels: Int[Tensor, " n"], classes: tuple[str, ...],
        device: torch.device, sides: Sequence[int] = (),
    ) -> "ObjectBank":  # fmt: skip
        return cls(build_pyramid(stack.to(device), replicate=False), labels.to(device), classes, sides=tuple(sides))

    def with_ink(self, rgb: tuple[int, int, int]) -> "ObjectBank":
        """The same shapes in the colour ``rgb``, each channel 0 to 255: for glyphs and line art."""
        if len(rgb) != 3:
            fail("rgb", "three integers from 0 to 255", repr(rgb))
        ink = torch.tensor([check_int("rgb", c, 0, 255) for c in rgb], dtype=torch.float32, device=self.device) / 255
        alpha = self.pyramid.level(0)[:, 3:].float() / 255
        inked = torch.cat([alpha * ink[:, None, None], alpha], dim=1)
        return replace(self, pyramid=build_pyramid(inked, replicate=False))

    def with_thickness(self, radii: Sequence[int]) -> "ObjectBank":
        """Add stroke thicknesses: each object dilated (radius above 0) or eroded (below 0) by a disc.

        Args:
            radii: in texels of the finest level; 0 is the object as drawn and is always included. The object fills 7/8
                of the bank's side, so a radius above ``size / 16`` is refused: it would be cut off at the border.

        Source: grey-scale morphology, Sternberg, 1986; kornia's implementation.
        """
        if self.variants != 1:
            fail("thickness", "a bank without thickness variants", f"{self.variants} variants")
        room = int(self.size * (1 - EXTENT) / 2)
        ordered = sorted({0, *(check_int("radii", r, -room, room) for r in radii)}, key=lambda r: (abs(r), r))
        base = self.pyramid.level(0).float() / 255
        stack = torch.stack([_thicken(base, r) for r in ordered], dim=1)
        highest = stack[:, :, 3].flatten(2).amax(dim=2)
        gone = highest <= 0.5 * highest[:, :1]
        if gone.any():
            label = int(self.labels[int(gone.any(dim=1).int().argmax())])
            worst = f"Class {self._name(label)!r}" if label >= 0 else "A distractor"
            fail("radii", "erosions that leave every object visible", f"{list(radii)}",
                 f"{worst} vanishes; use a smaller erosion or a larger size.")  # fmt: skip
        return replace(self, pyramid=build_pyramid(stack.flatten(0, 1), replicate=False), variants=len(ordered))

    def unlabelled(self) -> "ObjectBank":
        """The same objects without classes: distractors, painted like others and never in sight of targets.

        ``bank + other.unlabelled()`` is a bank of both.
        """
        return replace(self, labels=torch.full_like(self.labels, -1), classes=())

    def __add__(self, other: "ObjectBank") -> "ObjectBank":
        """Both banks' objects in one bank, the other's last; a class name that both have is one class.

        Raises:
            InputError: for banks of different sizes, devices or numbers of thickness variants.
        """
        if not isinstance(other, ObjectBank):
            return NotImplemented
        mine, theirs = ((bank.size, bank.device, bank.variants) for bank in (self, other))
        if mine != theirs:
            words = "a bank of size {} on {} with {} variants"
            fail("objects", words.format(*mine), words.format(*theirs),
                 f"Load both with the same device and size, such as size={max(self.size, other.size)}.")  # fmt: skip
        classes = tuple(dict.fromkeys((*self.classes, *other.classes)))
        renumbered = torch.tensor([*map(classes.index, other.classes), -1], device=self.device)
        atlas = torch.cat([self.pyramid.atlas, other.pyramid.atlas])
        sides = sum((bank.sides or (0,) * len(bank) for bank in (self, other)), ())
        labels = torch.cat([self.labels, renumbered[other.labels]])
        return ObjectBank(replace(self.pyramid, atlas=atlas), labels, classes, self.variants, sides=sides)

    def _name(self, label: int) -> str:
        return self.classes[label] if label >= 0 else "none"

    def warn_if_unsuited(self, *, longest: float, usual: float, stacklevel: int) -> None:
        """Warn about objects from files that a canvas shows enlarged, or as little more than a line.

        Args:
            longest: pixels that the longest side of an object may cover.
            usual: pixels that it covers on average.
            stacklevel: stack level of the user's line; the caller is 1.
        """
        ids = [place for place, side in enumerate(self.sides) if side]
        if ids:
            names = [self._name(label) for label in self.labels[ids].tolist()]
            hints.warn_if_small(names, [self.sides[place] for place in ids], longest, stacklevel + 2)
            hints.warn_if_thin(names, self.pyramid.level(0)[:: self.variants, 3][ids], usual, stacklevel + 2)

    @property
    def size(self) -> int:
        """Texels per side of the finest level."""
        return self.pyramid.size

    @property
    def device(self) -> torch.device:
        """The device of the bank."""
        return self.pyramid.atlas.device

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: Device) -> "ObjectBank":
        """The same bank on another device."""
        device = chosen_device(device)
        return replace(self, pyramid=self.pyramid.to(device), labels=self.labels.to(device))

    def __repr__(self) -> str:
        thick = f", variants={self.variants}" if self.variants > 1 else ""
        beside = f", distractors={none}" if (none := int((self.labels < 0).sum())) else ""
        return (f"ObjectBank(objects={len(self)}, classes={len(self.classes)}{beside}{thick}, size={self.size}, "
                f"device='{self.device}', bytes={self.pyramid.atlas.numel():_})")  # fmt: skip


def _thicken(picture: Float[Tensor, "n 4 s s"], radius: int) -> Float[Tensor, "n 4 s s"]:
    if radius == 0:
        return picture
    place = torch.arange(-abs(radius), abs(radius) + 1, device=picture.device)
    disc = (place[None, :] ** 2 + place[:, None] ** 2 <= radius**2 + 0.5).float()
    return (dilation if radius > 0 else erosion)(picture, disc).clamp(0, 1)
