"""Real handwriting on photographs, as MNIST-M has it: ``python benchmarks/photo_digits.py DIGITS.npz PHOTOS out.npz``.

Every digit lies on a random crop of a photograph, each pixel the distance of the two (Ganin et al., 2016). Only
photographs that ``kornia-cag train --hold-out 0.2`` keeps from the training are used.
"""

import argparse
from pathlib import Path

import numpy as np

from kornia_cag.banks import folders
from kornia_cag.banks.contexts import held_out

SEED = 0


def compose(digits: np.ndarray, photos: list[np.ndarray], seed: int = SEED) -> np.ndarray:
    """Digits ``(n, h, w)`` and photographs ``(H, W, 3)``, uint8, to pictures ``(n, h, w, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    made = np.empty((*digits.shape, 3), np.uint8)
    for digit, picture in zip(digits, made, strict=True):
        photo = photos[rng.integers(len(photos))]
        top, left = (rng.integers(have - want + 1) for have, want in zip(photo.shape, digit.shape, strict=False))
        patch = photo[top : top + digit.shape[0], left : left + digit.shape[1]]
        picture[:] = np.abs(patch.astype(int) - digit[..., None])
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with np.load(options.digits) as data:
        images, labels = data["images"], data["labels"]
    photos = folders.read_contexts(options.photos)
    held = [photo for photo, kept in zip(photos, held_out(len(photos), 0.2), strict=True) if kept]
    np.savez(options.out, images=compose(images, held), labels=labels)
    print(f"{len(images):,} digits on {len(held)} photographs: {options.out}")
