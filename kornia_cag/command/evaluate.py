"""``kornia-cag evaluate``: measure a trained model on real pictures, or against attacks."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kornia_cag.adversary.ascent import Norm
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.command.columns import padded, width
from kornia_cag.command.finding import evaluate_boxes
from kornia_cag.command.measuring import all_sets, measured, needed_pictures, only_set, print_accuracy, print_table
from kornia_cag.command.options import (
    MOST_SEED,
    MOST_STEPS,
    check_memory,
    check_picture,
    chosen_device,
    given_folder,
    load_objects,
    needs_detector,
    number,
    on_error,
    read_model,
)
from kornia_cag.command.results import check_documents
from kornia_cag.command.sheets import save_rows
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import check_int, check_number, fail, one_line
from kornia_cag.core.plain import to_json
from kornia_cag.core.progress import progress
from kornia_cag.core.saved import LARGEST, check_type, refused
from kornia_cag.core.storage import read_json
from kornia_cag.evaluation.accuracy import Accuracy
from kornia_cag.evaluation.measurement import measurement
from kornia_cag.evaluation.real import RealSet
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
from kornia_cag.training.network import CONFIG, Trained
from kornia_cag.training.provenance import hardware, versions


def evaluate(options: argparse.Namespace) -> None:
    """Measure a trained model on real pictures."""
    device = chosen_device(options.device)
    if options.errors is not None:
        check_picture("--errors", Path(options.errors), options)
    trained = read_model(options, device)
    if trained.recipe.detection is not None:
        if options.attack is not None:
            fail("--attack", "a network that names pictures", "one that finds objects")
        _check_attack_options(options)
        evaluate_boxes(options, trained)
        return
    needs_detector(options, ("annotations", "threshold", "classifier"))
    if options.attack != "context" and Path(options.model_from).is_dir():  # which reads the configuration
        check_documents(Path(options.model_from), "model")
    _check_attack_options(options)
    if options.attack is not None:
        _attack(options, trained, device)
        return
    if options.real is not None and len(options.real) > 1 and options.errors is None:
        _evaluate_sets(options, trained, device)
        return
    real = needed_pictures(only_set(options, "with --errors"), trained.recipe, trained.classes)
    accuracy = measured(trained.network, real, trained.classes, device, options)
    if options.json:
        print(to_json(measurement(accuracy, real, detection=False)))
    else:
        _print_recalls(accuracy)
        print_accuracy(accuracy, real)
        print(f"expected calibration error: {accuracy.calibration_error:.2%}")
    if options.errors is not None:
        _save_errors(options, accuracy, real)


def _evaluate_sets(options: argparse.Namespace, trained: Trained, device: torch.device) -> None:
    """Measure on several sets, all of which are read before the first is measured."""
    sets = all_sets(options.real, trained.recipe, trained.classes)
    measures = [(measured(trained.network, real, trained.classes, device, options), real) for real in sets]
    if options.json:
        print(to_json([measurement(accuracy, real, detection=False) for accuracy, real in measures]))
    else:
        print_table(measures)


def _print_recalls(accuracy: Accuracy) -> None:
    widest = max(map(width, accuracy.per_class))
    for name, recall in accuracy.per_class.items():
        if recall is not None:  # load_real warned about classes without pictures
            print(f"{padded(name, widest)}  {recall:.2%}")


def _save_errors(options: argparse.Namespace, accuracy: Accuracy, real: RealSet) -> None:
    """Write a sheet of misclassified real pictures, one row per frequent confusion."""
    if not accuracy.confusions:
        if not options.json:
            print("no errors to show")
        return
    names = [*accuracy.per_class]
    images = real.images[accuracy.seen_in]
    rows = [(f"{true} as {said}: {count}", images[(real.labels == names.index(true))
                                                  & (accuracy.predicted == names.index(said))])
            for true, said, count in accuracy.confusions]  # fmt: skip
    with worded(path="--errors"):
        save_rows(options.errors, rows)
    if not options.json:
        print(one_line(f"wrote {options.errors}"))


def _check_attack_options(options: argparse.Namespace) -> None:
    """Require that every option has an effect."""
    given = {"--eps": options.eps, "--attack-steps": options.attack_steps, "--count": options.count,
             "--norm": options.norm, "--restarts": options.restarts}  # fmt: skip
    only = {"--objects": options.objects, "--contexts": options.contexts, "--key": options.key,
            "--on-error": options.on_error, "--seed": options.seed}  # fmt: skip
    if options.attack and options.errors is not None:
        fail("--errors", "to be used without --attack", "both")
    for name, value in ({} if options.attack else given).items():
        if value is not None:
            fail(name, "to be used with --attack", "no --attack")
    for name, value in ({} if options.attack == "context" else only).items():
        if value is not None:
            fail(name, "to be used with --attack context", "another --attack" if options.attack else "no --attack")
    own = {"--attack-steps": options.attack_steps, "--norm": options.norm, "--restarts": options.restarts}
    for name, value in own.items() if options.attack == "auto" else ():
        if value is not None:
            fail(name, "to be used without --attack auto, which sets its own", "both")
    if options.attack == "context" and options.real is not None:
        fail("--real", "to be used without --attack context, which attacks composites", "both")


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
        with worded(attack="--attack"), progress("attack") as log:
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
    """Composites over photographs unseen in training, and how to describe them."""
    contexts, recipe = _unseen(options, device, trained.recipe.texels), trained.recipe
    objects = load_objects(options, recipe)
    if objects.classes != trained.classes:
        fail("--objects", f"the {len(trained.classes)} classes of the training", f"{len(objects.classes)} others")
    pictures = composites(objects, contexts, recipe.size, recipe.ranges, count, seed=seed)
    return f"composites over {len(contexts)} unseen photographs", pictures


def _real_pictures(
    options: argparse.Namespace, trained: Trained, device: torch.device, count: int
) -> tuple[str, Pictures]:
    """``count`` real pictures, evenly spaced, and how to describe them."""
    real = needed_pictures(only_set(options, "with --attack"), trained.recipe, trained.classes)
    with worded(real="--real"):
        some = real.some(count)
    return f"pictures of {real.name}", Pictures(some.images.to(device), some.labels.to(device))


def _unseen(options: argparse.Namespace, device: torch.device, texels: int) -> ContextBank:
    """The photographs that the model was not trained on, by the checksums that the run saved."""
    photographs = given_folder(options, "contexts")
    if photographs is None:
        fail("--contexts", "a folder of photographs unseen in training", "nothing")
    folder = Path(options.model_from)
    config = (folder if folder.is_dir() else folder.parent) / CONFIG
    if not config.is_file():
        fail("--attack context", f"a {CONFIG} beside the model, which records its contexts", "none",
             "Pass the folder that train wrote.")  # fmt: skip
    expected = f"a {CONFIG} as train writes it"
    about = read_json(config, "--attack context", expected, "Train again.")
    told = about.get("trained_on")
    if "trained_on" in about and told is None:
        fail("--attack context", "a run that records which photographs it saw", "one with --context-slots")
    with refused(config, "--attack context", expected, "Train again."):
        check_type("trained_on", told, list)
        seen = {check_int("trained_on", crc, 0, LARGEST) for crc in told or ()}
    photos = ContextBank.from_folder(photographs, size=texels, on_error=on_error(options), device=device)
    new = [i for i, crc in enumerate(photos.pyramid.checksums()) if crc not in seen]
    if not new:
        fail("--contexts", "photographs unseen in training", f"{len(photos)}, all of which were seen",
             "Pass others, or train with --hold-out 0.2.")  # fmt: skip
    return ContextBank(replace(photos.pyramid, atlas=photos.pyramid.atlas[new]))
