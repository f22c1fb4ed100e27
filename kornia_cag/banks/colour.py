"""Converting colours to sRGB, as viewers show them: by a picture's ICC profile, or the gamma of a PNG file."""

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

SAME = 2  # levels of 255: a profile that moves no colour further counts as sRGB, and pixels stay untouched
MODELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour models: ICC's names, and Pillow's

Convert = Callable[[Image.Image], Image.Image]


def base_mode(mode: str) -> str:
    """The colour model of a Pillow mode, without alpha and palette: L, RGB or CMYK."""
    return "L" if mode[0] in "1LI" and mode != "LAB" else "CMYK" if mode == "CMYK" else "RGB"


def to_srgb(info: Mapping[Any, Any], mode: str) -> tuple[Convert | None, str]:
    """What converts pictures of a :func:`base_mode` to sRGB; None if they are sRGB already.

    A profile takes precedence over gamma, and the ``sRGB`` chunk of a PNG file over its ``gAMA``. Chromaticities
    (``cHRM``) and HDR data are ignored.

    Args:
        info: ``info`` of a Pillow image.
        mode: base mode.

    Returns:
        A function that returns an RGB image; and why a profile could not be used, else an empty string.
    """
    profile = info.get("icc_profile")
    if profile:
        return _by_profile(bytes(profile), mode)
    gamma = info.get("gamma")
    if isinstance(gamma, float) and "srgb" not in info and mode != "CMYK":
        return _by_gamma(gamma), ""
    return None, ""


@lru_cache(maxsize=32)
def _by_gamma(gamma: float) -> Convert | None:
    """Convert samples that are light to the power of ``gamma``; an sRGB screen expects 1 / 2.2."""
    if not 0.01 <= gamma <= 100:  # nonsense, which decoders ignore
        return None
    ramp = np.linspace(0, 1, 256)
    table = np.rint(255 * ramp ** (1 / (2.2 * gamma))).astype(int).tolist()
    if max(abs(value - i) for i, value in enumerate(table)) <= 1:  # 1 / 2.2, rounded one way or another
        return None
    return lambda image: image.convert("RGB").point(3 * table)


@lru_cache(maxsize=32)
def _by_profile(profile: bytes, mode: str) -> tuple[Convert | None, str]:
    if not features.check("littlecms2"):
        known = b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
        return None, "" if known else "this build of Pillow has no LittleCMS to convert it"
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        model = MODELS.get(given.profile.xcolor_space.strip(), "")
        if model != mode and (mode, model) != ("L", "RGB"):
            return None, f"it is of {given.profile.xcolor_space.strip()} colours, the picture of {mode}"
        transform = ImageCms.buildTransform(given, _srgb(), model, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        return None, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

    def convert(image: Image.Image) -> Image.Image:
        done = ImageCms.applyTransform(image.convert(model), transform)
        return image.convert("RGB") if done is None else done  # None only for in-place work

    probe = _probe(model)
    moved = np.abs(np.asarray(convert(probe)).astype(int) - np.asarray(probe.convert("RGB")))
    return (None if model != "CMYK" and moved.max() <= SAME else convert), ""


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _probe(model: str) -> Image.Image:
    """All greys, or colours on a lattice of nine levels a channel (of a CMYK picture, any)."""
    if model == "RGB":
        levels = np.rint(np.linspace(0, 255, 9)).astype(np.uint8)
        lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        return Image.fromarray(lattice.reshape(9, -1, 3))
    return Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(model)
