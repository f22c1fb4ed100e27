import ast
import base64
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
PICTURES = {"quickstart": 7, "adversary": 7}


def code_cells(name: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{name}.ipynb"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    return cells


def run(name: str) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """All cells from top to bottom, with a short training: what they have named; and what each prints and shows."""
    names: dict[str, Any] = {}
    outputs = []
    for cell in code_cells(name):
        tree = ast.parse(re.sub(r"^STEPS = \d+", "STEPS = 10", "".join(cell["source"]), flags=re.MULTILINE))
        last = [ast.Expression(tree.body.pop().value)] if isinstance(tree.body[-1], ast.Expr) else []
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(tree, name, "exec"), names)
            shown = [eval(compile(expression, name, "eval"), names) for expression in last]
        outputs.append((printed.getvalue(), shown[0] if shown else None))
    assert names["STEPS"] == 10
    return names, outputs


def stored(cell: dict[str, Any]) -> tuple[str, Any]:
    """What a cell of the notebook printed and showed when it was last executed."""
    text = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
    data = next((output["data"] for output in cell["outputs"] if "data" in output), {})
    if "image/png" in data:
        return text, Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    return text, "".join(data.get("text/plain", ""))


def forms(text: str) -> list[str]:
    """The lines of a text without their numbers, spaces and what they say of single classes."""
    lines = (re.sub(r"[\d.,%\s]+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if not line.startswith(("step", "most confused"))]


def assert_same_outputs(name: str, made: list[tuple[str, Any]], seeded: set[int]) -> None:
    """The stored outputs are those of the code as it is: to the letter where no training comes before, else in form."""
    for number, (cell, (text, shown)) in enumerate(zip(code_cells(name), made, strict=True)):
        old_text, old_shown = stored(cell)
        assert forms(text) == forms(old_text), number
        assert isinstance(shown, Image.Image) == isinstance(old_shown, Image.Image), number
        if isinstance(shown, Image.Image):
            assert shown.size == old_shown.size, number
        if number in seeded:
            assert text == old_text, number
            if isinstance(shown, Image.Image):  # another processor may round a pixel otherwise
                levels = [np.asarray(picture.convert("RGB"), np.int16) for picture in (shown, old_shown)]
                assert np.abs(levels[0] - levels[1]).mean() < 0.1, number
            elif shown is not None:
                assert repr(shown) == old_shown, number


@pytest.fixture(autouse=True)
def global_state(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == PICTURES.keys()


def test_quickstart_runs_and_keeps_its_word():
    names, outputs = run("quickstart")
    assert_same_outputs("quickstart", outputs, seeded=set(range(7)))
    assert set(torch.bincount(names["edges"][:, 0]).tolist()) == {128}
    assert set(torch.bincount(names["edges"][:, 1]).tolist()) == {5}
    assert names["step"] == 9
    assert [picture.shape for picture in names["pictures"]] == 5 * [(8, 3, 28, 28)]
    printed = "".join(text for text, _ in outputs)
    assert re.search(r"again: +True\nother batch: +True\n", printed)
    assert re.search(r"^[1-9]\d of 64 contexts are earlier composites$", printed, re.MULTILINE)
    assert re.search(r"of 1797 pictures", printed)


def test_adversary_runs_and_keeps_its_word():
    names, outputs = run("adversary")
    assert_same_outputs("adversary", outputs, seeded={0})
    printed = "".join(text for text, _ in outputs)
    lines = re.findall(r"^(.{34}) loss +([\d.]+) .*right$", printed, re.MULTILINE)
    losses = {name.strip(): float(loss) for name, loss in lines}
    assert len(losses) == 1 + 5 + 2 + 6
    assert all(loss > losses["as drawn"] for name, loss in losses.items() if name != "as drawn")
    labels = names["plain"].labels
    for batch, says in [*names["found"].values(), *names["chosen"].values()]:
        assert torch.equal(batch.labels, labels)  # the same samples
        assert [right for _, right in says] == [int(word[0]) == y for (word, _), y in zip(says, labels, strict=True)]
    assert names["hard"].confusion.shape == (10, 10)


@pytest.mark.parametrize("name", PICTURES)
def test_stored_outputs_are_those_of_one_run_from_top_to_bottom(name):
    pictures = 0
    for count, cell in enumerate(code_cells(name), start=1):
        assert cell["execution_count"] == count
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "execute_result")
            assert output.get("name") != "stderr"
            picture = output.get("data", {}).get("image/png")
            if picture is not None:
                pictures += 1
                assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert pictures == PICTURES[name]
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 2_000_000  # attacks' noise does not compress
