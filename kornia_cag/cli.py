"""The ``kornia-cag`` command. A user's mistake ends in one line and status 2, never in a traceback."""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kornia_cag import __version__
from kornia_cag.attack import FGSM, PGD
from kornia_cag.chain import ContextChain
from kornia_cag.checks import InputError, check_int, fail
from kornia_cag.collate import Batch, CAGCollate
from kornia_cag.pairing import PairSampler
from kornia_cag.real import RealSet, handwriting, load_real
from kornia_cag.recipes import RECIPES, Recipe
from kornia_cag.show import save_sheet
from kornia_cag.train import Accuracy, Training, evaluate, write_report

CHECKPOINT = "checkpoint.pt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 2 for a user's mistake, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (InputError, OSError) as error:
        print(f"kornia-cag: {error}", file=sys.stderr)
        return 2
    except torch.cuda.OutOfMemoryError as error:
        print(f"kornia-cag: {error}\nTry a smaller --batch-size.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kornia-cag: interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kornia-cag", description="Train on one clean picture per class.")
    parser.add_argument("--version", action="version", version=f"kornia-cag {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a classifier and measure it on real pictures")
    _add_scene_options(train)
    train.add_argument("--real", help="real pictures that measure the result: .npz or a folder of class folders")
    train.add_argument("--images", type=int, help="budget in composed images (default: the recipe's)")
    train.add_argument("--eps", type=float, help="harden: L-infinity budget on the context, in [0, 1], such as 0.03")
    train.add_argument("--eps-object", type=float, help="budget on the object (default: as --eps)")
    train.add_argument("--steps", type=int, default=1, help="gradient steps of the attack (default: 1)")
    train.add_argument("--out", type=Path, help="folder for checkpoint, model and report (default: runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on with the run saved in --out")
    train.set_defaults(run=_train)

    preview = commands.add_parser("preview", help="write a sheet of composites as the training would see them")
    _add_scene_options(preview)
    preview.add_argument("--out", type=Path, default=Path("preview.png"), help="picture file (default: preview.png)")
    preview.add_argument("--rows", type=int, default=6, help="default: 6")
    preview.add_argument("--columns", type=int, default=12, help="default: 12")
    preview.add_argument("--zoom", type=int, default=2, help="enlargement (default: 2)")
    preview.add_argument("--boxes", action="store_true", help="draw the objects' boxes")
    preview.set_defaults(run=_preview)
    return parser


def _add_scene_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", choices=sorted(RECIPES), help=" or ".join(sorted(RECIPES)))
    parser.add_argument("--objects", help="folder: one RGBA picture per class, or one folder of them per class")
    parser.add_argument("--contexts", help="folder of photographs to put objects on, beside procedural contexts")
    parser.add_argument("--key", choices=["white"], help="make the white around objects without alpha transparent")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")


def _device(name: str) -> str:
    try:
        device = torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        fail("--device", "a device of this machine, such as cpu or cuda", f"{name!r} ({reason})")
    if device.type == "meta":
        fail("--device", "a device of this machine, such as cpu or cuda", f"{name!r}, which computes nothing")
    return str(device)


def _training(options: argparse.Namespace, images: int | None) -> Training:
    recipe = _hardened(RECIPES[options.recipe], options)
    device = _device(options.device)
    objects = recipe.objects(options.objects, key=options.key, device=device)
    contexts = recipe.contexts(options.contexts, device=device, seed=check_int("--seed", options.seed, 0))
    print(f"{objects!r}\n{contexts!r}")
    return Training(recipe, objects, contexts, images=images, seed=options.seed)


def _hardened(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    if options.eps is None:
        if options.eps_object is not None:
            fail("--eps-object", "to come with --eps", "no --eps")
        return recipe
    if check_int("--steps", options.steps) == 1:
        return replace(recipe, attack=FGSM(eps=options.eps, eps_object=options.eps_object, random_start=True))
    return replace(recipe, attack=PGD(eps=options.eps, eps_object=options.eps_object, steps=options.steps))


def _real(options: argparse.Namespace, recipe: Recipe, classes: tuple[str, ...]) -> RealSet | None:
    if options.real is not None:
        return load_real(options.real, classes, recipe.size)
    return handwriting(recipe.size) if classes == tuple(recipe.classes) else None


def _train(options: argparse.Namespace) -> None:
    if options.images is not None:
        check_int("--images", options.images)
    training = _training(options, options.images)
    classes = training.objects.classes
    real = _real(options, training.recipe, classes)
    out: Path = options.out or Path("runs") / options.recipe
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):  # a folder that cannot be written to is better found before the training
        pass
    if options.resume:
        if not (out / CHECKPOINT).is_file():
            fail("--resume", f"a saved run in {str(out)!r}", "none", "Leave --resume out to start afresh.")
        training.load(out / CHECKPOINT)
    training.run(save=out / CHECKPOINT, save_every=20.0, log=lambda line: print(line, flush=True))
    accuracy = None if real is None else evaluate(training.result, real, classes, training.objects.device)
    torch.save({"recipe": options.recipe, "classes": classes, "model": training.result.state_dict()}, out / "model.pt")
    write_report(training.report(accuracy, real), out / "report.json")
    _print_result(training, accuracy, real, out)


def _print_result(training: Training, accuracy: Accuracy | None, real: RealSet | None, out: Path) -> None:
    print(f"trained on {training.seen:,} composites in {training.seconds / 60:.1f} minutes")
    if accuracy is not None and real is not None:
        if accuracy.confusions:
            print("most frequent errors: " + ", ".join(f"{t} as {p} ({n})" for t, p, n in accuracy.confusions[:6]))
        print(f"accuracy on {real.name}: {accuracy.share:.2%} of {len(real.labels):,} real pictures")
    else:
        print("no real pictures to measure on; pass --real")
    print(f"wrote {out / 'model.pt'} and {out / 'report.json'}")


def _preview(options: argparse.Namespace) -> None:
    rows, columns = check_int("--rows", options.rows), check_int("--columns", options.columns)
    zoom = check_int("--zoom", options.zoom, 1, 16)
    recipe: Recipe = RECIPES[options.recipe]
    device = _device(options.device)
    objects = recipe.objects(options.objects, key=options.key, device=device)
    contexts = recipe.contexts(options.contexts, device=device, seed=check_int("--seed", options.seed, 0))
    pairs = PairSampler(objects.labels.cpu(), len(contexts), rows * columns, seed=options.seed)
    chain = None if recipe.reset is None else ContextChain(recipe.reset)
    collate = CAGCollate(objects, contexts, recipe.size, ranges=recipe.ranges, chain=chain, output="batch")
    batch: object = None
    for ids in itertools.islice(pairs, 4):  # so that the chain has something to offer
        batch = collate(ids)
    if isinstance(batch, Batch):
        save_sheet(options.out, batch.images, columns, zoom=zoom, boxes=batch.boxes if options.boxes else None)
    print(f"wrote {options.out}")
