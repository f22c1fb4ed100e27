import sys

import pytest

from kornia_cag.command.plots import draw_ablation, draw_curves, draw_search
from kornia_cag.core.checks import InputError

LINES = [
    {"row": "paper: baseline", "seeds": 1, "mean": 0.5, "deviation": None},
    {"row": "recipe", "seeds": 3, "mean": 0.9, "deviation": 0.01},
    {"row": "without chain", "seeds": 3, "mean": 0.8, "deviation": 0.02},
]
CURVES = {"hardened": {"curve": [[0.0, 0.9], [0.03137, 0.8], [1.0, 0.7]]}, "plain": {"curve": [[0.0, 0.97], [1.0, 0]]}}
SEARCHES = [{"search": "random", "cost": 1, "loss": 0.3},
            *({"search": "gradient", "cost": cost, "loss": cost / 4} for cost in (4, 7))]  # fmt: skip


@pytest.mark.parametrize(("draw", "data", "words"), [
    (draw_ablation, LINES, ["without chain", "accuracy on real pictures"]),
    (draw_curves, CURVES, ["hardened", "plain", "budget"]),
    (draw_search, SEARCHES, ["random", "gradient", "mean loss", "forward passes"]),
])  # fmt: skip
def test_plots_name_what_they_show_and_repeat(tmp_path, draw, data, words):
    mpl = pytest.importorskip("matplotlib")
    before = dict(mpl.rcParams)
    with mpl.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        for name in ("a.svg", "b.svg"):
            draw(data, tmp_path / name, title="a title")
    assert dict(mpl.rcParams) == before
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(word in text for word in [*words, "a title"])
    draw(data, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_needs_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r'plot: expected matplotlib, got none\. pip install "kornia_cag\[plot\]"'):
        draw_ablation(LINES, tmp_path / "x.svg")
