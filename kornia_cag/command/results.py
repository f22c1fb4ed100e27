"""The results folder of a training or ablation: where it is, who writes to it, what an earlier run left."""

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from kornia_cag.command.options import MOST_THREADS, check_apart
from kornia_cag.command.wording import worded
from kornia_cag.core import ranks
from kornia_cag.core.checks import InputError, fail
from kornia_cag.core.lock import held
from kornia_cag.core.progress import say
from kornia_cag.core.storage import earlier, read_json
from kornia_cag.training.network import CHECKPOINT, CONFIG, MODEL

REPORT, PREVIEW = "report.json", "preview.png"
ABLATION, TABLE, PLOT = "ablation.json", "ablation.md", "ablation.svg"
PREVIOUS = str(earlier(CHECKPOINT))
WRITTEN = {"train": (CHECKPOINT, PREVIOUS, MODEL, CONFIG, REPORT, PREVIEW), "ablate": (ABLATION, TABLE, PLOT)}
RESUMED = {"train": CHECKPOINT, "ablate": ABLATION}  # what a command resumes from, or from the version before it


def folder(options: argparse.Namespace) -> Path:
    """Where a training or an ablation writes its results."""
    recipe = Path(options.recipe).stem  # of a file, or the name of a recipe itself
    return Path(options.out or f"runs/{recipe if options.command == 'train' else f'ablation-{recipe}'}")


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Create the folder and lock it against other runs; of several ranks the first does.

    Raises:
        InputError: if another run is writing to it.
    """
    if ranks.here()[0] > 0:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with worded(folder="--out"):
            stack.enter_context(held(out))
        yield


def resume_threads(options: argparse.Namespace, out: Path) -> None:
    """Set the threads as at the start of the run that is resumed, unless told otherwise: sums round by their count.

    Those of several ranks round by theirs.
    """
    if options.threads is not None or not options.resume or ranks.here()[1] > 1:
        return
    try:
        if options.command == "train":
            saved = read_json(out / CONFIG, "--resume", f"a {CONFIG} as train writes it")["threads"]
        else:
            saved = read_json(out / ABLATION, "--resume", "results that ablate wrote")["plan"]["threads"]
    except (OSError, InputError, KeyError, TypeError):  # loading checks the plan anyway
        return
    if isinstance(saved, int) and 1 <= saved <= MOST_THREADS and saved != (own := torch.get_num_threads()):
        say(f"resuming with {saved} threads, as the run started, instead of this machine's {own}")
        torch.set_num_threads(saved)


def way_on(options: argparse.Namespace) -> str:
    """What to print after "interrupted": how to resume."""
    if "resume" not in options:
        return ""
    return "; repeat the command with --resume to continue" if resumable(options) else ""


def resumable(options: argparse.Namespace) -> bool:
    """Whether a training or an ablation left something to resume from."""
    file = folder(options) / RESUMED[options.command]
    return file.is_file() or earlier(file).is_file()


def check_out(options: argparse.Namespace, out: Path) -> None:
    """Check that results can go there, before the work starts."""
    if out.exists() and not out.is_dir():
        fail("--out", "a folder", f"{str(out)!r}, which is a file")
    check_apart("--out", out, options)


def check_documents(out: Path, argument: str) -> None:
    """Check that a run's configuration and report are intact, if they exist; nothing is computed from them."""
    for name in (CONFIG, REPORT):
        if (out / name).is_file():
            read_json(out / name, argument, f"a {name} as train writes it", "Remove it from the folder to continue.")


def set_aside(out: Path, command: str) -> None:
    """Move an earlier run's files into a subfolder instead of overwriting them: they may have taken hours."""
    old = [out / name for name in WRITTEN[command] if (out / name).exists()]
    if not old:
        return
    aside = next(place for place in (out / f"earlier-{i}" for i in itertools.count(1)) if not place.exists())
    aside.mkdir()
    for file in old:
        file.rename(aside / file.name)
    print(f"kornia-cag: moved the earlier run in {str(out)!r} to {str(aside)!r}", file=sys.stderr)
