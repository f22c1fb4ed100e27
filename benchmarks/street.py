"""Find signs in street photographs by a network that saw none: ``python benchmarks/street.py DATA --images 55000``.

The recipe ``street``: a :class:`kornia_cag.training.detector.Detector` of one class, "sign", is trained on composed
scenes alone, cut-outs of signs on photographs without signs and on procedural contexts. It is measured on the odd files
of GTSDB's training part, 1360×800, which nothing was tuned on, at the last step. ``DATA`` holds ``objects/signs``,
``contexts``, ``real/gtsdb_dev`` and ``real/gtsdb_dev.csv``.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from kornia_cag import Training
from kornia_cag.evaluation.boxes import BoxedSet, load_boxes
from kornia_cag.evaluation.detection import evaluate_detector
from kornia_cag.training.network import save_network
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipe_data import changed
from kornia_cag.training.recipes import STREET


def photographs(data: Path, recipe: Recipe, classes: tuple[str, ...], parity: int) -> BoxedSet:
    """The odd or the even files; all signs as one class, if the recipe takes them so."""
    real = load_boxes(data / "real/gtsdb_dev", data / "real/gtsdb_dev.csv", classes)
    chosen = tuple(picture for picture in real.pictures if int(picture.path.stem) % 2 == parity)
    real = replace(real, pictures=chosen)
    names = recipe.names(classes)
    return real if names == classes else real.as_one(names[0])


def main() -> None:
    """Train, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, help="scenes to train on (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", choices=("one", "all"), default="one")
    parser.add_argument("--files", choices=("odd", "even"), default="odd", help="even: for looking and tuning")
    parser.add_argument("--out", type=Path, help="a JSON file for the result; the model lies beside it")
    options = parser.parse_args()
    recipe = changed(STREET, {"detection.classes": options.classes})
    objects = recipe.objects(str(options.data / "objects/signs"), device="cpu")
    contexts = recipe.contexts(str(options.data / "contexts"), device="cpu", seed=options.seed)
    training = Training(recipe, objects, contexts, images=options.images, seed=options.seed)
    training.run(log=lambda share, word: print(f"{share:.0%} {word}", file=sys.stderr), log_every=30)
    if options.out is not None:
        save_network(options.out.with_suffix(".pt"), training.learner.average, recipe, objects.classes, None)
    real = photographs(options.data, recipe, objects.classes, options.files == "odd")
    network: Any = training.result
    found = evaluate_detector(lambda images: network.detect(images, threshold=0.01), real, objects.device)
    boxes = sum(len(picture.boxes) for picture in real.pictures)
    text = json.dumps({**training.report(found, real), "files": options.files, "boxes": boxes}, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
