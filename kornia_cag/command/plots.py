"""Plots of results. They need matplotlib: ``pip install "kornia_cag[plot]"``."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kornia_cag.core.checks import fail
from kornia_cag.core.storage import write_bytes

BLUE, GREY, ORANGE = "#0b5fa5", "#8a8a8a", "#d9822b"


def draw_ablation(lines: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Plot an ablation: a dot per row for its accuracy, a bar for the deviation over seeds, a line for the recipe.

    Args:
        lines: from :func:`kornia_cag.training.ablation.summary`.
        path: file to write; the suffix sets the format.
        title: recipe and budget.

    Raises:
        InputError: without matplotlib.
    """
    figure, axes = _figure(7, 0.6 + 0.27 * len(lines))
    for place, line in enumerate(reversed(lines)):
        color = ORANGE if line["row"] == "recipe" else GREY if line["row"].startswith("paper") else BLUE
        axes.errorbar(100 * line["mean"], place, xerr=100 * (line["deviation"] or 0.0), fmt="o", color=color, capsize=3)
        if line["row"] == "recipe":
            axes.axvline(100 * line["mean"], color=ORANGE, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(lines)), [line["row"] for line in reversed(lines)])
    _finish(figure, axes, path, "accuracy on real pictures, %", title)


def draw_curves(curves: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Plot accuracy against budget, one line per model.

    Args:
        curves: by model name, from :meth:`kornia_cag.evaluation.robustness.Curve.report`.
        path: file to write; the suffix sets the format.
        title: attack and pictures.

    Raises:
        InputError: without matplotlib.
    """
    figure, axes = _figure(6, 3.6)
    for (name, report), color in zip(curves.items(), (BLUE, ORANGE, GREY, "black") * len(curves), strict=False):
        eps, accuracy = zip(*report["curve"], strict=True)
        axes.plot([255 * e for e in eps], [100 * a for a in accuracy], "o-", color=color, label=name)
    axes.set_xscale("symlog", base=2, linthresh=2)
    ticks = sorted({255 * e for report in curves.values() for e, _ in report["curve"]})
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks], minor=False)
    axes.set(ylim=(0, 100), ylabel="accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    _finish(figure, axes, path, "budget, grey levels of 255", title)


def draw_search(runs: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Plot the loss that searches for hard scenes reach against their cost, one line per search.

    Args:
        runs: each with ``search``, ``cost`` in forward passes, and mean ``loss``; a search with one run is drawn level.
        path: file to write; the suffix sets the format.
        title: the samples.

    Raises:
        InputError: without matplotlib.
    """
    figure, axes = _figure(6, 3.6)
    for name, color in zip(dict.fromkeys(run["search"] for run in runs), (GREY, ORANGE, BLUE), strict=False):
        cost, loss = zip(*((run["cost"], run["loss"]) for run in runs if run["search"] == name), strict=True)
        if len(cost) == 1:
            axes.axhline(loss[0], color=color, label=name)
        else:
            axes.plot(cost, loss, "o-", color=color, label=name)
    axes.set_xscale("log", base=2)
    ticks = [2**n for n in range(6)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set(ylim=(0, None), ylabel="mean loss")
    axes.legend(frameon=False, fontsize=8)
    _finish(figure, axes, path, "cost, forward passes", title)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure with one panel, made without pyplot, whose backend belongs to the caller."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        fail("plot", "matplotlib", "none", 'pip install "kornia_cag[plot]"')
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _finish(figure: Any, axes: Any, path: Path, label: str, title: str) -> None:
    import matplotlib as mpl

    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    kind, drawn = path.suffix.lower().removeprefix("."), io.BytesIO()
    if kind not in figure.canvas.get_supported_filetypes():
        fail("path", "a file that matplotlib can write, such as ablation.svg", repr(str(path)))
    with mpl.rc_context({"svg.hashsalt": "kornia_cag"}):  # the same file from the same numbers
        figure.savefig(drawn, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_bytes(path, drawn.getbuffer())
