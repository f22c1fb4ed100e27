import builtins
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import InputError
from kornia_cag.core import memory
from kornia_cag.evaluation import real as real_module
from kornia_cag.evaluation.real import handwriting, load_real

CLASSES = ("a", "b", "c")


def pictures(count=3, size=8, colour=False):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3) if colour else (count, size, size)).astype(np.uint8)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_npz(tmp_path, colour, dtype):
    images = pictures(colour=colour)
    real = load_real(npz(tmp_path / "x.npz", images=images, labels=np.array([2, 0, 1], dtype)), CLASSES, 8)
    assert real.name == "x.npz"
    assert real.labels.tolist() == [2, 0, 1]
    assert real.labels.dtype == torch.int64
    want = torch.from_numpy(images if colour else images[..., None].repeat(3, axis=3)).permute(0, 3, 1, 2) / 255
    assert torch.equal(real.images, want)


def test_pictures_are_resized_with_antialiasing(tmp_path):
    checks = (np.indices((1, 32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    path = npz(tmp_path / "x.npz", images=checks, labels=np.zeros(1, int))
    real = load_real(str(path), ("a",), 8)
    assert real.images.shape == (1, 3, 8, 8)
    assert (real.images - 0.5).abs().max() < 0.1  # every second texel alone would be black or white


def test_a_class_without_a_real_picture_is_named(tmp_path):
    path = npz(tmp_path / "x.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.array([0, 0]))
    with pytest.warns(UserWarning, match=r"x\.npz: no picture of 2 of 3 classes: b, c"):
        load_real(path, CLASSES, 8)


def test_a_folder_of_class_folders(tmp_path):
    for name in ("b/1.png", "b/2.png", "a/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 10, 3), 255 if name[0] == "a" else 51, np.uint8)).save(tmp_path / name)
    (tmp_path / ".hidden").mkdir()
    real = load_real(tmp_path, CLASSES, 8)
    assert real.name == tmp_path.name
    assert real.labels.tolist() == [0, 1, 1]
    assert real.images.shape == (3, 3, 8, 8)
    torch.testing.assert_close(real.images[:, 0, 0, 0], torch.tensor([1.0, 0.2, 0.2]))


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="real: expected sub-folders with pictures, got none"):
        load_real(tmp_path, CLASSES, 8)
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match=r"real: expected sub-folders named after the classes a, b, c .*got 'd'"):
        load_real(tmp_path, CLASSES, 8)
    (tmp_path / "d").rename(tmp_path / "a")
    with pytest.raises(InputError, match="expected pictures, got none"):
        load_real(tmp_path, CLASSES, 8)
    (tmp_path / "a" / "x.png").write_text("no picture")
    with pytest.raises(InputError, match=r"x\.png"):
        load_real(tmp_path, CLASSES, 8)


def truncated(path):
    npz(path, images=pictures(), labels=np.arange(3))
    path.write_bytes(path.read_bytes()[:200])


def flipped(path):
    np.savez_compressed(path, images=pictures(30, 20), labels=np.zeros(30, int))
    raw = bytearray(path.read_bytes())
    raw[300:400] = bytes(255 - b for b in raw[300:400])
    path.write_bytes(raw)


def single(path):
    with path.open("wb") as file:
        np.save(file, pictures())


def not_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", "text")
        archive.writestr("labels", "text")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "which is neither"),
        (lambda p: p.write_bytes(b""), "got .*x.npz"),
        (lambda p: p.write_text("no archive"), "got .*x.npz"),
        (lambda p: p.write_bytes(b"PK\3\4 no archive either"), "got .*x.npz"),
        (truncated, "got .*x.npz"),
        (flipped, "got .*x.npz"),
        (not_arrays, "real images: expected uint8"),
        (single, "got .*x.npz"),
        (lambda p: np.savez(p, images=np.array([None]), labels=np.arange(1)), "got .*x.npz"),
        (lambda p: np.savez(p, pictures=pictures()), r"arrays 'images' and 'labels', got \['pictures'\]"),
        (lambda p: np.savez(p, images=pictures() / 255, labels=np.arange(3)), "real images: .*got float64"),
        (lambda p: np.savez(p, images=pictures()[0], labels=np.arange(8)), r"real images: .*got uint8 array \(8, 8\)"),
        (lambda p: np.savez(p, images=pictures()[..., None], labels=np.arange(3)), "real images: .*uint8"),
        (lambda p: np.savez(p, images=pictures()[:0], labels=np.arange(0)), r"real images: .*uint8 array \(0, 8, 8\)"),
        (lambda p: np.savez(p, images=pictures()[:, :0], labels=np.arange(3)), "real images: expected uint8"),
        (lambda p: np.savez(p, images=pictures(), labels=np.arange(2)), r"real labels: expected integers \(3,\)"),
        (lambda p: np.savez(p, images=pictures(), labels=np.arange(3.0)), "real labels: .*got float64"),
        (lambda p: np.savez(p, images=pictures(), labels=np.arange(3) + 1), "real labels: .*ids 0 to 2, got 1 to 3"),
        (lambda p: np.savez(p, images=pictures(), labels=np.arange(3) - 1), "real labels: .*got -1 to 1"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, write, message):
    path = tmp_path / "x.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_real(path, CLASSES, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photograph_for_an_npz(tmp_path, suffix):
    Image.fromarray(pictures(1, 40)[0]).save(tmp_path / f"x.{suffix}")
    with pytest.raises(InputError, match=rf"got '.*x\.{suffix}' \(.*\)\. Write one with numpy\.savez") as caught:
        load_real(tmp_path / f"x.{suffix}", CLASSES, 8)
    assert "pickle" not in str(caught.value)


def test_paths_that_cannot_be_reached(tmp_path, untyped):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in (
        ("a\0b", "real: expected a path, .*NUL"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / ("a" * 300), "too long"),
        (tmp_path / "none", "which is neither"),
        (3, "real: expected a path, got 3"),
    ):
        with pytest.raises(InputError, match=message):
            load_real(path, CLASSES, 8)


def header(path, shape, descr="|u1", data=b""):
    """An array that promises a shape and holds other data."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data)
        with archive.open("labels.npy", "w") as file:
            np.save(file, np.zeros(2, int))


@pytest.mark.parametrize(
    ("shape", "descr", "message"),
    [
        ((2, 8, 8), "|u1", "real images: expected a whole array, got a truncated one in '.*x.npz'"),
        ((2, 10**6, 10**6), "|u1", r"real images: expected pictures of at most 67,108,864 pixels.*x\.npz'\. Shrink"),
        ((10**15, 8, 8), "|u1", r"real labels: expected integers \(1000000000000000,\)"),
        ((2, 8, 8), "|O", "real images: expected uint8"),
        ((2, 8, -8), "|u1", "real"),
    ],
)
def test_headers_are_believed_before_nothing(tmp_path, shape, descr, message):
    header(tmp_path / "x.npz", shape, descr)
    with pytest.raises(InputError, match=message) as caught:
        load_real(tmp_path / "x.npz", CLASSES, 8)
    assert "pickle" not in str(caught.value)


def test_more_than_memory_holds_is_refused_before_reading(tmp_path, monkeypatch):
    path = npz(tmp_path / "x.npz", images=pictures(), labels=np.arange(3))
    monkeypatch.setattr(memory, "machine_memory", lambda: 1000)
    with pytest.raises(InputError, match="real images: expected pictures that fit into memory, got 3 of 8 x 8"):
        load_real(path, CLASSES, 8)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_give_what_the_whole_gives(tmp_path, monkeypatch, colour, order):
    images = np.asarray(pictures(7, 12, colour), order=order)
    path = npz(tmp_path / "x.npz", images=images, labels=np.arange(7) % 3)
    whole = load_real(path, CLASSES, 8)
    monkeypatch.setattr(real_module, "PART", 2 * 12 * 12)
    assert torch.equal(load_real(path, CLASSES, 8).images, whole.images)
    same = load_real(path, CLASSES, 12).images[:, 0]
    assert torch.equal(same, torch.from_numpy(np.ascontiguousarray(images[..., 0] if colour else images)) / 255)


def test_handwriting_is_framed_as_mnist_is():
    real = handwriting(28)
    assert real.images.shape == (1797, 3, 28, 28)
    assert torch.bincount(real.labels).min() > 170
    ink = real.images[:, 0]
    assert (ink.amin(), ink.amax()) == (0, 1)
    assert torch.equal(real.images[:, 0], real.images[:, 2])
    seen = ink > 0.1
    height, width = ((seen.any(dim=d).float() * torch.arange(1, 29)) for d in (2, 1))
    sides = torch.stack([s.amax(1) - torch.where(s > 0, s, 99).amin(1) + 1 for s in (height, width)])
    assert sides.amax() == 20
    assert sides.amax(dim=0).float().mean() > 18.5
    place = torch.arange(28) + 0.5
    for mass in (ink.sum(dim=2), ink.sum(dim=1)):
        assert ((mass * place).sum(dim=1) / mass.sum(dim=1) - 14).abs().mean() < 0.5


def test_handwriting_at_another_size():
    assert handwriting(16).images.shape == (1797, 3, 16, 16)


def test_handwriting_without_scikit_learn(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"real: .*Read others with load_real, or pip install \"kornia_cag\[demo\]\""):
        handwriting()


def test_the_real_sets(data):
    for name, classes, size, count in (("mnist_dev", "0123456789", 28, 10_000), ("gtsrb_dev", range(43), 32, 3921)):
        real = load_real(data / "real" / f"{name}.npz", tuple(map(str, classes)), size)
        assert real.images.shape == (count, 3, size, size)
        assert len(real.labels.unique()) == len(classes)
        assert 0 <= real.images.amin() < real.images.amax() <= 1
