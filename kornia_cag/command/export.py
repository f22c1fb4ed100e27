"""``kornia-cag export``: a trained model as a file for other programs."""

import argparse
import os
from pathlib import Path

import torch

from kornia_cag.command.measuring import real_pictures
from kornia_cag.command.options import read_model
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import fail
from kornia_cag.training.exported import export_network
from kornia_cag.training.network import MODEL


def export(options: argparse.Namespace) -> None:
    """Write a trained model, compared with itself."""
    trained = read_model(options, torch.device("cpu"))
    for source in (Path(options.model_from), Path(options.model_from) / MODEL):
        if source.is_file() and os.path.exists(options.out) and os.path.samefile(source, options.out):
            fail("--out", "another file than the model itself", repr(options.out))
    real = None if options.real is None else real_pictures(options.real, trained.recipe, trained.classes)
    with worded(path="--out", format="--format", network="model"):
        difference = export_network(
            trained, options.out, format=options.format, images=None if real is None else real.images
        )
    on = "64 composites" if real is None else f"the {len(real.labels):,} pictures of {real.name}"
    print(f"wrote {options.out}: the same classes on {on}, logits within {difference:.1g}")
