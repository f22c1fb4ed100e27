"""Sheets of composites for people to look at, optionally with boxes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kornia_cag.core.checks import check_int, check_pixels, check_tensor, fail
from kornia_cag.core.storage import write_bytes


def sheet(
    images: Shaped[Tensor, "b 3 h w"], columns: int = 8, *, zoom: int = 2, boxes: Float[Tensor, "b 4"] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay out images in rows, enlarged by a whole factor, with one grey pixel between them.

    Args:
        images: float in [0, 1], or uint8.
        columns: images per row.
        zoom: enlargement.
        boxes: half-open xyxy in pixels of the images, drawn in yellow; NaN: no box.

    Raises:
        InputError: for images of another shape, and for values outside [0, 1].
    """
    check_tensor("images", images, ("b", 3, "h", "w"))
    check_pixels("images", images)
    columns, zoom = check_int("columns", columns), check_int("zoom", zoom)
    b, _, h, w = images.shape
    rows = -(-b // columns)
    canvas = Image.new("RGB", (columns * (w * zoom + 1) + 1, rows * (h * zoom + 1) + 1), (128, 128, 128))
    pen = ImageDraw.Draw(canvas)
    pixels = _bytes(images).permute(0, 2, 3, 1).cpu().numpy()
    for i, picture in enumerate(pixels):
        left, top = 1 + i % columns * (w * zoom + 1), 1 + i // columns * (h * zoom + 1)
        canvas.paste(Image.fromarray(picture).resize((w * zoom, h * zoom), Image.Resampling.NEAREST), (left, top))
        if boxes is not None:
            x1, y1, x2, y2 = (float(v) * zoom for v in boxes[i])
            if x2 > x1:  # false for NaN
                pen.rectangle((left + x1, top + y1, left + x2 - 1, top + y2 - 1), outline=(255, 220, 0))
    return np.asarray(canvas)


def _bytes(images: Shaped[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    if images.dtype == torch.uint8:
        return images
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def save_sheet(
    path: str | Path,
    images: Shaped[Tensor, "b 3 h w"],
    columns: int = 8,
    *,
    zoom: int = 2,
    boxes: Float[Tensor, "b 4"] | None = None,
    below: Sequence[Shaped[Tensor, "b _ h w"]] = (),
) -> None:
    """Write :func:`sheet` to a picture file.

    Args:
        path: the file.
        images: as for :func:`sheet`.
        columns: as for :func:`sheet`.
        zoom: as for :func:`sheet`.
        boxes: as for :func:`sheet`; drawn into ``images`` only.
        below: more batches of equal length, with 1 or 3 channels; each becomes a sheet below the others.

    Raises:
        InputError: if the name is not that of a picture file.
    """
    sheets = [sheet(images, columns, zoom=zoom, boxes=boxes)]
    sheets += [sheet(batch.expand(-1, 3, -1, -1), columns, zoom=zoom) for batch in below]
    save_picture(path, Image.fromarray(np.concatenate(sheets)))


def save_rows(
    path: str | Path, rows: Sequence[tuple[str, Shaped[Tensor, "_ 3 h w"]]], columns: int = 12, *, zoom: int = 2
) -> None:
    """Write rows of pictures, each after its caption, to a picture file.

    Args:
        path: the file.
        rows: caption and pictures as for :func:`sheet`; pictures beyond ``columns`` are left out.
        columns: most pictures per row.
        zoom: enlargement.

    Raises:
        InputError: without rows, or if the name is not that of a picture file.
    """
    if not rows:
        fail("rows", "at least one row of pictures", "none")
    columns = min(columns, max(len(images) for _, images in rows))
    font = ImageFont.load_default()
    margin = 8 + max(round(font.getlength(caption)) for caption, _ in rows)
    strips = []
    for caption, images in rows:
        grey = 128 if images.dtype == torch.uint8 else 0.5
        room = images.new_full((columns, *images.shape[1:]), grey)  # fills empty places
        room[: len(images)] = images[:columns]
        strip = Image.fromarray(sheet(room, columns, zoom=zoom))
        whole = Image.new("RGB", (margin + strip.width, strip.height), (255, 255, 255))
        whole.paste(strip, (margin, 0))
        ImageDraw.Draw(whole).text((4, strip.height // 2 - 6), caption, fill=(0, 0, 0), font=font)
        strips.append(np.asarray(whole))
    save_picture(path, Image.fromarray(np.concatenate(strips)))


_JPEGS = ("JPEG", "MPO")  # their codec prints a line of its own about pictures that are too large


def check_picture_name(argument: str, path: str | Path) -> str:
    """Pillow's name for the format of a file's suffix.

    Raises:
        InputError: if Pillow does not know the format, only reads it, or cannot write a colour picture of any size.
    """
    format = Image.registered_extensions().get(Path(path).suffix.lower(), "")
    trial, wide = io.BytesIO(), Image.new("RGB", (300, 2))
    try:
        wide.save(trial, format)
        if format in Image.OPEN:
            with Image.open(trial) as kept:
                fits = kept.size == wide.size
        else:
            fits = True  # such as PDF
    except (KeyError, OSError, ValueError, SyntaxError):  # what Pillow raises for formats it cannot write
        fits = False
    if not fits:
        fail(argument, "a picture file that Pillow can write, such as preview.png", repr(str(path)))
    return format


def save_picture(path: str | Path, picture: Image.Image) -> None:
    """Write a picture file in the format of its suffix.

    Raises:
        InputError: if the name is not that of a picture file, or the picture is too large for its format.
    """
    file = io.BytesIO()
    format = check_picture_name("path", path)
    reason = "too large" if format in _JPEGS and max(picture.size) > 65_500 else ""
    try:
        if not reason:
            picture.save(file, format)
    except (OSError, ValueError) as error:  # other formats limit the side, too
        reason = " ".join(str(error).split()) or type(error).__name__
    if reason:
        fail("path", f"a format that holds {picture.width} x {picture.height} pixels", f"{format} ({reason})",
             "Write a .png.")  # fmt: skip
    write_bytes(path, file.getbuffer())


def magnified(
    attacked: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"], eps: float
) -> Float[Tensor, "b 3 h w"]:
    """An attack's perturbation as a picture: grey for none, 0 for ``-eps`` and 1 for ``+eps``."""
    return ((attacked - clean) / (2 * eps) + 0.5).clamp(0, 1) if eps > 0 else torch.full_like(clean, 0.5)
