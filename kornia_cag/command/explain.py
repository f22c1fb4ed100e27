"""Everything drawn for one sample, in words beside its picture."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kornia_cag.command.sheets import save_picture, sheet
from kornia_cag.loading.batch import Batch
from kornia_cag.scenes.camera import KINDS

UNITS = {
    "scale": " of the short side", "angle": "°", "shear": "°",
    "exposure": " stops", "hue": "°", "light_from": " turns", "direction": " turns", "coarser": " levels",
    "sigma": " px", "width": " px", "height": " px", "length": " px", "size": " px", "share": " of the context",
}  # fmt: skip
PLACES = {"pose": " of the short side", "crop": " of the way across"}  # units of x and y
USES = {"gaussian": ("sigma",), "box": ("width", "height"), "motion": ("length", "direction")}
INDENT, LABEL = 17, 96  # width of a part's name: characters in text, pixels in a picture
LEAST_SIDE = 320  # of the enlarged picture, pixels


def explained(batch: Batch, place: int, classes: tuple[str, ...]) -> list[str]:
    """Describe in lines of text everything drawn for one sample of a batch.

    Args:
        batch: of ``CAGCollate(..., returns="batch")``.
        place: index of the sample, from 0.
        classes: class names.
    """
    rows, scene = batch.rows, batch.scene
    seed, epoch, index = (int(column[place]) for column in (rows.seed, rows.epoch, rows.index))
    lines = [f"sample {index} of epoch {epoch}, seed {seed}: class {classes[int(batch.labels[place])]!r}"]
    behind = "an earlier composite" if bool(batch.chained[place]) else f"context {int(rows.contexts[place])}"
    lines.append(f"object {int(rows.objects[place])} on {behind}")
    for number, layer in enumerate(scene.layers):
        name = "pose" if len(scene.layers) == 1 else f"pose {number}"
        lines += _lines(name, layer.pose, place)
        lines += _lines("object color", layer.color, place)
    if not bool(batch.chained[place]):
        lines += _lines("crop", scene.crop, place) + _lines("context color", scene.context_color, place)
    lines += _lines("light", scene.light, place)
    return lines + _camera(scene.camera, place)


def _camera(camera: Any, place: int) -> list[str]:
    said = [f"coarser {float(camera.coarser[place]):.3g} levels"]
    kind = -1 if camera.blur is None else int(camera.blur.kind[place])
    if kind >= 0:
        used = [_value(name, getattr(camera.blur, name)[place]) for name in USES[KINDS[kind]]]
        said.append(f"{KINDS[kind]} blur, {', '.join(used)}")
    for name, values in (("noise", camera.noise), ("JPEG quality", camera.quality)):
        if values is not None:
            said.append(f"{name} {float(values[place]):.3g}")
    if camera.grain is not None:
        said.append(f"grain {float(camera.grain.deviation[place]):.3g}, {float(camera.grain.size[place]):.3g} px")
    return _wrapped("camera", said)


def _lines(name: str, record: Any, place: int) -> list[str]:
    if not is_dataclass(record):
        return []
    said = []
    for field in fields(record):
        values = getattr(record, field.name)
        if not isinstance(values, Tensor):
            continue
        value = values[place]
        if value.ndim == 2:  # waves and holes: their number is enough
            said += [f"{len(value)} {field.name}"] if len(value) else []
        else:
            said.append(_value(field.name, value) + (PLACES[name.split()[0]] if field.name in "xy" else ""))
    return _wrapped(name, [part for part in said if part])


def _value(name: str, value: Tensor) -> str:
    label = name.replace("_", " ")
    if not value.is_floating_point():
        return label if bool(value) else ""
    if value.ndim:
        return f"{label} {' '.join(f'{float(v):+.2f}' for v in value)}"
    return f"{label} {float(value):.3g}{UNITS.get(name, '')}"


def _wrapped(name: str, parts: list[str], width: int = 88) -> list[str]:
    lines, line = [], f"  {name + ':':{INDENT - 2}s}"
    for place, part in enumerate(parts):
        word = part + ("," if place < len(parts) - 1 else "")
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = " " * INDENT
        line += f" {word}"
    return [*lines, line]


def save_explained(path: str | Path, batch: Batch, place: int, lines: list[str]) -> None:
    """Write a sample's enlarged picture with its box, and the lines beside it, to a file.

    Args:
        path: the file.
        batch: the batch that holds the sample.
        place: index of the sample, from 0.
        lines: from :func:`explained`.
    """
    zoom = max(1, -(-LEAST_SIDE // min(batch.images.shape[-2:])))
    boxes = batch.boxes[place : place + 1]
    picture = Image.fromarray(sheet(batch.images[place : place + 1], 1, zoom=zoom, boxes=boxes))
    font = ImageFont.load_default(size=13)
    columns = [(line[:INDENT].strip(), line[INDENT:].strip()) if line.startswith(" ") else (line, "") for line in lines]
    wide = 24 + max(round(LABEL * (second != "") + font.getlength(second or first)) for first, second in columns)
    whole = Image.new("RGB", (picture.width + wide, max(picture.height, 18 * len(lines) + 16)), (255, 255, 255))
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    for number, (label, said) in enumerate(columns):
        left, top = picture.width + 12, 8 + 18 * number
        pen.text((left, top), label, fill=(0, 0, 0), font=font)
        pen.text((left + LABEL, top), said, fill=(0, 0, 0), font=font)
    save_picture(path, whole)
