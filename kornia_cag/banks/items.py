"""Extracting the image from a data set's item, in whatever form it comes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from kornia_cag.banks.folders import SUFFIXES
from kornia_cag.banks.pictures import noted, read_bytes, read_rgb, refusing, straight_rgba
from kornia_cag.core.checks import InputError, check_pixels, describe, fail

PIL_MODES = ("RGB", "L", "P", "1", "CMYK", "YCbCr", "HSV", "RGBX", "I", "I;16", "I;16L", "I;16B", "I;16N")
DEPTH = 4  # most levels of nested containers
NAMES = ("image", "img")  # keys of a dict's photograph: they take precedence, and then suffixes such as "jpg"

_KINDS = "a PIL image, a tensor (3, h, w), a uint8 array (h, w, 3), bytes or a path, or a tuple, list or dict with one"
_FLATTEN = ("Flatten it, for example: image = image.convert('RGBA'); "
            "Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB').")  # fmt: skip


def item_pixels(name: str, item: Any, side: int) -> Shaped[Tensor, "3 h w"]:
    """The first image of an item, uint8 or float32; ``photo_bank`` in ``sampling`` says what counts as one.

    Args:
        name: name of the item, for errors.
        item: an image, or a container.
        side: required shorter side, pixels.

    Raises:
        InputError: saying what to change.
    """
    return image_pixels(name, item_image(name, item), side)


def item_image(name: str, item: Any) -> Any:
    """The first image of an item as it came, not yet decoded; ``name`` is for errors.

    Raises:
        InputError: for an item without one.
    """
    image = next((entry for entry in _entries(item, DEPTH) if _is_image(entry)), None)
    if image is None:
        _no_image(name, item)
    return image


def image_pixels(name: str, image: Any, side: int, notes: list[str] | None = None) -> Shaped[Tensor, "3 h w"]:
    """The pixels of an image that :func:`item_image` gave.

    Args:
        name: name of the image, for errors.
        image: decoded, or a path, or the bytes of a file.
        side: required shorter side, pixels.
        notes: collects problems with the colour profile; None: warn about them.

    Raises:
        InputError: for one that cannot be decoded, or that is not opaque.
    """
    if isinstance(image, Image.Image):
        return _from_pil(name, image, notes)
    if isinstance(image, Tensor):
        return _from_tensor(name, image)
    if isinstance(image, np.ndarray):
        return _from_array(name, image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _planes(read_bytes(name, bytes(image), side, notes))
    try:
        return _planes(read_rgb(image, side=side, notes=notes))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _entries(item: Any, depth: int) -> Iterator[Any]:
    """An item's entries, depth first; an undecoded image is represented by its bytes or its path."""
    if isinstance(item, Mapping):
        if "bytes" in item and item.keys() <= {"bytes", "path"}:
            encoded, path = item["bytes"], item.get("path")
            item = [encoded if encoded is not None else Path(path) if isinstance(path, str) else path]
        else:
            named = [name for name in NAMES if name in item]  # or else a mask may come first
            named += [name for name in item if isinstance(name, str) and f".{name.lower()}" in SUFFIXES]
            item = [item[name] for name in named] + list(item.values())
    if isinstance(item, list | tuple) and depth:
        for entry in item:
            yield from _entries(entry, depth - 1)
    else:
        yield item


def _is_image(entry: Any) -> bool:
    if isinstance(entry, np.ndarray):  # a plane of another dtype is a mask, a depth map or a list of boxes
        return entry.ndim == 3 or (entry.ndim == 2 and entry.dtype == np.uint8)
    if isinstance(entry, Tensor):
        return entry.ndim == 3
    if isinstance(entry, str):  # else a label
        return _names_picture(entry) and os.path.isfile(entry)
    return isinstance(entry, Image.Image | bytes | bytearray | memoryview | os.PathLike)


def _names_picture(text: str) -> bool:
    return os.path.splitext(text)[1].lower() in SUFFIXES


def _no_image(name: str, item: Any) -> NoReturn:
    """Refuse an item, naming the entry most like an image."""
    for entry in _entries(item, DEPTH):
        if isinstance(entry, Tensor | np.ndarray) and entry.ndim in (2, 4):
            one = "Give each item one image: unpack the batch." if entry.ndim == 4 else "Add a channel: image[None]."
            if isinstance(entry, np.ndarray) and entry.ndim == 2:
                one = _as_bytes(entry)
            fail(name, _KINDS, describe(entry), one)
        if isinstance(entry, str) and _names_picture(entry):
            fail(name, _KINDS, f"{entry!r}, where there is no such file", "Give a path that exists on this machine.")
    fail(name, _KINDS, describe(item), "Let the data set return the photo.")


def _planes(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _from_pil(name: str, image: Image.Image, notes: list[str] | None) -> UInt8[Tensor, "3 h w"]:
    got = f"{image.mode}, {image.width} x {image.height}"
    opaque, levels = "a PIL image without transparency", image.mode.startswith("I")
    if "transparency" in image.info and levels:
        fail(name, opaque, f"{got}, with a transparent level", "To keep all of it: del image.info['transparency'].")
    if "transparency" in image.info:
        fail(name, opaque, f"{got}, with a transparent colour", _FLATTEN)
    if image.mode in ("RGBA", "LA", "PA", "RGBa"):
        fail(name, opaque, got, _FLATTEN)
    if image.mode not in PIL_MODES:
        fix = "Scale its numbers to 0 to 255: Image.fromarray(numbers.astype('uint8'))." if image.mode == "F" else ""
        fail(name, f"a PIL image of mode {' or '.join(PIL_MODES[:5])}", got, fix or "Convert it to RGB.")
    if 0 in image.size:
        fail(name, "at least one pixel", got, "Leave it out.")
    with refusing(name):
        rgba, note = straight_rgba(name, image)
    return _planes(np.ascontiguousarray(noted(name, rgba, note, notes)[..., :3]))


def _from_tensor(name: str, image: Tensor) -> Shaped[Tensor, "3 h w"]:
    wanted = "uint8 or float32 (3, h, w) or (1, h, w)"
    if image.shape[0] not in (1, 3):
        channels_last = image.shape[2] in (1, 3)
        fix = "Put channels first: image.permute(2, 0, 1)." if channels_last else "Give one or three channels."
        if image.shape[0] == 4:
            fix = "Flatten alpha onto a background, or leave it out: image[:3]."
        elif image.shape[2] == 4:
            fix = "Put channels first, without alpha: image[..., :3].permute(2, 0, 1)."
        fail(name, wanted, describe(image), fix)
    if image.dtype not in (torch.uint8, torch.float32):
        floats = image.is_floating_point()
        fix = "Convert it: image.float()." if floats else "If it counts from 0 to 255: image.to(torch.uint8)."
        if image.dtype == torch.bool:
            fix = "Convert it: image.float()."
        fail(name, wanted, describe(image), fix)
    check_pixels(name, image)
    return image.expand(3, -1, -1)


def _from_array(name: str, image: np.ndarray) -> UInt8[Tensor, "3 h w"]:
    wanted = "uint8 (h, w, 3), (h, w, 1) or (h, w)"
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        fix = "Give one or three channels."
        if image.shape[0] in (1, 3):
            fix = "Put channels last: image.transpose(1, 2, 0)."
        elif image.shape[2] == 4:
            fix = "Flatten alpha onto a background, or leave it out: image[..., :3]."
        elif image.shape[0] == 4:
            fix = "Put channels last, without alpha: image[:3].transpose(1, 2, 0)."
        fail(name, wanted, describe(image), fix)
    if image.dtype != np.uint8:
        fail(name, wanted, describe(image), _as_bytes(image))
    if not image.size:
        fail(name, "at least one pixel", describe(image), "Leave it out.")
    rgb = np.repeat(image.reshape(*image.shape[:2], -1), 3 if image.ndim == 2 or image.shape[2] == 1 else 1, axis=2)
    return _planes(rgb)


def _as_bytes(image: np.ndarray) -> str:
    if image.dtype.kind == "f":
        return "If it lies in [0, 1]: (255 * image).round().astype('uint8')."
    if image.dtype.kind == "b":
        return "Convert it: 255 * image.astype('uint8')."
    if image.dtype == np.uint16:
        return "If it counts to 65535: (image // 257).astype('uint8')."
    return "If it counts from 0 to 255: image.astype('uint8')."
