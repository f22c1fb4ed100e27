"""Draws the pictures of the page on concepts: for each stage of a composite a strip of what it may do.

    python docs/stages.py --objects signs/ --contexts photos/ docs/stages

Everything goes through the public interface: a stage is drawn for six samples, while all others stay neutral. The
committed pictures were made from the same signs and photographs as those of ``life.py``, which trains the network here.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from life import ATTACK, RANGES, picture, trained
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kornia_cag import (
    Average,
    CAGCollate,
    Composer,
    ContextBank,
    ContextChain,
    DepthRange,
    Difference,
    Hard,
    HarmonyRange,
    Layout,
    ObjectBank,
    Over,
    Rows,
    Scene,
    SceneRange,
    SunRange,
)

SIDE, GAP, FOOT, COUNT = 128, 12, 28, 6
SIGNS, PHOTOS = (25, 14, 1, 17, 40, 12), (0, 3, 1, 2, 4)  # by place among the sorted files
MADE = (7, 9, 10)  # procedural contexts come after the photographs
Tile = tuple[Tensor, str]  # (3, h, w), caption
BLENDS = {"Over()": Over(), "Hard()": Hard(), "Average()": Average(), "Difference()": Difference()}
POSES = replace(RANGES.pose, scale=(0.5, 0.9), angle=(-40, 40), perspective=(-0.35, 0.35))
LIGHTS = replace(RANGES.color, exposure=(-1.6, 0.9), tint=(-0.35, 0.35), illumination=(-0.7, 0.7), veil=(0.0, 0.4))
CAMERAS = replace(
    RANGES.camera, blur=1.0, motion=(4.0, 9.0), box=(3.0, 6.0), gaussian=(1.0, 3.0), noise=(0.0, 0.05), taps=13
)
WIDE = replace(RANGES, pose=POSES, color=LIGHTS, camera=CAMERAS)


def checkered() -> Tensor:
    """What shows through where there is nothing, (1, 3, h, w)."""
    place = torch.arange(SIDE) // 8
    return (0.86 + 0.14 * ((place[:, None] + place) % 2)).expand(1, 3, SIDE, SIDE)


def rows(objects: tuple[int, ...], contexts: tuple[int, ...]) -> Rows:
    """Six samples; each of the two may be one for all."""
    columns = (torch.tensor([*itertools.islice(itertools.cycle(each), COUNT)]) for each in (objects, contexts))
    return Rows.of(*columns, torch.arange(COUNT))


def neutral(drawn: Rows) -> Scene:
    """Scenes of which nothing was drawn, on whole contexts that are not mirrored."""
    scene, zeros = WIDE.sample(drawn, torch.zeros(COUNT)), torch.zeros(COUNT)
    crop = replace(scene.crop, share=zeros + 1, x=zeros, y=zeros, mirrored=torch.zeros(COUNT, dtype=torch.bool))
    return replace(scene, crop=crop)


def images(composer: Composer) -> dict[str, list[Tile]]:
    """What the stages without a network or a chain may do, by the name of the stage."""
    ground = replace(composer, contexts=ContextBank.from_tensors(checkered()))
    signs, same = rows(SIGNS, (0,)), rows(SIGNS[:1], (0,))
    plain, drawn = neutral(same), WIDE.sample(same)
    contexts = rows(SIGNS[:1], (*PHOTOS[:3], *MADE))
    far = replace(neutral(contexts), layers=neutral(contexts).posed(x=torch.full((COUNT,), 2.0)).layers)
    made = {
        "cut-outs": ground.render(neutral(signs)),
        "contexts": composer.render(far),
        "poses": ground.render(replace(plain, layers=drawn.layers)),
        "lights": composer.render(replace(plain, light=drawn.light)),
        "cameras": composer.render(replace(plain, camera=drawn.camera)),
    }
    return {name: [(image, "") for image in composites.images] for name, composites in made.items()}


def blended(composer: Composer) -> list[Tile]:
    """One composite by every blend."""
    scene = neutral(rows(SIGNS[:1], PHOTOS[:1]))
    made = {name: replace(composer, ranges=replace(RANGES, blend=blend)) for name, blend in BLENDS.items()}
    return [(composer.render(scene).images[0], name) for name, composer in made.items()]


def matched(composer: Composer) -> list[Tile]:
    """One scene of three objects without and with what fits its light, alone and together."""
    row = Rows.of(torch.tensor([SIGNS[:3]]), torch.tensor([PHOTOS[1]]), torch.tensor([3]))
    parts: dict[str, dict[str, Any]] = {
        "harmony": {"harmony": HarmonyRange(brightness=(0.9, 1), color=(0.4, 0.5), contrast=(0.3, 0.4))},
        "sun": {"sun": SunRange(darkness=(0.6, 0.7), shading=(0.4, 0.5))},
        "depth": {"depth": DepthRange(haze=(0.15, 0.2), defocus=(1.5, 1.5))},
    }
    parts = {"as pasted": {}, **parts, "all": {name: one for part in parts.values() for name, one in part.items()}}
    made = []
    for name, fields in parts.items():
        ranges = SceneRange(layout=Layout(side=(0.2, 0.6)), **fields)
        made.append((replace(composer, ranges=ranges, warn=False)(row).images[0], name))
    return made


def chained(objects: ObjectBank, contexts: ContextBank) -> list[Tile]:
    """What one slot of a chain holds in six batches."""
    collate = CAGCollate(objects, contexts, SIDE, ranges=RANGES, chain=ContextChain(reset=0.0))
    made = []
    for sign, index in zip(SIGNS, range(COUNT), strict=True):
        row = Rows.of(torch.tensor([sign]), torch.tensor([PHOTOS[0]]), torch.tensor([index]))
        made.append((collate(row).images[0], f"batch {index + 1}"))
    return made


def attacked(objects: ObjectBank, contexts: ContextBank) -> list[Tile]:
    """Two composites: as composed, the change ten times amplified, and attacked."""
    model, drawn = trained(objects, contexts), rows(SIGNS, PHOTOS)
    collate = CAGCollate(objects, contexts, SIDE, ranges=RANGES, model=model, adversaries=(ATTACK,), returns="batch")
    batch = collate(drawn)
    made = []
    for clean, hardened in zip(batch.clean[:2], batch.images[:2], strict=True):
        made += [(clean, "composed"), (0.5 + 10 * (hardened - clean), "change, 10x"), (hardened, "hardened")]
    return made


def strip(tiles: list[Tile]) -> Image.Image:
    """All tiles in one row, captions below, if there are any."""
    foot = FOOT if any(caption for _, caption in tiles) else 0
    whole = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + foot), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(15)
    for place, (image, caption) in enumerate(tiles):
        left = place * (SIDE + GAP)
        whole.paste(picture(image), (left, 0))
        pen.text((left + SIDE // 2, SIDE + 6), caption, "#222222", font, anchor="ma")
    return whole


def main() -> None:
    """Write all strips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", required=True, help="folder of one RGBA picture per class")
    parser.add_argument("--contexts", required=True, help="folder of photographs")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    options = parser.parse_args()
    objects = ObjectBank.from_folder(options.objects, size=256, device="cpu")
    photos = ContextBank.from_folder(options.contexts, size=256, device="cpu")
    contexts = photos + ContextBank.procedural(count=20, size=256, device="cpu")
    composer = Composer(objects, contexts, (SIDE, SIDE), WIDE, warn=False)
    strips = {
        **images(composer),
        "blends": blended(composer),
        "matched": matched(composer),
        "chain": chained(objects, contexts),
        "attack": attacked(objects, contexts),
    }
    options.out.mkdir(exist_ok=True)
    for name, tiles in strips.items():
        strip(tiles).save(options.out / f"{name}.png", optimize=True)
    print(f"wrote {len(strips)} pictures to {options.out}")


if __name__ == "__main__":
    main()
