"""Composites on photos: images of a data set's items become contexts, and rows are dealt to them.

Each item's image becomes the context of one object, whose class is the composite's label; the photo's own label is
ignored. Classes are balanced. Items carry no index, so samples are counted from 0 or from the last ``set_epoch``:
replay depends on the order in which the data set is read, and on the batch size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.items import item_pixels
from kornia_cag.core.checks import check_int, describe, fail
from kornia_cag.core.randomness import sample_keys, uniform
from kornia_cag.sampling.rows import FIX, Rows


class PhotoRows:
    """Deals objects to the items of a data set, which carry no index, by counting samples.

    Args:
        labels: (n,); class of each object, on the CPU, every class from 0 to the highest.
        seed: seed of the choice, in ``[0, 2^62)``.
    """

    def __init__(self, labels: Int[Tensor, " n"], *, seed: int) -> None:
        self._labels, self.seed = labels, check_int("seed", seed, 0, 2**62 - 1)
        self._epoch = self._index = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of ``epoch``."""
        self._epoch, self._index = check_int("epoch", epoch, 0, 2**62 - 1), 0

    def __call__(self, count: int) -> Rows:
        """Rows of the next ``count`` samples; their contexts are the positions of their photos in the batch."""
        rows = photo_rows(self._labels, count=count, seed=self.seed, epoch=self._epoch, start=self._index)
        self._index += count
        return rows

    def state_dict(self) -> dict[str, int]:
        """The seed, and the position of the next sample."""
        return {"seed": self.seed, "epoch": self._epoch, "index": self._index}

    def load_state_dict(self, state: Any) -> None:
        """Load the state of :meth:`state_dict`.

        Raises:
            InputError: for any other state, or one with another seed.
        """
        if not isinstance(state, dict) or set(state) != {"seed", "epoch", "index"}:
            fail("state['photos']", "seed, epoch and index", describe(state))
        epoch, index = (check_int(f"state['photos'][{name!r}]", state[name], 0) for name in ("epoch", "index"))
        if state["seed"] != self.seed:
            fail("state", f"the state of a collate with seed={self.seed}", f"seed={state['seed']}",
                 "Build it like the saved one.")  # fmt: skip
        self._epoch, self._index = epoch, index


def photo_bank(items: Sequence[Any], *, canvas: tuple[int, int], device: torch.device) -> ContextBank:
    """The images of a data set's items as contexts 0 to b - 1, twice as fine as the canvas.

    Args:
        items: each an image, or a tuple, list or dict, possibly nested, whose first image counts; in a dict, the one
            under ``image`` or ``img``. Everything else is ignored, including the photo's own label: the label of a
            composite is that of its object. An image is

            - a PIL image without transparency; its colour profile is applied;
            - a tensor ``(3, h, w)`` or ``(1, h, w)``, uint8 or float32 in [0, 1];
            - a NumPy array ``(h, w, 3)``, ``(h, w, 1)`` or ``(h, w)``, uint8, taken as RGB: OpenCV reads BGR, which
              looks the same, so convert it with ``image[..., ::-1]``;
            - the bytes of a picture file, or a dict ``{"bytes": ..., "path": ...}``, as in Hugging Face's data sets
              without decoding;
            - the path of a picture file. A string counts as one if it has a picture suffix and the file exists.

            Sizes may differ; the central square is kept.
        canvas: ``(height, width)``, pixels.
        device: device of the bank.

    Raises:
        InputError: naming the item without a usable image.
    """
    first = items[0] if items else None
    if isinstance(first, int) or (isinstance(first, Tensor) and first.dtype == torch.int64 and first.ndim < 3):
        got = f"a list that begins with {describe(first)}"
        fail("rows", "those of a PairSampler, or photos", got, FIX)
    texels = min(max(1 << (2 * max(canvas) - 1).bit_length(), 8), 4096)
    images = [item_pixels(f"items[{i}]", item, texels) for i, item in enumerate(items)]
    return ContextBank.from_tensors(images, size=texels, device=device)


def photo_rows(labels: Int[Tensor, " n"], *, count: int, seed: int, epoch: int, start: int) -> Rows:
    """Rows, like those of a :class:`PairSampler`, that put an object on each of ``count`` photos.

    Samples ``start`` to ``start + count - 1`` of the epoch, shuffled over the slots. Sample ``i`` depends only on seed,
    epoch and ``i``. Classes take turns in a random cyclic order, so the class counts of consecutive indices differ by
    at most one; the object is uniform within its class.

    Args:
        labels: class of each object, on the CPU, every class from 0 to the highest.
        count: number of photos.
        seed: seed of the choice.
        epoch: epoch of the samples.
        start: first sample index.
    """
    index = start + torch.arange(count, device="cpu")
    index = index[uniform(_keys(seed, epoch, index), "photos.slot").argsort(stable=True)]
    sizes = labels[labels >= 0].bincount()  # without distractors
    if not len(sizes):
        fail("objects", "some with a class to put on photos", "none", "Add a bank: objects + distractors.")
    turns = uniform(_keys(seed, epoch, torch.arange(len(sizes), device="cpu")), "photos.class").argsort(stable=True)
    classes = turns[index % len(sizes)]
    place = uniform(_keys(seed, epoch, index), "photos.object").double() * sizes[classes]
    known = labels.argsort(stable=True)[len(labels) - int(sizes.sum()) :]
    objects = known[(sizes.cumsum(0) - sizes)[classes] + place.long()]
    return Rows.of(objects, torch.arange(count, device="cpu"), index, epoch=epoch, seed=seed)


def _keys(seed: int, epoch: int, index: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    return sample_keys(torch.full_like(index, seed), torch.full_like(index, epoch), index)
