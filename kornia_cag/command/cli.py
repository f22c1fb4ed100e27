"""The ``kornia-cag`` command. A user's mistake ends in one line and status 2, never in a traceback."""

import argparse
import io
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from kornia_cag import __version__
from kornia_cag.command import ablate, bench, evaluate, inspect, preview, train
from kornia_cag.command.options import SCENE_ATTACKS, fraction, path
from kornia_cag.command.results import way_on
from kornia_cag.command.signals import caught
from kornia_cag.command.wording import spelled
from kornia_cag.core.checks import Diverged, InputError, Interrupted, one_line
from kornia_cag.core.memory import no_memory
from kornia_cag.training.recipes import RECIPES


class Parser(argparse.ArgumentParser):
    """Says in one line what cannot be read."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"kornia-cag: {one_line(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, which however says nothing of what cannot be written."""
        if message:
            print(message, end="", file=file or sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0; 1 for a training that diverged; 2 for a user's mistake; 130 and 143 when ended by Ctrl-C and SIGTERM.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names that the terminal cannot spell
    options = argparse.Namespace()
    threads = torch.get_num_threads()
    try:
        with caught(), warnings.catch_warnings():
            warnings.showwarning = _warn
            _parser().parse_args(arguments, options)
            options.run(options)
    except (InputError, OSError) as error:
        return _said(str(error), 2)
    except Diverged as error:
        return _said(str(error), 1)
    except KeyboardInterrupt as error:
        number = error.args[0] if isinstance(error, Interrupted) else signal.SIGINT
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        return _said(word + way_on(options), 128 + number)
    except Exception as error:
        if not no_memory(error):
            raise
        reason = " ".join(str(error).partition("\n")[0].split()).rstrip(".") or "memory is used up"
        return _said(f"{reason.rpartition('] ')[2]}. {options.hint}", 2)
    finally:
        torch.set_num_threads(threads)
    return 0


def _said(text: str, status: int) -> int:
    print(f"kornia-cag: {one_line(spelled(text))}", file=sys.stderr)
    return status


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"kornia-cag: warning: {one_line(str(message))}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="kornia-cag", description="Train on one clean picture per class.")
    parser.add_argument("--version", action="version", version=f"kornia-cag {__version__}")
    group = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_train(group.add_parser("train", help="train a classifier and measure it on real pictures"))
    _add_evaluate(group.add_parser("evaluate", help="measure a trained model on real pictures"))
    _add_ablate(group.add_parser("ablate", help="train a recipe without each of its ingredients, and the paper's rows"))
    _add_preview(group.add_parser("preview", help="write a sheet of composites as the training would see them"))
    _add_inspect(group.add_parser("inspect", help="report the banks and the balance of their pairing"))
    _add_bench(group.add_parser("bench", help="time composition, CPU loaders and a training step on this machine"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    _add_balance(parser)
    _add_ingredients(parser)
    real = "real pictures to measure on: .npz or folder of class folders"
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help=real)
    parser.add_argument("--steps", type=int, help="budget in training steps, that is batches (default: the recipe's)")
    parser.add_argument("--images", type=int, help="budget in composed images, instead of --steps")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--compile", action="store_true", help="compose by a compiled graph: pays for long trainings")
    parser.add_argument(
        "--hold-out", type=float, default=0.0, metavar="SHARE", help="share of --contexts kept for evaluate --attack"
    )
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="network to train: function(classes, size)")
    out = "folder for all that is written (default: runs/RECIPE)"
    parser.add_argument("--out", type=path, metavar="DIR", help=out)
    parser.add_argument("--float32", action="store_true", help="no bfloat16, where the processor would take it")
    _add_threads(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run saved in --out")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.set_defaults(run=train.train, hint="Try a smaller --batch-size.")


def _add_ablate(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help="real pictures to measure on, as for train")
    parser.add_argument("--steps", type=int, help="budget of each row in training steps (default: the recipe's)")
    parser.add_argument("--images", type=int, help="budget of each row in composed images, instead of --steps")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row, from --seed upwards (default: 3)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows whose names hold one of these")
    parser.add_argument("--compile", action="store_true", help="compose by compiled graphs, one for each kind of scene")
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="folder for the results (default: runs/ablation-RECIPE)"
    )
    _add_threads(parser)
    parser.add_argument("--resume", action="store_true", help="keep the results that are in --out")
    parser.set_defaults(run=ablate.ablate, hint="Try --device cpu.")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model_from", type=path, metavar="OUT", help="folder that train wrote, or its model.pt")
    _add_function(parser)
    real = "real pictures: .npz or folder of class folders"
    parser.add_argument("--real", type=path, metavar="NPZ|DIR", help=real)
    parser.add_argument("--errors", type=path, metavar="PNG", help="write a sheet of the pictures it misreads")
    parser.add_argument("--views", type=int, help="views of a picture to average over (default: as trained)")
    parser.add_argument(
        "--attack", choices=["context", "pgd", "auto"],
        help="accuracy against budget: of composites whose context alone may change, or of --real, every pixel, by PGD "
        "or AutoAttack (needs torchattacks)",
    )  # fmt: skip
    objects = "the training's objects, for --attack context"
    parser.add_argument("--objects", type=path, metavar="DIR", help=objects)
    photos = "photographs; those that the model was trained on are left out"
    parser.add_argument("--contexts", type=path, metavar="DIR", help=photos)
    parser.add_argument("--key", choices=["white"], help="as in the training")
    parser.add_argument(
        "--eps",
        type=fraction,
        nargs="+",
        help="budgets, of a value in [0, 1] or, in l2, of a whole picture "
        "(default: 0, 2/255 ... 128/255, 1; l2: 0, 1/8 ... 4; auto: 0, 8/255)",
    )
    parser.add_argument("--norm", choices=["linf", "l2"], help="of the budgets (default: linf)")
    parser.add_argument("--restarts", type=int, help="random starts of each attack (default: 1)")
    parser.add_argument("--attack-steps", type=int, help="gradient steps from each start (default: 20)")
    parser.add_argument("--count", type=int, help="pictures to attack (default: 1000)")
    parser.add_argument("--seed", type=int, help="of the composites (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    _add_device(parser)
    parser.set_defaults(run=evaluate.evaluate, hint="Try --device cpu.")


def _add_preview(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)
    _add_scene_options(parser)
    _add_balance(parser)
    _add_ingredients(parser)
    sheet = "picture file (default: preview.png)"
    parser.add_argument("--out", type=path, default="preview.png", help=sheet)
    parser.add_argument("--rows", type=int, default=6, help="default: 6")
    parser.add_argument("--columns", type=int, default=12, help="default: 12")
    parser.add_argument("--zoom", type=int, default=2, help="enlargement (default: 2)")
    parser.add_argument("--boxes", action="store_true", help="draw the objects' boxes")
    parser.add_argument("--masks", action="store_true", help="add a sheet of the objects' masks")
    parser.add_argument("--perturbation", action="store_true", help="add a sheet of the attack's doing, magnified")
    trained = "attack this trained model (default: an untrained one)"
    parser.add_argument("--model-from", type=path, metavar="OUT", help=trained)
    _add_function(parser)
    say = "print all that was drawn for the Nth composite, counted from 0, and write its picture alone"
    parser.add_argument("--explain", type=int, metavar="N", help=say)
    parser.set_defaults(run=preview.preview, hint="Try fewer --rows.")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, nargs="?")
    _add_scene_options(parser)
    _add_balance(parser)
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.set_defaults(run=inspect.inspect, hint="Try --device cpu.")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, nargs="?")
    _add_scene_options(parser)
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--no-compile", action="store_true", help="eager mode alone: compiling takes a minute or two")
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on each line (default: 2)")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.set_defaults(run=bench.bench, hint="Try a smaller --batch-size.")


def _add_function(parser: argparse.ArgumentParser) -> None:
    function = "what made the network, where it was trained with --model"
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help=function)


def _add_recipe(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    names = sorted(RECIPES)
    parser.add_argument("recipe", metavar="RECIPE", choices=names, nargs=nargs, help=", ".join(names))


def _add_scene_options(parser: argparse.ArgumentParser) -> None:
    objects = "one RGBA picture per class, or one folder of them per class"
    parser.add_argument("--objects", type=path, metavar="DIR", help=objects)
    contexts = "folder of photographs to put objects on, beside procedural contexts (default: procedural, no photos)"
    parser.add_argument("--contexts", type=path, metavar="DIR|procedural", help=contexts)
    parser.add_argument("--key", choices=["white"], help="make the white around objects without alpha transparent")
    parser.add_argument("--size", type=int, help="side of the canvas, pixels, at least 16 (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    _add_device(parser)


def _add_balance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-balanced", dest="balanced", action="store_false", help="independent uniform pairs")


def _add_ingredients(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-chain", action="store_true", help="no earlier composites as contexts")
    parser.add_argument("--hard-pairing", action="store_true", help="put objects over those they are mistaken for")
    scenes = "choose half of the scenes against the model: by one gradient step, or as the worst of 4"
    parser.add_argument(
        "--scene-attack", choices=[*SCENE_ATTACKS], help=f"{scenes}; pays in long trainings (default: the recipe's)"
    )
    parser.add_argument("--no-attack", action="store_true", help="no hardening, of pixels or of scenes")
    parser.add_argument(
        "--eps", type=fraction, help="harden: L-infinity budget on the context, in [0, 1], such as 8/255"
    )
    parser.add_argument(
        "--eps-object",
        type=fraction,
        help="budget on the object (default: as --eps; a quarter of it spares dark objects)",
    )
    parser.add_argument("--attack-steps", type=int, help="gradient steps of the attack (default: 1)")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, help="of the CPU; results repeat bit for bit at equal numbers (default: torch's)"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
