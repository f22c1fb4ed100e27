"""Real pictures, used only for measuring: never for training, selection or statistics."""

import math
import warnings
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from kornia_cag.banks import folders
from kornia_cag.banks.folders import list_folder
from kornia_cag.banks.pictures import MAX_PIXELS, check_path, kind_of, system_reason
from kornia_cag.core.checks import InputError, check_pixels, fail
from kornia_cag.core.memory import fits
from kornia_cag.evaluation.npz import StoredArray, open_array
from kornia_cag.evaluation.prepared import Fit, prepared, starts

PART = 2**22  # pixels of an .npz resized at once


@dataclass(frozen=True)
class RealSet:
    """Labelled real pictures at a model's canvas size, with a name; of a long one several views, one after the other.

    Raises:
        InputError: for no pictures, and for values outside [0, 1].
    """

    images: Float[Tensor, "v 3 h w"]  # in [0, 1]
    labels: Int[Tensor, " n"]
    name: str
    views: tuple[int, ...] | None = None  # of each picture; None: one

    def __post_init__(self) -> None:
        check_pixels("images", self.images)

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, count: int) -> "RealSet":
        """``count`` pictures, evenly spaced; all of them if there are fewer.

        Raises:
            InputError: if a picture has several views.
        """
        if self.views is not None:
            fail("real", "pictures that a network takes whole, nearly square ones", "long ones, of several views each",
                 "Cut squares out of them.")  # fmt: skip
        count = min(count, len(self.labels))
        chosen = torch.arange(count, device="cpu") * len(self.labels) // count
        return RealSet(self.images[chosen], self.labels[chosen], self.name)


def load_real(path: str | Path, classes: tuple[str, ...], size: int, fit: Fit = "squash") -> RealSet:
    """Read an ``.npz`` with ``images`` and ``labels``, or a folder with one sub-folder of pictures per class.

    From an ``.npz``, only these two arrays are read, and the images part by part: each part is resized before the next
    is read.

    Args:
        path: ``.npz``: images (n, h, w) or (n, h, w, 3) uint8, labels (n,) integers in the order of ``classes``.
            Folder: every sub-folder must have the name of a class.
        classes: class names, in order.
        size: side to resize to, pixels.
        fit: how to make squares of pictures that are none, as in :func:`~kornia_cag.evaluation.prepared.prepared`.

    Raises:
        InputError: for anything else.
    """
    path = check_path("real", path)
    kind = kind_of(path)
    if kind == "folder":
        return _from_folder(path, classes, size, fit)
    if kind != "file":
        fail("real", "an .npz file or a folder", f"{str(path)!r}, which is neither", "Check the path.")
    images, labels = _from_npz(path, classes, size, fit)
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if missing:
        names = ", ".join(classes[i] for i in missing[:5]) + (" …" if len(missing) > 5 else "")
        warnings.warn(f"{path.name}: no picture of {len(missing)} of {len(classes)} classes: {names}", stacklevel=2)
    return RealSet(images, labels, path.name, _views([len(images) // len(labels)] * len(labels)))


def _views(counts: list[int]) -> tuple[int, ...] | None:
    return tuple(counts) if max(counts) > 1 else None


def _from_npz(
    path: Path, classes: tuple[str, ...], size: int, fit: Fit
) -> tuple[Float[Tensor, "v 3 s s"], Int[Tensor, " n"]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if not {"images", "labels"} <= names.keys():
                fail("real", "arrays 'images' and 'labels'", f"{sorted(names)[:20]} in {str(path)!r}")
            with open_array(archive, names["images"]) as images, open_array(archive, names["labels"]) as labels:
                pictures, ids = _checked(images, labels)
                return _prepared(pictures, size, fit), _labels(ids, len(classes))
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise anything: BadZipFile, zlib.error, EOFError, TypeError …
        reason = str(error).partition("\n")[0]
        if isinstance(error, OSError) and error.strerror is not None:
            reason = system_reason(error)
        fail("real", "an .npz file with arrays 'images' and 'labels'", f"{str(path)!r} ({reason})",
             "Write one with numpy.savez(path, images=..., labels=...), or use one folder per class.")  # fmt: skip


def _checked(images: StoredArray | None, labels: StoredArray | None) -> tuple[StoredArray, StoredArray]:
    """Check both by their headers, before any data is read."""
    if images is None:
        fail("real images", "uint8 (n, h, w) or (n, h, w, 3)", "no array")
    shaped = len(images.shape) == 3 or (len(images.shape) == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not shaped or 0 in images.shape:
        fail("real images", "uint8 (n, h, w) or (n, h, w, 3)", str(images),
             "If grey levels run from 0 to 255: images.astype('uint8').")  # fmt: skip
    if math.prod(images.shape[1:3]) > MAX_PIXELS:
        fail("real images", f"pictures of at most {MAX_PIXELS:,} pixels", str(images), "Shrink them.")
    count = images.shape[0]
    if labels is None or labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        fail("real labels", f"integers ({count},)", "no array" if labels is None else str(labels))
    return images, labels


def _labels(stored: StoredArray, count: int) -> Int[Tensor, " n"]:
    labels = stored.read()
    if labels.min() < 0 or labels.max() >= count:
        fail("real labels", f"class ids 0 to {count - 1}", f"{labels.min()} to {labels.max()}",
             "Objects and real pictures must have the same classes.")  # fmt: skip
    return torch.from_numpy(labels.astype(np.int64))


def _prepared(images: StoredArray, size: int, fit: Fit) -> Float[Tensor, "v 3 s s"]:
    count, short, long = images.shape[0], *sorted(images.shape[1:3])
    whole = _room(count if fit == "squash" else count * len(starts(long, short)), size)
    done = 0
    for part in images.parts(PART):
        views = prepared(_planes(part), size, fit, argument="real images")
        whole[done : done + len(views)] = views
        done += len(views)
    return whole


def _check_room(count: int, size: int, per_pixel: int = 12) -> None:
    need = per_pixel * count * size * size
    if not fits(need):
        fail("real images", "pictures that fit into memory", f"{count:,} of {size} x {size}, {need / 2**30:,.0f} GiB",
             "Use fewer of them.")  # fmt: skip


def _room(count: int, size: int) -> Float[Tensor, "n 3 s s"]:
    _check_room(count, size)
    return torch.empty(count, 3, size, size, dtype=torch.float32, device="cpu")


def _from_folder(path: Path, classes: tuple[str, ...], size: int, fit: Fit) -> RealSet:
    _check_room(1, size)
    images, labels = [], []
    for folder in list_folder(path):
        if folder.name not in classes:
            fail("real", "sub-folders named after the classes " + ", ".join(classes[:5]) + " …", f"{folder.name!r}")
        apply = partial(_views_of, size=size, fit=fit)
        for small in folders.read_contexts(folder, on_error=None, apply=apply, side=size, on_white=True):
            images.append(torch.from_numpy(small))
            labels.append(classes.index(folder.name))
    if not images:
        fail("real", "sub-folders with pictures", f"none in {str(path)!r}")
    return RealSet(torch.cat(images), torch.tensor(labels, device="cpu"), path.name, _views(list(map(len, images))))


def _views_of(rgb: UInt8[np.ndarray, "h w 3"], size: int, fit: Fit) -> Float[np.ndarray, "v 3 s s"]:
    return prepared(_planes(rgb[None]), size, fit, argument="picture").numpy()


def _planes(images: UInt8[np.ndarray, "n h w *c"]) -> UInt8[Tensor, "n 3 h w"]:
    x = torch.from_numpy(np.ascontiguousarray(images))
    return x[:, None].expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2)


def handwriting(size: int = 28) -> RealSet:
    """Real handwritten digits from scikit-learn: 1,797 pictures of 8×8 by 13 people, framed like MNIST.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.

    Raises:
        InputError: if scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        fail("real", "a file or folder of real pictures, or scikit-learn for its handwriting", "neither",
             'Read others with load_real, or pip install "kornia_cag[demo]".')  # fmt: skip
    data = load_digits()
    _check_room(len(data.images), size, per_pixel=4)
    inner = round(size * 20 / 28)
    digits = torch.from_numpy(data.images).float()[:, None] / 16
    framed = torch.stack([_frame(digit, inner, size) for digit in digits])
    name = "scikit-learn's handwritten digits"
    return RealSet(framed.expand(-1, 3, -1, -1), torch.from_numpy(data.target).long(), name)


def _frame(digit: Float[Tensor, "1 h w"], inner: int, size: int) -> Float[Tensor, "1 s s"]:
    """Scale the ink's longest side to ``inner``, and centre its mass in ``size``."""
    seen = digit[0] > 0.1
    rows, columns = seen.any(dim=1).nonzero()[:, 0], seen.any(dim=0).nonzero()[:, 0]
    cut = digit[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = inner / max(cut.shape[1:])
    h, w = (max(1, round(scale * side)) for side in cut.shape[1:])
    ink = F.interpolate(cut[None], (h, w), mode="bicubic", antialias=True)[0].clamp(0, 1)
    y = float((ink.sum(dim=(0, 2)) * (torch.arange(h, dtype=torch.float32, device="cpu") + 0.5)).sum() / ink.sum())
    x = float((ink.sum(dim=(0, 1)) * (torch.arange(w, dtype=torch.float32, device="cpu") + 0.5)).sum() / ink.sum())
    top = min(max(round(size / 2 - y), 0), size - h)
    left = min(max(round(size / 2 - x), 0), size - w)
    return F.pad(ink, (left, size - w - left, top, size - h - top))
