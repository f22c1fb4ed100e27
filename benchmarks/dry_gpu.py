"""A GPU's view of the code, without a GPU: ``python benchmarks/dry_gpu.py [--ranges signs ...] [--size 64 ...]``.

Eager, on any machine: the kernels that one batch launches (operations dispatched to a device without values), the bytes
they write, and how often the host copies to the device. Compiled, with torch's CUDA build, whose driver need not be
there: the kernels that inductor writes for an H100 with the options of ``core/compiling.py``, the bytes that it says
they access, and what ptxas says of them for sm_90. Inductor tries each kernel in two shapes on the device and keeps the
faster: eight elements a thread, or two (one, in small kernels). The table has the largest numbers of all kernels, each
in its shape of the fewest registers, two elements a thread or one, and what ptxas takes for all shapes.

It cannot tell time. What it estimates is a roofline: launches at 5 µs each (eager) or 2.5 µs (compiled), one after the
other, plus bytes at 80 % of the bandwidth that the card is sold with: 3.35 TB/s for an H100, 4.8 TB/s for an H200. The
eager estimate takes every byte written as read once, too. The floor is what no program gets around: images written as
float32, and one texel of an object and one of a context read for every pixel.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # what a test counts, too
import pretended
from counting import Counts, counted

from kornia_cag import SceneRange
from kornia_cag.training.recipes import DIGITS, PHOTO_DIGITS, RIGID_SIGNS, SIGNS

RANGES = {"default": SceneRange(), "rigid": RIGID_SIGNS, "signs": SIGNS.ranges, "digits": DIGITS.ranges,
          "photo-digits": PHOTO_DIGITS.ranges}  # fmt: skip
CARDS = {"H100": 3.35e12, "H200": 4.8e12}  # bytes a second, by their data sheets
ACHIEVED = 0.8  # share of it that well written kernels reach
LAUNCH = {"eager": 5e-6, "compiled": 2.5e-6}  # seconds
HOW = "python -m venv cu && cu/bin/pip install 'torch==2.12.*' && cu/bin/pip install -e ."


@dataclass(frozen=True)
class Batch:
    """One batch's size in numbers."""

    size: int
    count: int

    @property
    def output(self) -> int:
        """Bytes of its images in float32."""
        return 12 * self.count * self.size**2

    @property
    def floor(self) -> int:
        """Bytes that must be moved."""
        return self.output + 8 * self.count * self.size**2

    def rates(self, launches: int, moved: int, mode: str) -> list[str]:
        """Images a second on each card."""
        times = [launches * LAUNCH[mode] + moved / (ACHIEVED * bandwidth) for bandwidth in CARDS.values()]
        return [f"{self.count / time:,.0f}" for time in times]


def eager_cells(counts: Counts, batch: Batch) -> list[str]:
    """Kernels, bytes over those of the output, copies, images a second."""
    kernels = counts.operations.total()
    return [f"{kernels:,}", f"{counts.written / batch.output:.1f}", str(counts.copies),
            *batch.rates(kernels, 2 * counts.written, "eager")]  # fmt: skip


def compiled_cells(program: pretended.Program, kernels: list[pretended.Kernel], batch: Batch) -> list[str]:
    """Launches, bytes over those of the output, the heaviest kernel, ptxas's seconds, images a second."""
    chosen = leanest(kernels)
    worst = [max(getattr(kernel, part) for kernel in chosen) for part in ("lines", "registers", "stack", "spilled")]
    return [str(program.launches), f"{program.accessed / batch.output:.1f}",
            "{:,}, {}, {}, {}".format(*worst), f"{max(kernel.lines for kernel in kernels):,}",
            f"{sum(kernel.seconds for kernel in kernels):.1f}",
            *batch.rates(program.launches, program.accessed, "compiled")]  # fmt: skip


def leanest(kernels: list[pretended.Kernel]) -> list[pretended.Kernel]:
    """Each kernel in the shape that takes the fewest registers."""
    names = dict.fromkeys(kernel.name for kernel in kernels)
    return [min((k for k in kernels if k.name == name), key=lambda k: (k.spilled, k.registers)) for name in names]


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


EAGER = ["kernels", "written ÷ output", "copies", *(f"images/s, {card}" for card in CARDS)]
COMPILED = ["launches", "accessed ÷ output", "worst of all kernels: PTX lines, registers, stack, spills",
            "PTX lines in any shape", "ptxas, s", *(f"images/s, {card}" for card in CARDS)]  # fmt: skip
KERNEL = ["kernel", "elements a thread", "warps", "PTX lines", "registers", "stack", "spills", "ptxas, s"]


def table(mode: str, options: argparse.Namespace) -> None:
    """Print one mode's table, a row for each of the ranges and sizes."""
    print(f"\n{mode}, batch {options.batch}\n")
    header = ["ranges", "size", *(EAGER if mode == "eager" else COMPILED), *(f"floor, {card}" for card in CARDS)]
    details = []
    print("\n".join([row(header), row(["--:"] * len(header))]))
    for size in options.size:
        batch = Batch(size, options.batch)
        for name in options.ranges:
            if mode == "eager":
                cells = eager_cells(counted(RANGES[name], size, options.batch), batch)
            else:
                program = pretended.inductor_program(RANGES[name], size, options.batch)
                kernels = list(pretended.assembled(program))
                cells = compiled_cells(program, kernels, batch)
                details += [(name, size, kernel) for kernel in kernels]
            print(row([name, str(size), *cells, *batch.rates(0, batch.floor, mode)]), flush=True)
    if options.kernels and details:
        print("\n" + "\n".join([row(["ranges", "size", *KERNEL]), row(["--:"] * (len(KERNEL) + 2))]))
        for name, size, k in details:
            print(row([name, *map(str, (size, k.name[:60], k.elements, k.warps, k.lines, k.registers, k.stack,
                                        k.spilled, round(k.seconds, 2)))]))  # fmt: skip


def main() -> int:
    """Read the command line, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ranges", nargs="+", choices=RANGES, default=[*RANGES], metavar="NAME", help=", ".join(RANGES)
    )
    parser.add_argument("--size", nargs="+", type=int, default=[64], help="sides of the canvas, pixels (default: 64)")
    parser.add_argument("--batch", type=int, default=512, help="samples (default: 512)")
    parser.add_argument("--only", choices=("eager", "compiled"), help="one of the two; eager needs no CUDA build")
    parser.add_argument("--kernels", action="store_true", help="also list every compiled kernel in every shape")
    options = parser.parse_args()
    modes = [options.only] if options.only else ["eager", "compiled"]
    lacking = pretended.missing()
    if "compiled" in modes and lacking:
        print(f"compiled needs {lacking}, best in an environment of its own: {HOW}", file=sys.stderr)
        return 2
    for mode in modes:
        table(mode, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
