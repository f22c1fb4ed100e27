"""How :mod:`fuzz` damages files, and which: pictures of all formats, and the files of a run."""

import hashlib
import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Sample = tuple[str, bytes]  # a file's name and its content
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Kind(NamedTuple):
    """A kind of file: samples to damage, made in a folder if they need one; and how users' files are read."""

    samples: Callable[[Path], list[Sample]]
    reader: Callable[[Path], Callable[[Path], object]]


def damaged(name: str, data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A copy with one to eight pieces of damage; half of the time its checksums are then made right again."""
    found = bytearray(data)
    if name.endswith(".pt") and chance.random() < 0.5:
        return signed(name, _inside_archive(data, chance, others))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        found = _once(found, chance, others)
    return signed(name, bytes(found)) if chance.random() < 0.5 else bytes(found)


def _once(data: bytearray, chance: random.Random, others: list[bytes]) -> bytearray:
    if not data:
        return bytearray(chance.randbytes(8))
    early = chance.random() < 0.5  # headers are where sizes and kinds stand
    at = chance.randrange(min(len(data), 256) if early else len(data))
    end = min(len(data), at + chance.choice((1, 2, 4, 16, 256)))
    kind = chance.randrange(9)
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[at] = chance.randrange(256)
    elif kind == 2:
        form = chance.choice(("<H", ">H", "<I", ">I"))
        number = chance.choice(INTERESTING) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        data[at : at + struct.calcsize(form)] = struct.pack(form, number)
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end] * chance.choice((1, 2, 100))
    elif kind == 6:
        data[at:end] = bytes(end - at)
    elif kind == 7:
        other = chance.choice(others)
        start = chance.randrange(len(other))
        data[at:end] = other[start : start + chance.choice((4, 64, 1024))]
    else:
        data[at:end] = chance.randbytes(end - at)
    return data


def signed(name: str, data: bytes) -> bytes:
    """The same with right checksums, as far as its structure can still be followed."""
    if name.endswith(".png"):
        return _png_signed(data)
    if name.endswith(".pt") and b"sha256:" in data[-80:]:
        return data[:-64] + hashlib.sha256(data[: -64 - len(b"sha256:")]).hexdigest().encode()
    if name.endswith(".json"):
        entry = re.compile(rb'("sha256": ")[^"]*("\n}\n)$')
        zeros = entry.sub(rb"\g<1>" + b"0" * 64 + rb"\g<2>", data)
        return entry.sub(rb"\g<1>" + hashlib.sha256(zeros).hexdigest().encode() + rb"\g<2>", zeros)
    return data


def _png_signed(data: bytes) -> bytes:
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        (length,) = struct.unpack(">I", found[at : at + 4])
        if at + 12 + length > len(found):
            break
        found[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(found[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(found)


def _inside_archive(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A torch file with damage in one of its parts, the archive around it whole, with room for a checksum."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        pickled = [name for name in names if name.endswith("data.pkl")]
        hit = chance.choice(pickled if chance.random() < 0.7 else names)
        for name in names:
            part = old.read(name)
            new.writestr(name, bytes(_once(bytearray(part), chance, others)) if name == hit else part)
        new.comment = b"sha256:" + b"0" * 64
    return file.getvalue()


def _drawn(side: int = 24) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    colour = np.stack([x * 10, y * 10, (x + y) * 5], axis=-1) % 256
    alpha = 255 * ((x - 12) ** 2 + (y - 12) ** 2 < 81)
    return np.concatenate([colour, alpha[..., None]], axis=-1).astype(np.uint8)


def _picture_samples(_: Path) -> list[Sample]:
    from PIL import Image, ImageCms, PngImagePlugin, features

    cut_out = Image.fromarray(_drawn())
    opaque = cut_out.convert("RGB")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    oriented = Image.Exif()
    oriented[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("about", "x" * 40, zip=True)
    deep = Image.fromarray(np.asarray(opaque)[..., 0].astype(np.uint16) << 8)
    made = [
        ("rgba.png", cut_out, {}), ("palette.png", opaque.quantize(16), {"transparency": 3}), ("deep.png", deep, {}),
        ("text.png", cut_out, {"pnginfo": text, "icc_profile": profile}), ("bits.png", opaque.convert("1"), {}),
        ("grey.png", cut_out.convert("LA"), {}), ("plain.jpg", opaque, {"exif": oriented}),
        ("progressive.jpg", opaque, {"progressive": True, "icc_profile": profile}),
        ("cmyk.jpg", opaque.convert("CMYK"), {}), ("plain.bmp", opaque, {}), ("palette.bmp", opaque.quantize(8), {}),
        ("still.gif", opaque.quantize(16), {}),
        ("moving.gif", opaque, {"save_all": True, "append_images": [opaque.rotate(90)]}),
        ("plain.ppm", opaque, {}), ("raw.tif", opaque, {"compression": "raw"}),
        ("lzw.tif", cut_out, {"compression": "tiff_lzw"}),
        ("deflate.tif", opaque, {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", opaque, {"compression": "jpeg"}), ("packed.tif", opaque.convert("L"), {"compression": "packbits"}),
        ("float.tif", Image.fromarray(_drawn()[..., 0].astype(np.float32)), {}),
    ]  # fmt: skip
    if features.check("webp"):
        made += [("lossy.webp", cut_out, {"exif": oriented}), ("exact.webp", cut_out, {"lossless": True})]
    if features.check("jpg_2000"):
        made += [("plain.jp2", opaque, {}), ("alpha.jp2", cut_out, {"irreversible": True})]
    if features.check("avif"):
        made += [("plain.avif", opaque, {})]
    samples = []
    for name, picture, options in made:
        file = io.BytesIO()
        ending = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
        picture.save(file, ending.get(name.rpartition(".")[2], name.rpartition(".")[2].upper()), **options)
        samples.append((name, file.getvalue()))
    return samples


def _picture_reader(_: Path) -> Callable[[Path], object]:
    from PIL import Image

    from kornia_cag.banks.pictures import read_rgb, read_rgba
    from kornia_cag.core.checks import InputError

    Image.init()

    def read(path: Path) -> object:
        notes: list[str] = []
        found = [read_rgb(path, notes=notes, on_white=True), read_rgb(path, side=8, notes=notes, on_white=True)]
        try:
            found.append(read_rgba(path, key="white", notes=notes))
        except InputError as error:  # a picture without an object, which names its file like any other refusal
            if path.name not in str(error):
                raise
        for picture in found:
            if picture.dtype != np.uint8 or picture.ndim != 3 or not picture.size:
                raise TypeError(f"a picture of {picture.dtype} {picture.shape}")
        return found

    return read


def _training() -> Any:
    from kornia_cag import PGD
    from kornia_cag.training.recipes import DIGITS
    from kornia_cag.training.run import Training

    recipe = replace(DIGITS, size=16, images=48, batch_size=8, width=4, procedural=6, thickness=(1,), views=1,
                     attack=PGD(eps=0.05, steps=1))  # fmt: skip
    return Training(recipe, recipe.objects(None), recipe.contexts(None))


def _run_samples(folder: Path) -> list[Sample]:
    from kornia_cag.core.storage import write_json
    from kornia_cag.training.network import save_network
    from kornia_cag.training.recipe_file import save_recipe

    run = _training()
    run.run(save=folder / "checkpoint.pt", stop=lambda: run.steps == 3)
    save_network(folder / "model.pt", run.learner.average, run.recipe, tuple(run.classes), None)
    save_recipe(run.recipe, folder / "recipe.yaml")
    write_json(folder / "config.json", run.plan())
    names = ("checkpoint.pt", "model.pt", "recipe.yaml", "config.json")
    return [(name, (folder / name).read_bytes()) for name in names]


def _run_reader(_: Path) -> Callable[[Path], object]:
    import torch

    from kornia_cag.core.storage import read_json
    from kornia_cag.training.network import load_network
    from kornia_cag.training.recipe_file import load_recipe

    torch.set_num_threads(1)
    warm = _training()  # what imports and first calls do is not the file's doing
    warm.run(stop=lambda: warm.steps == 1)

    def resumed(path: Path) -> object:
        run = _training()
        run.load(path)
        steps = run.steps
        run.run(stop=lambda: run.steps > steps)
        return run

    def read(path: Path) -> object:
        if path.name.endswith("checkpoint.pt"):
            return resumed(path)
        if path.name.endswith("model.pt"):
            return load_network(path)
        return load_recipe(path) if path.suffix == ".yaml" else read_json(path, "path", "a run's plan")

    return read


pictures = Kind(_picture_samples, _picture_reader)
runs = Kind(_run_samples, _run_reader)
