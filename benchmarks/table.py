"""Print a short table of a file that pytest-benchmark wrote: ``python benchmarks/table.py out.json``."""

import json
import sys
from pathlib import Path
from typing import Any


def lines(report: dict[str, Any]) -> list[str]:
    """One line per benchmark under two lines on the machine."""
    machine = report["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    head = [f"{machine['hardware']}; {machine['cores']} cores, load before {machine['load']}", versions, ""]
    table = [f"{'':42}{'ms per batch':>13}{'IQR':>9}{'images/s':>11}  multiple of the bare cost"]
    group = ""
    for entry in sorted(report["benchmarks"], key=lambda entry: (entry["group"] or "", entry["stats"]["median"])):
        if entry["group"] != group:
            group = entry["group"]
            table.append(group)
        info, stats = entry["extra_info"], entry["stats"]
        batches = info["images"] / info["batch"]
        name = f"  {entry['name'].removeprefix('test_')} {info['device']}"
        note = (
            f"{info['multiple']:.2f} ({info['multiple_quartiles'][0]:.2f} to {info['multiple_quartiles'][1]:.2f})"
            if "multiple" in info
            else ""
        )
        if info.get("peak_mib"):
            note += f"  peak {info['peak_mib']} MiB"
        table.append(f"{name:42}{1e3 * stats['median'] / batches:13.2f}{1e3 * stats['iqr'] / batches:9.2f}"
                     f"{info['images'] / stats['median']:11,.0f}  {note}")  # fmt: skip
    return head + table


if __name__ == "__main__":
    print("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))))
