"""Transparency of PNG files, at every depth and colour type, against the samples that they were written from."""

import io
import struct
from itertools import product

import numpy as np
import pytest
from PIL import Image
from pngs import COLOUR, GREY, PALETTE, chunks, png

from kornia_cag import InputError
from kornia_cag.banks import folders
from kornia_cag.banks.png import transparency

KINDS = [*product([GREY], [1, 2, 4, 8, 16]), *product([COLOUR], [8, 16]), *product([PALETTE], [1, 2, 4, 8])]
NAMES = {GREY: "grey", COLOUR: "colour", PALETTE: "palette"}


def name(kind):
    return f"{NAMES[kind[0]]} {kind[1]}"


def samples(colour, depth, shape=(11, 13)):
    """Random samples; in coloured ones, many that differ in one channel or in one byte only."""
    rng = np.random.default_rng(depth)
    if colour != COLOUR:
        return rng.integers(0, 2**depth, shape)
    near = np.array([[3, 200, 77], [3, 200, 78], [4, 200, 77], [3, 201, 77]]) * (257 if depth == 16 else 1)
    picture = near[rng.integers(0, 4, shape)]
    if depth == 16:
        picture[rng.random(shape) < 0.3, 1] += 1  # another colour by its low byte alone
    return picture


def scaled(values, depth):
    """Samples as 8-bit levels: greys rounded; of 16-bit colours, Pillow keeps the high byte."""
    return (values * 255 + (2**depth - 1) // 2) // (2**depth - 1)


def written(path, colour, depth, clear, interlaced, raw):
    more = []
    if colour == PALETTE:
        table = np.arange(3 * 2**depth, dtype=np.uint8) ^ 0x5A
        more.append((b"PLTE", table.tobytes()))
        if clear is not None:
            more.append((b"tRNS", bytes(0 if i == clear else 255 for i in range(clear + 1))))
    elif clear is not None:
        more.append((b"tRNS", struct.pack(f">{np.size(clear)}H", *np.ravel(clear))))
    path.write_bytes(png(raw, depth, colour, *more, interlaced=interlaced))
    return path


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_the_raw_sample_decides(tmp_path, kind, interlaced):
    colour, depth = kind
    raw = samples(colour, depth)
    clear = raw[5, 6].tolist()
    path = written(tmp_path / "a.png", colour, depth, clear, interlaced, raw)
    rgba = folders.read_rgba(path)
    want = (raw == clear).all(axis=2) if colour == COLOUR else raw == clear
    assert 0 < want.sum() < want.size
    assert ((rgba[..., 3] == 0) == want).all()
    assert ((rgba[..., 3] == 255) == ~want).all()
    if colour == GREY:
        assert (rgba[..., 0] == scaled(raw, depth)).all()
    elif colour == COLOUR:
        assert (rgba[..., :3] == raw >> (depth - 8)).all()
    else:
        table = np.arange(3 * 2**depth, dtype=np.uint8) ^ 0x5A
        assert (rgba[..., :3] == table.reshape(-1, 3)[raw]).all()
    with pytest.raises(InputError, match=r"a\.png: expected an opaque picture, got transparent pixels"):
        folders.read_rgb(path)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_a_level_that_no_pixel_has_leaves_all_opaque(tmp_path, kind):
    colour, depth = kind
    raw = samples(colour, depth) // 2 * 2  # even
    clear = (raw[0, 0] + 1).tolist()
    path = written(tmp_path / "a.png", colour, depth, clear, False, raw)
    assert folders.read_rgb(path).shape == (11, 13, 3)
    with pytest.raises(InputError, match="expected a picture with transparency, got none"):
        folders.read_rgba(path)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_only_the_low_bits_of_a_level_count(tmp_path, depth):
    raw = samples(GREY, depth)
    clear = int(raw[0, 0])
    path = written(tmp_path / "a.png", GREY, depth, clear | 0x5500 | (0xFF << depth & 0xFF), False, raw)
    assert ((folders.read_rgba(path)[..., 3] == 0) == (raw == clear)).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_alphas_of_a_palette(tmp_path, depth):
    raw = samples(PALETTE, depth)
    alphas = bytes((7 + 31 * i) % 256 for i in range(2**depth - 1))  # the last entry has none, and is opaque
    palette = (b"PLTE", bytes(3 * 2**depth))
    (tmp_path / "a.png").write_bytes(png(raw, depth, PALETTE, palette, (b"tRNS", alphas)))
    assert (folders.read_rgba(tmp_path / "a.png")[..., 3] == np.array([*alphas, 255])[raw]).all()


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_orientation_turns_alpha_with_the_picture(tmp_path, kind):
    colour, depth = kind
    raw = samples(colour, depth)
    plain = folders.read_rgba(written(tmp_path / "a.png", colour, depth, raw[5, 6].tolist(), False, raw))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    data = (tmp_path / "a.png").read_bytes()
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    (tmp_path / "b.png").write_bytes(data[:33] + chunks(b"", (b"eXIf", body))[20:-12] + data[33:])
    assert (folders.read_rgba(tmp_path / "b.png") == np.rot90(plain, -1)).all()


@pytest.mark.parametrize("body", [b"", b"\0"])
def test_a_chunk_cut_short_is_no_transparency(body):
    raw = samples(GREY, 8)
    assert transparency(io.BytesIO(png(raw, 8, GREY, (b"tRNS", body)))) is None
    assert transparency(io.BytesIO(png(raw, 8, GREY, (b"tRNS", b"\0\3")))) is not None


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt", bytes(50)]
)
def test_other_files_say_nothing(data):
    file = io.BytesIO(data)
    assert transparency(file) is None
    assert file.tell() == 0


def test_a_chunk_behind_the_pixels_says_nothing(tmp_path):
    data = png(samples(GREY, 4), 4, GREY)
    late = chunks(b"", (b"tRNS", b"\0\3"))[20:-12]
    (tmp_path / "a.png").write_bytes(data[:-12] + late + data[-12:])
    assert folders.read_rgb(tmp_path / "a.png").shape == (11, 13, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
def test_other_formats_keep_theirs(tmp_path, suffix):
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[1:-1, 1:-1] = (200, 40, 10, 255)
    image = Image.fromarray(rgba)
    options = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"a.{suffix}", **options)
    assert (folders.read_rgba(tmp_path / f"a.{suffix}")[..., 3] == rgba[..., 3]).all()
    with pytest.raises(InputError, match="expected an opaque picture"):
        folders.read_rgb(tmp_path / f"a.{suffix}")


def test_a_grey_gif_with_a_transparent_entry(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    image.save(tmp_path / "a.gif", transparency=9)
    assert np.argwhere(folders.read_rgba(tmp_path / "a.gif")[..., 3] == 0).tolist() == [[1, 1]]
