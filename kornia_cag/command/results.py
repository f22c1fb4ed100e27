"""The folder of results of a training or an ablation: where it is, who writes there, what an earlier run left."""

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from kornia_cag.command.options import check_apart
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import InputError, check_int, fail
from kornia_cag.core.lock import held
from kornia_cag.core.progress import say
from kornia_cag.core.storage import read_json
from kornia_cag.training.network import CHECKPOINT, MODEL

CONFIG, REPORT, PREVIEW = "config.json", "report.json", "preview.png"
ABLATION, TABLE, PLOT = "ablation.json", "ablation.md", "ablation.svg"
WRITTEN = {"train": (CHECKPOINT, MODEL, CONFIG, REPORT, PREVIEW), "ablate": (ABLATION, TABLE, PLOT)}
RESUMED = {"train": CHECKPOINT, "ablate": ABLATION}  # what a command goes on from


def folder(options: argparse.Namespace) -> Path:
    """Where a training or an ablation writes to."""
    name = options.recipe if options.command == "train" else f"ablation-{options.recipe}"
    return Path(options.out or f"runs/{name}")


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it.

    Raises:
        InputError: where another run writes to it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with worded(folder="--out"):
            stack.enter_context(held(out))
        yield


def take_threads(options: argparse.Namespace, out: Path) -> None:
    """The threads that are asked for; else, for a run that goes on, those of its start, since sums round by them."""
    if options.threads is not None:
        torch.set_num_threads(check_int("--threads", options.threads, 1, 4096))
    elif options.resume:
        try:
            if options.command == "train":
                saved = read_json(out / CONFIG, "--resume", f"a {CONFIG} as train writes it")["threads"]
            else:
                saved = read_json(out / ABLATION, "--resume", "results that ablate wrote")["plan"]["threads"]
        except (OSError, InputError, KeyError, TypeError):  # what is resumed is held against its plan anyway
            return
        if isinstance(saved, int) and 1 <= saved <= 4096 and saved != (own := torch.get_num_threads()):
            say(f"going on with {saved} threads, as the run began, in place of this machine's {own}")
            torch.set_num_threads(saved)


def way_on(options: argparse.Namespace) -> str:
    """What to say to somebody who interrupted a command, after "interrupted"."""
    if "resume" not in options or "run" not in options:
        return ""
    file = folder(options) / RESUMED[options.command]
    return "; repeat the command with --resume to go on" if file.is_file() else ""


def check_out(options: argparse.Namespace, out: Path) -> None:
    """What is wrong with the place for results is better found before the work."""
    if out.exists() and not out.is_dir():
        fail("--out", "a folder", f"{str(out)!r}, which is a file")
    check_apart("--out", out, options)


def check_documents(out: Path, argument: str) -> None:
    """Configuration and report of a run are whole, if they are there; nothing is computed from them."""
    for name in (CONFIG, REPORT):
        if (out / name).is_file():
            read_json(out / name, argument, f"a {name} as train writes it", "Take it out of the folder to go on.")


def set_aside(out: Path, command: str) -> None:
    """Move what an earlier run wrote into a folder of its own: it may have taken hours, and is not this one's."""
    old = [out / name for name in WRITTEN[command] if (out / name).exists()]
    if not old:
        return
    aside = next(place for place in (out / f"earlier-{i}" for i in itertools.count(1)) if not place.exists())
    aside.mkdir()
    for file in old:
        file.rename(aside / file.name)
    print(f"kornia-cag: {str(out)!r} held a run, which is now in {str(aside)!r}", file=sys.stderr)
