import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def code_cells() -> list[dict[str, Any]]:
    cells = [cell for cell in json.loads(QUICKSTART.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    return cells


@pytest.fixture
def global_state():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def test_every_cell_runs_and_the_notebook_keeps_its_word(global_state, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = "\n".join("".join(cell["source"]) for cell in code_cells())
    short, count = re.subn(r"^STEPS = \d+", "STEPS = 10", source, flags=re.MULTILINE)
    assert count == 1
    names: dict[str, Any] = {}
    exec(compile(short, str(QUICKSTART), "exec"), names)

    assert set(torch.bincount(names["edges"][:, 0]).tolist()) == {128}
    assert set(torch.bincount(names["edges"][:, 1]).tolist()) == {5}
    assert names["step"] == 9
    assert [picture.shape for picture in names["pictures"]] == 5 * [(8, 3, 28, 28)]
    printed = capsys.readouterr().out
    assert re.search(r"again: +True\nother batch: +True\n", printed)
    assert re.search(r"^[1-9]\d of 64 contexts are earlier composites$", printed, re.MULTILINE)
    assert re.search(r"of 1797 pictures", printed)


def test_stored_outputs_are_those_of_one_run_from_top_to_bottom():
    pictures = 0
    for count, cell in enumerate(code_cells(), start=1):
        assert cell["execution_count"] == count
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "execute_result")
            assert output.get("name") != "stderr"
            picture = output.get("data", {}).get("image/png")
            if picture is not None:
                pictures += 1
                assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert pictures == 7
    assert QUICKSTART.stat().st_size < 600_000
