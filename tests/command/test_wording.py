import ast
import re
from pathlib import Path

import pytest

import kornia_cag
from kornia_cag import InputError
from kornia_cag.command.wording import ADVICE, spelled, worded
from kornia_cag.core.checks import check_int, fail

BELOW = [path for path in Path(kornia_cag.__file__).parent.glob("*/*.py") if path.parent.name != "command"]


def texts(path):
    """All texts of a module, with a number for whatever is put into one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("folder", "--objects: expected a folder, got nothing. Do that."),
        ("recipe.batch_size", "--batch-size: expected a folder, got nothing. Do that."),
        ("folders", "folders: expected a folder, got nothing. Do that."),
        ("a.folder", "a.folder: expected a folder, got nothing. Do that."),
        ("folder 2", "folder 2: expected a folder, got nothing. Do that."),
    ],
)
def test_an_argument_is_named_by_its_option(argument, said):
    options = {"folder": "--objects", "recipe.batch_size": "--batch-size"}
    with pytest.raises(InputError) as caught, worded(**options):
        fail(argument, "a folder", "nothing", "Do that.")
    assert str(caught.value) == said
    assert caught.value.argument == said.partition(":")[0]


def test_the_inner_name_is_kept_and_other_errors_pass():
    with pytest.raises(InputError, match=r"^--steps: "), worded(steps="--images"), worded(steps="--steps"):
        check_int("steps", 0)
    with pytest.raises(ValueError, match=r"^steps: no"), worded(steps="--steps"):
        raise ValueError("steps: no")
    with pytest.raises(InputError, match=r"^steps: no"), worded(steps="--steps"):
        raise InputError("steps: no")  # of another wording


@pytest.mark.parametrize("pattern", ADVICE)
def test_advice_is_what_the_library_gives(pattern):
    assert any(re.search(pattern, text) for path in BELOW for text in texts(path))


@pytest.mark.parametrize(
    ("python", "here"),
    [
        ('Make it clear, or read it with from_folder(key="white") if', "Make it clear, or pass --key white if"),
        ('Take it out of the folder, or pass on_error="skip".', "Take it out of the folder, or pass --on-error skip."),
        ("Repeat it. Call torch.set_num_threads(12).", "Repeat it. Pass --threads 12."),
        ("Try a learning_rate below 1, or float32=True.", "Try a learning_rate below 1, or --float32."),
        ("Repeat the arguments of the first run.", "Repeat the options of the first run."),
    ],
)  # fmt: skip
def test_advice_is_given_as_options(python, here):
    assert spelled(python) == here
