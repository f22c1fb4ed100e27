"""Photographs with objects in them, by another program: ``python benchmarks/pasted.py OBJECTS PHOTOS OUT [--count N]``.

OpenCV pastes each cut-out of a folder, one picture per class, over photographs that no training has seen: turned by up
to 18 degrees, seen at an angle, lit, blurred, noisy, as JPEG, in frames from 16:9 to 3:4. ``OUT/close`` has objects of
half to nineteen twentieths of the frame's longer side, ``OUT/wide`` of a fifth to nine twentieths; each is a folder per
class, as ``kornia-cag evaluate --real`` takes it. Nothing of the library is used, so that both do not err alike.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

KINDS = {"close": (0.5, 0.95), "wide": (0.2, 0.45)}  # the object's longer side over the frame's
FRAMES = (1.0, 4 / 3, 3 / 4, 16 / 9)  # width over height


def cut_out(path: Path) -> np.ndarray:
    """A picture, premultiplied, without its transparent border."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32)
    if picture.shape[2] == 3:  # opaque: white is taken for the background
        alpha = np.where(picture.min(axis=2) > 245, 0, 255).astype(np.float32)
        picture = np.dstack([picture, alpha])
    rows, columns = np.nonzero(picture[..., 3] > 8)
    picture = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    picture[..., :3] *= picture[..., 3:] / 255
    return picture


def backdrop(photo: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph."""
    factor = max(height / photo.shape[0], width / photo.shape[1]) * rng.uniform(1, 1.6)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    photo = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=how)
    top, left = (int(rng.integers(have - want + 1)) for have, want in zip(photo.shape, (height, width), strict=False))
    return photo[top : top + height, left : left + width].astype(np.float32)


def pasted(thing: np.ndarray, photo: np.ndarray, share: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """An object on a photograph."""
    height = int(rng.integers(240, 520))
    width = int(height * rng.choice(FRAMES))
    h, w = thing.shape[:2]
    side = rng.uniform(*share) * max(height, width)
    side = min(side, 0.95 * min(height, width) * max(h, w) / min(h, w))  # it has to fit across, too
    scale, angle = side / max(h, w), np.deg2rad(rng.uniform(-18, 18))
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    there = (corners - [w / 2, h / 2]) @ turn + rng.uniform(-0.06, 0.06, (4, 2)) * side
    reach = np.abs(there).max(axis=0)
    centre = [rng.uniform(min(r, n / 2), max(n - r, n / 2)) for r, n in zip(reach, (width, height), strict=True)]
    homography = cv2.getPerspectiveTransform(corners, (there + centre).astype(np.float32))
    taps = max(1, round(1 / scale))
    layer = cv2.warpPerspective(cv2.blur(thing, (taps, taps)), homography, (width, height))
    picture = backdrop(photo, height, width, rng) * (1 - layer[..., 3:] / 255)
    picture = (picture + layer[..., :3] * rng.uniform(0.55, 1.25)) * rng.uniform(0.8, 1.15) + rng.uniform(-10, 10)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    return np.clip(picture + rng.normal(0, rng.uniform(0, 6), picture.shape), 0, 255).astype(np.uint8)


def main() -> None:
    """Write the pictures of all classes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("objects", type=Path, metavar="OBJECTS", help="folder with one picture per class")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photographs that show none of them")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--count", type=int, default=30, help="pictures of each class and kind (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    photos = sorted(path for path in options.photos.iterdir() if cv2.haveImageReader(str(path)))
    for path in sorted(path for path in options.objects.iterdir() if cv2.haveImageReader(str(path))):
        thing = cut_out(path)
        for kind, share in KINDS.items():
            folder = options.out / kind / path.stem
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(options.count):
                photo = cv2.imread(str(photos[rng.integers(len(photos))]))
                quality = int(rng.integers(60, 95))
                made = pasted(thing, photo, share, rng)
                cv2.imwrite(str(folder / f"{number:03}.jpg"), made, [cv2.IMWRITE_JPEG_QUALITY, quality])


if __name__ == "__main__":
    main()
