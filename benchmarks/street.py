"""Find signs in street photographs by a network that saw none: ``python benchmarks/street.py DATA --minutes 15``.

A :class:`kornia_cag.training.detector.Detector` of one class, "sign", is trained on composed scenes alone: cut-outs of
signs, up to four of them, on photographs without signs and on procedural contexts. What counts is processor time. It is
measured on the odd files of GTSDB's training part, 1360×800, which nothing was tuned on, at the last step. ``DATA``
holds ``objects/signs``, ``contexts``, ``real/gtsdb_dev`` and ``real/gtsdb_dev.csv``.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from kornia_cag import (
    Batch,
    CAGCollate,
    CameraRange,
    ColorRange,
    ContextBank,
    Layout,
    ObjectBank,
    PairSampler,
    PoseRange,
    SceneRange,
)
from kornia_cag.evaluation.boxes import BoxedSet, load_boxes
from kornia_cag.evaluation.detection import evaluate_detector
from kornia_cag.training.detector import Detector, detector_loss
from kornia_cag.training.provenance import hardware
from kornia_cag.training.schedule import average

SIZE, BATCH, OBJECTS = 192, 16, 4
RATE, WARM = 2e-3, 100  # highest learning rate, and steps to get there
RANGES = SceneRange(
    layout=Layout(count=(0, OBJECTS), side=(0.06, 0.7), stacked=0.3, overlap=0.1, visible=0.7, inside=0.8),
    pose=PoseRange(angle=(-10, 10), aspect=(0.8, 1.15), perspective=(-0.2, 0.2)),
    crop=(0.6, 1.0),
    color=ColorRange(exposure=(-2.0, 0.7), brightness=(0.9, 1.1), contrast=(0.6, 1.2), saturation=(0.4, 1.4),
                     hue=(-8, 8), tint=(-0.15, 0.15), veil=(0, 0.2), illumination=(-0.3, 0.3)),
    object_color=ColorRange(exposure=(-1.2, 0.4), brightness=(0.9, 1.1), contrast=(0.8, 1.1), saturation=(0.5, 1.2),
                            hue=(-5, 5)),
    camera=CameraRange(low_resolution=(0.0, 1.0), blur=0.5, gaussian=(0.3, 1.2), box=(1, 3), motion=(1, 4),
                       noise=(0.0, 0.025)),
)  # fmt: skip


def batches(data: Path, seed: int) -> Iterator[Batch]:
    """Composed scenes without end."""
    objects = ObjectBank.from_folder(data / "objects/signs", device="cpu")
    photos = ContextBank.from_folder(data / "contexts", device="cpu")
    contexts = photos + ContextBank.procedural("mix", count=64, size=photos.size, device="cpu")
    pairs = PairSampler(objects.labels, len(contexts), batch_size=BATCH, seed=seed, objects_per_scene=OBJECTS)
    collate = CAGCollate(objects, contexts, SIZE, ranges=RANGES, returns="batch")
    for _ in count():
        for rows in pairs:
            yield collate(rows)


def train(data: Path, seed: int, seconds: float) -> tuple[Detector, int]:
    """A detector after so much processor time, its weights averaged; and how many scenes it saw."""
    torch.manual_seed(seed)
    network = Detector(1).to(memory_format=torch.channels_last)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    start, told, step = time.process_time(), time.monotonic(), 0
    for step, batch in enumerate(batches(data, seed)):
        spent = time.process_time() - start
        if spent > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * spent / seconds))
        targets = batch.targets
        known = torch.where(targets.labels < 0, -1, 0)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        loss = detector_loss(network(images), targets.boxes, known, targets.visible)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average(averaged, network, step, 0.998, ())
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{spent:.0f} s, {step * BATCH:,} scenes, loss {loss.item():.3f}", flush=True)
    return averaged.eval(), step * BATCH


def photographs(data: Path, parity: int) -> BoxedSet:
    """The odd or the even files, all signs as one class."""
    classes = ObjectBank.from_folder(data / "objects/signs", device="cpu").classes
    real = load_boxes(data / "real/gtsdb_dev", data / "real/gtsdb_dev.csv", classes)
    chosen = tuple(picture for picture in real.pictures if int(picture.path.stem) % 2 == parity)
    return replace(real, pictures=chosen).as_one("sign")


def main() -> None:
    """Train, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=15, help="of processor time (default: 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", choices=("odd", "even"), default="odd", help="even: for looking and tuning")
    parser.add_argument("--out", type=Path, help="a JSON file for the result; the weights lie beside it")
    options = parser.parse_args()
    network, scenes = train(options.data, options.seed, 60 * options.minutes)
    if options.out is not None:
        torch.save(network.state_dict(), options.out.with_suffix(".pt"))
    real = photographs(options.data, options.files == "odd")

    def detect(images: Tensor) -> object:
        return network.detect(images.contiguous(memory_format=torch.channels_last), threshold=0.01)

    found = evaluate_detector(detect, real, torch.device("cpu"))
    about = {"minutes": options.minutes, "seed": options.seed, "files": options.files, "scenes": scenes,
             "pictures": len(real), "boxes": sum(len(picture.boxes) for picture in real.pictures),
             "hardware": hardware(torch.device("cpu")), "torch": torch.__version__}  # fmt: skip
    text = json.dumps(about | {"accuracy": found.report()}, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
