"""``kornia-cag preview``: sheets of composites, masks and perturbations, as training would see them."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kornia_cag.adversary.frozen import frozen
from kornia_cag.adversary.presets import FGSM
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.banks.stream import Contexts
from kornia_cag.command.explain import explained, in_text, save_explained
from kornia_cag.command.options import (
    COMPOSED,
    check_memory,
    check_picture,
    chosen_recipe,
    load_banks,
    needs_classifier,
    read_model,
)
from kornia_cag.command.sheets import magnified, save_sheet
from kornia_cag.command.wording import worded
from kornia_cag.core.checks import check_int, fail, one_line
from kornia_cag.core.progress import Log, progress
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.detections import Detections
from kornia_cag.sampling.pairs import PairSampler
from kornia_cag.scenes.composer import Composer
from kornia_cag.training.hardening import collate_of
from kornia_cag.training.makers import build_network
from kornia_cag.training.recipe import Recipe

PREVIEW_EPS = 8 / 255  # if neither recipe nor options name an attack


def preview(options: argparse.Namespace) -> None:
    """Write sheets of composites, masks and perturbations, stacked; or explain one composite."""
    rows, columns = check_int("--rows", options.rows, 1, 100), check_int("--columns", options.columns, 1, 100)
    zoom = check_int("--zoom", options.zoom, 1, 16)
    check_picture("--out", Path(options.out), options)
    _check_explain(options, rows * columns)
    recipe = chosen_recipe(options)
    if options.explain is not None:
        needs_classifier(recipe, "--explain")
    cells = rows * columns
    check_memory(options, recipe, cells * recipe.pictures, COMPOSED + 3 * zoom**2,
                 "Try a smaller --size, or fewer --rows.")  # fmt: skip
    if options.perturbation and recipe.attack is None:
        if options.no_attack:
            fail("--perturbation", "to be used without --no-attack", "both")
        recipe = replace(recipe, attack=FGSM(eps=PREVIEW_EPS))
        print("no pixel attack chosen: showing FGSM, 8/255")
    objects, contexts = load_banks(options, recipe)
    pairs = recipe.pairs(objects, len(contexts), seed=options.seed, balanced=options.balanced, batch_size=cells)
    model = _checked_model(options, recipe, objects)
    with progress("composing", patience=3.0) as log:  # several batches, to fill the chain
        batch = compose(recipe, objects, contexts, pairs, model, batches=4, log=log)
    with worded(path="--out"):
        if options.explain is None:
            _save_sheets(options, recipe, batch, objects.classes)
        else:
            composer = Composer(objects, contexts, (recipe.size, recipe.size), recipe.ranges, warn=False)
            sample = explained(composer, batch, options.explain, recipe.attack)
            print("\n".join(in_text(sample)))
            save_explained(options.out, sample)
    print(one_line(f"wrote {options.out}"))


def _check_explain(options: argparse.Namespace, count: int) -> None:
    if options.explain is None:
        return
    check_int("--explain", options.explain, 0, count - 1, "Composites are counted from 0, row by row.")
    for name in ("masks", "perturbation", "boxes"):
        if getattr(options, name):
            fail(f"--{name}", "to be used without --explain, which shows one composite", "both")
    if not options.names:
        fail("--no-names", "to be used without --explain, which shows one composite", "both")


def _save_sheets(options: argparse.Namespace, recipe: Recipe, batch: Batch, classes: Sequence[str]) -> None:
    below = [batch.targets.cover] if options.masks else []
    if options.perturbation and recipe.attack is not None:
        below.append(magnified(batch.images, batch.clean, recipe.attack.largest))
    boxes, names = boxes_and_names(recipe, batch, classes)
    boxed = options.boxes or recipe.detection is not None
    save_sheet(options.out, batch.images, options.columns, zoom=options.zoom, boxes=boxes if boxed else None,
               names=names if options.names else None, insets=True, below=below)  # fmt: skip


def boxes_and_names(recipe: Recipe, batch: Batch, classes: Sequence[str]) -> tuple[Float[Tensor, "b k 4"], list[str]]:
    """The boxes of all objects that are to be found in each composite, NaN: none; and their names."""
    task = recipe.detection
    found = Detections.of(batch, min_visible=0.0 if task is None else task.min_visible)
    labels = batch.targets.labels if task is None else found.labels  # a classifier learns the name of any object
    names = [", ".join(classes[label] for label in row if label >= 0) for row in labels.tolist()]
    return torch.where(found.present[..., None], found.boxes, torch.nan), names


def _checked_model(options: argparse.Namespace, recipe: Recipe, objects: ObjectBank) -> nn.Module | None:
    """The model to attack, if anything attacks one."""
    attacks = recipe.attack is not None or recipe.scene_attack is not None or recipe.hard_pairing
    if options.model_from is not None and not attacks:
        fail("--model-from", "to be used with something that needs a model: an attack, --perturbation, --hard-pairing",
             "none of them")  # fmt: skip
    if options.model is not None and options.model_from is None:
        fail("--model", "to be used with --model-from, whose network it builds", "no --model-from")
    return _attacked_model(options, recipe, objects) if attacks else None


def _attacked_model(options: argparse.Namespace, recipe: Recipe, objects: ObjectBank) -> nn.Module:
    if options.model_from is None:
        torch.manual_seed(options.seed)
        with worded(size="--size"):
            return build_network(recipe, len(recipe.names(objects.classes))).to(objects.device)
    trained = read_model(options, objects.device)
    names = recipe.names(objects.classes)
    if (trained.classes, trained.names, trained.recipe.size) != (objects.classes, names, recipe.size):
        fail("--model-from", f"a model of {len(names)} classes, those of the objects, at size {recipe.size}",
             f"one of {len(trained.names)} classes at size {trained.recipe.size}",
             "Pass the --objects and --size that it was trained with.")  # fmt: skip
    return trained.network


def compose(
    recipe: Recipe, objects: ObjectBank, contexts: Contexts, pairs: PairSampler, model: nn.Module | None,
    batches: int, log: Log | None = None,
) -> Batch:  # fmt: skip
    """The last full batch among the first batches of a sampler, whose state stays as it is."""
    collate = collate_of(recipe, objects, contexts, model)
    chain = collate.chain
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
