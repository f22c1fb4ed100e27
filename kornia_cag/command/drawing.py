"""Boxes drawn into pictures: what a detector finds in each, and a sheet of what it misses."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from kornia_cag.banks.pictures import read_rgb
from kornia_cag.command.lettering import drawable, font
from kornia_cag.command.sheets import BLACK, YELLOW, save_picture, save_rows
from kornia_cag.evaluation.boxes import Boxed
from kornia_cag.evaluation.detection import SIZES
from kornia_cag.evaluation.misses import Match
from kornia_cag.training.detected import Box, Detected

BLUE = (0, 200, 255)
LETTERS = 0.016  # size of the font, as a share of a picture's longer side
CROP, AROUND, LEAST = 128, 2.5, 48  # a crop's side on the sheet; in lengths of its box; and at least, pixels
COLUMNS = 10  # of the sheet
Shown = tuple[Boxed, Box, list[Box], list[Box]]  # a picture, the box in the middle, true and found boxes


def draw_found(found: Detected, folder: Path, taken: set[str]) -> Path:
    """Write a photograph with its boxes, named as its file is; returns where.

    Args:
        found: in the photograph, whose path is that of a file.
        folder: to write to.
        taken: names of files written so far, to which this one is added.
    """
    source = Path(found.path)
    name, count = f"{source.stem}.png", 1
    while name in taken:
        count += 1
        name = f"{source.stem}-{count}.png"
    taken.add(name)
    picture = Image.fromarray(read_rgb(source, on_white=True, notes=[]))
    size = max(11, round(LETTERS * max(picture.size)))
    pen = ImageDraw.Draw(picture)
    for one in reversed(found.objects):  # the surest last, over the others
        _outline(pen, one.box, YELLOW, max(2, size // 6))
        _tag(pen, one.box[:2], drawable(f"{one.name} {one.probability:.0%}"), size)
    save_picture(folder / name, picture)
    return folder / name


def _outline(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
    """Around a box, not over what is in it."""
    left, top, right, bottom = (round(side) for side in box)
    pen.rectangle((left - width, top - width, max(right, left) + width - 1, max(bottom, top) + width - 1),
                  outline=colour, width=width)  # fmt: skip


def _tag(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, size: int) -> None:
    """A name above a box, or in it at the upper edge of the picture."""
    letters = font(size)
    left, bottom = corner[0], max(corner[1] - size // 6 - 1, size + 4)
    pen.rectangle((left, bottom - size - 4, left + letters.getlength(text) + 4, bottom), fill=YELLOW)
    pen.text((left + 2, bottom - 2), text, BLACK, letters, anchor="ls")


def save_misses(path: str | Path, pictures: Sequence[Boxed], matches: Sequence[Match]) -> bool:
    """Write a sheet of crops: what was missed, by size, what was named wrongly, false alarms, and the least sure finds.

    True boxes are blue, found ones yellow.

    Args:
        path: the picture file.
        pictures: with their true boxes.
        matches: what was found in each of them.

    Returns:
        Whether there is anything to show.
    """
    rows = [(f"{caption}: {len(shown)}", torch.stack([_cut(*one) for one in shown[:COLUMNS]]))
            for caption, shown in _kinds(pictures, matches) if shown]  # fmt: skip
    if rows:
        save_rows(path, rows, COLUMNS, zoom=1)
    return bool(rows)


def _kinds(pictures: Sequence[Boxed], matches: Sequence[Match]) -> Iterator[tuple[str, list[Shown]]]:
    """Captions, and what to show below each."""
    missed: dict[str, list[Shown]] = {name: [] for name in SIZES}
    misnamed: list[Shown] = []
    false: list[tuple[float, Shown]] = []
    right: list[tuple[float, Shown]] = []
    for picture, match in zip(pictures, matches, strict=True):
        true, found = _boxes(picture.boxes), _boxes(match.found.boxes)
        for place, box in enumerate(true):
            if match.misnamed[place]:
                misnamed.append((picture, box, true, found))
            elif not match.hit[place] and not picture.crowd[place]:
                missed[_size_of(box)].append((picture, box, true, found))
        for box, score, owner, excused in zip(found, match.found.scores.tolist(), match.owner.tolist(),
                                              match.excused.tolist(), strict=True):  # fmt: skip
            if owner >= 0:
                right.append((score, (picture, box, true, found)))
            elif not excused:
                false.append((score, (picture, box, true, found)))
    for name, shown in missed.items():
        yield f"missed, {name}", _spaced(shown)
    yield "found under another name", _spaced(misnamed)
    yield "false alarms, the surest", [one for _, one in sorted(false, key=lambda pair: -pair[0])]
    yield "found, the least sure", [one for _, one in sorted(right, key=lambda pair: pair[0])]


def _spaced(shown: list[Shown]) -> list[Shown]:
    """All of them; those that a row shows come first, evenly spaced."""
    count = min(COLUMNS, len(shown))
    first = [place * len(shown) // count for place in range(count)] if count else []
    return [shown[place] for place in first] + [one for place, one in enumerate(shown) if place not in first]


def _boxes(boxes: Tensor) -> list[Box]:
    return [(left, top, right, bottom) for left, top, right, bottom in boxes.tolist()]


def _size_of(box: Box) -> str:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return next(name for name, (low, high) in SIZES.items() if low <= area < high)


def _cut(picture: Boxed, box: Box, true: list[Box], found: list[Box]) -> UInt8[Tensor, "3 s s"]:
    """A square around a box, with all boxes in it."""
    pixels = Image.fromarray(read_rgb(picture.path, on_white=True, notes=[]))
    side = max(LEAST, AROUND * max(box[2] - box[0], box[3] - box[1]))
    left, top = (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2
    crop = pixels.transform(
        (CROP, CROP), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BILINEAR
    )
    pen, zoom = ImageDraw.Draw(crop), CROP / side
    for colour, boxes in ((BLUE, true), (YELLOW, found)):
        for one in boxes:
            shifted = [(edge - start) * zoom for edge, start in zip(one, (left, top) * 2, strict=True)]
            _outline(pen, shifted, colour, 1)
    return torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8).view(CROP, CROP, 3).permute(2, 0, 1)
