"""How one sample was made: a picture of each stage, and beside it everything that was drawn for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from kornia_cag.adversary.pixels import PGD
from kornia_cag.command.lettering import fitted, font
from kornia_cag.command.sheets import BLACK, magnified, nearly_black, outlined, save_picture, sheet
from kornia_cag.command.stages import stages
from kornia_cag.core.checks import describe
from kornia_cag.core.records import mapped
from kornia_cag.loading.batch import Batch
from kornia_cag.scenes.blends import Blend
from kornia_cag.scenes.camera import KINDS, Camera
from kornia_cag.scenes.choices import Chosen, OneOf
from kornia_cag.scenes.composer import Composer

UNITS = {
    "scale": " of the short side", "angle": "°", "shear": "°",
    "exposure": " stops", "hue": "°", "light_from": " turns", "direction": " turns", "coarser": " levels",
    "sigma": " px", "width": " px", "height": " px", "length": " px", "size": " px", "share": " of the context",
    "elevation": "°", "lift": " of its size", "softness": " of its size", "defocus": " px",
}  # fmt: skip
PLACES = {"pose": " of the short side", "crop": " of the way across"}  # units of x and y
RESTS = {
    "aspect": 1.0,
    "angle": 0.0,
    "shear": 0.0,
    "tilt_x": 0.0,
    "tilt_y": 0.0,
    "brightness": 1.0,
    "exposure": 0.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.0,
    "tint": 0.0,
    "veil": 0.0,
    "illumination": 0.0,
}  # values that change nothing are not said
OF = {"veil_level": "veil", "light_from": "illumination"}  # nor are numbers that belong to such a value
USES = {"gaussian": ("sigma",), "box": ("width", "height"), "motion": ("length", "direction")}
INDENT, WIDTH = 21, 92  # characters before what is said of a stage, and of a whole line
LEAST_SIDE = 128  # of an enlarged picture, pixels
TITLE, TEXT, LINE, GAP = 15, 13, 18, 12  # pixels: sizes of the fonts, distance of lines, space around a row
MOST = 640  # pixels of a line of text: class names may be of any length
GREY = (110, 110, 110)


@dataclass(frozen=True)
class Explained:
    """One sample, stage by stage.

    Attributes:
        title: which sample it is.
        said: lines of text by stage, in order: what was drawn for it.
        pictures: (3, h, w) by stage.
        boxes: (4,) by stage, where there is something to outline: half-open xyxy, pixels.
    """

    title: str
    said: Mapping[str, Sequence[str]]
    pictures: Mapping[str, Float[Tensor, "3 h w"]]
    boxes: Mapping[str, Float[Tensor, "4"]]


def explained(composer: Composer, batch: Batch, place: int, attack: PGD | None = None) -> Explained:
    """Take one sample of a batch apart.

    Args:
        composer: that composed the batch.
        batch: of ``CAGCollate(..., returns="batch")``, from a bank's contexts.
        place: index of the sample, from 0.
        attack: what changed the pixels of the batch, if anything did.
    """
    one: Batch = mapped(lambda tensor: tensor[place : place + 1], batch)
    rows = one.rows
    pictures = stages(composer, rows, one.scene, one.earlier)
    said = {stage: _said(stage, composer, one) for stage in pictures}
    if attack is not None and one.attacked is not None and bool(one.attacked):
        largest = attack.largest
        pictures["perturbation"] = magnified(one.images, one.clean, largest)[0]
        pictures["attacked"] = one.images[0]
        said["perturbation"] = [f"{0.5 / largest:.3g} times as strong; grey is none"] if largest else ["none"]
        said["attacked"] = _wrapped([_short(attack)])
    for stage, picture in pictures.items():
        if bool(nearly_black(picture[None])):
            said[stage].append("in the corner: brightened")
    boxes = {"pasted": one.boxes[0]}
    if not bool(one.chained):
        boxes["context"] = _cropped(composer, one)
    seed, epoch, index = (int(column) for column in (rows.seed, rows.epoch, rows.index))
    named = "class " * bool(one.labels >= 0) + _class(composer, one.labels)
    title = f"sample {index} of epoch {epoch}, seed {seed}: {named}"
    return Explained(title, said, pictures, boxes)


def _cropped(composer: Composer, one: Batch) -> Float[Tensor, "4"]:
    """The part of the context that the scene shows, in pixels of the canvas that the whole context is stretched to."""
    crop, (height, width) = one.scene.crop, composer.size
    longest, share = max(height, width), float(crop.share)
    across, down = share * width * width / longest, share * height * height / longest
    left, top = float(crop.x) * (width - across), float(crop.y) * (height - down)
    return one.boxes.new_tensor([left, top, left + across, top + down])


def _class(composer: Composer, label: Tensor) -> str:
    """The name of the class that a label stands for."""
    return repr(composer.objects.classes[int(label)]) if int(label) >= 0 else "no class"


def _said(stage: str, composer: Composer, one: Batch) -> list[str]:
    """Lines of text about a stage of one sample."""
    scene = one.scene
    numbered = [("" if len(scene.layers) == 1 else f"{n}: ", layer) for n, layer in enumerate(scene.layers)]
    if stage == "cut-out":
        return [f"{n}object {int(layer.objects)}, {_class(composer, composer.objects.labels[layer.objects])}"
                + ("" if layer.shown is None or bool(layer.shown) else ", not shown")
                for n, layer in numbered]  # fmt: skip
    if stage == "context":
        return _wrapped([f"context {int(scene.contexts)}", *_parts(scene.crop, PLACES["crop"])])
    if stage == "earlier composite" and one.earlier is not None:
        behind = one.earlier.labels if one.earlier.targets is None else one.earlier.targets.labels
        names = [_class(composer, label) for label in behind[0] if int(label) >= 0]
        return ["with " + (", ".join(names) or "no object of a class")]
    if stage == "warped":
        unused = ("variant",) if composer.objects.variants == 1 else ()
        poses = [(n, _parts(layer.pose, PLACES["pose"], unused)) for n, layer in numbered]
        return [line for n, parts in poses for line in _wrapped(parts, n)]
    if stage == "pasted":
        own = len(scene.layers)
        places = zip(one.targets.boxes[0, -own:], one.targets.visible[0, -own:], strict=True)
        told = [(n, [*_blended(composer.ranges.blend, layer.blend), _box(box, bool(visible))])
                for (n, layer), (box, visible) in zip(numbered, places, strict=True)]  # fmt: skip
        return [line for n, parts in told for line in _wrapped(parts, n)]
    if stage == "lit":
        colors = [(f"{n}object: ", layer.color) for n, layer in numbered]
        colors += [] if bool(one.chained) else [("context: ", scene.context_color)]
        matched = [(f"{n}harmony: ", layer.harmony) for n, layer in numbered]
        named = [*colors, ("light: ", scene.light), ("sun: ", scene.sun), ("depth: ", scene.depth), *matched]
        told = [(name, _parts(color)) for name, color in named if color is not None]
        far = zip(numbered, scene.distances(composer.ranges.scale[1]), strict=True)
        told += [(f"{n}distance ", [f"{float(away):.3g}"]) for (n, layer), away in far
                 if away is not None and (layer.shown is None or bool(layer.shown))]  # fmt: skip
        return [line for name, parts in told if parts for line in _wrapped(parts, name)] or ["as they are"]
    if stage == "finished":
        return _wrapped([_short(finish) for finish in composer.ranges.finish])
    return _camera(scene.camera)


def _blended(ranges: Blend, drawn: Blend | Chosen | None) -> list[str]:
    """How an object is pasted: its blend, with the numbers that were drawn for it."""
    if isinstance(drawn, Chosen):
        place = 0 if drawn.which is None else int(drawn.which)
        ranges, drawn = ranges.blends[place] if isinstance(ranges, OneOf) else ranges, drawn.parts[place]
    numbers = [] if drawn is None else _parts(drawn)
    return [type(ranges).__name__, *numbers] if numbers else [_short(ranges)]


def _box(box: Float[Tensor, "4"], visible: bool) -> str:
    """Where an object is seen."""
    return "box " + " ".join(f"{float(value):.3g}" for value in box) if visible else "out of sight"


def _short(value: Any) -> str:
    """A dataclass without the fields that have their default values; anything else by its name."""
    if not is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    changed = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
    return f"{type(value).__name__}({', '.join(f'{name}={_figure(name, v)}' for name, v in changed.items())})"


def _figure(name: str, value: Any) -> str:
    """A setting; budgets and steps of an attack in grey levels, as people write them."""
    if not isinstance(value, float):
        return describe(value)
    return f"{255 * value:.3g}/255" if value and (name.startswith("eps") or name == "alpha") else f"{value:.3g}"


def _camera(camera: Camera) -> list[str]:
    said = [f"coarser {float(camera.coarser):.3g} levels"] if bool(camera.coarser) else []
    kind = -1 if camera.blur is None else int(camera.blur.kind)
    if kind >= 0:
        used = [_value(name, getattr(camera.blur, name)[0]) for name in USES[KINDS[kind]]]
        said.append(f"{KINDS[kind]} blur, {', '.join(used)}")
    for name, values in (("noise", camera.noise), ("JPEG quality", camera.quality)):
        if values is not None:
            said.append(f"{name} {float(values):.3g}")
    if camera.grain is not None:
        said.append(f"grain {float(camera.grain.deviation):.3g}, {float(camera.grain.size):.3g} px")
    return _wrapped(said or ["sharp and without noise"])


def _parts(record: Any, places: str = "", unused: Sequence[str] = ()) -> list[str]:
    """What a record says of its first sample, but for ``unused`` fields; ``places``: unit of x and y."""
    said = []
    for field in fields(record):
        values = getattr(record, field.name)
        if not isinstance(values, Tensor) or field.name in unused or _rests(record, OF.get(field.name, field.name)):
            continue
        value = values[0]
        if value.ndim == 2:  # waves and holes: their number is enough
            said += [f"{len(value)} {field.name}"] if len(value) else []
        else:
            said.append(_value(field.name, value) + (places if field.name in "xy" else ""))
    return [part for part in said if part]


def _rests(record: Any, name: str) -> bool:
    return name in RESTS and bool((getattr(record, name)[0] == RESTS[name]).all())


def _value(name: str, value: Tensor) -> str:
    label = name.replace("_", " ")
    if not value.is_floating_point():
        return label if bool(value) else ""
    if value.ndim:
        return f"{label} {' '.join(f'{float(v):+.2f}' for v in value)}"
    return f"{label} {float(value):.3g}{UNITS.get(name, '')}"


def _wrapped(parts: Sequence[str], first: str = "") -> list[str]:
    """The parts, separated by commas, in lines of ``WIDTH - INDENT`` characters."""
    lines, line = [], first
    for place, part in enumerate(parts):
        word = part + (", " if place < len(parts) - 1 else "")
        if len(line) + len(word.rstrip()) > WIDTH - INDENT and line:
            lines.append(line.rstrip())
            line = ""
        line += word
    return [*lines, line]


def in_text(sample: Explained) -> list[str]:
    """The sample in lines of text."""
    lines = [sample.title]
    for stage, said in sample.said.items():
        starts = [f"  {stage + ':':{INDENT - 2}s}"] + [" " * INDENT] * len(said)
        lines += [start + line for start, line in zip(starts, said, strict=False)]
    return lines


def save_explained(path: str | Path, sample: Explained) -> None:
    """Write the sample to a picture file: a row per stage, its picture enlarged, and beside it what was drawn.

    Args:
        path: the file.
        sample: from :func:`explained`.
    """
    height, width = next(iter(sample.pictures.values())).shape[1:]
    zoom = max(1, round(LEAST_SIDE / min(height, width)))
    words = {stage: [fitted(line, MOST, TEXT)[0] for line in said] for stage, said in sample.said.items()}
    (title,), left = fitted(sample.title, MOST, TITLE), GAP + width * zoom + 2 * GAP
    right = max(left + font(TEXT).getlength(line) for said in words.values() for line in said)
    right = max(right, GAP + font(TITLE).getlength(title))
    tall, head = max(height * zoom, LINE * max(map(len, words.values())) + LINE + 4) + GAP, 2 * GAP + TITLE + 4
    whole = Image.new("RGB", (round(right) + GAP, head + tall * len(words)), (255, 255, 255))
    pen = ImageDraw.Draw(whole)
    pen.text((GAP, GAP), title, BLACK, font(TITLE))
    for number, (stage, said) in enumerate(words.items()):
        top = head + tall * number
        tile = Image.fromarray(sheet(sample.pictures[stage][None], 1, zoom=zoom, insets=True))
        whole.paste(tile, (GAP - 1, top - 1))
        if stage in sample.boxes:
            outlined(pen, (GAP, top), sample.boxes[stage], zoom)
        pen.text((left, top), stage, BLACK, font(TITLE))
        pen.multiline_text((left, top + LINE + 4), "\n".join(said), GREY, font(TEXT), spacing=LINE - TEXT)
    save_picture(path, whole)
