"""What one file may take: a few bytes a pixel, whatever its shape and content."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kornia_cag.banks import tiles

SCRIPT = """
import re, sys
from pathlib import Path
from kornia_cag import ContextBank, ObjectBank
from kornia_cag.evaluation.real import load_real

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

folder = Path(sys.argv[1])
ObjectBank.from_folder(folder / "small", size=16, key="white")
ContextBank.from_folder(folder / "small", size=16)
before = peak()
for case in (
    lambda: load_real(folder / "real.npz", ("a",), 8),
    lambda: ObjectBank.from_folder(folder / "thin", size=16, key="white"),
    lambda: ContextBank.from_folder(folder / "photo", size=16),
    lambda: ObjectBank.from_folder(folder / "object", size=16),
):
    case()
    print(peak() - before)
"""


def save(path, array, **options):
    path.parent.mkdir()
    Image.fromarray(array).save(path, **options)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the system's count of memory")
def test_peak_memory_is_a_few_bytes_a_pixel(tmp_path):
    """In MiB; each bound is a half of what holding the picture as float32 in three or four channels takes, or less."""
    side = 4160  # a little more than what is taken as it is
    save(
        tmp_path / "small" / "a.png",
        np.pad(np.zeros((8, 8, 3), np.uint8), ((4, 4), (4, 4), (0, 0)), constant_values=255),
    )
    lines = np.full((2**20, 1), 255, np.uint8)
    lines[1::2] = 0
    save(tmp_path / "thin" / "a.png", lines, compress_level=1)
    save(tmp_path / "photo" / "a.jpg", np.full((side, side), 77, np.uint8))
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[1:-1, 1:-1, 3] = 255
    save(tmp_path / "object" / "a.png", rgba, compress_level=1)
    np.savez_compressed(tmp_path / "real.npz", images=np.zeros((3, 8, 8), np.uint8), labels=np.zeros(3, int),
                        unused=np.zeros(2**27, np.uint8))  # fmt: skip
    del rgba, lines
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    rises = [float(line) for line in run.stdout.split()]
    pixels = side * side / 2**20
    bounds = [64, 16 + 110, 12 * pixels, 16 * pixels]
    assert len(rises) == len(bounds)
    for rise, bound in zip(rises, bounds, strict=True):
        assert rise < bound, rises


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (1, 5000), (5000, 1), (90, 110)])
@pytest.mark.parametrize("align", [1, 2, 3, 7])
def test_tiles_cover_each_pixel_once(monkeypatch, shape, align):
    monkeypatch.setattr(tiles, "TILE", 1000)
    seen = np.zeros(shape, int)
    for left, top, right, bottom in tiles.tiles(*shape, align):
        assert left % align == top % align == 0
        assert (bottom - top) * (right - left) <= 1000
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("shape", "factor"), [((90, 110), 3), ((7, 1), 2), ((1, 400), 7), ((64, 64), 4)])
def test_reducing_is_the_mean_of_boxes(monkeypatch, shape, factor):
    monkeypatch.setattr(tiles, "TILE", 1000)
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    small = tiles.reduced(rgb, factor)
    assert small.shape == (-(-shape[0] // factor), -(-shape[1] // factor), 3)
    for y, x in np.ndindex(*small.shape[:2]):
        box = rgb[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert abs(small[y, x] - box.mean(axis=(0, 1))).max() < 1


def test_colours_of_transparent_pixels_stay_out_of_the_means():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 1] = 255  # green, unseen
    rgba[0, 0] = (200, 0, 0, 255)
    assert tiles.reduced(rgba, 4)[0, 0].tolist() in ([12, 0, 0, 16], [13, 0, 0, 16])  # 12.5


@pytest.mark.parametrize(
    ("height", "width", "room", "factor"),
    [
        (4096, 4096, 99, 1),
        (4097, 4096, 99, 2),
        (8192, 8192, 99, 2),
        (8192, 8192, 1, 1),
        (8192, 8192, 0, 1),
        (2**26, 1, 99, 4),
    ],
)
def test_only_huge_pictures_are_reduced_and_never_too_far(height, width, room, factor):
    assert tiles.spare(height, width, room) == factor
