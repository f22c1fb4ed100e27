"""Draws the README's two pictures: the life of one sample, step by step, and a sheet of composites.

    python docs/life.py --objects signs/ --contexts photos/ docs/life.png --sheet docs/composites.png

One scene is drawn, and rendered again and again with more of it, as ``kornia-cag preview --explain`` does. A small
network is trained for about a minute first, so that there is somebody to attack. The committed pictures were made from
43 traffic signs and five photographs in the public domain or under CC0, among them a moose by Ryan Hagerty and a cat by
Stefan van der Walt.
"""

import argparse
import itertools
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kornia_cag import PGD, CAGCollate, Composer, ContextBank, ContextChain, ObjectBank, PairSampler, Rows
from kornia_cag.command.sheets import magnified, save_sheet
from kornia_cag.command.stages import stages
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.training.architectures import convnet
from kornia_cag.training.recipes import RIGID_SIGNS

SIDE, SEEN, STEPS = 128, 32, 300  # of a tile and of what the network sees, pixels; of the training
SAMPLE, BEFORE = 3, 61  # indices of the sample that is shown, and of the one that its slot held before
SHEET = 1  # seed of the sheet
OBJECTS, CONTEXTS = (25, 14), (0, 3)  # of the two: by place among the sorted files
RANGES = replace(
    RIGID_SIGNS,
    pose=replace(RIGID_SIGNS.pose, scale=(0.6, 0.85)),
    color=replace(RIGID_SIGNS.color, exposure=(-0.8, 0.4), saturation=(0.6, 1.4), veil=(0.0, 0.2)),  # by day
    camera=replace(RIGID_SIGNS.camera, low_resolution=(0.0, 1.0)),
)
BETWEEN = "+>> >>+="  # the tiles
ATTACK = PGD(eps=10 / 255, eps_object=2.5 / 255, steps=10)  # less on the sign itself


def trained(objects: ObjectBank, contexts: ContextBank) -> nn.Module:
    """A small network that has seen 19,200 small composites, and shrinks larger ones to their size."""
    torch.manual_seed(0)
    model = convnet(len(objects.classes), SEEN, width=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pairs = PairSampler(objects.labels, len(contexts), batch_size=64, seed=1)
    collate = CAGCollate(objects, contexts, SEEN, ranges=RANGES, chain=ContextChain(reset=0.3))
    loader = DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
    epochs = itertools.chain.from_iterable(itertools.repeat(loader))
    for images, labels in itertools.islice(epochs, STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return nn.Sequential(nn.AvgPool2d(SIDE // SEEN), model).eval()


def row(sample: int, which: int) -> Rows:
    """The row of one of the two samples."""
    columns = (torch.tensor([value]) for value in (OBJECTS[which], CONTEXTS[which], sample))
    return Rows.of(*columns)


def life(objects: ObjectBank, contexts: ContextBank, model: nn.Module) -> list[tuple[Tensor, str, int | None]]:
    """Tiles (3, h, w), their captions, and the class that the model reads in them, where that is asked."""
    composer = Composer(objects, contexts, (SIDE, SIDE), RANGES, warn=False)
    rows = row(SAMPLE, 0)
    scene, before = RANGES.sample(rows), composer(row(BEFORE, 1))
    earlier = Earlier(before.images, before.labels)
    fresh, chained = stages(composer, rows, scene), stages(composer, rows, scene, earlier)
    photographed = composer.render(scene, earlier)
    targets = photographed.targets
    assert targets is not None
    clean, label = photographed.images, photographed.classes
    attacked = ATTACK(model, clean, label, keys=photographed.keys, mask=targets.cover)
    with torch.no_grad():
        reads = [int(model(images).argmax()) for images in (clean, attacked)]
    return [
        *((fresh[name], name, None) for name in ("cut-out", "context", "warped", "pasted")),
        (chained["pasted"], "or over an\nearlier composite", None),
        (chained["lit"], "lit", None),
        (chained["photographed"], "photographed", reads[0]),
        (magnified(attacked, clean, 0.05)[0], "attack,\n10x amplified", None),
        (attacked[0], "attacked", reads[1]),
    ]


def picture(image: Tensor) -> Image.Image:
    """As Pillow holds it."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def strip(tiles: list[tuple[Tensor, str, int | None]], icons: Tensor, label: int) -> Image.Image:
    """All tiles in one row, captions below."""
    font, gap, foot, icon = ImageFont.load_default(17), 20, 60, 32
    whole = Image.new("RGB", (len(tiles) * (SIDE + gap) - gap, SIDE + foot), "white")
    pen = ImageDraw.Draw(whole)
    for place, (image, caption, read) in enumerate(tiles):
        left = place * (SIDE + gap)
        whole.paste(picture(image), (left, 0))
        middle = left + SIDE // 2
        if place:
            pen.text((left - gap // 2, SIDE // 2), BETWEEN[place - 1], "#666666", font, anchor="mm")
        pen.multiline_text((middle, SIDE + 5), caption, "#222222", font, anchor="ma", align="center", spacing=3)
        if read is not None:
            colour = "#1a7f37" if read == label else "#cf222e"
            width = font.getlength("read as ") + icon
            pen.text((middle - width / 2, SIDE + 43), "read as", colour, font, anchor="lm")
            drawn = picture(icons[read]).resize((icon, icon), Image.Resampling.LANCZOS)
            whole.paste(drawn, (round(middle + width / 2) - icon, SIDE + 27))
    return whole


def composites(objects: ObjectBank, contexts: ContextBank) -> Tensor:
    """The first 48 of the third batch, by when the chain has something to offer, (48, 3, 64, 64)."""
    pairs = PairSampler(objects.labels, len(contexts), batch_size=64, seed=SHEET)
    collate = CAGCollate(objects, contexts, 64, ranges=RANGES, chain=ContextChain(reset=0.3), returns="batch")
    *_, batch = (collate(rows) for rows in itertools.islice(pairs, 3))
    return batch.images[:48]


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", required=True, help="folder of one RGBA picture per class")
    parser.add_argument("--contexts", required=True, help="folder of photographs")
    parser.add_argument("out", help="picture of one sample's life")
    parser.add_argument("--sheet", help="sheet of composites")
    options = parser.parse_args()
    objects = ObjectBank.from_folder(options.objects, size=256, device="cpu")
    photos = ContextBank.from_folder(options.contexts, size=256, device="cpu")
    model = trained(objects, photos + ContextBank.procedural(count=20, size=256, device="cpu"))
    level = objects.pyramid.level(0)[:: objects.variants].float() / 255
    icons = level[:, :3] + (1 - level[:, 3:])  # on white
    strip(life(objects, photos, model), icons, int(objects.labels[OBJECTS[0]])).save(options.out, optimize=True)
    print(f"wrote {options.out}")
    if options.sheet:
        save_sheet(options.sheet, composites(objects, photos), 12, zoom=1)
        print(f"wrote {options.sheet}")


if __name__ == "__main__":
    main()
