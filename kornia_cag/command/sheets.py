"""Sheets of composites for people to look at, optionally with names and boxes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from kornia_cag.command.lettering import fitted, font
from kornia_cag.core.checks import check_int, check_pixels, check_tensor, fail
from kornia_cag.core.storage import write_bytes

BLACK, YELLOW = (0, 0, 0), (255, 220, 0)
NAME, LINE, CAPTION = 11, 13, 12  # pixels: size of the font of names, distance of their lines; font of captions
MARGIN = 240  # most pixels of a line of a caption
DARK = 0.05  # of the light of white: a lit room adds about as much to a screen, and what is below drowns in it
LIFT = 0.7  # of brightened pictures: 1 leaves their shadows black, 0.5 makes their lights pale


def sheet(
    images: Shaped[Tensor, "b 3 h w"],
    columns: int = 8,
    *,
    zoom: int = 2,
    boxes: Float[Tensor, "b 4"] | Float[Tensor, "b k 4"] | None = None,
    names: Sequence[str] | None = None,
    insets: bool = False,
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay out images in rows, enlarged by a whole factor, with one grey pixel between them.

    Args:
        images: float in [0, 1], or uint8.
        columns: images per row.
        zoom: enlargement.
        boxes: half-open xyxy in pixels of the images, one or several of each, drawn in yellow; NaN: no box.
        names: one per image, written below it; too long ones lose their middle.
        insets: show images that are :func:`nearly_black` once more, :func:`brightened`, in their lower right quarter.

    Raises:
        InputError: for images of another shape, and for values outside [0, 1].
    """
    check_tensor("images", images, ("b", 3, "h", "w"))
    check_pixels("images", images)
    columns, zoom = check_int("columns", columns), check_int("zoom", zoom)
    images, width, height = images.detach().cpu(), images.shape[3] * zoom, images.shape[2] * zoom
    said = [fitted(name, width - 4, NAME, 2) for name in names or ()]
    foot = max((4 + LINE * len(lines) for lines in said), default=0)
    canvas = Image.new(
        "RGB", (columns * (width + 1) + 1, -(-len(images) // columns) * (height + foot + 1) + 1), (128, 128, 128)
    )
    pen = ImageDraw.Draw(canvas)
    seen = nearly_black(images).tolist() if insets else [False] * len(images)
    for i, image in enumerate(images):
        left, top = 1 + i % columns * (width + 1), 1 + i // columns * (height + foot + 1)
        canvas.paste(_enlarged(image, (width, height)), (left, top))
        if boxes is not None:
            for box in boxes[i].view(-1, 4):
                outlined(pen, (left, top), box, zoom)
        if seen[i]:
            canvas.paste(_inset(image, (width, height)), (left + width - width // 2, top + height - height // 2))
        if said:
            _write_name(pen, (left, top + height, left + width - 1, top + height + foot - 1), said[i])
    return np.asarray(canvas)


def _enlarged(image: Shaped[Tensor, "3 h w"], size: tuple[int, int]) -> Image.Image:
    pixels = to_bytes(image).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def outlined(pen: ImageDraw.ImageDraw, corner: tuple[int, int], box: Float[Tensor, "4"], zoom: int) -> None:
    """Draw a half-open box in pixels of an image that is shown from ``corner`` on, enlarged; NaN: none."""
    (left, top), (x1, y1, x2, y2) = corner, (float(v) * zoom for v in box)
    if x2 > x1:  # false for NaN
        pen.rectangle((left + x1, top + y1, left + x2 - 1, top + y2 - 1), outline=YELLOW)


def _inset(image: Shaped[Tensor, "3 h w"], size: tuple[int, int]) -> Image.Image:
    """Half as large on each side, in a white frame on its inner sides."""
    pixels = brightened(image[None])[0].permute(1, 2, 0).numpy()
    width, height = size[0] // 2, size[1] // 2
    framed = Image.new("RGB", (width, height), (255, 255, 255))
    if min(width, height) > 1:
        framed.paste(Image.fromarray(pixels).resize((width - 1, height - 1), Image.Resampling.BOX), (1, 1))
    return framed


def _write_name(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], lines: Sequence[str]) -> None:
    pen.rectangle(box, fill=(255, 255, 255))
    for number, line in enumerate(lines):
        pen.text(((box[0] + box[2]) / 2, box[1] + 2 + LINE * number), line, BLACK, font(NAME), anchor="ma")


def to_bytes(images: Shaped[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h w"]:
    """Images in [0, 1] or uint8 as uint8."""
    if images.dtype == torch.uint8:
        return images
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def nearly_black(images: Shaped[Tensor, "b 3 h w"]) -> Bool[Tensor, " b"]:
    """(b,); which images show hardly anything on a screen: all but a tenth of their pixels give less than ``DARK``."""
    return _brightest(_light(_values(images))) < DARK


def brightened(images: Shaped[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Images whose shadows can be seen: scaled, each by its own factor, then raised to the power ``LIFT``.

    The factor lets the strongest channel of a tenth of the pixels reach full strength.
    """
    values = _values(images)
    strongest = _brightest(values.amax(dim=1)).clamp(min=1 / 255)
    return ((values / strongest[:, None, None, None]).clamp(0, 1) ** LIFT * 255).round().to(torch.uint8)


def _values(images: Shaped[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    return images.float() / 255 if images.dtype == torch.uint8 else images.detach().float().clamp(0, 1)


def _light(values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Relative luminance, 1 for white (sRGB, IEC 61966-2-1): the same number in blue is a tenth of that in green."""
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return torch.einsum("bchw,c->bhw", linear, linear.new_tensor([0.2126, 0.7152, 0.0722]))


def _brightest(light: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """(b,); what a tenth of the pixels exceed."""
    flat = light.flatten(1)
    bright: Tensor = flat.kthvalue(-(-9 * flat.shape[1] // 10), dim=1).values
    return bright


def save_sheet(
    path: str | Path,
    images: Shaped[Tensor, "b 3 h w"],
    columns: int = 8,
    *,
    zoom: int = 2,
    boxes: Float[Tensor, "b 4"] | Float[Tensor, "b k 4"] | None = None,
    names: Sequence[str] | None = None,
    insets: bool = False,
    below: Sequence[Shaped[Tensor, "b _ h w"]] = (),
) -> None:
    """Write :func:`sheet` to a picture file, and below it a line that explains insets, if there are any.

    Args:
        path: the file.
        images: as for :func:`sheet`.
        columns: as for :func:`sheet`.
        zoom: as for :func:`sheet`.
        boxes: as for :func:`sheet`; drawn into ``images`` only.
        names: as for :func:`sheet`; written below ``images`` only.
        insets: as for :func:`sheet`; in ``images`` only.
        below: more batches of equal length, with 1 or 3 channels; each becomes a sheet below the others.

    Raises:
        InputError: if the name is not that of a picture file.
    """
    sheets = [sheet(images, columns, zoom=zoom, boxes=boxes, names=names, insets=insets)]
    sheets += [sheet(batch.expand(-1, 3, -1, -1), columns, zoom=zoom) for batch in below]
    if insets and bool(nearly_black(images).any()):
        sheets.insert(1, _note("In a corner: a nearly black picture once more, brightened.", sheets[0].shape[1]))
    save_picture(path, Image.fromarray(np.concatenate(sheets)))


def _note(text: str, width: int) -> UInt8[np.ndarray, "H W 3"]:
    lines = fitted(text, width - 12, NAME, 4)
    strip = Image.new("RGB", (width, 10 + LINE * len(lines)), (255, 255, 255))
    ImageDraw.Draw(strip).multiline_text((6, 4), "\n".join(lines), BLACK, font(NAME), spacing=LINE - NAME)
    return np.asarray(strip)


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
    said = [fitted(caption, MARGIN, CAPTION, 3) for caption, _ in rows]
    margin = 8 + max(round(font(CAPTION).getlength(line)) for lines in said for line in lines)
    strips = []
    for lines, (_, images) in zip(said, rows, strict=True):
        grey = 128 if images.dtype == torch.uint8 else 0.5
        room = images.new_full((columns, *images.shape[1:]), grey)  # fills empty places
        room[: len(images)] = images[:columns]
        strip = Image.fromarray(sheet(room, columns, zoom=zoom))
        whole = Image.new("RGB", (margin + strip.width, strip.height), (255, 255, 255))
        whole.paste(strip, (margin, 0))
        ImageDraw.Draw(whole).text((4, strip.height / 2), "\n".join(lines), BLACK, font(CAPTION), anchor="lm")
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
