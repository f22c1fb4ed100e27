import os
import struct
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFile

from kornia_cag.banks import folders, keying, pictures
from kornia_cag.core.checks import InputError

ORIENTATION = 0x0112


def cut_out(height=6, width=8, colour=(200, 40, 10)):
    """A coloured rectangle on transparent ground."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[1:-1, 1:-1] = (*colour, 255)
    return rgba


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def png(path, header, *chunks):
    """A PNG file written by hand: what no encoder would write."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(data)
    return path


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


# Read rightly.


def test_rgba_comes_back_as_it_was(tmp_path):
    rgba = cut_out()
    rgba[2, 3] = (1, 2, 3, 77)
    assert (folders.read_rgba(save(tmp_path / "a.png", rgba)) == rgba).all()
    assert (folders.read_rgba(str(tmp_path / "a.png")) == rgba).all()


def test_rgb_comes_back_as_it_was(tmp_path, noise):
    rgb = folders.read_rgb(save(tmp_path / "a.png", noise))
    assert rgb.dtype == np.uint8
    assert rgb.flags.writeable
    assert (rgb == noise).all()


def test_opaque_alpha_is_fine_for_a_context(tmp_path, noise):
    rgba = np.dstack([noise, np.full(noise.shape[:2], 255, np.uint8)])
    assert (folders.read_rgb(save(tmp_path / "a.png", rgba)) == noise).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_transparency(tmp_path, suffix):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 8, 7])
    image.putdata([0, 1, 2])
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    rgba = folders.read_rgba(tmp_path / f"a.{suffix}")
    assert rgba[0, :, 3].tolist() == [255, 0, 255]
    assert rgba[0, [0, 2], :3].tolist() == [[255, 0, 0], [9, 8, 7]]


def test_palette_with_several_alphas(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 8, 7])
    image.putdata([2, 1, 0])
    image.save(tmp_path / "a.png", transparency=bytes([10, 100, 255]))
    assert folders.read_rgba(tmp_path / "a.png")[0].tolist() == [[9, 8, 7, 255], [0, 255, 0, 100], [255, 0, 0, 10]]


def test_opaque_palette_as_context(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 3, 4, 5])
    image.putdata([1, 0])
    image.save(tmp_path / "a.png")
    assert folders.read_rgb(tmp_path / "a.png")[0].tolist() == [[3, 4, 5], [255, 0, 0]]


def test_greyscale_with_alpha(tmp_path):
    image = Image.new("LA", (2, 1))
    image.putdata([(90, 0), (120, 200)])
    image.save(tmp_path / "a.png")
    assert folders.read_rgba(tmp_path / "a.png")[0].tolist() == [[90, 90, 90, 0], [120, 120, 120, 200]]


def test_greyscale_as_context(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 90, 255]], np.uint8))
    assert folders.read_rgb(tmp_path / "a.png")[0].tolist() == [[0] * 3, [90] * 3, [255] * 3]


def test_one_bit(tmp_path):
    save(tmp_path / "a.png", np.array([[True, False]]))
    assert folders.read_rgb(tmp_path / "a.png")[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 128, 129, 255, 257, 32896, 65278, 65535]], np.uint16)
    assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), values)
    rgb = folders.read_rgb(tmp_path / f"a.{suffix}")
    assert rgb[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]
    assert (rgb == rgb[..., :1]).all()


def test_16_bit_grey_with_a_transparent_value(tmp_path):
    row = zlib.compress(b"\x00" + struct.pack(">3H", 0, 515, 65535))
    header = struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0)
    path = png(tmp_path / "a.png", header, (b"tRNS", struct.pack(">H", 515)), (b"IDAT", row))
    assert folders.read_rgba(path)[0].tolist() == [[0, 0, 0, 255], [2, 2, 2, 0], [255] * 4]


def test_16_bit_colour_and_alpha(tmp_path):
    bgra = (cut_out().astype(np.uint16) * 257)[..., [2, 1, 0, 3]]
    assert cv2.imwrite(str(tmp_path / "a.png"), bgra)
    assert (folders.read_rgba(tmp_path / "a.png") == cut_out()).all()
    assert cv2.imwrite(str(tmp_path / "b.png"), bgra[..., :3])
    assert (folders.read_rgb(tmp_path / "b.png") == cut_out()[..., :3]).all()


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_colours(tmp_path, suffix):
    image = Image.new("CMYK", (64, 16))
    inks = [((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))]
    for i, (ink, _) in enumerate(inks):
        image.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    image.save(tmp_path / f"a.{suffix}")
    rgb = folders.read_rgb(tmp_path / f"a.{suffix}").astype(int)
    for i, (_, colour) in enumerate(inks):
        assert abs(rgb[8, 16 * i + 8] - colour).max() <= 8
    assert rgb[8, 56].min() >= 247


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_moves_pixels(tmp_path, mode, orientation):
    # The top left pixel of what was stored, and where a viewer shows it: (row, column) of 2 x 3 or 3 x 2.
    row, column = {1: (0, 0), 2: (0, 2), 3: (1, 2), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (2, 1), 8: (2, 0)}[orientation]
    grey = np.zeros((2, 3), np.uint16 if mode == "I;16" else np.uint8)
    grey[0, 0] = 65535 if mode == "I;16" else 255
    image = Image.fromarray(grey)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png", exif=exif)
    rgb = folders.read_rgb(tmp_path / "a.png")
    assert rgb.shape == ((2, 3, 3) if orientation <= 4 else (3, 2, 3))
    assert np.argwhere(rgb[..., 0] == 255).tolist() == [[row, column]]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_exif_orientation_in_other_formats(tmp_path, suffix):
    image = Image.new("RGB", (32, 16))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    rgb = folders.read_rgb(tmp_path / f"a.{suffix}")
    assert rgb.shape == (32, 16, 3)
    assert rgb[2:6, 10:14].min() > 230
    assert rgb[10:, :, :].max() < 25


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_show_their_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (folders.read_rgb(tmp_path / f"a.{suffix}") == [255, 0, 0]).all()


def test_the_content_decides_not_the_suffix(tmp_path, noise):
    save(tmp_path / "a.png", noise).rename(tmp_path / "a.jpg")
    assert (folders.read_rgb(tmp_path / "a.jpg") == noise).all()


# Refused by name.


@pytest.fixture(params=[folders.read_rgba, folders.read_rgb])
def refused(request):
    """Check that a file is refused with its name and the given words."""

    def check(path, *words):
        with pytest.raises(InputError) as caught:
            request.param(path)
        for word in (str(path), *words):
            assert word in str(caught.value)

    return check


def test_missing(tmp_path, refused):
    refused(tmp_path / "a.png", "no such file")


def test_empty(tmp_path, refused):
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", "an empty one")


def test_folder_instead_of_file(tmp_path, refused):
    refused(tmp_path, "a folder")


def test_pipe_does_not_hang(tmp_path, refused):
    os.mkfifo(tmp_path / "a.png")
    refused(tmp_path / "a.png", "no regular file")


@pytest.mark.parametrize("content", [b"hello, world\n" * 20, b"\0" * 500, b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0\n"])
def test_no_image(tmp_path, refused, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "avif"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_truncated(tmp_path, refused, noise, suffix, part):
    if f".{suffix}" not in Image.registered_extensions():
        pytest.skip(f"this Pillow does not write {suffix}")
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refused(path)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("level", [0, 6])  # uncompressed data decode to something whatever they are
def test_corrupt_png(tmp_path, refused, noise, place, level):
    path = save(tmp_path / "a.png", noise, compress_level=level)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    path.write_bytes(data)
    refused(path, "corrupt")


@pytest.mark.parametrize("side", [9_000, 10_000, 100_000])
def test_decompression_bomb_is_refused_from_its_header(tmp_path, refused, monkeypatch, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    path = png(tmp_path / "a.png", header, (b"IDAT", zlib.compress(b"\0" * 1000)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("its pixels were read"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        refused(path, f"at most {pictures.MAX_PIXELS:,} pixels")
    assert not seen


def test_unreadable(tmp_path, refused, monkeypatch):
    path = save(tmp_path / "a.png", cut_out())

    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # root may open anything, so the mode of the file would not do
    refused(path, "permission denied")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range(tmp_path, refused, dtype):
    refused(save(tmp_path / "a.tif", np.full((4, 4), 1_000_000, dtype)), "8 or 16 bits")


def test_no_alpha_names_both_ways_out(tmp_path, noise):
    opaque = np.dstack([noise, np.full(noise.shape[:2], 255, np.uint8)])
    for path in (save(tmp_path / "a.png", noise), save(tmp_path / "b.png", opaque), save(tmp_path / "c.jpg", noise)):
        with pytest.raises(InputError, match='alpha channel, or pass key="white"') as caught:
            folders.read_rgba(path)
        assert str(path) in str(caught.value)


def test_invisible_object(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"a\.png: expected a visible object, got zero alpha everywhere"):
        folders.read_rgba(path)


def test_transparent_context(tmp_path):
    path = save(tmp_path / "a.png", cut_out())
    with pytest.raises(InputError, match=r"a\.png: expected an opaque picture, got transparent pixels"):
        folders.read_rgb(path)


# Keyed out of white.


def pictogram(size=64):
    """A red ring on white with white inside, drawn eight times too large and averaged; and its true coverage."""
    cover = Image.new("L", (8 * size, 8 * size))
    pen = ImageDraw.Draw(cover)
    pen.ellipse([8 * 8, 8 * 8, 8 * (size - 8), 8 * (size - 8)], fill=255)
    inside = Image.new("L", cover.size)
    ImageDraw.Draw(inside).ellipse([8 * 20, 8 * 20, 8 * (size - 20), 8 * (size - 20)], fill=255)
    solid, hole = (np.asarray(mask.reduce(8)) / 255 for mask in (cover, inside))
    red = np.array([200.0, 30.0, 20.0])
    rgb = 255 + (solid - hole)[..., None] * (red - 255)
    return np.rint(rgb).astype(np.uint8), solid


def test_key_white_keeps_inner_white_and_unmixes_the_edge(tmp_path):
    rgb, solid = pictogram()
    rgba = folders.read_rgba(save(tmp_path / "a.png", rgb), key="white")
    alpha = rgba[..., 3] / 255
    assert alpha[0, 0] == 0
    assert alpha[32, 32] == 1
    assert (rgba[32, 32, :3] == 255).all()
    assert np.abs(alpha - solid).max() < 0.1
    edge = (alpha > 0.1) & (alpha < 0.9)
    assert edge.sum() > 50
    assert np.abs(rgba[edge][:, :3].astype(int) - [200, 30, 20]).max() < 40  # red, with hardly any white in it
    over_white = 255 + alpha[..., None] * (rgba[..., :3] - 255.0)
    assert np.abs(over_white - rgb).max() <= keying.WHITE_TOLERANCE


def test_key_white_stands_jpeg(tmp_path):
    rgb, solid = pictogram()
    rgba = folders.read_rgba(save(tmp_path / "a.jpg", rgb, quality=85), key="white")
    assert np.abs(rgba[..., 3] / 255 - solid).mean() < 0.03


def test_key_leaves_existing_transparency_alone(tmp_path):
    rgba = cut_out(colour=(255, 255, 255))
    assert (folders.read_rgba(save(tmp_path / "a.png", rgba), key="white") == rgba).all()


def test_key_fills_a_fully_opaque_alpha(tmp_path):
    rgba = np.full((8, 8, 4), 255, np.uint8)
    rgba[2:6, 2:6, :3] = 0
    keyed = folders.read_rgba(save(tmp_path / "a.png", rgba), key="white")
    assert keyed[..., 3].sum() == 16 * 255


@pytest.mark.parametrize(("level", "words"), [(255, "white all over"), (250, "white all over"), (90, "no white pixel")])
def test_key_white_on_one_colour(tmp_path, level, words):
    path = save(tmp_path / "a.png", np.full((9, 9, 3), level, np.uint8))
    with pytest.raises(InputError, match=rf"a\.png: expected .*{words}"):
        folders.read_rgba(path, key="white")


def test_unknown_key_lists_the_known(tmp_path):
    for call in (
        lambda: folders.read_rgba(tmp_path / "a.png", key="green"),
        lambda: folders.read_objects(tmp_path, key=""),
    ):
        with pytest.raises(InputError, match="key: expected one of None, 'white', got"):
            call()


@pytest.mark.parametrize("share", [0.4, 0.6, 0.7])
def test_fill_equals_a_slow_search(share):
    white = np.random.default_rng(1).random((30, 41)) < share
    reached = np.zeros_like(white)
    edge = [(y, x) for y in range(30) for x in range(41) if y in (0, 29) or x in (0, 40)]
    while edge:
        y, x = edge.pop()
        if 0 <= y < 30 and 0 <= x < 41 and white[y, x] and not reached[y, x]:
            reached[y, x] = True
            edge += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    assert (keying.connected_to_border(white) == reached).all()
    assert 0 < reached.sum() < white.sum()


def test_key_white_is_fast_on_large_and_winding_pictures(tmp_path):
    rgb = np.full((1024, 1024, 3), 255, np.uint8)
    for i, row in enumerate(range(4, 1020, 4)):  # a corridor that goes to and fro all the way down
        rgb[row, 8 if i % 2 else 0 : 1024 if i % 2 else 1016] = 0
    plain, spent = np.full_like(rgb, 255), []
    plain[4:8, 4:8] = 0
    for name, pixels in (("plain.png", plain), ("a.png", rgb)):
        path = save(tmp_path / name, pixels)
        begin = time.process_time()
        rgba = folders.read_rgba(path, key="white")
        spent.append(time.process_time() - begin)
    assert spent[1] < 100 * spent[0]  # step by step through the corridor would be many thousand times
    assert ((rgba[..., 3] == 0) == (rgb[..., 0] == 255)).all()


# Folders.


def test_one_picture_per_class(tmp_path):
    for name in ("b.png", "a.webp", "c.d.png"):
        save(tmp_path / name, cut_out())
    found = folders.list_objects(tmp_path)
    assert [(name, [path.name for path in paths]) for name, paths in found] == [
        ("a", ["a.webp"]),
        ("b", ["b.png"]),
        ("c.d", ["c.d.png"]),
    ]


def test_one_folder_per_class(tmp_path):
    for name in ("dog/2.png", "dog/1.PNG", "cat/x.png", "cat/.hidden", ".git/config.png", "Thumbs.db"):
        save(tmp_path / name, cut_out(), format="PNG")
    names, images = folders.read_objects(str(tmp_path))
    assert names == ["cat", "dog"]
    assert [index for index, _ in images] == [0, 1, 1]
    assert [path.name for path in folders.list_objects(tmp_path)[1][1]] == ["1.PNG", "2.png"]


def test_both_layouts_at_once(tmp_path):
    save(tmp_path / "cat" / "1.png", cut_out())
    save(tmp_path / "dog.png", cut_out())
    with pytest.raises(InputError, match=r"both: dog\.png and cat/"):
        folders.list_objects(tmp_path, on_error="skip")


def test_a_class_twice(tmp_path):
    save(tmp_path / "cat.png", cut_out())
    save(tmp_path / "cat.webp", cut_out())
    with pytest.raises(InputError, match=r"one picture per class, got cat\.png and cat\.webp"):
        folders.list_objects(tmp_path)


@pytest.mark.parametrize("list_files", [folders.list_objects, folders.list_contexts])
class TestFolders:
    def test_empty(self, tmp_path, list_files):
        with pytest.raises(InputError, match=r"pictures.*got none") as caught:
            list_files(tmp_path)
        assert str(tmp_path) in str(caught.value)

    def test_missing(self, tmp_path, list_files):
        with pytest.raises(InputError, match="nowhere: expected a folder, got no such file"):
            list_files(tmp_path / "nowhere")

    def test_file(self, tmp_path, list_files):
        with pytest.raises(InputError, match=r"a\.png: expected a folder, got not a directory"):
            list_files(save(tmp_path / "a.png", cut_out()))

    def test_unknown_manner(self, tmp_path, list_files):
        with pytest.raises(InputError, match="on_error: expected one of 'raise', 'skip', got 'ignore'"):
            list_files(tmp_path, on_error="ignore")

    @pytest.mark.parametrize("name", ["notes.txt", "model.bin", "README"])
    def test_other_files_are_refused_or_skipped_aloud(self, tmp_path, list_files, name):
        save(tmp_path / "a.png", cut_out())
        (tmp_path / name).write_text("hello")
        with pytest.raises(InputError, match=rf"{name}: expected a picture file"):
            list_files(tmp_path)
        with pytest.warns(UserWarning, match=rf"skipped 1 bad file\(s\): {name}"):
            assert len(list_files(tmp_path, on_error="skip")) == 1

    def test_nothing_but_other_files(self, tmp_path, list_files):
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(InputError, match=r"got none: notes\.txt"):
            list_files(tmp_path, on_error="skip")


def test_no_path():
    with pytest.raises(InputError, match="folder: expected a path, got 3"):
        pictures.check_path("folder", 3)


def test_nul_in_a_path():
    for call in (folders.list_objects, folders.list_contexts, folders.read_rgb, folders.read_rgba):
        with pytest.raises(InputError, match=r"(folder|path): expected a path, got 'a\\x00b', which contains a NUL"):
            call("a\0b")


def test_names_that_are_too_long(tmp_path):
    for call in (folders.list_objects, folders.list_contexts, folders.read_rgb, folders.read_rgba):
        with pytest.raises(InputError, match=r"a{300}: expected .*, got file name too long"):
            call(tmp_path / ("a" * 300))


def test_a_link_to_itself(tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    for call in (folders.list_objects, folders.list_contexts, folders.read_rgb, folders.read_rgba):
        with pytest.raises(InputError, match=r"loop\.png: expected .*, got too many levels of symbolic links"):
            call(loop)
    save(tmp_path / "a.png", cut_out())
    for call in (folders.list_objects, folders.list_contexts):
        with pytest.raises(InputError, match=r"loop\.png: .*symbolic links\. Fix the link"):
            call(tmp_path)
        with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): loop\.png \(.*symbolic links"):
            assert len(call(tmp_path, on_error="skip")) == 1


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that can be listed but not entered; for root, who may enter any, as the system would say it."""
    folder = tmp_path / "photos" / "closed"
    save(folder / "a.png", cut_out())
    stat = Path.stat

    def deny(path, **options):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", deny)
    return folder


def test_a_folder_that_can_be_listed_but_not_entered(closed):
    for call in (folders.list_objects, folders.list_contexts):
        for folder in (closed, closed.parent):
            with pytest.raises(InputError, match=r"a\.png: .*got permission denied\. Grant yourself permission"):
                call(folder)
            with pytest.raises(InputError, match=r"got none: .*a\.png \(.*permission denied"):
                call(folder, on_error="skip")  # which would leave nothing
    save(closed.parent / "b.png", cut_out())
    with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): closed.a\.png \(.*permission denied"):
        assert [path.name for path in folders.list_contexts(closed.parent, on_error="skip")] == ["b.png"]
    for read in (folders.read_rgb, folders.read_rgba):
        with pytest.raises(InputError, match=r"a\.png: .*got permission denied"):
            read(closed / "a.png")


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    save(tmp_path / "b.png", cut_out())
    (tmp_path / "closed").mkdir()
    listed = Path.iterdir

    def deny(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InputError, match="closed: expected a folder, got permission denied"):
        folders.list_contexts(tmp_path)
    with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): closed \(expected a folder"):
        assert len(folders.list_contexts(tmp_path, on_error="skip")) == 1


def test_empty_class(tmp_path):
    save(tmp_path / "cat" / "1.png", cut_out())
    (tmp_path / "dog").mkdir()
    with pytest.raises(InputError, match="dog: expected at least one picture, got none"):
        folders.list_objects(tmp_path, on_error="skip")


def test_folder_inside_a_class(tmp_path):
    save(tmp_path / "cat" / "1.png", cut_out())
    save(tmp_path / "cat" / "more" / "2.png", cut_out())
    with pytest.raises(InputError, match="more: expected a picture file, got a folder"):
        folders.list_objects(tmp_path)


def test_contexts_are_found_below(tmp_path, noise):
    for name in ("b.jpg", "x/a.png", "x/y/c.png", "a.png", ".x/d.png"):
        save(tmp_path / name, noise)
    (tmp_path / "x" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in folders.list_contexts(tmp_path)]
    assert found == ["a.png", "b.jpg", "x/a.png", "x/y/c.png"]


def test_bad_file_is_named(tmp_path, noise):
    save(tmp_path / "cat" / "1.png", cut_out())
    save(tmp_path / "cat" / "2.png", noise)
    with pytest.raises(InputError, match=r"cat.2\.png: expected a picture with transparency"):
        folders.read_objects(tmp_path)


def test_skip_keeps_the_good_and_sums_up_once(tmp_path, noise):
    for i in range(3):
        save(tmp_path / "cat" / f"{i}.png", cut_out())
        save(tmp_path / "cat" / f"bad{i}.png", noise)
    (tmp_path / "cat" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "cat" / "note.txt").write_text("hello")
    with pytest.warns(UserWarning, match=r"skipped 5 bad file\(s\): .*note\.txt .*bad0\.png .*; and 2 more$") as seen:
        _, images = folders.read_objects(tmp_path, on_error="skip")
    assert len(seen) == 1
    assert len(images) == 3


def test_skip_never_empties_a_class(tmp_path, noise):
    save(tmp_path / "cat" / "1.png", cut_out())
    save(tmp_path / "dog" / "1.png", noise)
    with pytest.raises(InputError, match=r"class 'dog', got none: dog.1\.png \(expected a picture with transparency"):
        folders.read_objects(tmp_path, on_error="skip")


def test_contexts_skip_and_never_run_out(tmp_path, noise):
    save(tmp_path / "a.png", cut_out())
    with pytest.raises(InputError, match=r"got none: a\.png \(expected an opaque picture"):
        folders.read_contexts(tmp_path, on_error="skip")
    save(tmp_path / "b" / "b.png", noise)
    with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): a\.png"):
        (image,) = folders.read_contexts(tmp_path, on_error="skip")
    assert (image == noise).all()


def test_apply_maps_each_and_its_refusal_is_the_files(tmp_path, noise):
    save(tmp_path / "a.png", noise)
    save(tmp_path / "b.png", noise[:20])

    def halve(image):
        if len(image) < 30:
            raise InputError("too small")
        return image[::2]

    with pytest.raises(InputError, match=r"b\.png: too small"):
        folders.read_contexts(tmp_path, apply=halve)
    with pytest.warns(UserWarning, match=r"b\.png \(too small\)"):
        (image,) = folders.read_contexts(tmp_path, on_error="skip", apply=halve)
    assert (image == noise[::2]).all()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the list of open files")
def test_reads_leave_no_file_open(tmp_path, noise):
    paths = [save(tmp_path / f"{i}.png", noise) for i in range(5)]
    before = len(os.listdir("/proc/self/fd"))
    kept = [folders.read_rgb(path) for path in paths]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(kept) == 5


# Glyphs.


@pytest.mark.parametrize("size", [16, 28, 65])
@pytest.mark.parametrize("character", list("0147gW-@"))
def test_glyph_is_centred_black_ink(character, size):
    rgba = folders.glyph(character, size)
    assert rgba.shape == (size, size, 4)
    assert (rgba[..., :3] == 0).all()
    alpha = rgba[..., 3]
    assert alpha.max() > (100 if character == "-" else 200)
    assert ((alpha > 0) & (alpha < 255)).any() or character == "-"
    y, x = np.nonzero(alpha)
    margins = np.array([y[0], size - 1 - y[-1], x.min(), size - 1 - x.max()])
    assert margins.min() >= int(0.1 * size) - 1
    assert abs(margins[0] - margins[1]) <= 1
    assert abs(margins[2] - margins[3]) <= 1


def test_digits_are_equally_high_and_all_different():
    glyphs = [folders.glyph(character, 40)[..., 3] for character in "0123456789"]
    heights = [np.ptp(np.nonzero(alpha)[0]) + 1 for alpha in glyphs]
    assert min(heights) >= 31
    assert max(heights) <= 34
    assert len({alpha.tobytes() for alpha in glyphs}) == 10


def test_small_letters_differ_from_capitals():
    small, capital = (np.ptp(np.nonzero(folders.glyph(character, 40)[..., 3])[0]) for character in "oO")
    assert small < 0.85 * capital


@pytest.mark.parametrize("character", ["\u65e5", " ", "\n", "\uffff", "\u2603", "", "ab"])
def test_characters_that_cannot_be_drawn(character):
    with pytest.raises(InputError, match="character: expected one"):
        folders.glyph(character, 28)


def test_classes_that_are_numbers_are_sorted_by_value(tmp_path):
    for name in ("10", "9", "2", "b", "a"):
        Image.new("RGBA", (4, 4), (0, 0, 0, 100)).save(tmp_path / f"{name}.png")
    assert [name for name, _ in folders.list_objects(tmp_path)] == ["2", "9", "10", "a", "b"]
