"""Print files that pytest-benchmark wrote as a short text: ``python benchmarks/table.py out.json [more.json ...]``.

``--markdown`` prints tables for a README instead. Every result of a file is printed, fastest first within its group.
"""

import argparse
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
HEAD = ("", "ms per batch", "IQR", "images/s", "")


def sections(report: Json) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Groups of a report with their rows: name, milliseconds per batch, interquartile range, images/s, notes."""
    found: dict[str, list[Json]] = {}
    for entry in sorted(report["benchmarks"], key=lambda entry: entry["group"]):
        found.setdefault(entry["group"], []).append(entry)
    return [(group, [row(entry) for entry in sorted(entries, key=seconds)]) for group, entries in found.items()]


def seconds(entry: Json) -> float:
    """Per image."""
    return entry["stats"]["median"] / entry["extra_info"]["images"]


def row(entry: Json) -> tuple[str, ...]:
    """One result as cells."""
    info, stats = entry["extra_info"], entry["stats"]
    median, iqr = (1e3 * info["batch"] / info["images"] * stats[name] for name in ("median", "iqr"))
    speed = f"{1 / seconds(entry):,.0f}"
    return entry["name"].removeprefix("test_"), f"{median:.3f}", f"{iqr:.3f}", speed, notes(info)


def notes(info: Json) -> str:
    """What a group measures beside time."""
    said = []
    if "multiple" in info:
        low, high = info["multiple_quartiles"]
        said.append(f"{info['multiple']:.2f} × bare ({low:.2f} to {high:.2f})")
    if "fraction" in info:
        said.append(f"{100 * info['fraction']:.1f} % of the floor ({info['copy_gb_s']:.0f} GB/s)")
    if "first_batch_s" in info:
        said.append(f"first batch {info['first_batch_s']:.1f} s, then another size {info['other_size_s']:.2f} s")
    if "beside" in info:
        low, middle, high = info["beside"]
        others = {"normal": "OpenCV", "mixed": "OpenCV", "stream": "a bank that stays"}
        than = others.get(info.get("what"), "the smallest bank")
        said.append(f"{middle:.2f} × {than} ({low:.2f} to {high:.2f})")
    if "waited_s" in info:
        said.append(f"waited {info['waited_s']:.2f} s in all")
    if "over_masks" in info:
        for name, text in (("over_masks", "with masks"), ("over_boxes", "with boxes alone")):
            low, middle, high = info[name]
            said.append(f"{middle:.2f} × OpenCV {text} ({low:.2f} to {high:.2f})")
        said.append(f"{info['shown']:.2f} objects shown, by OpenCV {info['shown_by_opencv']:.2f}")
    if "fixed_ms" in info:
        said.append(f"a scene {info['fixed_ms']:.2f} ms + {info['object_ms']:.2f} ms per object")
    if "banks_mib" in info:
        said.append(f"banks {info['banks_mib']:,} MiB, batch {info['batch_mib']} MiB")
    elif info.get("peak_mib"):
        said.append(f"peak {info['peak_mib']:,} MiB")
    return ", ".join(said)


def machine(report: Json) -> list[str]:
    """Two lines on hardware and versions."""
    about = report["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    return [f"{about['hardware']}; {about['cores']} cores, load before {about['load']}", versions]


def as_text(report: Json) -> list[str]:
    """Lines of fixed width."""
    lines = machine(report)
    for group, rows in sections(report):
        lines += ["", f"{group:48}{HEAD[1]:>14}{HEAD[2]:>9}{HEAD[3]:>13}"]
        lines += [
            f"  {name:46}{time:>14}{iqr:>9}{speed:>13}   {said}".rstrip() for name, time, iqr, speed, said in rows
        ]
    return lines


def as_markdown(report: Json) -> list[str]:
    """One table per group."""
    lines = ["  \n".join(machine(report))]
    for group, rows in sections(report):
        lines += ["", f"| {group} | ms per batch | IQR | images/s | |", "|---|--:|--:|--:|---|"]
        lines += [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in rows]
    return lines


def load(paths: list[Path]) -> list[Json]:
    """Reports of files."""
    return [json.loads(path.read_text()) for path in paths]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    for report in load(options.files):
        print("\n".join((as_markdown if options.markdown else as_text)(report)), end="\n\n")
