"""Draw what pytest-benchmark wrote: ``python benchmarks/plot.py out.json [more.json ...] --out docs``.

``speed.svg``: images/s by side, composition and both CPU loaders, the best setting of each. ``growth.svg``: time per
image against batch size, side, objects and contexts. Needs matplotlib (``pip install -e ".[plot]"``).
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from goals import having, speed
from table import Json, load, machine, seconds

COLORS = {"kornia_cag compiled": "#0b5fa5", "kornia_cag eager": "#7fb3dd", "opencv": "#d9822b", "pillow": "#8a8a8a"}
AXES = {"batch": "images in a batch", "side": "canvas side, pixels", "objects": "objects", "contexts": "contexts"}


def draw_speed(entries: list[Json], title: str, path: Path) -> None:
    """Bars of images/s on a logarithmic scale, one group per side."""
    sides = sorted({e["extra_info"]["side"] for e in having(entries, "compose ")})
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for i, (what, color) in enumerate(COLORS.items()):
        measured = [(k, having(entries, f"compose {side}x{side}", what=what)) for k, side in enumerate(sides)]
        bars = [(k + 0.2 * (i - 1.5), speed(found)) for k, found in measured if found]
        if bars:
            drawn = axes.bar(*zip(*bars, strict=True), width=0.19, color=color, label=what)
            axes.bar_label(drawn, labels=[f"{height:,.0f}" for _, height in bars], fontsize=7, padding=1)
    axes.set(yscale="log", ylabel="images/s, best setting", xticks=range(len(sides)))
    axes.set_xticklabels([f"{side}×{side}" for side in sides])
    finish(figure, title, path)


def draw_growth(entries: list[Json], title: str, path: Path) -> None:
    """Time per image, one panel for what grows."""
    figure, panels = plt.subplots(1, len(AXES), figsize=(12, 3.2), layout="constrained")
    for (by, label), axes in zip(AXES.items(), panels, strict=True):
        for what in ("compiled", "eager"):
            found = having(entries, "growth", what=what, by=by)
            curve = sorted((entry["extra_info"]["count"], 1e6 * seconds(entry)) for entry in found)
            if curve:
                axes.plot(*zip(*curve, strict=True), "o-", color=COLORS[f"kornia_cag {what}"], label=what)
        axes.set(xscale="log", yscale="log" if by == "side" else "linear", xlabel=label)
        if by == "side":
            sides = sorted({entry["extra_info"]["count"] for entry in having(entries, "growth", by=by)})
            axes.set_xticks(sides, [str(side) for side in sides], minor=False)
            axes.set_xticks([], minor=True)
        else:
            axes.set_ylim(bottom=0)
    panels[0].set_ylabel("µs per image")
    finish(figure, title, path)


def finish(figure: plt.Figure, title: str, path: Path) -> None:
    """Plain axes, one legend, the machine below."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel(title, fontsize=7, color="#666666")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path)


if __name__ == "__main__":
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "kornia_cag"  # the same file from the same numbers
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    reports = load(options.files)
    results = [entry for report in reports for entry in report["benchmarks"]]
    options.out.mkdir(parents=True, exist_ok=True)
    draw_speed(results, machine(reports[0])[0], options.out / "speed.svg")
    draw_growth(results, machine(reports[0])[0], options.out / "growth.svg")
