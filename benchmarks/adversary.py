"""What adversaries find, and whether it pays to train with them: three questions, each answered as JSON.

    python benchmarks/adversary.py train signs --out runs/adversary-signs.json       # likewise digits
    python benchmarks/adversary.py search MODEL.pt --out runs/adversary-search.json  # a model of kornia-cag train
    python benchmarks/adversary.py prints --out runs/adversary-prints.json

``train``: the recipe without an adversary and with each, equal numbers of images, several seeds: accuracy on real
pictures, on composites over held-out photographs whose context alone is attacked, and on real pictures under PGD.
``search``: the mean loss of what random drawing, the worst of k scenes, and gradients find, against forward passes.
``prints``: models hardened by equally many steps of PGD and of PGD through a random camera, and one that is not, each
attacked through such cameras, printed and photographed by others.

Needs the folder named by KORNIA_CAG_DATA. Results are written as they come; what is there is not done again.
"""

import argparse
import json
import os
import statistics
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from kornia_cag import PGD, Adversary, CAGCollate, ContextBank, ObjectBank, PairSampler, Recapture, ScenePGD, WorstOf
from kornia_cag.command.options import SCENE_ATTACKS
from kornia_cag.command.plots import draw_search
from kornia_cag.command.sheets import save_sheet
from kornia_cag.core.randomness import sample_keys
from kornia_cag.core.storage import write_text
from kornia_cag.evaluation.accuracy import evaluate
from kornia_cag.evaluation.real import load_real
from kornia_cag.evaluation.robustness import Pictures, composites, correct, curve
from kornia_cag.loading.batch import Pair
from kornia_cag.training.network import load_network, save_network
from kornia_cag.training.provenance import hardware, versions
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.recipes import RECIPES
from kornia_cag.training.run import Training

DATA = Path(os.environ["KORNIA_CAG_DATA"])
REAL = {"signs": "gtsrb_dev.npz", "digits": "mnist_dev.npz"}
CONTEXT_EPS, PGD_EPS = (8 / 255, 1.0), (2 / 255, 8 / 255)
PIXELS = PGD(eps=8 / 255, eps_object=2 / 255, steps=2, fraction=0.5)


def rows(recipe: Recipe) -> dict[str, Recipe]:
    """What is trained: the recipe without any adversary, with one each, and with pixels, gradient and pairing."""
    recipe = replace(recipe, attack=None, scene_attack=None, hard_pairing=False)
    return {
        "none": recipe,
        "pixels": replace(recipe, attack=PIXELS),
        "worst of 4 scenes": replace(recipe, scene_attack=SCENE_ATTACKS["worst"]),
        "scene gradient": replace(recipe, scene_attack=SCENE_ATTACKS["gradient"]),
        "hard pairing": replace(recipe, hard_pairing=True),
        "all of them": replace(recipe, attack=PIXELS, scene_attack=SCENE_ATTACKS["gradient"], hard_pairing=True),
    }


def photographs(held_out: bool) -> ContextBank:
    """Those that are trained on, or the others."""
    return ContextBank.from_folder(DATA / "contexts", size=64).split(0.2)[held_out]


def trained(recipe: Recipe, images: int, seed: int) -> tuple[Training, nn.Module]:
    """A finished run and its network."""
    contexts = recipe.contexts(str(DATA / "contexts"), seed=seed, hold_out=0.2)
    run = Training(recipe, recipe.objects(str(DATA / "objects" / recipe.name)), contexts, images=images, seed=seed)
    run.run()
    return run, run.result.eval()


def train(options: argparse.Namespace) -> None:
    """Train and measure every row, seed by seed."""
    recipe = RECIPES[options.recipe]
    objects = recipe.objects(str(DATA / "objects" / recipe.name))
    real = load_real(str(DATA / "real" / REAL[recipe.name]), objects.classes, recipe.size)
    some = real.some(options.count)
    scenes = composites(objects, photographs(True), recipe.size, recipe.ranges, options.count, seed=9)
    file = Results(options, {"recipe": recipe.name, "images": options.images, "attacked pictures": options.count})
    for seed in range(options.seeds):
        for name, row in rows(recipe).items():
            if file.has(row=name, seed=seed) or (options.rows and name not in options.rows):
                continue
            run, net = trained(row, options.images, seed)
            single = run.learner.average.eval()  # views would attack nine passes at once, for every row alike
            context = curve(single, scenes, CONTEXT_EPS)
            pixels = curve(single, Pictures(some.images, some.labels), PGD_EPS, starts=("random",))
            result = {
                "row": name, "seed": seed,
                "clean": round(evaluate(net, real, objects.classes, objects.device).share, 5),
                "context": dict(zip(("8/255", "1"), context.accuracy, strict=True)),
                "pgd": dict(zip(("2/255", "8/255"), pixels.accuracy, strict=True)),
                "overfitted": run.monitor.report()["overfitted"] if run.monitor is not None else None,
            }  # fmt: skip
            file.add(result)
            file.close(summary(file.runs))
            if options.models is not None and seed == 0:
                options.models.mkdir(parents=True, exist_ok=True)
                save_network(options.models / f"{recipe.name}-{name.replace(' ', '-')}.pt", run.learner.average, row,
                             objects.classes, None)  # fmt: skip
    file.close(summary(file.runs))


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds."""
    found = []
    for name in rows(RECIPES["digits"]):
        if not (mine := [run for run in runs if run["row"] == name]):
            continue
        columns = {"clean": [run["clean"] for run in mine]}
        for kind in ("context", "pgd"):
            for eps in mine[0][kind]:
                columns[f"{kind} {eps}"] = [run[kind][eps] for run in mine]
        spread = {key: [round(statistics.mean(v), 5), round(statistics.stdev(v), 5) if len(v) > 1 else None]
                  for key, v in columns.items()}  # fmt: skip
        found.append({"row": name, "seeds": len(mine), **spread})
    return found


def search(options: argparse.Namespace) -> None:
    """The mean loss of what each search finds on the same samples, against forward passes."""
    known = load_network(options.model)
    recipe, net = known.recipe, known.network.eval()
    objects = recipe.objects(str(DATA / "objects" / recipe.name))
    searches: list[tuple[str, int, tuple[Adversary, ...]]] = [("random", 1, ())]
    searches += [("worst of k", k, (WorstOf(k=k),)) for k in (2, 4, 8, 16, 32)]
    # a step is a forward and a backward pass, which costs as much as two; the last scene is looked at once more
    searches += [("gradient", 3 * steps + 1, (ScenePGD(steps=steps),)) for steps in (1, 2, 3, 5, 10)]
    weights = zlib.crc32(b"".join(value.cpu().numpy().tobytes() for value in net.state_dict().values()))
    file = Results(options, {"weights": f"crc32 {weights:08x}", "recipe": recipe.name, "samples": options.count})
    for name, cost, adversaries in searches:
        if file.has(search=name, cost=cost):
            continue
        collate = CAGCollate(objects, photographs(True), recipe.size, ranges=recipe.ranges, model=net,
                             adversaries=adversaries)  # fmt: skip
        losses, wrong = [], []
        for images, labels in composed(collate, options.count):
            with torch.no_grad():
                logits = net(images)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            wrong.append(logits.argmax(dim=1) != labels)
        found, error = torch.cat(losses), torch.cat(wrong).float()
        loss, share = round(float(found.mean()), 4), round(float(error.mean()), 4)
        file.add({"search": name, "cost": cost, "loss": loss, "error": share})
    file.close([])
    if options.sheet is not None:
        picture(options.sheet, objects, recipe, net)
    if options.plot is not None:
        draw_search(file.runs, options.plot, title=f"{recipe.name}, {options.count} composites")


def picture(path: Path, objects: ObjectBank, recipe: Recipe, net: nn.Module) -> None:
    """The same samples as drawn and as two searches have them, three sheets one below the other.

    Pictures are stretched to their full contrast, as an eye does in the dark.
    """
    made = []
    searches: tuple[tuple[Adversary, ...], ...] = ((), (WorstOf(k=8),), (ScenePGD(steps=3),))
    for adversaries in searches:
        collate = CAGCollate(objects, photographs(True), recipe.size, ranges=recipe.ranges, model=net,
                             adversaries=adversaries)  # fmt: skip
        images = next(composed(collate, 48)).images
        low, high = (x[:, None, None, None] for x in torch.aminmax(images.flatten(1), dim=1))
        made.append((images - low) / (high - low).clamp(min=1e-3))
    save_sheet(path, made[0], 24, below=made[1:])


def composed(collate: CAGCollate[Pair], count: int) -> Iterator[Pair]:
    """Batches of the same samples for every collate, ``count`` together."""
    pairs = PairSampler(collate.objects.labels, len(collate.composer.contexts), batch_size=128, seed=5)
    made = 0
    for rows in pairs:
        rows = rows[: count - made]
        made += len(rows)
        yield collate(rows)
        if made >= count:
            return


def prints(options: argparse.Namespace) -> None:
    """Harden models by equally many steps, and photograph what attacks them."""
    recipe = RECIPES["hardened-signs"]
    recipe = replace(recipe, name="signs")
    plain = PGD(eps=options.eps, steps=3)
    camera = replace(plain, transform=Recapture())
    objects = recipe.objects(str(DATA / "objects" / "signs"))
    scenes = composites(objects, photographs(True), recipe.size, recipe.ranges, options.count, seed=9)
    # an attack through the camera at test time, too, and stronger than in training
    test = PGD(eps=options.eps, steps=20, transform=Recapture(), eot_samples=4)
    file = Results(options, {"recipe": "hardened-signs, other attack", "images": options.images, "eps": options.eps,
                             "prints": options.count, "photographs of each": 8})  # fmt: skip
    for seed in range(options.seeds):
        for name, attack in (("no attack", None), ("PGD", plain), ("PGD through the camera", camera)):
            if file.has(row=name, seed=seed):
                continue
            _, net = trained(replace(recipe, attack=attack), options.images, seed)
            file.add({"row": name, "seed": seed, **photographed(net, scenes, test)})
    means = []
    for name in dict.fromkeys(run["row"] for run in file.runs):
        mine = [run for run in file.runs if run["row"] == name]
        keys = [key for key in mine[0] if key not in ("row", "seed")]
        means.append({"row": name, **{key: round(statistics.mean(run[key] for run in mine), 4) for key in keys}})
    file.close(means)


def photographed(net: nn.Module, scenes: Pictures, attack: PGD) -> dict[str, float]:
    """Accuracy on pictures and on photographs of them, clean and attacked."""
    place = torch.arange(len(scenes.labels))
    keys = sample_keys(torch.full_like(place, 1), 0 * place, place)
    attacked = torch.cat([attack(net, scenes.images[part], scenes.labels[part], keys=keys[part])
                          for part in place.split(128)])  # fmt: skip
    found: dict[str, float] = {}
    for name, images in (("clean", scenes.images), ("attacked", attacked)):
        found[name] = float(correct(net, images, scenes.labels).float().mean())
        shots = [correct(net, Recapture()(images, sample_keys(0 * place + 2, 0 * place + shot, place)),
                               scenes.labels) for shot in range(8)]  # fmt: skip
        found[f"{name}, photographed"] = float(torch.cat(shots).float().mean())
    return {key: round(value, 4) for key, value in found.items()}


class Results:
    """A JSON file of runs that grows as they are done."""

    def __init__(self, options: argparse.Namespace, plan: dict[str, Any]) -> None:
        self._path: Path = options.out
        self._path.parent.mkdir(parents=True, exist_ok=True)
        given = [f"--{key} {value}" for key in ("images", "seeds", "count", "eps")
                 if (value := getattr(options, key, None)) is not None]  # fmt: skip
        what = {"train": "recipe", "search": "model"}.get(options.question)
        named = [] if what is None else [str(getattr(options, what))]
        parts = ["python benchmarks/adversary.py", options.question, *named, *given, f"--out {options.out}"]
        command = " ".join(parts)
        self._head = {"command": command, "plan": plan, "hardware": hardware(torch.device("cpu")),
                      "versions": versions(), "threads": torch.get_num_threads()}  # fmt: skip
        self.runs: list[dict[str, Any]] = []
        if self._path.is_file():
            saved = json.loads(self._path.read_text())
            if saved["plan"] != plan:
                raise SystemExit(f"{self._path}: made by another plan; remove it or choose another --out")
            self.runs = saved["runs"]

    def has(self, **which: Any) -> bool:
        """Whether there is such a run."""
        return any(all(run[key] == value for key, value in which.items()) for run in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        """Keep one more run."""
        print(json.dumps(run), flush=True)
        self.runs.append(run)
        self.close([])

    def close(self, means: list[dict[str, Any]]) -> None:
        """Write the file."""
        write_text(self._path, json.dumps({**self._head, "summary": means, "runs": self.runs}, indent=2) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = parser.add_subparsers(dest="question", required=True)
    for function in (train, search, prints):
        question = questions.add_parser(function.__name__, help=function.__doc__)
        question.add_argument("--out", type=Path, required=True, help="JSON file")
        question.add_argument("--count", type=int, default=215, help="pictures to attack (default: 215)")
        question.set_defaults(run=function)
        if function is search:
            question.add_argument("model", type=Path)
            question.add_argument("--sheet", type=Path, help="picture file of what is found")
            question.add_argument("--plot", type=Path, help="picture file of loss against cost")
            continue
        question.add_argument("--images", type=int, default=20_000, help="budget of a run (default: 20000)")
        question.add_argument("--seeds", type=int, default=3, help="runs of each row (default: 3)")
        if function is train:
            question.add_argument("recipe", choices=[*REAL])
            question.add_argument(
                "--rows", nargs="+", metavar="ROW", help="only these; the others can be added to the file later"
            )
            question.add_argument("--models", type=Path, help="folder for the models of seed 0")
        else:
            question.add_argument("--eps", type=float, default=8 / 255, help="budget, in [0, 1] (default: 8/255)")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
