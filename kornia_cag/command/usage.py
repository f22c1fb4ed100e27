"""The command line: subcommands and their options. Nothing here needs torch, so that ``--help`` is there at once."""

import argparse
from collections.abc import Sequence

from kornia_cag.command.parser import Parser, Version
from kornia_cag.command.values import Sets, fraction, path, recipe, setting
from kornia_cag.training.catalog import CATALOG, USUAL

SCENE_ATTACKS = ("gradient", "worst", "none")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with status 2 if it cannot be parsed, and with 0 after ``--help``."""
    return parser().parse_args(arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = Parser(prog="kornia-cag", description="Train on one clean picture per class.")
    whole.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    group = whole.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_train(group.add_parser("train", help="train a classifier or detector, and measure it on real pictures"))
    _add_evaluate(group.add_parser("evaluate", help="measure a trained model on real pictures"))
    _add_predict(group.add_parser("predict", help="name or find what is in photographs, with probabilities"))
    _add_export(group.add_parser("export", help="write a trained model as ONNX, or as a program of torch.export"))
    _add_ablate(group.add_parser("ablate", help="train a recipe without each ingredient in turn, and the paper's rows"))
    _add_preview(group.add_parser("preview", help="write a sheet of composites as training would see them"))
    _add_inspect(group.add_parser("inspect", help="report what is in the banks and how balanced their pairs are"))
    _add_bench(group.add_parser("bench", help="time composing, CPU loaders and a training step on this machine"))
    _add_recipes(group.add_parser("recipe", help="list the recipes, or show one as a file to edit and train"))
    return whole


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    _add_distractors(parser)
    _add_balance(parser)
    _add_ingredients(parser)
    real = "real pictures to measure on: an .npz, or a folder with one folder per class; for a detector, with boxes"
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help=real)
    _add_annotations(parser)
    parser.add_argument("--steps", type=int, help="budget in training steps (batches) (default: the recipe's)")
    parser.add_argument("--images", type=int, help="budget in composed images, instead of --steps")
    parser.add_argument("--batch-size", action=Sets, sets="batch_size", help="default: the recipe's")
    parser.add_argument("--compile", action="store_true", help="compose in a compiled graph: for long trainings")
    parser.add_argument(
        "--hold-out", type=float, default=0.0, metavar="SHARE", help="share of --contexts kept for evaluate --attack"
    )
    slots = "hold N photographs of --contexts at a time, others in every epoch, and no procedural contexts"
    parser.add_argument("--context-slots", type=int, metavar="N", help=f"{slots}: for folders larger than memory")
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="network to train: function(classes, size)")
    out = "folder for the results (default: runs/RECIPE)"
    parser.add_argument("--out", type=path, metavar="DIR", help=out)
    parser.add_argument("--float32", action="store_true", help="do not use bfloat16, even where it is faster")
    parser.add_argument("--resume", action="store_true", help="continue the run saved in --out")
    ranks = "processes that share each batch, every one on a GPU of its own, or all on the CPU (default: 1)"
    parser.add_argument("--nproc", type=int, metavar="N", help=ranks)
    parser.add_argument("--json", action="store_true", help="print only the report, as JSON")
    parser.set_defaults(hint="Try a smaller --batch-size.")


def _add_ablate(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help="real pictures to measure on, as in train")
    parser.add_argument("--steps", type=int, help="budget per row, in training steps (default: the recipe's)")
    parser.add_argument("--images", type=int, help="budget per row, in composed images, instead of --steps")
    parser.add_argument("--seeds", type=int, default=3, help="seeds per row, counting up from --seed (default: 3)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows whose name contains one")
    parser.add_argument("--compile", action="store_true", help="compose in compiled graphs, one per kind of scene")
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="folder for the results (default: runs/ablation-RECIPE)"
    )
    parser.add_argument("--resume", action="store_true", help="keep the results already in --out")
    parser.set_defaults(hint="Try --device cpu.")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _add_trained(parser)
    real = "real pictures: an .npz, or a folder with one folder per class; for a detector, with boxes"
    repeated = "repeat it for a table of several sets, unless for a detector"
    parser.add_argument("--real", type=path, action="append", metavar="NPZ|DIR", help=f"{real}; {repeated}")
    _add_annotations(parser)
    errors = "write a sheet of the misclassified pictures; or of what a detector missed, and of its false alarms"
    parser.add_argument("--errors", type=path, metavar="PNG", help=errors)
    _add_detecting(parser)
    parser.add_argument(
        "--attack", choices=["context", "pgd", "auto"],
        help="accuracy against budget: context attacks the context of composites; pgd and auto (AutoAttack, needs "
        "torchattacks) attack every pixel of --real",
    )  # fmt: skip
    objects = "the training's objects, for --attack context"
    parser.add_argument("--objects", type=path, metavar="DIR", help=objects)
    photos = "photographs; any the model was trained on are left out"
    parser.add_argument("--contexts", type=path, metavar="DIR", help=photos)
    parser.add_argument("--key", choices=["white"], help="as in training")
    _add_on_error(parser)
    parser.add_argument(
        "--eps",
        type=fraction,
        nargs="+",
        help="budgets per value in [0, 1], or with l2 per picture "
        "(default: 0, 2/255 ... 128/255, 1; l2: 0, 1/8 ... 4; auto: 0, 8/255)",
    )
    parser.add_argument("--norm", choices=["linf", "l2"], help="norm of the budgets (default: linf)")
    parser.add_argument("--restarts", type=int, help="random starts per attack (default: 1)")
    parser.add_argument("--attack-steps", type=int, help="gradient steps per start (default: 20)")
    parser.add_argument("--count", type=int, help="pictures to attack (default: 1000)")
    parser.add_argument("--seed", type=int, help="seed of the composites (default: 0)")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    _add_device(parser)
    parser.set_defaults(hint="Try --device cpu.")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    _add_trained(parser)
    photos = "picture files, folders (with all that is below them), or patterns such as 'photos/*.jpg'"
    parser.add_argument("photos", type=path, nargs="+", metavar="PHOTO", help=photos)
    parser.add_argument("--top", type=int, metavar="K", help="names per picture, if pictures are named (default: 3)")
    _add_detecting(parser)
    drawn = "folder for the pictures with boxes and names drawn in, if objects are found"
    parser.add_argument("--draw", type=path, metavar="DIR", help=drawn)
    parser.add_argument("--json", action="store_true", help="one JSON object per line and picture")
    bad = "what to do about pictures that cannot be read: name them and end with status 2, or leave them out"
    parser.add_argument("--on-error", choices=["report", "skip"], default="report", help=f"{bad} (default: report)")
    _add_device(parser)
    parser.set_defaults(hint="Try --device cpu.")


def _add_annotations(parser: argparse.ArgumentParser) -> None:
    boxes = "boxes of --real: a CSV as of GTSDB, COCO's JSON, or a folder of YOLO's text files (default: looked for)"
    parser.add_argument("--annotations", type=path, metavar="FILE|DIR", help=boxes)


def _add_detecting(parser: argparse.ArgumentParser) -> None:
    least = "probability from which on an object counts as found (default: 0.5)"
    parser.add_argument("--threshold", type=fraction, metavar="SHARE", help=least)
    namer = "run whose network names what a detector finds"
    parser.add_argument("--classifier", type=path, metavar="RUN", help=namer)


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_trained(parser)
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="model.onnx or model.pt2")
    parser.add_argument("--format", choices=["onnx", "torch"], help="default: by the ending of --out")
    real = "real pictures to compare on: an .npz, or a folder with one folder per class (default: made-up pictures)"
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help=real)
    _add_threads(parser)
    parser.set_defaults(hint="Close other programs.")


def _add_trained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_from", type=path, metavar="RUN", help="folder written by train, or its model.pt")
    _add_function(parser)
    parser.add_argument("--views", type=int, help="slightly moved copies to average per picture (default: as trained)")


def _add_preview(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    _add_distractors(parser)
    _add_balance(parser)
    _add_ingredients(parser)
    sheet = "picture file (default: preview.png)"
    parser.add_argument("--out", type=path, default="preview.png", help=sheet)
    parser.add_argument("--rows", type=int, default=6, help="default: 6")
    parser.add_argument("--columns", type=int, default=12, help="default: 12")
    parser.add_argument("--zoom", type=int, default=2, help="enlargement factor (default: 2)")
    parser.add_argument("--boxes", action="store_true", help="draw bounding boxes")
    parser.add_argument("--no-names", dest="names", action="store_false", help="leave out the names of the classes")
    parser.add_argument("--masks", action="store_true", help="add a sheet of the object masks")
    parser.add_argument("--perturbation", action="store_true", help="add a sheet of the amplified perturbation")
    trained = "attack this trained model (default: an untrained one)"
    parser.add_argument("--model-from", type=path, metavar="OUT", help=trained)
    _add_function(parser)
    say = "print and draw how the Nth composite (from 0) was made: each stage, and what was drawn for it"
    parser.add_argument("--explain", type=int, metavar="N", help=say)
    parser.set_defaults(hint="Try fewer --rows.")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    _add_distractors(parser)
    _add_balance(parser)
    parser.add_argument("--batch-size", action=Sets, sets="batch_size", help="default: the recipe's")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.set_defaults(hint="Try --device cpu.")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, usual="signs")
    _add_scene_options(parser)
    parser.add_argument("--batch-size", action=Sets, sets="batch_size", help="default: the recipe's")
    parser.add_argument("--no-compile", action="store_true", help="eager mode only: compiling takes 1 to 2 minutes")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per line (default: 2)")
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.set_defaults(hint="Try a smaller --batch-size.")


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_subparsers(required=True, dest="what", metavar="list|show")
    group.add_parser("list", help="what each recipe is for, and what it needs")
    shown = "print all fields, with their meaning: kornia-cag recipe show signs > mine.yaml"
    _add_recipe(group.add_parser("show", help=shown))
    parser.set_defaults(hint="")


def _add_function(parser: argparse.ArgumentParser) -> None:
    function = "function that builds the network, if it was trained with --model"
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help=function)


def _add_recipe(parser: argparse.ArgumentParser, usual: str = USUAL) -> None:
    names = f"{', '.join(sorted(CATALOG))}, or a file such as mine.yaml (default: {usual})"
    parser.add_argument("recipe", type=recipe, metavar="RECIPE", nargs="?", default=usual, help=names)
    field = "set a field of the recipe, such as ranges.pose.angle=-30,30; may be repeated"
    parser.add_argument("--set", action=Sets, type=setting, metavar="FIELD=VALUE", help=field)
    parser.set_defaults(set=[])


def _add_scene_options(parser: argparse.ArgumentParser) -> None:
    objects = "folder with one RGBA picture, or one folder of them, per class"
    parser.add_argument("--objects", type=path, metavar="DIR", help=objects)
    contexts = "folder of photographs to use along with procedural contexts (default: procedural only)"
    parser.add_argument("--contexts", type=path, metavar="DIR|procedural", help=contexts)
    parser.add_argument("--key", choices=["white"], help="make white around objects transparent, if there is no alpha")
    _add_on_error(parser)
    side = "side of the canvas in pixels, at least 16 (default: the recipe's)"
    parser.add_argument("--size", action=Sets, sets="size", help=side)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    _add_device(parser)


def _add_distractors(parser: argparse.ArgumentParser) -> None:
    beside = "folder of objects that are not to be found, for recipes with distractors (default: made-up ones)"
    parser.add_argument("--distractors", type=path, metavar="DIR", help=beside)


def _add_on_error(parser: argparse.ArgumentParser) -> None:
    files = "what to do about files of --objects and --contexts that cannot be used (default: raise)"
    parser.add_argument("--on-error", choices=["raise", "skip"], help=files)


def _add_balance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-balanced", dest="balanced", action="store_false", help="independent uniform pairs")


def _add_ingredients(parser: argparse.ArgumentParser) -> None:
    chain, pairing = {"reset": "null", "hard_pairing": "false"}, {"hard_pairing": "true"}
    parser.add_argument("--no-chain", action=Sets, sets=chain, help="do not use earlier composites as contexts")
    parser.add_argument("--hard-pairing", action=Sets, sets=pairing, help="put objects over ones they are mistaken for")
    scenes = "choose half of the scenes to be hard for the model: by one gradient step, or as the worst of 4"
    parser.add_argument(
        "--scene-attack", choices=SCENE_ATTACKS, help=f"{scenes}; pays off in long trainings (default: the recipe's)"
    )
    parser.add_argument("--no-attack", action="store_true", help="do not attack pixels or scenes")
    parser.add_argument(
        "--eps", type=fraction, help="attack pixels: L-infinity budget on the context, in [0, 1], such as 8/255"
    )
    parser.add_argument(
        "--eps-object",
        type=fraction,
        help="budget on the object (default: same as --eps; a quarter of it protects dark objects)",
    )
    parser.add_argument("--attack-steps", type=int, help="gradient steps of the attack (default: 1)")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    _add_threads(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, help="CPU threads; the same number repeats results bit for bit (default: torch's)"
    )
