"""What the README, the site and a user write passes a strict type checker; what ``help`` says of records and ranges."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from pages import PAGES, blocks

import kornia_cag
from kornia_cag.loading import batch
from kornia_cag.scenes import camera, earlier, light, pose

ROOT = Path(__file__).parents[1]
UNTYPED = r"from torchdata\..*|import onnxruntime"
GIVEN = """
from typing import Any
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
import torch
from kornia_cag import *
from kornia_cag.loading.batch import Pair
model: nn.Module
images: Tensor
objects: ObjectBank
contexts: ContextBank
pairs: PairSampler
collate: CAGCollate[Pair]
known: CAGCollate[Batch]
my_photos: Dataset[Any]
ranges: SceneRange
batch: Batch
rows: Rows
torchattacks: Any
"""


def test_readme_and_users_pass_a_strict_type_checker(tmp_path):
    """Each block of a page is a function: it may give a name anew."""
    written, texts = GIVEN, [text for page in PAGES for text in blocks(page)]
    assert len(texts) > 20
    for number, text in enumerate(texts):
        text = re.sub(f"^({UNTYPED})$", r"\1  # type: ignore[import-untyped]", text, flags=re.MULTILINE)
        written += f"def block_{number}() -> None:\n" + re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)
    (tmp_path / "readme.py").write_text(written)
    cache = Path(tempfile.gettempdir()) / f"kornia_cag-mypy-{os.getuid() if hasattr(os, 'getuid') else 0}"
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "--cache-dir", cache,
         tmp_path / "readme.py", ROOT / "tests/typed_loop.py"],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (found.stdout.splitlines()[-1:], found.stderr) == (["Success: no issues found in 2 source files"], ""), (
        found.stdout
    )


RECORDS = [
    *(value for value in (getattr(kornia_cag, name) for name in kornia_cag.__all__) if inspect.isclass(value)
      and (hasattr(value, "_fields") or (dataclasses.is_dataclass(value) and dataclasses.fields(value)))),
    batch.Pair, earlier.Earlier, pose.Pose, light.Color, camera.Camera,
]  # fmt: skip
UNITS = re.compile(
    r"\(\w+(, ?\w+)*,?\)|\(height, width\)|pixel|texel|degrees|factor|share|probability|number|deviation|epochs|stops"
    r"|\(b, 4 \+ K\)|gain|levels|quality|units|longest side over|width over height|budget|change of depth"
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_help_names_every_field_with_its_unit_or_shape(record):
    """Whatever is a number or a tensor has a unit or a shape; all else is named."""
    types = {name: kind for base in reversed(record.__mro__) for name, kind in inspect.get_annotations(base).items()}
    names = getattr(record, "_fields", None) or [field.name for field in dataclasses.fields(record)]
    names = [name for name in names if not name.startswith("_")]
    _, found, listed = inspect.getdoc(record).partition("Attributes:\n")
    assert found, f"{record.__name__}: no fields in help()"
    listed = listed.partition("\n\n")[0]  # errors may follow
    told = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", listed, flags=re.MULTILINE))
    told.pop("warn", None)  # a parameter, not a field
    assert list(told) == list(names)
    numbers = [name for name in names if re.search(r"\b(float|int|Tensor|Float|Int|Bool)\b", str(types[name]))]
    assert [name for name in numbers if not UNITS.search(told[name])] == []


@pytest.mark.parametrize("record", [kornia_cag.Batch, batch.Pair])
def test_help_of_a_tuple_s_fields(record):
    for name in record._fields:
        assert re.match(r"\(b,.*\)", getattr(record, name).__doc__), name
    assert "NaN if the object is out of sight" in kornia_cag.Batch.boxes.__doc__
