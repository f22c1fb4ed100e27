"""The package keeps to its own plan: imports point up the table, everything public says what it is."""

import ast
import dataclasses
import importlib
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import kornia_cag

PACKAGE = Path(kornia_cag.__file__).parent
ROOT = PACKAGE.parent
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py")) if not path.stem.startswith("__")}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def table():
    """Rows of the architecture page: file stems in order, and what they say they import."""
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        files = re.findall(r"`(\w+)\.py`", line.split("|")[1]) if line.startswith("| `") else []
        if files:
            yield files, line.split("|")[3].strip()


def imports(name):
    """Modules of the package that a module imports."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            if node.module == "kornia_cag":
                found |= {alias.name for alias in node.names} & MODULES.keys()
            elif (node.module or "").startswith("kornia_cag."):
                found.add(node.module.removeprefix("kornia_cag."))
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("kornia_cag.") for a in node.names if a.name.startswith("kornia_cag.")}
    return found


def public(owner):
    """Public functions, methods and properties of a module or class, as (name, function)."""
    for name, value in vars(owner).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if isinstance(value, types.FunctionType) and value.__module__.startswith("kornia_cag."):
            yield f"{getattr(owner, '__qualname__', owner.__name__)}.{name}", value


def test_the_table_names_every_module_once():
    named = [file for files, _ in table() for file in files]
    assert sorted(named) == sorted(MODULES)


def test_imports_point_up_the_table():
    order = [file for files, _ in table() for file in files]
    down = [(name, other) for name in MODULES for other in imports(name) if order.index(other) >= order.index(name)]
    assert down == []


def test_the_table_tells_the_imports_as_they_are():
    for files, said in table():
        if "above" in said:
            continue
        want = set() if said == "–" else set(said.split(", "))
        for name in files:
            assert imports(name) == want, name


@pytest.mark.parametrize("low", ["pairing", "attack", "randomness", "graph", "lending", "checks"])
def test_what_needs_no_picture_imports_none(low):
    seen, todo = set(), {low}
    while todo:
        seen |= todo
        todo = {other for name in todo for other in imports(name)} - seen
    assert not seen & {"banks", "compose", "collate", "files", "picture", "pyramid", "warp"}


def test_few_files_know_the_data_loader():
    users = {name for name, path in MODULES.items() if re.search(r"utils\.data|torchdata", path.read_text())}
    assert users == {"bench", "collate", "pairing", "prefetch", "train"}


def test_public_names_are_loaded_when_asked_for_and_seen_by_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    shown = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {node.module.removeprefix("kornia_cag."): tuple(a.name for a in node.names) for node in shown.body}
    assert typed == kornia_cag._STAGES
    assert sorted(name for names in typed.values() for name in names) == sorted(kornia_cag.__all__)
    assert not set(kornia_cag.__all__) & MODULES.keys()  # loading a module puts it under its name into the package
    assert set(kornia_cag.__all__) <= set(dir(kornia_cag))
    code = "import sys, kornia_cag, kornia_cag.__main__; print(sorted({'torch', 'numpy', 'PIL'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_names_of_the_package_are_found_in_any_way():
    assert pickle.loads(pickle.dumps(kornia_cag.PoseRange(scale=(0.5, 0.6)))) == kornia_cag.PoseRange(scale=(0.5, 0.6))
    assert kornia_cag.losses is importlib.import_module("kornia_cag.losses")
    assert not hasattr(kornia_cag, "nothing_of_the_kind")
    text = pydoc.render_doc(kornia_cag, renderer=pydoc.plaintext)
    assert all(name in text for name in ("class PairSampler", "FGSM(", "trades_loss("))


def test_all_public_names_exist_are_sorted_and_documented():
    names = kornia_cag.__all__
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(kornia_cag, name)
        assert inspect.getdoc(value), name
        generated = dataclasses.is_dataclass(value) and value.__doc__.startswith(f"{name}(")
        assert not generated, f"{name}: no docstring of its own"


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_and_classes_are_documented(name):
    module = importlib.import_module(f"kornia_cag.{name}")
    assert module.__doc__
    undocumented = [label for label, function in public(module) if not function.__doc__]
    for label, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and not label.startswith("_"):
            undocumented += [] if inspect.getdoc(value) else [label]
            undocumented += [method for method, f in public(value) if not f.__doc__ and not method.endswith("__call__")]
    assert undocumented == []


@pytest.mark.parametrize("name", MODULES)
def test_everything_is_annotated(name):
    bare = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            arguments += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
            bare += [
                f"{node.name}({a.arg})" for a in arguments if a.annotation is None and a.arg not in ("self", "cls")
            ]
            bare += [] if node.returns is not None else [f"{node.name} ->"]
    assert bare == []


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_short(name):
    long = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            long += [f"{node.name}: {lines} lines"] if lines > 40 else []
    assert long == []


@pytest.mark.parametrize("name", MODULES)
def test_a_user_s_mistake_never_meets_an_assert_or_a_bare_error(name):
    """What ends a run is one of the kinds in ``checks.py``; NotImplementedError and the like have no place here."""
    kinds = {node.name for node in TREES["checks"].body if isinstance(node, ast.ClassDef)}
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"{name}:{node.lineno}"
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            assert node.exc.func.id in kinds, f"{name}:{node.lineno}"


def texts():
    yield from MODULES.values()
    yield from (path for pattern in ("*.md", "docs/*.md", "pyproject.toml") for path in sorted(ROOT.glob(pattern)))


@pytest.mark.parametrize("path", list(texts()), ids=lambda path: path.name)
def test_text_is_finished_and_names_no_machine(path):
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    assert not re.search(r"(?<![\w.>-])/(?:home|root|tmp|work|usr|opt|mnt|Users)/", text)
    assert not re.search(r"\b(?:localhost|127\.0\.0\.1)\b", text)
