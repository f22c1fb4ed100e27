"""Print a short table of a file that pytest-benchmark wrote: ``python benchmarks/table.py out.json``."""

import json
import sys
from pathlib import Path
from typing import Any


def lines(report: dict[str, Any]) -> list[str]:
    """One line per benchmark, under two on the machine."""
    machine = report["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    found = [f"{machine['hardware']}; {machine['cores']} cores, load before {machine['load']}", versions]
    group = None
    for entry in sorted(report["benchmarks"], key=lambda entry: (entry["group"], entry["stats"]["median"])):
        if entry["group"] != group:
            group = entry["group"]
            found += ["", f"{group:32}{'ms per batch':>14}{'IQR':>9}{'images/s':>11}   multiple of bare (quartiles)"]
        found.append(line(entry["name"], entry["stats"], entry["extra_info"]))
    return found


def line(name: str, stats: dict[str, float], info: dict[str, Any]) -> str:
    """Median and interquartile range of one benchmark, and its notes."""
    per_batch = 1e3 * info["batch"] / info["images"]
    text = f"  {name.removeprefix('test_'):30}{per_batch * stats['median']:14.2f}{per_batch * stats['iqr']:9.2f}"
    text += f"{info['images'] / stats['median']:11,.0f}   "
    if "multiple" in info:
        low, high = info["multiple_quartiles"]
        text += f"{info['multiple']:.2f} ({low:.2f} to {high:.2f})"
    return text + (f"peak {info['peak_mib']} MiB" if info.get("peak_mib") else "")


if __name__ == "__main__":
    print("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))))
