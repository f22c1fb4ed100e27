"""The house keeps to its plan: rooms in their order, short files and functions, and a public surface that explains."""

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
ROOMS = [
    "core",
    "banks",
    "sampling",
    "scenes",
    "adversary",
    "loading",
    "export",
    "evaluation",
    "training",
    "bench",
    "command",
]
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.glob("*/*.py"))
    if not path.stem.startswith("__")
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(tree):
    """Modules of the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            if (node.module or "").startswith("kornia_cag."):
                name = node.module.removeprefix("kornia_cag.")
                yield from [name] if "." in name else [f"{name}.{alias.name}" for alias in node.names]


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


def test_rooms_import_only_rooms_above_them():
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(ROOMS)
    for name, tree in TREES.items():
        here = ROOMS.index(name.split(".")[0])
        assert [other for other in imports(tree) if ROOMS.index(other.split(".")[0]) > here] == [], name


def test_no_two_modules_need_each_other():
    order: list[str] = []
    todo = {name: set(imports(tree)) & MODULES.keys() for name, tree in TREES.items()}
    while todo:
        ready = sorted(name for name, needed in todo.items() if needed <= set(order))
        assert ready, f"a circle among {sorted(todo)}"
        order += ready
        todo = {name: needed for name, needed in todo.items() if name not in order}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_what_it_imports(room):
    told = importlib.import_module(f"kornia_cag.{room}").__doc__.strip().splitlines()
    assert len(told) == 3
    assert told[2].startswith("Imports ")


@pytest.mark.parametrize("low", ["sampling.pairs", "adversary.ascent", "core.randomness", "adversary.frozen"])
def test_what_needs_no_picture_imports_none(low):
    seen, todo = set(), {low}
    while todo:
        seen |= todo
        todo = {other for name in todo for other in imports(TREES[name])} - seen
    assert not {name for name in seen if name.startswith(("banks.", "scenes.", "loading."))}


def test_few_files_know_the_data_loader():
    users = {name for name, path in MODULES.items() if re.search(r"utils\.data|torchdata", path.read_text())}
    assert users == {
        "bench.timings",
        "loading.arguments",
        "sampling.pairs",
        "sampling.passes",
        "loading.prefetch",
        "training.loader",
    }


def test_public_names_are_loaded_when_asked_for_and_seen_by_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    shown = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {node.module.removeprefix("kornia_cag."): tuple(a.name for a in node.names) for node in shown.body}
    assert typed == kornia_cag._STAGES
    assert sorted(name for names in typed.values() for name in names) == sorted(kornia_cag.__all__)
    assert not set(kornia_cag.__all__) & set(ROOMS)  # loading a room puts it under its name into the package
    assert set(kornia_cag.__all__) <= set(dir(kornia_cag))
    code = "import sys, kornia_cag, kornia_cag.__main__; print(sorted({'torch', 'numpy', 'PIL'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_names_of_the_package_are_found_in_any_way():
    assert pickle.loads(pickle.dumps(kornia_cag.PoseRange(scale=(0.5, 0.6)))) == kornia_cag.PoseRange(scale=(0.5, 0.6))
    assert kornia_cag.adversary is importlib.import_module("kornia_cag.adversary")
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


def surface():
    """Public callables, as a user calls them: their names, and what documents their parameters."""
    for name in kornia_cag.__all__:
        value = getattr(kornia_cag, name)
        if not inspect.isclass(value):
            yield name, value, value.__doc__
            continue
        yield name, value.__init__, value.__doc__
        for label, method in public(value):
            yield label, method, f"{value.__doc__}\n{method.__doc__}"


@pytest.mark.parametrize(("label", "function", "text"), list(surface()), ids=[label for label, *_ in surface()])
def test_numbers_are_given_by_name_and_have_units_and_tensors_have_shapes(label, function, text):
    """At most one number may be given by place: the one that the call is about, as in ``set_epoch(3)``."""
    by_place, untold = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = str(parameter.annotation)
        if "Tensor" in kind and "Callable" not in kind:
            untold += [] if "[Tensor, " in kind or re.search(rf"\b{name}\b[^.]*\(?\w", text or "") else [name]
        elif re.search(r"\b(int|float)\b", kind):
            by_place += [name] if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else []
            untold += [] if name in label.lower() or re.search(rf"\b{name}\b", text or "") else [name]
    assert len({*by_place} - {"low", "high"}) <= 1, by_place  # bounds come as a pair: uniform(slot, *range)
    assert untold == []


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
def test_files_and_functions_stay_short(name):
    assert len(MODULES[name].read_text().splitlines()) <= 300
    long = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            long += [f"{node.name}: {lines} lines"] if lines > 40 else []
    assert long == []


@pytest.mark.parametrize("name", MODULES)
def test_a_user_s_mistake_never_meets_an_assert_or_a_bare_error(name):
    """What ends a run is one of the kinds in ``checks.py``, or what argparse words; others have no place here."""
    kinds = {node.name for node in TREES["core.checks"].body if isinstance(node, ast.ClassDef)}
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), f"{name}:{node.lineno}"
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind = ast.unparse(node.exc.func)
            assert kind in kinds or (name, kind) == ("command.values", "argparse.ArgumentTypeError"), (
                name,
                node.lineno,
            )


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("command.")])
def test_only_the_command_knows_that_there_are_options(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"(?<![\w-])--[a-z]", node.value), f"{name}:{node.lineno}: {node.value!r}"


def texts():
    yield from MODULES.values()
    yield from (
        path
        for pattern in ("*.md", "docs/**/*.md", "docs/**/*.py", "pyproject.toml")
        for path in sorted(ROOT.glob(pattern))
    )


@pytest.mark.parametrize("path", list(texts()), ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_finished_and_names_no_machine(path):
    text = path.read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    assert not re.search(r"(?<![\w.>-])/(?:home|root|tmp|work|usr|opt|mnt|Users)/", text)
    assert not re.search(r"\b(?:localhost|127\.0\.0\.1)\b", text)
