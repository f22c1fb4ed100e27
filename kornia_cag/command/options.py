"""From command-line options to a device, a recipe and its banks, for all subcommands."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.presets import FGSM
from kornia_cag.adversary.scenes import ScenePGD
from kornia_cag.adversary.worst import WorstOf
from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts, ContextStream
from kornia_cag.command.sheets import check_picture_name
from kornia_cag.command.usage import SCENE_ATTACKS
from kornia_cag.command.wording import worded
from kornia_cag.core import devices, memory
from kornia_cag.core.checks import check_int, check_number, describe, fail
from kornia_cag.core.document import read_value
from kornia_cag.training.naming import named_by
from kornia_cag.training.network import Trained, load_network
from kornia_cag.training.recipe import MADE_UP, Recipe
from kornia_cag.training.recipe_data import changed
from kornia_cag.training.recipe_file import load_recipe
from kornia_cag.training.recipes import RECIPES, SCENE_GRADIENT

CHOSEN: dict[str, ScenePGD | WorstOf | None] = dict(
    zip(SCENE_ATTACKS, (SCENE_GRADIENT, WorstOf(k=4, fraction=0.5), None), strict=True)
)

MOST_SEED, MOST_STEPS, MOST_VIEWS, MOST_THREADS = 2**61, 100_000, 1000, 4096  # anything above is more likely a typo
COMPOSED = 48  # bytes per pixel of a composed image, at least, including what it is composed from
BANK = 32  # bytes per texel while a bank is built, as floats
SLOT = 12  # bytes per texel of a stream: in the bank, and decoded ahead
MOST_SLOTS = 10_000_000
LEAVE = "Leave it out."
TRAINED = 400  # bytes per pixel in a training step of a recipe's network; measured: 800 to 1100


def chosen_device(name: str) -> torch.device:
    """The device named by ``--device``; ``auto`` is a GPU if there is one."""
    return devices.chosen_device(name, "--device")


def take_threads(options: argparse.Namespace) -> None:
    """Set the number of threads, if it is given."""
    if getattr(options, "threads", None) is not None:
        torch.set_num_threads(number("--threads", options.threads, 1, MOST_THREADS))


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe, by name or from a file, changed as the options say: single fields last, in the order given."""
    named = options.recipe
    with worded(path="RECIPE"):
        recipe = RECIPES[named] if named in RECIPES else load_recipe(named)
    _check_named(recipe, options)
    if getattr(options, "scene_attack", None) is not None:
        recipe = replace(recipe, scene_attack=CHOSEN[options.scene_attack])
    if "eps" in options:
        with worded(eps="--eps", eps_object="--eps-object"):
            recipe = _hardened(recipe, options)
    if {"--no-chain", "--hard-pairing"} <= {option for option, *_ in options.set}:
        fail("--hard-pairing", "to be used without --no-chain, whose slots it orders", "both")
    fields = {field: read_value(text, option) for option, field, text in options.set}
    labels = {"": "--set ", **{field: option for option, field, _ in options.set}}
    recipe = changed(recipe, fields, labels) if fields else recipe
    if recipe.detection is not None and recipe.detection.classes == "all" and "detection.name" in fields:
        fail(labels["detection.name"], "detection.classes to be one, which it names", "all", LEAVE)
    return recipe


def _check_named(recipe: Recipe, options: argparse.Namespace) -> None:
    """Refuse an option that only a recipe that names pictures has a use for."""
    typed = {option: field for option, field, _ in options.set}
    if "--hard-pairing" in typed and "detection" not in typed.values():
        needs_classifier(recipe, "--hard-pairing", LEAVE)


def _hardened(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    given = {"--eps": options.eps, "--eps-object": options.eps_object, "--attack-steps": options.attack_steps}
    named = [name for name, value in given.items() if value is not None]
    if options.no_attack:
        if named:
            fail(named[0], "to be used without --no-attack", "both")
        if options.scene_attack not in (None, "none"):
            fail("--scene-attack", "to be used without --no-attack", "both")
        return replace(recipe, attack=None, scene_attack=None)
    if recipe.attack is not None and named:
        return replace(recipe, attack=_scaled(recipe.attack, options))
    if options.eps is None:
        if named:
            fail(named[0], "to be used with --eps", "no --eps")
        return recipe
    steps = 1 if options.attack_steps is None else number("--attack-steps", options.attack_steps, 1, MOST_STEPS)
    if steps == 1:
        return replace(recipe, attack=FGSM(eps=options.eps, eps_object=options.eps_object, random_start=True))
    return replace(recipe, attack=PGD(eps=options.eps, eps_object=options.eps_object, steps=steps))


def _scaled(attack: PGD, options: argparse.Namespace) -> PGD:
    """A recipe's attack with other numbers; steps keep their share of the budget."""
    eps = attack.eps if options.eps is None else options.eps
    if attack.eps_min is not None and eps < attack.eps_min:
        fail("--eps", f"at least {attack.eps_min:.3g}, the smallest budget that the recipe's attack draws", f"{eps:g}")
    inner = attack.eps_object if options.eps_object is None else options.eps_object
    asked = options.attack_steps
    steps = attack.steps if asked is None else number("--attack-steps", asked, 1, MOST_STEPS)
    scaled = replace(attack, eps=eps, eps_object=inner, steps=steps)
    if attack.alpha is None:
        return scaled
    return replace(scaled, alpha=attack.alpha * scaled.largest / attack.largest)


def check_apart(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Refuse to write into an input folder: the next run would read the output as a picture.

    Args:
        name: the option that says where to write.
        folder: where files will be written.
        options: names the input folders.

    Raises:
        InputError: for an input folder, or a folder inside one.
    """
    here = Path(os.path.realpath(folder))
    names = ("objects", "distractors", "contexts", "real")
    folders = {name: getattr(options, name, None) for name in names}
    for other, given in ((name, one) for name, of in folders.items() for one in (of if isinstance(of, list) else [of])):
        if given is None or (other, given) == ("contexts", "procedural") or not os.path.isdir(given):
            continue
        if any(os.path.exists(place) and os.path.samefile(place, given) for place in (here, *here.parents)):
            fail(name, f"a place outside of --{other} {given!r}, which is only read", repr(str(folder)),
                 f"Choose another {name}.")  # fmt: skip


def check_picture(name: str, path: Path, options: argparse.Namespace) -> None:
    """Require a path where a picture can be written, before the work starts.

    Raises:
        InputError: for another kind of file, a missing folder, or an input folder.
    """
    check_picture_name(name, path)
    if not path.absolute().parent.is_dir() or (path.exists() and not path.is_file()):
        fail(name, "a file in a folder that exists", repr(str(path)))
    check_apart(name, path.absolute().parent, options)


def number(option: str, value: int, low: int, high: int) -> int:
    """The value of an option, an integer from ``low`` to ``high``, a limit far beyond sensible values."""
    if check_int(option, value, low) > high:
        fail(option, f"an integer of at most {high:,}", describe(value))
    return value


def check_memory(options: argparse.Namespace, recipe: Recipe, images: int, per_pixel: int, fix: str) -> None:
    """:func:`kornia_cag.core.memory.check_memory` for the device and the recipe of a command.

    Args:
        options: names the device.
        recipe: sets the image size.
        images: number in the batch.
        per_pixel: bytes needed per pixel of an image, at least.
        fix: advice for the error.
    """
    if chosen_device(options.device).type == "cpu":
        memory.check_memory("--size", images, recipe.size, per_pixel, fix)


def check_training_memory(options: argparse.Namespace, recipe: Recipe) -> None:
    """:func:`check_memory` for training steps; a user's own network may need less than those of the recipes."""
    own = getattr(options, "model", None) is not None
    check_memory(options, recipe, recipe.batch_size * recipe.pictures, COMPOSED if own else TRAINED,
                 "Try a smaller --size" + (" or --batch-size." if options.command != "ablate" else "."))  # fmt: skip


def given_folder(options: argparse.Namespace, name: str) -> str | None:
    """The folder named by an option, which must exist; None without the option."""
    path: str | None = getattr(options, name)
    if path is not None and not Path(path).is_dir():
        fail(f"--{name}", "a folder", f"{path!r}, which is {'a file' if Path(path).exists() else 'not there'}")
    return path


def on_error(options: argparse.Namespace) -> str:
    """What to do about files of ``--objects`` and ``--contexts`` that cannot be used."""
    return options.on_error or "raise"


def given_photos(options: argparse.Namespace) -> str | None:
    """The folder of photographs; None: procedural contexts only."""
    return None if options.contexts == "procedural" else given_folder(options, "contexts")


def load_banks(options: argparse.Namespace, recipe: Recipe) -> tuple[ObjectBank, ContextBank]:
    """Load both banks, for every subcommand that composes."""
    device, seed = str(chosen_device(options.device)), number("--seed", options.seed, 0, MOST_SEED)
    photos = given_photos(options)
    hold_out = check_number("--hold-out", getattr(options, "hold_out", 0.0), 0, 1)
    if hold_out == 1:
        fail("--hold-out", "a share of at least 0 and below 1", "1")
    if hold_out and photos is None:
        fail("--hold-out", "to be used with --contexts DIR", "no photographs")
    glyphs = len(recipe.classes) * (1 + len(recipe.thickness))
    pictures = (recipe.procedural if given_folder(options, "objects") else glyphs) or 1
    pictures += MADE_UP if recipe.distractors and getattr(options, "distractors", None) is None else 0
    bank = replace(recipe, size=recipe.texels)
    check_memory(options, bank, pictures, BANK, "Its banks are as fine as its canvas: try a smaller --size.")
    objects = load_objects(options, recipe)
    return objects, recipe.contexts(photos, device=device, seed=seed, hold_out=hold_out, on_error=on_error(options))


def load_training_banks(options: argparse.Namespace, recipe: Recipe) -> tuple[ObjectBank, Contexts]:
    """Both banks; with ``--context-slots`` photographs alone, so many of them at a time."""
    if options.context_slots is None:
        return load_banks(options, recipe)
    slots, seed = number("--context-slots", options.context_slots, 1, MOST_SLOTS), options.seed
    photos = given_photos(options)
    if photos is None:
        fail("--context-slots", "to be used with --contexts DIR", "no photographs")
    if options.hold_out:
        fail("--hold-out", "to be used without --context-slots, with which photographs come and go", "both",
             "Keep some in another folder.")  # fmt: skip
    objects = load_objects(options, recipe)
    check_memory(options, replace(recipe, size=recipe.texels), slots, SLOT, "Try fewer --context-slots.")
    return objects, ContextStream.from_folder(
        photos, slots=slots, size=recipe.texels, seed=number("--seed", seed, 0, MOST_SEED), on_error=on_error(options),
        device=str(chosen_device(options.device)),
    )  # fmt: skip


def load_objects(options: argparse.Namespace, recipe: Recipe) -> ObjectBank:
    """The objects of a folder, or the recipe's own, and its distractors."""
    folder, device = given_folder(options, "objects"), str(chosen_device(options.device))
    if folder is not None and any(field == "classes" for _, field, _ in getattr(options, "set", [])):
        fail("--set classes", "glyphs for a training without --objects, whose files are the classes", "both",
             "For some of them, put those into a folder of their own.")  # fmt: skip
    beside = given_folder(options, "distractors") if "distractors" in options else None
    with worded(folder="--objects", distractors="--distractors"):
        return recipe.objects(folder, distractors=beside, key=options.key, on_error=on_error(options), device=device)


def read_model(options: argparse.Namespace, device: torch.device) -> Trained:
    """Load the named model, averaged over the requested number of views."""
    asked = getattr(options, "views", None)
    views = None if asked is None else number("--views", asked, 1, MOST_VIEWS)
    with worded(path="model", function="--model", views="--views"):
        return load_network(options.model_from, device, function=options.model, views=views)


def load_classifier(options: argparse.Namespace, trained: Trained) -> Trained:
    """A detector whose boxes the network of ``--classifier`` names; as it is without the option."""
    if options.classifier is None:
        return trained
    with worded(path="--classifier", detector="RUN", classifier="--classifier", function="--classifier"):
        return named_by(trained, load_network(options.classifier, trained.device))


def needs_detector(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse options that only a detector has a use for."""
    for name in names:
        if getattr(options, name) is not None:
            fail(f"--{name}", "a network that finds objects, such as that of street", "one that names pictures")


def needs_classifier(recipe: Recipe, what: str, fix: str = "") -> None:
    """Refuse a recipe that finds objects, where only one that names pictures will do."""
    if recipe.detection is not None:
        fail(what, "a recipe that names pictures", f"{recipe.name!r}, which finds objects", fix)
