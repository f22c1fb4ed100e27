"""Does a run survive? ``python benchmarks/kills.py [--kills 50] [--ranks 1 2] [--seed 0]``.

Four trainings, each on every number of ranks: plain; with composites kept apart by what the network confuses; with
the worst of three scenes; with attacks by gradients on scenes and pixels. Each is first run in one piece. Then it is
started again and again, and one of its processes killed (SIGKILL): at a random moment, which may be before the first
step, or inside one of its saves, after every step. Another rank must end by itself. When all kills are dealt, it is
left to end. Its weights must then be those of the run in one piece with as many ranks, to the bit; the exit status is
the number of trainings of which that is not so.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from kornia_cag import PGD, ScenePGD, WorstOf
from kornia_cag.core import ranks
from kornia_cag.core.storage import PARTIAL, earlier, remove_partial
from kornia_cag.training.recipes import DIGITS
from kornia_cag.training.run import Training

PLAIN = replace(DIGITS, size=16, images=2000, batch_size=16, width=4, procedural=12, thickness=(1,), hard_pairing=False,
                attack=None)  # fmt: skip
RECIPES = {
    "plain": PLAIN,
    "hard pairing": replace(PLAIN, hard_pairing=True),
    "worst of three": replace(PLAIN, scene_attack=WorstOf(k=3, fraction=0.5)),
    "gradients": replace(PLAIN, scene_attack=ScenePGD(steps=1, fraction=0.5), attack=PGD(eps=0.05, steps=1)),
}
ENDS = 60.0  # seconds within which a rank ends that has lost another
LONGEST = 600.0  # seconds for a run in one piece


def serve(name: str, folder: Path) -> None:
    """Train, from the last save if there is one, and leave the weights in ``done.pt``."""
    torch.set_num_threads(1)
    recipe, path = RECIPES[name], folder / "checkpoint.pt"
    with ranks.connected("cpu") if ranks.told() else nullcontext():
        run = Training(recipe, recipe.objects(None, device="cpu"), recipe.contexts(None, device="cpu"), float32=True)
        if path.exists() or earlier(path).exists():
            run.load(path)
        print("begun", flush=True)
        run.run(save=path, save_every=0.0)
        if ranks.here()[0] == 0:
            torch.save(run.learner.average.state_dict(), folder / "done.pt")


def started(name: str, count: int, folder: Path) -> list[subprocess.Popen[str]]:
    """The processes of a training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    found = []
    for rank in range(count):
        variables = {**told, "RANK": rank, "LOCAL_RANK": rank} if count > 1 else {}
        found.append(subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--serve", name, str(folder)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL if count > 1 else None,
            env={**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in variables.items()}},
        ))  # fmt: skip
    return found


def killed(processes: list[subprocess.Popen[str]], chance: random.Random, most: float, folder: Path) -> None:
    """Kill one of them at a random moment of its training, now and then before it has begun, or while one saves."""
    if chance.random() < 0.1:  # while ranks still look for each other; a launcher ends those that are left
        time.sleep(chance.uniform(0, most))
        for process in processes:
            process.kill()
            process.wait()
        return
    for process in processes:
        if process.stdout is not None:
            process.stdout.readline()  # it has begun
    time.sleep(chance.uniform(0, most))
    if chance.random() < 0.5:
        limit = time.monotonic() + most
        while not any(folder.glob(f".*{PARTIAL}")) and time.monotonic() < limit:
            pass
    chance.choice(processes).kill()
    for process in processes:
        try:
            process.wait(ENDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def survived(name: str, count: int, kills: int, chance: random.Random) -> bool:
    """Kill one training so often; tell what happened, and return whether the weights are right."""
    with tempfile.TemporaryDirectory() as place:
        whole, torn = Path(place, "whole"), Path(place, "torn")
        whole.mkdir(), torn.mkdir()
        start = time.perf_counter()
        for process in started(name, count, whole):
            process.wait(LONGEST)
        took, inside, unsaved = time.perf_counter() - start, 0, 0
        for _ in range(kills):
            remove_partial(torn)
            killed(started(name, count, torn), chance, 0.5 * took / max(1, kills), torn)
            inside += any(torn.glob(f".*{PARTIAL}"))
            unsaved += not (torn / "checkpoint.pt").exists()
            if (torn / "done.pt").exists():
                break
        for process in started(name, count, torn):
            process.wait(LONGEST)
        one, other = (torch.load(folder / "done.pt", weights_only=True) for folder in (whole, torn))
        right = all(torch.equal(one[key], other[key]) for key in one)
    print(f"{name}, {count} rank{'s' * (count > 1)}: {kills} kills, {inside} of them inside a save, {unsaved} before "
          f"the first; {'the same weights' if right else 'OTHER WEIGHTS'}", flush=True)  # fmt: skip
    return right


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, at least (default: 50)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]))
        return
    chance = random.Random(options.seed)
    each = -(-options.kills // (len(RECIPES) * len(options.ranks)))
    wrong = [not survived(name, count, each, chance) for count in options.ranks for name in RECIPES]
    sys.exit(sum(wrong))


if __name__ == "__main__":
    main()
