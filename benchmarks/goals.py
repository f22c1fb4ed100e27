"""Say which goals a run reached: ``python benchmarks/goals.py out.json [more.json ...]``, all of one machine.

A goal whose benchmarks did not run is said to be unmeasured.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from table import Json, load, seconds


class Goal(NamedTuple):
    """What is wanted of a number, and how it is found."""

    text: str
    least: float | None
    most: float | None
    measure: Callable[[list[Json]], float]


def having(entries: Iterable[Json], group: str, **wanted: Any) -> list[Json]:
    """Results of a group with the given notes."""
    return [entry for entry in entries if entry["group"].startswith(group)
            and all(entry["extra_info"].get(name) == value for name, value in wanted.items())]  # fmt: skip


def composed(entries: Iterable[Json], group: str, **wanted: Any) -> list[Json]:
    """Results of a group for compiled composition, captured as a CUDA graph or not."""
    ways = ("compiled", "compiled graph", "kornia_cag compiled", "kornia_cag compiled graph")
    return [entry for way in ways for entry in having(entries, group, what=way, **wanted)]


def speed(entries: list[Json]) -> float:
    """Images a second of the fastest."""
    return 1 / min(map(seconds, entries))


def over_baseline(side: int, what: str | None, **wanted: Any) -> Callable[[list[Json]], float]:
    """Composition's fastest over a baseline's fastest, or over the best of the two."""

    def measure(entries: list[Json]) -> float:
        group = having(entries, f"compose {side}x{side}")
        theirs = [
            w for name in ((what,) if what else ("opencv", "pillow")) for w in having(group, "", what=name, **wanted)
        ]
        return speed(composed(group, "")) / speed(theirs)

    return measure


def spread(by: str) -> Callable[[list[Json]], float]:
    """Percent by which the time of an image changes over all bank sizes, each measured in turn with the smallest."""

    def measure(entries: list[Json]) -> float:
        times = [entry["extra_info"]["beside"][1] for entry in having(entries, f"growth by {by}", what="compiled")]
        if len(times) < 4:
            raise ValueError("not all sizes were measured")
        return 100 * (max(1.0, *times) / min(1.0, *times) - 1)

    return measure


def rise(entries: list[Json]) -> float:
    """Percent by which an image of a batch takes longer than one of the best smaller batch, at worst."""
    found = sorted(having(entries, "growth by batch", what="compiled"), key=lambda entry: entry["extra_info"]["count"])
    times = [seconds(entry) for entry in found]
    return 100 * (max(times[i] / min(times[:i]) for i in range(1, len(times))) - 1)


def slower(source: str) -> Callable[[list[Json]], float]:
    """Percent that a step of ResNet-18 takes longer than on a resident batch."""

    def measure(entries: list[Json]) -> float:
        group = having(entries, "training step, resnet18")
        return 100 * (speed(having(group, "", what="resident")) / speed(having(group, "", what=source)) - 1)

    return measure


def fraction(entries: list[Json]) -> float:
    """Percent of the byte floor at 224 pixels, batch 512 or more."""
    found = composed(entries, "floor 224x224")
    return max(100 * e["extra_info"]["fraction"] for e in found if e["extra_info"]["batch"] >= 512)


def delivered(entries: list[Json]) -> float:
    """Millions of images a second at side 64 and batch 4096."""
    return speed(composed(entries, "compose 64x64", batch=4096)) / 1e6


def overlapped(entries: list[Json]) -> float:
    """The best of composing in the loop, captured or not, and composing ahead."""
    return min(slower(source)(entries) for source in ("compiled", "graph", "overlap"))


def over_opencv(objects: int) -> Callable[[list[Json]], float]:
    """How many times as fast scenes are composed as OpenCV makes them, measured in turns."""
    return lambda entries: max(e["extra_info"]["over_masks"][1] for e in having(entries, f"scenes 256x256, {objects} "))


def fixed(entries: list[Json]) -> float:
    """Time of a scene without objects, as a multiple of an object's, of the slower of eager and compiled."""
    return max(e["extra_info"]["fixed_over_object"][1] for e in having(entries, "scenes by objects"))


def grown(group: str, note: str, by: str, least: int, most: int, **wanted: Any) -> Callable[[list[Json]], float]:
    """How many times as much a note says for the most of something as for the least, at worst."""

    def measure(entries: list[Json]) -> float:
        found = {
            (e["extra_info"]["what"], e["extra_info"][by]): e["extra_info"][note]
            for e in having(entries, group, **wanted)
        }
        return max(value / found[what, least] for (what, count), value in found.items() if count == most)

    return measure


CPU = [
    Goal("64 px: times OpenCV in 2 workers", 3, None, over_baseline(64, "opencv", workers=2)),
    Goal("64 px: times Pillow in this process", 20, None, over_baseline(64, "pillow", workers=0)),
    Goal("64 px: times Pillow in 2 workers", 20, None, over_baseline(64, "pillow", workers=2)),
    Goal("224 px: times OpenCV in 2 workers", 2, None, over_baseline(224, "opencv", workers=2)),
    Goal("256 px, 8 objects with masks: times OpenCV in 2 workers", 3, None, over_opencv(8)),
]
BOTH = [
    Goal("10 to 10,000 objects: time per image changes by, %", None, 15, spread("objects")),
    Goal("100 to 100,000 contexts: time per image changes by, %", None, 15, spread("contexts")),
    Goal("larger batches: time per image rises by, %", None, 15, rise),
    Goal("scenes of 1 to 8 objects: time without any over time of one", None, 1, fixed),
    Goal(
        "8 objects: cold start over that of 1",
        None,
        1.3,
        grown("scenes cold", "first_batch_s", "objects", 1, 8, what="compiled"),
    ),
    Goal(
        "8 objects: memory of 32 scenes over that of 16",
        None,
        2.1,
        grown("scenes memory", "batch_mib", "batch", 16, 32),
    ),
]
GPU = [
    Goal("64 px: times the best CPU loader of this machine", 100, None, over_baseline(64, None)),
    Goal("224 px: times the best CPU loader of this machine", 100, None, over_baseline(224, None)),
    Goal("224 px, batch 512 or more: % of the byte floor", 50, None, fraction),
    Goal("64 px, batch 4096, through the DataLoader: million images/s", 2, None, delivered),
    Goal("ResNet-18 step at 224 px: slower than on a resident batch by, %", None, 5, overlapped),
]


def verdict(goal: Goal, entries: list[Json]) -> str:
    """One line: goal, measured."""
    want = f"at least {goal.least:g}" if goal.least is not None else f"at most {goal.most:g}"
    try:
        got = goal.measure(entries)
    except (ValueError, KeyError):  # nothing to take the extreme of
        return f"  {goal.text:64} {want:14} unmeasured"
    reached = (goal.least is None or got >= goal.least) and (goal.most is None or got <= goal.most)
    return f"  {goal.text:64} {want:14} {got:10.2f}   {'reached' if reached else 'MISSED'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    entries = [entry for report in load(parser.parse_args().files) for entry in report["benchmarks"]]
    cuda = any(entry["extra_info"].get("device") == "cuda" for entry in entries)
    print(f"{'goal':82}{'measured':>10}")
    print("\n".join(verdict(goal, entries) for goal in ((GPU if cuda else CPU) + BOTH)))
