"""Objects and contexts, loaded once and kept on one device.

``ObjectBank`` holds premultiplied RGBA, so that resampling never mixes in the colour of transparent pixels;
``ContextBank`` holds RGB. Both hold mip pyramids in uint8. Nothing is read from disk after construction.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from kornia.morphology import dilation, erosion
from torch import Tensor

from kornia_cag import files, procedural
from kornia_cag.checks import check_int, check_number, check_pixels, check_tensor, describe, fail
from kornia_cag.devices import Device, chosen_device
from kornia_cag.pyramid import Pyramid, build_pyramid
from kornia_cag.texels import GLYPHS, MADE, Size, chosen_texels, file_sides, for_contexts, for_objects
from kornia_cag.tiles import reduced, spare
from kornia_cag.warp import EXTENT

FAINT = 6  # of 255: alpha from which a texel of an object counts as seen


@dataclass(frozen=True, eq=False, repr=False)
class ObjectBank:
    """Cut-out objects with their classes.

    Object ``i`` has class ``labels[i]`` and is kept in ``variants`` stroke thicknesses; variant ``v`` is picture
    ``i * variants + v`` of the pyramid, sorted from the thickness as drawn to the farthest from it.

    ``size`` is how many texels a side the finest level has, 7/8 of which the longest side of an object takes. With
    ``"auto"`` pixels stay as they are given: it is the smallest power of two that holds the largest picture (of a
    folder as its files say, of tensors what is seen of it), but from 64 to 512, and less where the bank would take
    more than 1 GiB. Glyphs, which have no pixels, get 256. A canvas that enlarges a bank's pictures by more than a
    quarter is warned of; a bank much finer than its canvas costs memory, and nothing else.

    Attributes:
        pyramid: premultiplied RGBA of ``m = n * variants`` pictures with all mip levels, uint8 texels.
        labels: (n,); class of each object, 0 to C - 1.
        classes: C names.
        variants: number of stroke thicknesses of each object.
        opacity: (m,); highest alpha of each picture, in (0, 1].
    """

    pyramid: Pyramid
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]
    variants: int = 1
    opacity: Float[Tensor, " m"] = field(init=False)

    def __post_init__(self) -> None:
        highest = self.pyramid.level(0)[:, -1].flatten(1).amax(dim=1)
        object.__setattr__(self, "opacity", highest.float() / 255)

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
        """Read one RGBA file per class, or one folder per class with several; sorted names are the class names.

        Args:
            path: the folder.
            size: texels a side of the finest level, a power of two from 8 to 4096, or ``"auto"``, see above.
            key: ``"white"`` makes the white that touches a picture's border transparent, for files without alpha.
            on_error: ``"skip"`` leaves out bad files with one warning; a class without a good file is an error still.
            device: where the bank lives; ``"auto"`` is a GPU where there is one.

        Raises:
            InputError: naming the file that cannot be used and how to mend it.
        """
        device, paths = chosen_device(device), []
        if size == "auto":
            paths = [path for _, of_class in _quietly(files.list_objects, path, on_error) for path in of_class]
        texels = chosen_texels(size, for_objects([max(pair) for pair in file_sides(paths)]), len(paths))
        classes, pictures = files.read_objects(
            path, key=key, on_error=on_error, apply=lambda rgba: _fit(torch.from_numpy(rgba), texels).numpy()
        )
        stack = torch.stack([torch.from_numpy(picture) for _, picture in pictures])
        return cls._build(stack, torch.tensor([label for label, _ in pictures], device="cpu"), tuple(classes), device)

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
        """Take straight (not premultiplied) RGBA, uint8 or float in [0, 1], of equal or of different sizes.

        Args:
            images: a batch, or a sequence of ``(4, h, w)``.
            labels: class per image, 0 to C - 1, each class at least once. Default: one class per image.
            classes: class names. Default: the numbers.
            size: texels a side of the finest level, a power of two from 8 to 4096, or ``"auto"``, see above.
            device: where the bank lives; ``"auto"`` is a GPU where there is one.
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
        """Render one object per character, black, with the font that Pillow carries."""
        texels, device = chosen_texels(size, GLYPHS, len(characters)), chosen_device(device)
        if not characters or len(set(characters)) != len(characters):
            fail("characters", "at least one character, none twice", repr(characters))
        stack = torch.stack([_fit(torch.from_numpy(files.glyph(c, 2 * texels)), texels) for c in characters])
        return cls._build(stack, torch.arange(len(characters), device="cpu"), tuple(characters), device)

    @classmethod
    def _build(
        cls, stack: Float[Tensor, "n 4 s s"], labels: Int[Tensor, " n"], classes: tuple[str, ...], device: torch.device
    ) -> "ObjectBank":
        return cls(build_pyramid(stack.to(device), replicate=False), labels.to(device), classes)

    def with_ink(self, rgb: tuple[int, int, int]) -> "ObjectBank":
        """The same shapes in one colour, each channel 0 to 255: glyphs and line art are shapes of ink."""
        if len(rgb) != 3:
            fail("rgb", "three integers from 0 to 255", repr(rgb))
        ink = (
            torch.tensor([check_int("rgb", c, 0, 255) for c in rgb], dtype=torch.float32, device=self.device)[
                :, None, None
            ]
            / 255
        )
        alpha = self.pyramid.level(0)[:, 3:].float() / 255
        return replace(self, pyramid=build_pyramid(torch.cat([alpha * ink, alpha], dim=1), replicate=False))

    def with_thickness(self, radii: Sequence[int]) -> "ObjectBank":
        """Add stroke thicknesses: each object dilated (radius above 0) or eroded (below 0) by a disc.

        Args:
            radii: texels of the finest level; 0 is the object as drawn and is always kept. The object fills 7/8 of
                the bank's side, so a radius above ``size / 16`` is refused: it would be cut off at the border.

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
            worst = self.classes[int(self.labels[int(gone.any(dim=1).int().argmax())])]
            fail("radii", "erosions that leave every object something to see", f"{list(radii)}",
                 f"Class {worst!r} vanishes; use a smaller erosion or a larger size.")  # fmt: skip
        return replace(self, pyramid=build_pyramid(stack.flatten(0, 1), replicate=False), variants=len(ordered))

    @property
    def size(self) -> int:
        """Texels a side of the finest level."""
        return self.pyramid.size

    @property
    def device(self) -> torch.device:
        """Where the bank lives."""
        return self.pyramid.atlas.device

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: Device) -> "ObjectBank":
        """The same bank on another device."""
        device = chosen_device(device)
        return replace(self, pyramid=self.pyramid.to(device), labels=self.labels.to(device))

    def __repr__(self) -> str:
        thick = f", variants={self.variants}" if self.variants > 1 else ""
        return (f"ObjectBank(objects={len(self)}, classes={len(self.classes)}{thick}, size={self.size}, "
                f"device='{self.device}', bytes={self.pyramid.atlas.numel():_})")  # fmt: skip


def held_back(count: int, share: float) -> list[bool]:
    """Which of so many contexts :meth:`ContextBank.split` holds back."""
    return [round((i + 1) * share) > round(i * share) for i in range(count)]


@dataclass(frozen=True, eq=False, repr=False)
class ContextBank:
    """Opaque RGB pictures to put objects on; any crop of them will do.

    ``size`` is how many texels a side the finest level has. With ``"auto"`` pixels stay as they are given: it is the
    smallest power of two that holds the shorter side of half of the pictures, but from 64 to 512, and less where the
    bank would take more than 1 GiB. Pictures made from nothing get 128: 512 of 256 texels take seconds to make and 200
    MiB. A canvas that enlarges a bank's pictures by more than a quarter is warned of.

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
            InputError: naming the file that cannot be used and how to mend it.
        """
        device = chosen_device(device)
        paths = _quietly(files.list_contexts, path, on_error) if size == "auto" else []
        texels = chosen_texels(size, for_contexts(file_sides(paths)), len(paths))
        pictures = files.read_contexts(
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
        """Take RGB, uint8 or float in [0, 1], of equal or of different sizes; the central square is kept."""
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
        """Make contexts from nothing, so that training needs no photo at all.

        Args:
            kind: ``"solid"``, ``"gradient"``, ``"noise"`` (smooth, several octaves), ``"pixel"`` (noise), ``"stripes"``
                (and checks), or ``"mix"``.
            count: how many.
            size: texels a side, a power of two from 8 to 4096, or ``"auto"``, see above.
            seed: of the pictures.
            device: where the bank lives; ``"auto"`` is a GPU where there is one.
        """
        texels, device = chosen_texels(size, MADE, 1), chosen_device(device)
        return cls(build_pyramid(procedural.render(kind, count, texels, seed, device), replicate=True))

    def __add__(self, other: "ContextBank") -> "ContextBank":
        """Both banks' contexts in one; sizes and devices must agree."""
        if not isinstance(other, ContextBank):
            return NotImplemented
        if (self.size, self.device) != (other.size, other.device):
            fail("contexts", f"a bank of size {self.size} on {self.device}", f"size {other.size} on {other.device}",
                 f"Load both with the same device and size, such as size={max(self.size, other.size)}.")  # fmt: skip
        return ContextBank(replace(self.pyramid, atlas=torch.cat([self.pyramid.atlas, other.pyramid.atlas])))

    def split(self, share: float) -> tuple["ContextBank", "ContextBank"]:
        """Hold back a share of the contexts, evenly over their order: those to train on, and those held back.

        Raises:
            InputError: for a share that leaves no context on one of the two sides.
        """
        check_number("share", share, 0, 1)
        held = torch.tensor(held_back(len(self), share), device=self.device)
        if not held.any() or held.all():
            fail("share held back", f"one that leaves some of {len(self)} contexts on both sides", f"{share:g}")
        return (ContextBank(replace(self.pyramid, atlas=self.pyramid.atlas[~held])),
                ContextBank(replace(self.pyramid, atlas=self.pyramid.atlas[held])))  # fmt: skip

    @property
    def size(self) -> int:
        """Texels a side of the finest level."""
        return self.pyramid.size

    @property
    def device(self) -> torch.device:
        """Where the bank lives."""
        return self.pyramid.atlas.device

    def __len__(self) -> int:
        return len(self.pyramid)

    def to(self, device: Device) -> "ContextBank":
        """The same bank on another device."""
        return ContextBank(self.pyramid.to(chosen_device(device)))

    def __repr__(self) -> str:
        return (f"ContextBank(contexts={len(self)}, size={self.size}, device='{self.device}', "
                f"bytes={self.pyramid.atlas.numel():_})")  # fmt: skip


def upload(tensor: Tensor, device: Device) -> Tensor:
    """Move a tensor to ``device``, from the CPU to a GPU without waiting for it."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _some_images(images: Any, kind: str) -> Sequence[Tensor] | Tensor:
    """Require a batch, or a sequence of its images."""
    batch = isinstance(images, Tensor) and not images.is_nested and images.layout == torch.strided and images.ndim
    if not batch and not isinstance(images, list | tuple):
        fail("images", f"a batch of {kind} images, or a list of them", describe(images))
    if not len(images):
        fail("images", f"at least one {kind} image", "none")
    some: Sequence[Tensor] | Tensor = images
    return some


def _as_ids(labels: Any) -> Tensor:
    """What is given as labels, on the CPU."""
    try:
        return torch.as_tensor(labels, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # names; numbers that no integer of 64 bits holds
        return fail("labels", "class ids 0 to C - 1, one per image", describe(labels), "Pass names as classes.")


def _to_uint8(image: Tensor) -> UInt8[Tensor, "c h w"]:
    return image if image.dtype == torch.uint8 else (image * 255).round().clamp(0, 255).to(torch.uint8)


def _quietly(scan: Callable[..., list[Any]], folder: str | Path, on_error: str) -> list[Any]:
    """Scan a folder whose reading, which follows, will warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scan(folder, on_error=on_error)


def _longest(rgba: UInt8[Tensor, "h w 4"]) -> int:
    """Longest side of what is seen, pixels."""
    seen = rgba[..., 3] >= FAINT
    longest: int = max(span.stop - span.start for span in (_span(seen.any(dim=axis)) for axis in (0, 1)))
    return longest


def _check_alpha(name: str, rgba: UInt8[Tensor, "h w 4"]) -> None:
    low, high = rgba[..., 3].aminmax()
    if low == 255:
        fail(name, "a picture with transparency", "none",
             'Give it an alpha channel, or read it with from_folder(key="white") if it stands on white.')  # fmt: skip
    if high < FAINT:
        _fail_unseen(name, f"alpha of at most {int(high)} of 255")


def _fail_unseen(name: str, got: str) -> NoReturn:
    fail(name, f"an object that can be seen, alpha of at least {FAINT} of 255 somewhere", got,
         "Make it less transparent, or larger.")  # fmt: skip


def _fit(rgba: UInt8[Tensor, "h w 4"], size: int) -> Float[Tensor, "4 s s"]:
    """Premultiply, cut to what is seen, and fit the longest side into :data:`EXTENT` of a square."""
    seen = rgba[..., 3] >= FAINT
    if not seen.any():
        _fail_unseen("alpha", f"at most {int(rgba[..., 3].max())} of 255")
    cut = rgba[_span(seen.any(dim=1)), _span(seen.any(dim=0))]
    height, width = cut.shape[:2]
    inner = round(size * EXTENT)
    factor = spare(height, width, max(height, width) // inner)
    small = torch.from_numpy(reduced(cut.numpy(), factor)) if factor > 1 else cut
    h, w = (max(1, round(inner * side / max(height, width))) for side in (height, width))
    picture = torch.stack([_resized(channel, (h, w)) for channel in _premultiplied(small, factor > 1)]).clamp(0, 1)
    if picture[3].max() < 0.5 / 255:  # a few dots far apart
        _fail_unseen("alpha", f"what fades away when it is fitted into {inner} texels")
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(picture, (left, size - w - left, top, size - h - top))


def _span(seen: Bool[Tensor, " n"]) -> slice:
    """From the first to the last that is seen."""
    return slice(int(seen.byte().argmax()), len(seen) - int(seen.flip(0).byte().argmax()))


def _premultiplied(rgba: UInt8[Tensor, "h w 4"], already: bool) -> Iterator[Float[Tensor, "h w"]]:
    """The four planes one after another: a large picture is never held as floats."""
    alpha = rgba[..., 3].float() / 255
    for channel in range(3):
        plane = rgba[..., channel].float() / 255
        yield plane if already else plane * alpha
    yield alpha


def _square(rgb: UInt8[Tensor, "h w 3"], size: int) -> UInt8[Tensor, "3 s s"]:
    """The central square, resized."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = rgb[top : top + side, left : left + side]
    factor = spare(side, side, side // size)
    square = torch.from_numpy(reduced(square.numpy(), factor)) if factor > 1 else square
    planes = [_resized(square[..., channel].float(), (size, size)) for channel in range(3)]
    return torch.stack(planes).round().clamp(0, 255).byte()


def _resized(plane: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W"]:
    return F.interpolate(plane[None, None], size, mode="bilinear", antialias=True)[0, 0]


def _thicken(picture: Float[Tensor, "n 4 s s"], radius: int) -> Float[Tensor, "n 4 s s"]:
    if radius == 0:
        return picture
    place = torch.arange(-abs(radius), abs(radius) + 1, device=picture.device)
    disc = (place[None, :] ** 2 + place[:, None] ** 2 <= radius**2 + 0.5).float()
    return (dilation if radius > 0 else erosion)(picture, disc).clamp(0, 1)
