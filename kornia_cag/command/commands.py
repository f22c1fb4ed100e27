"""What the subcommands of ``kornia-cag`` do, from parsed options to printed lines and written files."""

import argparse
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_cag.adversary.ascent import Norm
from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.pixels import FGSM
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.bench.timings import table, timings
from kornia_cag.command.attended import attended
from kornia_cag.command.options import (
    COMPOSED,
    MOST_SEED,
    MOST_STEPS,
    MOST_VIEWS,
    check_apart,
    check_memory,
    check_training_memory,
    chosen_device,
    chosen_recipe,
    given_folder,
    given_photos,
    load_banks,
    number,
)
from kornia_cag.command.plots import draw_ablation
from kornia_cag.command.sheets import check_picture_name, magnified, save_rows, save_sheet
from kornia_cag.core.checks import InputError, check_int, check_number, fail
from kornia_cag.core.lock import held
from kornia_cag.core.plain import differences, plain, to_json
from kornia_cag.core.progress import Log, duration, progress, say
from kornia_cag.core.saved import LARGEST, check_fields, check_plain, check_type, refused
from kornia_cag.core.storage import read_json, write_json, write_text
from kornia_cag.evaluation.accuracy import Accuracy, evaluate
from kornia_cag.evaluation.real import RealSet, handwriting, load_real
from kornia_cag.evaluation.robustness import (
    AUTO_BUDGETS,
    BUDGETS,
    L2_BUDGETS,
    Pictures,
    Start,
    autoattack,
    composites,
    curve,
)
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.training.ablation import ablated, alike, markdown, rows, summary
from kornia_cag.training.network import CHECKPOINT, MODEL, Trained, blamed, build_network, load_network, save_network
from kornia_cag.training.provenance import hardware, versions
from kornia_cag.training.recipes import RIGID_SIGNS, Recipe
from kornia_cag.training.run import Training

CONFIG, REPORT, PREVIEW = "config.json", "report.json", "preview.png"
WRITTEN = (CHECKPOINT, MODEL, CONFIG, REPORT, PREVIEW)
ABLATION = ("ablation.json", "ablation.md", "ablation.svg")
GLYPHS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"  # 43 objects for timing, as many as GTSRB has classes
PREVIEW_EPS = 8 / 255  # of an attack that neither recipe nor options describe


def _budget(options: argparse.Namespace, recipe: Recipe) -> int | None:
    if options.steps is not None and options.images is not None:
        fail("--steps", "either --steps or --images", "both")
    if options.steps is not None:
        return number("--steps", options.steps, 1, 2**40) * recipe.batch_size
    return None if options.images is None else number("--images", options.images, 1, 2**50)


def _real(path: str | None, recipe: Recipe, classes: tuple[str, ...]) -> RealSet | None:
    if path is not None:
        return load_real(path, classes, recipe.size)
    return handwriting(recipe.size) if classes == tuple(recipe.classes) else None


def train(options: argparse.Namespace) -> None:
    """Train, measure, and write the results into a folder."""
    out = _folder(options)
    _take_threads(options, out)
    recipe = chosen_recipe(options)
    budget = _budget(options, recipe)
    _check_out(options, out)
    if options.resume and not (out / CHECKPOINT).is_file():
        fail("--resume", f"a saved run in {str(out)!r}", "none", "Leave --resume out to start afresh.")
    check_training_memory(options, recipe)
    objects, contexts = load_banks(options, recipe)
    if len(objects.classes) < 2:
        fail("--objects", "at least two classes to tell apart", f"one, {objects.classes[0]!r}")
    real = _real(options.real, recipe, objects.classes)
    if not options.json:
        print(f"{objects!r}\n{contexts!r}", flush=True)
    training = Training(recipe, objects, contexts, images=budget, seed=options.seed, balanced=options.balanced,
                        function=options.model, compile=options.compile, float32=options.float32)  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        _prepare(training, options, out)
        attended(training, recipe.name, save=out / CHECKPOINT)
        save_network(out / MODEL, training.average, recipe, objects.classes, options.model)  # before others' code fails
        accuracy = None if real is None else _measured(training.result, real, objects.classes, objects.device, options)
        report = training.report(accuracy, real)
        write_json(out / REPORT, report)
    print(to_json(report)) if options.json else _print_result(training, accuracy, real, out)


def _measured(
    network: nn.Module, real: RealSet, classes: tuple[str, ...], device: torch.device, options: argparse.Namespace
) -> Accuracy:
    with progress("measuring", patience=3.0) as log, blamed(getattr(options, "model", None), lambda: "when measured"):
        return evaluate(network, real, classes, device, log=log)


def _folder(options: argparse.Namespace) -> Path:
    """Where a training or an ablation writes to."""
    name = options.recipe if options.run is train else f"ablation-{options.recipe}"
    return Path(options.out or f"runs/{name}")


def _take_threads(options: argparse.Namespace, out: Path) -> None:
    """The threads that are asked for; else, for a run that goes on, those of its start, since sums round by them."""
    if options.threads is not None:
        torch.set_num_threads(check_int("--threads", options.threads, 1, 4096))
    elif options.resume:
        try:
            if options.run is train:
                saved = read_json(out / CONFIG, "--resume", f"a {CONFIG} as train writes it")["threads"]
            else:
                saved = read_json(out / ABLATION[0], "--resume", "results that ablate wrote")["plan"]["threads"]
        except (OSError, InputError, KeyError, TypeError):  # what is resumed is held against its plan anyway
            return
        if isinstance(saved, int) and 1 <= saved <= 4096 and saved != (own := torch.get_num_threads()):
            say(f"going on with {saved} threads, as the run began, in place of this machine's {own}")
            torch.set_num_threads(saved)


def way_on(options: argparse.Namespace) -> str:
    """What to say to somebody who interrupted a command, after "interrupted"."""
    if "resume" not in options or "run" not in options:
        return ""
    file = _folder(options) / (CHECKPOINT if options.run is train else ABLATION[0])
    return "; repeat the command with --resume to go on" if file.is_file() else ""


def _prepare(training: Training, options: argparse.Namespace, out: Path) -> None:
    """Load what is saved, and write what is known before the training."""
    with tempfile.TemporaryFile(dir=out):  # a folder that cannot be written to is better found before the training
        pass
    if options.resume:
        _check_documents(out, "--resume")
        training.load(out / CHECKPOINT)
        return
    _set_aside(out, WRITTEN)
    given = {name: value for name, value in vars(options).items() if name not in ("run", "hint")}
    recipe, objects, contexts = training.recipe, training.objects, training.collate.composer.contexts
    about = {"options": plain(given), "versions": versions(), "trained_on": contexts.pyramid.checksums()}
    write_json(out / CONFIG, {**training.plan(), **about})
    batch = _compose(recipe, objects, contexts, training.pairs, training.model, batches=1)
    save_sheet(out / PREVIEW, batch.images[:96], 12)


def _check_out(options: argparse.Namespace, out: Path) -> None:
    """What is wrong with the place for results is better found before the work."""
    if out.exists() and not out.is_dir():
        fail("--out", "a folder", f"{str(out)!r}, which is a file")
    check_apart("--out", out, options)


def _check_documents(folder: Path, argument: str) -> None:
    """Configuration and report of a run are whole, if they are there; nothing is computed from them."""
    for name in (CONFIG, REPORT):
        if (folder / name).is_file():
            read_json(folder / name, argument, f"a {name} as train writes it", "Take it out of the folder to go on.")


def _set_aside(out: Path, written: tuple[str, ...]) -> None:
    """Move what an earlier run wrote into a folder of its own: it may have taken hours, and is not this one's."""
    old = [out / name for name in written if (out / name).exists()]
    if not old:
        return
    aside = next(folder for folder in (out / f"earlier-{i}" for i in itertools.count(1)) if not folder.exists())
    aside.mkdir()
    for file in old:
        file.rename(aside / file.name)
    print(f"kornia-cag: {str(out)!r} held a run, which is now in {str(aside)!r}", file=sys.stderr)


def _compose(
    recipe: Recipe, objects: ObjectBank, contexts: ContextBank, pairs: PairSampler, model: nn.Module | None,
    batches: int, log: Log | None = None,
) -> Batch:  # fmt: skip
    """The last whole one of the first batches of a sampler, whose state is not touched."""
    chain = recipe.chain(len(objects.classes))
    collate = CAGCollate(objects, contexts, recipe.size, ranges=recipe.ranges, chain=chain, model=model,
                         adversaries=recipe.adversaries, strength=recipe.strength,
                         returns="batch")  # fmt: skip
    state = pairs.state_dict()
    made: list[Any] = []
    epochs = itertools.chain.from_iterable(itertools.repeat(pairs))  # one may be a single batch
    for pair_rows in itertools.islice(epochs, batches):
        if log is not None:
            log(len(made) / batches, f"{len(pair_rows):,} images at a time")
        made.append(collate(pair_rows))
        if chain is not None and chain.pairing is not None and model is not None:
            with torch.no_grad(), frozen(model) as net:
                chain.pairing.observe(net(made[-1].images.clone()), made[-1].labels)
    pairs.load_state_dict(state)
    whole = [batch for batch in made if isinstance(batch, Batch) and len(batch.images) == len(made[0].images)]
    return whole[-1]


def _print_result(training: Training, accuracy: Accuracy | None, real: RealSet | None, out: Path) -> None:
    print(f"trained on {training.seen:,} composites in {duration(training.seconds)}")
    if training.monitor is not None and (overfitting := training.monitor.report())["looks"]:
        *_, own, found = overfitting["looks"][-1]
        catastrophic = "catastrophic overfitting, train with more --attack-steps or a smaller --eps: "
        print(f"{catastrophic if overfitting['overfitted'] else ''}"
              f"{own:.0%} right under the training's own attack, {found:.0%} under PGD")  # fmt: skip
    if accuracy is not None and real is not None:
        _print_accuracy(accuracy, real)
    else:
        print("no real pictures to measure on; pass --real")
    print(f"wrote {out / MODEL} and {out / REPORT}")


def _print_accuracy(accuracy: Accuracy, real: RealSet) -> None:
    if accuracy.confusions:
        print("most frequent errors: " + ", ".join(f"{t} as {p} ({n})" for t, p, n in accuracy.confusions[:6]))
    print(f"accuracy on {real.name}: {accuracy.share:.2%} of {len(real.labels):,} real pictures")


def measure(options: argparse.Namespace) -> None:
    """Measure a trained model on real pictures."""
    device = chosen_device(options.device)
    if options.errors is not None:
        _check_picture("--errors", Path(options.errors), options)
    views = None if options.views is None else number("--views", options.views, 1, MOST_VIEWS)
    trained = load_network(options.model_from, device, function=options.model, views=views)
    if options.attack != "context" and Path(options.model_from).is_dir():  # which reads the configuration
        _check_documents(Path(options.model_from), "model")
    _check_attack_options(options)
    if options.attack is not None:
        _attack(options, trained, device)
        return
    real = _given(options.real, trained.recipe, trained.classes)
    accuracy = _measured(trained.network, real, trained.classes, device, options)
    if options.json:
        print(to_json({"real": {"name": real.name, "pictures": len(real.labels)}, **accuracy.report()}))
    else:
        _print_recalls(accuracy)
        _print_accuracy(accuracy, real)
    if options.errors is not None:
        _save_errors(options, accuracy, real)


def _check_picture(name: str, path: Path, options: argparse.Namespace) -> None:
    """A file that cannot be written is better found before the work."""
    check_picture_name(name, path)
    if not path.absolute().parent.is_dir() or (path.exists() and not path.is_file()):
        fail(name, "a file in a folder that exists", repr(str(path)))
    check_apart(name, path.absolute().parent, options)


def _print_recalls(accuracy: Accuracy) -> None:
    width = max(map(len, accuracy.per_class))
    for name, recall in accuracy.per_class.items():
        if recall is not None:  # loading warns of classes without pictures
            print(f"{name.ljust(width)}  {recall:.2%}")


def _save_errors(options: argparse.Namespace, accuracy: Accuracy, real: RealSet) -> None:
    """Real pictures that the model misread, a row for each of the most frequent confusions."""
    if not accuracy.confusions:
        if not options.json:
            print("no errors to show")
        return
    names = [*accuracy.per_class]
    rows = [(f"{true} as {said}: {count}", real.images[(real.labels == names.index(true))
                                                       & (accuracy.predicted == names.index(said))])
            for true, said, count in accuracy.confusions]  # fmt: skip
    save_rows(options.errors, rows)
    if not options.json:
        print(f"wrote {options.errors}")


def _given(path: str | None, recipe: Recipe, classes: tuple[str, ...]) -> RealSet:
    real = _real(path, recipe, classes)
    if real is None:
        fail("--real", "an .npz file or a folder of class folders", "nothing")
    return real


def _check_attack_options(options: argparse.Namespace) -> None:
    """Nothing that is given goes unused."""
    given = {"--eps": options.eps, "--attack-steps": options.attack_steps, "--count": options.count,
             "--norm": options.norm, "--restarts": options.restarts}  # fmt: skip
    only = {"--objects": options.objects, "--contexts": options.contexts, "--key": options.key, "--seed": options.seed}
    if options.attack and options.errors is not None:
        fail("--errors", "to come without --attack", "both")
    for name, value in ({} if options.attack else given).items():
        if value is not None:
            fail(name, "to come with --attack", "no --attack")
    for name, value in ({} if options.attack == "context" else only).items():
        if value is not None:
            fail(name, "to come with --attack context", "another --attack" if options.attack else "no --attack")
    own = {"--attack-steps": options.attack_steps, "--norm": options.norm, "--restarts": options.restarts}
    for name, value in own.items() if options.attack == "auto" else ():
        if value is not None:
            fail(name, "to come without --attack auto, which sets its own", "both")
    if options.attack == "context" and options.real is not None:
        fail("--real", "to come without --attack context, which attacks composites", "both")


def _attack(options: argparse.Namespace, trained: Trained, device: torch.device) -> None:
    """Accuracy against budget."""
    steps = 20 if options.attack_steps is None else number("--attack-steps", options.attack_steps, 1, MOST_STEPS)
    count = 1000 if options.count is None else number("--count", options.count, 1, 2**31 - 1)
    seed = 0 if options.seed is None else number("--seed", options.seed, 0, MOST_SEED)
    norm: Norm = options.norm or "linf"
    restarts = 1 if options.restarts is None else number("--restarts", options.restarts, 1, 10_000)
    usual = AUTO_BUDGETS if options.attack == "auto" else BUDGETS if norm == "linf" else L2_BUDGETS
    largest = 1 if norm == "linf" else 1e4
    budgets = usual if options.eps is None else [check_number("--eps", eps, 0, largest) for eps in options.eps]
    if options.attack == "context":
        check_memory(options, trained.recipe, count, 12, "Try a smaller --count.")
        name, pictures = _unseen_scenes(options, trained, device, count, seed)
    else:
        name, pictures = _real_pictures(options, trained, device, count)
    about: dict[str, Any] = {"attack": options.attack, "on": name, "views": trained.recipe.views}
    if options.attack == "auto":
        how = "AutoAttack"
        with progress("attack") as log:
            found = autoattack(trained.network, pictures, budgets, log=log)
    else:
        starts: tuple[Start, ...] = ("random", "previous") if options.attack == "context" else ("random",)
        again = f", {restarts} times at random" if restarts > 1 else ""
        how = f"{norm}, {steps} steps from each start ({', '.join(starts)}{again}), on cross-entropy and on margin"
        about |= {"norm": norm, "steps": steps, "starts": starts, "restarts": restarts,
                  "losses": ["cross-entropy", "margin"]}  # fmt: skip
        with progress("attack") as log:
            found = curve(trained.network, pictures, budgets, norm=norm, steps=steps, starts=starts, restarts=restarts,
                          log=log)  # fmt: skip
    if options.json:
        print(to_json({**about, **found.report(), "hardware": hardware(device), "versions": versions()}))
        return
    print(f"{found.pictures:,} {name}; {how}\n  budget  accuracy")
    print("\n".join(f"{eps:8.4f} {share:9.2%}" for eps, share in zip(found.eps, found.accuracy, strict=True)))


def _unseen_scenes(
    options: argparse.Namespace, trained: Trained, device: torch.device, count: int, seed: int
) -> tuple[str, Pictures]:
    """Composites over photographs that the model was not trained on, and a word on them."""
    contexts, recipe = _unseen(options, device, trained.recipe.texels), trained.recipe
    objects = recipe.objects(given_folder(options, "objects"), key=options.key, device=str(device))
    if objects.classes != trained.classes:
        fail("--objects", f"the {len(trained.classes)} classes of the training", f"{len(objects.classes)} others")
    pictures = composites(objects, contexts, recipe.size, recipe.ranges, count, seed=seed)
    return f"composites over {len(contexts)} unseen photographs", pictures


def _real_pictures(
    options: argparse.Namespace, trained: Trained, device: torch.device, count: int
) -> tuple[str, Pictures]:
    """Some of the real pictures, evenly over their order, and a word on them."""
    real = _given(options.real, trained.recipe, trained.classes)
    some = real.some(count)
    return f"pictures of {real.name}", Pictures(some.images.to(device), some.labels.to(device))


def _unseen(options: argparse.Namespace, device: torch.device, texels: int) -> ContextBank:
    """Those of the given photographs that the model was not trained on, by what the run wrote of its contexts."""
    photographs = given_folder(options, "contexts")
    if photographs is None:
        fail("--contexts", "a folder of photographs that were not trained on", "nothing")
    folder = Path(options.model_from)
    config = (folder if folder.is_dir() else folder.parent) / CONFIG
    if not config.is_file():
        fail("--attack context", f"a {CONFIG} beside the model, which tells what it was trained on", "none",
             "Give the folder that train wrote.")  # fmt: skip
    expected = f"a {CONFIG} as train writes it"
    told = read_json(config, "--attack context", expected, "Train again.").get("trained_on")
    with refused(config, "--attack context", expected, "Train again."):
        check_type("trained_on", told, list)
        seen = {check_int("trained_on", crc, 0, LARGEST) for crc in told or ()}
    photos = ContextBank.from_folder(photographs, size=texels, device=device)
    new = [i for i, crc in enumerate(photos.pyramid.checksums()) if crc not in seen]
    if not new:
        fail("--contexts", "photographs that were not trained on", f"{len(photos)}, all of which were",
             "Give others, or train with --hold-back 0.2.")  # fmt: skip
    return ContextBank(replace(photos.pyramid, atlas=photos.pyramid.atlas[new]))


def ablate(options: argparse.Namespace) -> None:
    """Train the rows of an ablation on one budget, measure each, and keep the results of those that are done."""
    out = _folder(options)
    _take_threads(options, out)
    base, seeds = chosen_recipe(options), number("--seeds", options.seeds, 1, 10_000)
    first = number("--seed", options.seed, 0, MOST_SEED)
    budget, device = _budget(options, base), str(chosen_device(options.device))
    _check_out(options, out)
    check_training_memory(options, base)
    folders = given_folder(options, "objects"), given_photos(options), options.key
    objects = base.objects(folders[0], key=options.key, device=device)
    real = _given(options.real, base, objects.classes)
    every = rows(base, photos=folders[1] is not None)
    table = [row for row in every if not options.only or any(word in row.name for word in options.only)]
    if not table:
        fail("--only", f"words of these rows: {', '.join(row.name for row in every)}", " ".join(options.only))
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        plan = _ablation_plan(options, base, budget, real, objects)
        done = _ablated_before(out / ABLATION[0], plan, resume=options.resume)
        todo = [(row, seed) for seed, row in itertools.product(range(first, first + seeds), table)
                if (row.name, seed) not in done]  # fmt: skip
        for i, (row, seed) in enumerate(todo):
            # what trains the same under another name is not trained again
            twin = next(
                (other for other in table if (other.name, seed) in done and alike(other, row, folders[1])), None
            )
            if twin is not None:
                done[row.name, seed] = {**done[twin.name, seed], "row": row.name, "same_run_as": twin.name}
            else:
                training = ablated(row, folders, images=budget, seed=seed, device=device, compile=options.compile)
                attended(training, f"{row.name}, seed {seed}", more=len(todo) - i - 1)
                accuracy = _measured(training.result, real, objects.classes, training.objects.device, options)
                done[row.name, seed] = {"row": row.name, **training.report(accuracy, real)}
            runs = [*done.values()]
            try:  # kept where nobody reads what is told, and told where it cannot be kept
                write_json(out / ABLATION[0], {"plan": plan, "summary": summary(runs), "runs": runs})
            finally:
                print(f"{row.name}, seed {seed}: {done[row.name, seed]['accuracy']:.2%}", flush=True)
        _tabulate(summary([*done.values()]), out, f"recipe {base.name}")


def _tabulate(found: list[dict[str, Any]], out: Path, title: str) -> None:
    """The table of an ablation, printed and written, and its plot."""
    text = markdown(found)
    print(text)
    write_text(out / ABLATION[1], text + "\n")
    print(f"wrote {out / ABLATION[0]} and {out / ABLATION[1]}")
    try:
        draw_ablation(found, out / ABLATION[2], title=title)
        print(f"wrote {out / ABLATION[2]}")
    except InputError as error:  # all else is done
        print(f"no plot: {error}")


def _ablation_plan(
    options: argparse.Namespace, recipe: Recipe, budget: int | None, real: RealSet, objects: ObjectBank
) -> dict[str, Any]:
    """All that the rows have in common, ready for JSON."""
    folder = given_photos(options)
    # Made contexts differ with the seed.
    photos = None if folder is None else ContextBank.from_folder(folder, size=64, device="cpu").pyramid
    plan: dict[str, Any] = plain({
        "recipe": recipe, "images": recipe.images if budget is None else budget, "compile": options.compile,
        "threads": torch.get_num_threads() if objects.device.type == "cpu" else None,
        "real": {"name": real.name, "pictures": len(real.labels)},
        "objects": {"count": len(objects), "crc": objects.pyramid.checksum()},
        "photographs": None if photos is None else {"count": len(photos.atlas), "crc": photos.checksum()},
    })  # fmt: skip
    return plan


def _ablated_before(file: Path, plan: dict[str, Any], *, resume: bool) -> dict[tuple[str, int], dict[str, Any]]:
    """The results of an ablation that was broken off, by row and seed; those of another one are set aside."""
    if not resume:
        _set_aside(file.parent, ABLATION)
    if not file.is_file():
        return {}
    wanted = "--resume", "results that ablate wrote", "Leave --resume out to start afresh."
    saved = read_json(file, *wanted)
    with refused(file, *wanted):
        before = check_fields("its content", saved, ("plan", "summary", "runs"))["plan"]
        check_plain("plan", before)
        check_type("runs", saved["runs"], list)
        runs = dict(map(_result, saved["runs"]))
    if other := differences(plan, before):
        fail("--resume", "the options of the saved ablation", ", ".join(other[:3]), "Repeat them, or leave it out.")
    return runs


def _result(run: Any) -> tuple[tuple[str, int], dict[str, Any]]:
    """One result of an ablation, checked, and its row and seed."""
    check_type("runs", run, dict)
    row = run.get("row")
    check_type("runs.row", row, str)
    check_number("runs.accuracy", run.get("accuracy"), 0, 1)
    return (str(row), check_int("runs.seed", run.get("seed"), 0, LARGEST)), run


def preview(options: argparse.Namespace) -> None:
    """Write sheets of composites, masks and perturbations, one below the other."""
    rows, columns = check_int("--rows", options.rows, 1, 100), check_int("--columns", options.columns, 1, 100)
    zoom = check_int("--zoom", options.zoom, 1, 16)
    _check_picture("--out", Path(options.out), options)
    recipe = chosen_recipe(options)
    check_memory(options, recipe, rows * columns, COMPOSED + 3 * zoom**2, "Try a smaller --size, or fewer --rows.")
    if options.perturbation and recipe.attack is None:
        if options.no_attack:
            fail("--perturbation", "to come without --no-attack", "both")
        recipe = replace(recipe, attack=FGSM(eps=PREVIEW_EPS))
        print("no attack on pixels is named: showing FGSM, 8/255")
    objects, contexts = load_banks(options, recipe)
    pairs = PairSampler(
        objects.labels.cpu(), len(contexts), rows * columns, seed=options.seed, balanced=options.balanced
    )
    attacks = recipe.attack is not None or recipe.scene_attack is not None or recipe.hard_pairing
    if options.model_from is not None and not attacks:
        fail("--model-from", "to come with something that looks at a model: an attack, --perturbation, --hard-pairing",
             "nothing of the kind")  # fmt: skip
    if options.model is not None and options.model_from is None:
        fail("--model", "to come with --model-from, whose network it makes", "no --model-from")
    model = _attacked_model(options, recipe, objects) if attacks else None
    with progress("composing", patience=3.0) as log:  # several batches, so that the chain has something to offer
        batch = _compose(recipe, objects, contexts, pairs, model, batches=4, log=log)
    below = [batch.masks] if options.masks else []
    if options.perturbation and recipe.attack is not None:
        below.append(magnified(batch.images, batch.clean, recipe.attack.largest))
    boxes = batch.boxes if options.boxes else None
    save_sheet(options.out, batch.images, columns, zoom=zoom, boxes=boxes, below=below)
    print(f"wrote {options.out}")


def _attacked_model(options: argparse.Namespace, recipe: Recipe, objects: ObjectBank) -> nn.Module:
    if options.model_from is None:
        torch.manual_seed(options.seed)
        return build_network(recipe, len(objects.classes)).to(objects.device)
    trained = load_network(options.model_from, objects.device, function=options.model)
    if trained.classes != objects.classes or trained.recipe.size != recipe.size:
        fail("--model-from", f"a model of {len(objects.classes)} classes, those of the objects, at size {recipe.size}",
             f"one of {len(trained.classes)} classes at size {trained.recipe.size}",
             "Give the --objects and the --size of its training.")  # fmt: skip
    return trained.network


def inspect(options: argparse.Namespace) -> None:
    """Report the banks, and the balance of one epoch of pairs."""
    if options.recipe is None and options.objects is None:
        fail("inspect", "a RECIPE or --objects", "neither")
    recipe = chosen_recipe(options)
    objects, contexts = load_banks(options, recipe)
    labels = objects.labels.cpu()
    pairs = PairSampler(labels, len(contexts), recipe.batch_size, seed=options.seed, balanced=options.balanced)
    balance = _balance(pairs, labels)
    counts = dict(zip(objects.classes, torch.bincount(labels).tolist(), strict=True))
    if options.json:
        banks: dict[str, Any] = {"objects": repr(objects), "contexts": repr(contexts), "objects_per_class": counts}
        print(to_json({**banks, "pairing": repr(pairs), **balance}))
        return
    print(f"{objects!r}\n{contexts!r}\n{pairs!r}")
    print("objects per class: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for name, (low, high) in balance.items():
        print(f"{name.replace('_', ' ')}: {low} to {high}")


def _balance(pairs: PairSampler, labels: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Lowest and highest counts over one epoch; of classes, in its whole batches, or in all where none is whole."""
    ids = pairs.pairs()
    classes = labels[ids[:, 0]]
    whole = [part for part in classes.split(pairs.batch_size) if len(part) == pairs.batch_size] or [classes]
    batches = torch.stack([torch.bincount(part, minlength=int(labels.max()) + 1) for part in whole])
    counts = {
        "contexts_per_object": torch.bincount(ids[:, 0], minlength=len(labels)),
        "objects_per_context": torch.bincount(ids[:, 1], minlength=pairs.num_contexts),
        "samples_per_class": torch.bincount(classes, minlength=int(labels.max()) + 1),
        "samples_per_class_and_batch": batches,
    }
    return {name: (int(count.min()), int(count.max())) for name, count in counts.items()}


def bench(options: argparse.Namespace) -> None:
    """Time what matters on this machine, and answer whether composing on the device pays."""
    recipe = chosen_recipe(options)
    seconds = check_number("--seconds", options.seconds, 0.01, 600)
    check_training_memory(options, recipe)
    if recipe.name == "signs":  # for the CPU loaders' sake
        recipe = replace(recipe, ranges=RIGID_SIGNS)
    if options.objects is None and not recipe.classes:  # speed does not depend on what is seen
        recipe = replace(recipe, classes=GLYPHS)
    objects, contexts = load_banks(options, recipe)
    where = hardware(objects.device)
    if not options.json:
        rigid = ", which keep their shape" if recipe.ranges is RIGID_SIGNS else ""
        print(f"{where}; {recipe.name}{rigid}", flush=True)
    with progress("timing") as log:
        report = timings(recipe, objects, contexts, compiled=not options.no_compile, seconds=seconds, log=log)
    report |= {"recipe": recipe.name, "hardware": where, "versions": versions()}
    print(to_json(report) if options.json else "\n".join(table(report)))
