"""Colours against hand-made profiles and the formulas of the standards."""

import io
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from pngs import COLOUR, GREY, PALETTE, png

from kornia_cag import CAGCollate, ContextBank, InputError, ObjectBank
from kornia_cag.banks import colour as colours
from kornia_cag.banks import folders

BRADFORD_D50 = (0.9642, 1.0, 0.8249)
# Primaries in XYZ, adapted to D50, as the profiles of Apple and Adobe carry them.
PRIMARIES = {
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}
SRGB = np.array(((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)))


def number(value):
    return struct.pack(">i", round(value * 65536))


def xyz(values):
    return b"XYZ \0\0\0\0" + b"".join(map(number, values))


def profile(model, curve, primaries=()):
    """A display profile of version 2.4, tag by tag."""
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"hand\0" + bytes(78)), (b"wtpt", xyz(BRADFORD_D50)),
            (b"cprt", b"text\0\0\0\0none\0")]  # fmt: skip
    body = b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + struct.pack(f">{len(curve)}H", *curve)
    tags += [(name, body) for name in ([b"rTRC", b"gTRC", b"bTRC"] if primaries else [b"kTRC"])]
    tags += [(name, xyz(values)) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=False)]
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x02400000, b"mntr", model, b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(map(number, BRADFORD_D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def decode(levels):
    """sRGB's curve, IEC 61966-2-1: levels of 255 to light."""
    x = np.asarray(levels) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def encode(light):
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


CURVES = {
    "Display P3": ([round(65535 * float(v)) for v in decode(np.linspace(0, 255, 1024))], decode),
    "Adobe RGB": ([563], lambda levels: (np.asarray(levels) / 255) ** (563 / 256)),  # a power in 256ths
}
WIDE = {name: profile(b"RGB ", CURVES[name][0], PRIMARIES[name]) for name in PRIMARIES}
INSIDE = np.array(
    [[[200, 120, 90], [60, 130, 80], [90, 110, 160], [128, 128, 128], [255, 255, 255], [0, 0, 0]]], np.uint8
)


def wanted(name, rgb):
    light = CURVES[name][1](rgb) @ np.array(PRIMARIES[name])
    return encode(light @ np.linalg.inv(SRGB))


def stored(path, image, data, **options):
    image.save(path, icc_profile=data, **options)
    return path


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_wide_colours_come_to_srgb(tmp_path, name, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    rgb = folders.read_rgb(stored(tmp_path / f"a.{suffix}", Image.fromarray(INSIDE), WIDE[name], **options))
    want = wanted(name, INSIDE)
    assert np.abs(rgb - want).max() <= 2
    assert np.abs(INSIDE[0, :3] - want[0, :3]).max() > 8  # it makes a difference
    assert np.ptp(rgb[0, 3:].astype(int), axis=1).max() <= 1  # grey stays grey


def test_alpha_stays(tmp_path):
    alpha = np.array([[0, 9, 99, 200, 254, 255]], np.uint8)
    path = stored(tmp_path / "a.png", Image.fromarray(np.dstack([INSIDE, alpha])), WIDE["Display P3"])
    rgba = folders.read_rgba(path)
    assert (rgba[..., 3] == alpha).all()
    assert np.abs(rgba[..., :3] - wanted("Display P3", INSIDE)).max() <= 2


def test_a_palette_is_converted(tmp_path):
    image = Image.fromarray(INSIDE).quantize(6)
    shown = np.asarray(image.convert("RGB"))
    rgb = folders.read_rgb(stored(tmp_path / "a.png", image, WIDE["Adobe RGB"]))
    assert np.abs(rgb - wanted("Adobe RGB", shown)).max() <= 2


@pytest.mark.parametrize("depth", [8, 16])
def test_greys_by_a_grey_profile(tmp_path, depth):
    linear = profile(b"GRAY", [])  # an empty curve: the identity
    grey = np.array([[0, 10, 64, 128, 255]], np.uint16)
    image = Image.fromarray(grey.astype(np.uint8) if depth == 8 else grey * 257)
    rgb = folders.read_rgb(stored(tmp_path / "a.png", image, linear))
    assert np.abs(rgb - encode(grey[..., None] / 255)).max() <= 1


def test_a_grey_picture_with_a_profile_of_colours(tmp_path):
    grey = np.array([[0, 20, 64, 128, 255]], np.uint8)
    rgb = folders.read_rgb(stored(tmp_path / "a.png", Image.fromarray(grey), WIDE["Adobe RGB"]))
    assert np.abs(rgb - encode(CURVES["Adobe RGB"][1](grey))[..., None]).max() <= 2


def test_srgb_leaves_every_pixel_as_it_was(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    by_hand = profile(b"RGB ", CURVES["Display P3"][0], tuple(map(tuple, SRGB)))
    for data in (made, by_hand):
        assert (folders.read_rgb(stored(tmp_path / "a.png", Image.fromarray(rgb), data)) == rgb).all()


def test_profiles_of_items(tmp_path):
    collate = CAGCollate(ObjectBank.from_glyphs("ab", size=16), None, size=16)
    image = Image.new("RGB", (16, 16), (60, 130, 80))
    image.info["icc_profile"] = WIDE["Display P3"]
    path = stored(tmp_path / "a.png", image, WIDE["Display P3"])
    want = wanted("Display P3", np.array([60, 130, 80]))
    for item in (image, Image.open(path), path, path.read_bytes()):
        photos = collate.compose([item]).photos.pyramid.level(0)
        assert (photos[0, :, 5, 5] - torch.from_numpy(want)).abs().max() <= 2


BROKEN = [b"nothing of a profile", WIDE["Display P3"][:200], profile(b"GRAY", [])]


@pytest.mark.parametrize("data", BROKEN)
def test_a_profile_that_cannot_be_used_is_named_and_left_out(tmp_path, data):
    for name in ("b/a", "b/b"):
        (tmp_path / "b").mkdir(exist_ok=True)
        stored(tmp_path / f"{name}.png", Image.fromarray(INSIDE), data)
    with pytest.warns(UserWarning, match=r"a\.png: read as sRGB, since its colour profile cannot be used \(.+\)$"):
        assert (folders.read_rgb(tmp_path / "b" / "a.png") == INSIDE).all()
    with pytest.warns(UserWarning, match=r"b: read 2 file\(s\) as sRGB, .* a\.png \(.+\); b\.png \(.+\)$") as seen:
        bank = ContextBank.from_folder(tmp_path / "b", size=8)
    assert len(seen) == 1
    assert len(bank) == 2
    image = Image.fromarray(INSIDE)
    image.info["icc_profile"] = data
    with pytest.warns(UserWarning, match=r"items\[0\]: read as sRGB"):
        CAGCollate(ObjectBank.from_glyphs("ab", size=16), None, size=16)([image])


def test_without_littlecms_it_is_said_plainly(tmp_path, monkeypatch):
    monkeypatch.setattr(colours.features, "check", lambda name: False)
    colours._by_profile.cache_clear()
    path = stored(tmp_path / "a.png", Image.fromarray(INSIDE), WIDE["Adobe RGB"])
    with pytest.warns(UserWarning, match="this build of Pillow has no LittleCMS to convert it"):
        assert (folders.read_rgb(path) == INSIDE).all()
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (folders.read_rgb(stored(tmp_path / "a.png", Image.fromarray(INSIDE), made)) == INSIDE).all()
    colours._by_profile.cache_clear()


# The gamma of PNG files.


def gamma(value):
    return b"gAMA", struct.pack(">I", round(100_000 * value))


@pytest.mark.parametrize("kind", [(GREY, 8), (GREY, 4), (GREY, 16), (COLOUR, 8), (PALETTE, 8)])
@pytest.mark.parametrize("value", [1.0, 1 / 1.8])
def test_gamma_is_applied(tmp_path, kind, value):
    """Light is the sample to the power of 1 / gamma, and the screen's is 2.2 (PNG specification, 13.13)."""
    model, depth = kind
    top = 2**depth - 1
    raw = np.linspace(0, top, 7).round().astype(int)[None]
    raw = np.stack([raw, raw[:, ::-1], raw // 2], axis=-1) if model == COLOUR else raw
    palette = (b"PLTE", bytes(v for i in range(256) for v in (i, i, i)))
    more = [gamma(value), *([palette] if model == PALETTE else [])]
    (tmp_path / "a.png").write_bytes(png(raw, depth, model, *more))
    rgb = folders.read_rgb(tmp_path / "a.png")
    want = 255 * (np.round(255 * raw / top) / 255) ** (1 / (2.2 * value))
    assert np.abs(rgb - (want if model == COLOUR else want[..., None])).max() <= 1


@pytest.mark.parametrize(
    "more",
    [[gamma(0.45455)], [gamma(0.45)], [gamma(0)], [gamma(1.0), (b"sRGB", b"\0")], [(b"sRGB", b"\0"), gamma(1.0)]],
)
def test_gamma_of_srgb_changes_nothing(tmp_path, more):
    raw = np.arange(256)[None]
    (tmp_path / "a.png").write_bytes(png(raw, 8, GREY, *more))
    assert (folders.read_rgb(tmp_path / "a.png")[..., 0] == raw).all()


def test_a_profile_outweighs_gamma(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(INSIDE).save(buffer, "PNG", icc_profile=WIDE["Display P3"])
    data = buffer.getvalue()
    chunk = png(np.zeros((1, 1), int), 8, GREY, gamma(1.0))[33:49]
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert np.abs(folders.read_rgb(tmp_path / "a.png") - wanted("Display P3", INSIDE)).max() <= 2


def test_gamma_leaves_transparency_alone(tmp_path):
    raw = np.array([[3, 4, 5]])
    (tmp_path / "a.png").write_bytes(png(raw, 4, GREY, gamma(1.0), (b"tRNS", b"\0\4")))
    assert folders.read_rgba(tmp_path / "a.png")[0, :, 3].tolist() == [255, 0, 255]


def test_cmyk_by_its_profile_or_refused_by_name(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    with pytest.warns(UserWarning, match="of RGB colours, the picture of CMYK"):
        rgb = folders.read_rgb(stored(tmp_path / "a.tif", image, WIDE["Display P3"]))
    assert (rgb == (255, 0, 0)).all()


def test_profiles_never_stop_a_picture(tmp_path):
    """Flipped bytes of a profile: read by it or as sRGB, with a word, but never refused."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(WIDE["Display P3"])
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(256)
        stored(tmp_path / "a.png", Image.fromarray(INSIDE), bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert folders.read_rgb(tmp_path / "a.png").shape == INSIDE.shape
            except InputError as error:  # pragma: no cover
                pytest.fail(str(error))
