"""``kornia-cag export``: a trained model as a file for other programs."""

import argparse
import os
from pathlib import Path

import torch

from kornia_cag.command.measuring import real_pictures
from kornia_cag.command.options import check_apart, read_model
from kornia_cag.command.results import WRITTEN
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import fail, one_line
from kornia_cag.core.storage import check_place
from kornia_cag.training.exported import export_network
from kornia_cag.training.network import MODEL


def export(options: argparse.Namespace) -> None:
    """Write a trained model, compared with itself."""
    trained = read_model(options, torch.device("cpu"))
    _check_out(options)
    real = None if options.real is None else real_pictures(options.real, trained.recipe, trained.classes)
    with worded(path="--out", format="--format", network="model"):
        difference = export_network(
            trained, options.out, format=options.format, images=None if real is None else real.images
        )
    on = "64 composites" if real is None else f"the {len(real.labels):,} pictures of {real.name}"
    print(one_line(f"wrote {options.out}: the same classes on {on}, logits within {difference:.1g}"))


def _check_out(options: argparse.Namespace) -> None:
    """Require a place to write to that is none of the files that were read or belong to the run."""
    with worded(path="--out"):
        check_place(options.out)
    source = Path(options.model_from)
    run = source if source.is_dir() else source.parent
    for file in (source, *(run / name for name in WRITTEN["train"])):
        if _same(file, options.out):
            whose = "the model itself" if file in (source, run / MODEL) else "those of the run"
            fail("--out", f"another file than {whose}", repr(options.out))
    if options.real is not None:
        if _same(Path(options.real), options.out):
            fail("--out", "another file than that of --real, which is only read", repr(options.out))
        check_apart("--out", Path(options.out).absolute().parent, options)


def _same(file: Path, out: str) -> bool:
    """Whether two names mean one file, also where there is none yet."""
    return os.path.realpath(file) == os.path.realpath(out) or (
        file.is_file() and os.path.isfile(out) and os.path.samefile(file, out)
    )
