import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "notebooks"
PICTURES = {"quickstart": 7, "adversary": 7}


def code_cells(name: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{name}.ipynb"
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    return cells


def run(name: str) -> dict[str, Any]:
    """All cells from top to bottom, with a short training; returns what they have named."""
    source = "\n".join("".join(cell["source"]) for cell in code_cells(name))
    short, count = re.subn(r"^STEPS = \d+", "STEPS = 10", source, flags=re.MULTILINE)
    assert count == 1
    names: dict[str, Any] = {}
    exec(compile(short, name, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def global_state(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == PICTURES.keys()


def test_quickstart_runs_and_keeps_its_word(capsys):
    names = run("quickstart")
    assert set(torch.bincount(names["edges"][:, 0]).tolist()) == {128}
    assert set(torch.bincount(names["edges"][:, 1]).tolist()) == {5}
    assert names["step"] == 9
    assert [picture.shape for picture in names["pictures"]] == 5 * [(8, 3, 28, 28)]
    printed = capsys.readouterr().out
    assert re.search(r"again: +True\nother batch: +True\n", printed)
    assert re.search(r"^[1-9]\d of 64 contexts are earlier composites$", printed, re.MULTILINE)
    assert re.search(r"of 1797 pictures", printed)


def test_adversary_runs_and_keeps_its_word(capsys):
    names = run("adversary")
    lines = re.findall(r"^(.{34}) loss +([\d.]+) .*right$", capsys.readouterr().out, re.MULTILINE)
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
