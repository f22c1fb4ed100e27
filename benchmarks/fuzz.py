"""Damaged files: ``python benchmarks/fuzz.py [--pictures 20000] [--runs 2000] [--seed 0] [--keep FOLDER]``.

Pictures of every format, and the files of a small run, are damaged by :mod:`damage` and read as users' files are, in a
process that has 2 GiB of memory and 20 seconds for each. There are two right answers: what the file holds, or an
``InputError``, which names a picture's file. Wrong are any other exception, a process that dies, runs out of time or
memory, starts a program, opens a connection or writes a file. Wrong answers are printed, and their files kept if
``--keep`` says where; the exit status is their number, at most 100.
"""

import argparse
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from damage import damaged, pictures, runs

MEMORY = 2 << 30  # bytes, beyond what a process takes before its first file
SECONDS = 20.0  # for one file
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "os.remove",
             "os.rename", "shutil.rmtree")  # fmt: skip


class Reader:
    """A process that reads files until it dies."""

    def __init__(self, kind: str, folder: Path) -> None:
        command = [sys.executable, __file__, "--serve", kind, str(folder)]
        self.most = 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        if (said := self.answer(SECONDS * 6)) != "ready":
            sys.exit(f"no reader of {kind}: {said}")

    def answer(self, seconds: float) -> str:
        """The next line, or how it ended without one."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.end()
            return f"wrong: no answer in {seconds:.0f} s"
        return self.process.stdout.readline().strip() or f"wrong: died with status {self.process.wait()}"

    def end(self) -> int:
        """Kill it; returns the most memory that it held, KiB."""
        with suppress(OSError, IndexError, ValueError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.most = int(status.partition("VmHWM:")[2].split()[0])
        self.process.kill()
        self.process.wait()
        return self.most

    def read(self, path: Path) -> str:
        """What becomes of a file."""
        assert self.process.stdin is not None
        print(path, file=self.process.stdin, flush=True)
        return self.answer(SECONDS)


def serve(kind: str, folder: Path) -> None:
    """Answer each path on the input with a line: ``read``, ``refused``, or what went wrong."""
    read = {"pictures": pictures, "runs": runs}[kind].reader(folder)
    from kornia_cag.core.checks import Diverged, InputError

    done: list[str] = []
    sys.addaudithook(lambda event, arguments: _watched(event, arguments, done))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        path = line.strip()
        try:
            read(Path(path))
            answer = "read"
        except InputError as error:
            named = kind == "runs" or Path(path).name in str(error)  # of a run, the caller knows the only file
            answer = "refused" if named else f"wrong: an error that names no file: {error}"
        except Diverged:  # finite weights with a right checksum, but no longer those that were trained
            answer = "refused"
        except BaseException as error:  # whatever it is, it is what a user would see
            answer = f"wrong: {type(error).__name__}: {error}"
        if done:
            answer = f"wrong: it did {done[0]}"
            done.clear()
        print(" ".join(answer.split())[:300], flush=True)


def _watched(event: str, arguments: tuple[Any, ...], done: list[str]) -> None:
    writes = event == "open" and isinstance(arguments[1], str) and bool(set(arguments[1]) & set("wax+"))
    if writes or event in FORBIDDEN:
        done.append(f"{event} {arguments[:1]}")


def tried(kind: str, count: int, seed: int, keep: Path | None, folder: Path) -> int:
    """Damage and read ``count`` files; returns the number of wrong answers."""
    samples = {"pictures": pictures, "runs": runs}[kind].samples(folder)
    chance, answers, wrong, slowest = random.Random(seed), Counter[str](), 0, 0.0
    reader, start = Reader(kind, folder), time.perf_counter()
    for number in range(count):
        name, data = samples[number % len(samples)]
        path = folder / f"damaged-{number}-{name}"
        path.write_bytes(damaged(name, data, chance, [other for _, other in samples]))
        began = time.perf_counter()
        answer = reader.read(path)
        slowest = max(slowest, time.perf_counter() - began)
        answers[answer.partition(":")[0]] += 1
        if answer.startswith("wrong"):
            wrong += 1
            print(f"{path.name}: {answer}", flush=True)
            if keep is not None:
                (keep / path.name).write_bytes(path.read_bytes())
            if reader.process.poll() is not None:
                reader = Reader(kind, folder)
        path.unlink()
    peak = reader.end() / 2**10
    told = ", ".join(f"{number:,} {answer}" for answer, number in sorted(answers.items()))
    print(f"{count:,} damaged {kind}: {told}; {time.perf_counter() - start:.0f} s, the slowest {slowest:.1f} s, "
          f"at most {peak:,.0f} MiB", flush=True)  # fmt: skip
    return wrong


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000, help="damaged pictures (default: 20000)")
    parser.add_argument("--runs", type=int, default=2_000, help="damaged files of runs (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for files with a wrong answer")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wrong = 0
    for kind in ("pictures", "runs"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            wrong += tried(kind, getattr(options, kind), options.seed, options.keep, Path(folder))
    sys.exit(min(wrong, 100))


if __name__ == "__main__":
    main()
