"""``write_dataset``: composites written as a data set, part by part, so that it can be stopped and resumed."""

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kornia_cag.core.checks import check_instance, check_int, check_number, describe, fail
from kornia_cag.core.lock import held
from kornia_cag.core.plain import differences, plain
from kornia_cag.core.progress import progress
from kornia_cag.core.storage import read_json, remove_partial, write_bytes, write_json, write_pieces
from kornia_cag.export.pictures import Format, Picture, pictures_of
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.collate import CAGCollate
from kornia_cag.sampling.pairs import PairSampler

PLAN, PARTS = "export.json", ".parts"
_THREADS = 4  # that encode pictures


def write_dataset(
    collate: CAGCollate[Batch], pairs: PairSampler, folder: str | Path, format: Format, *, images: int,
    min_visible: float = 0.0,
) -> Path:  # fmt: skip
    """Write composites and their targets into a folder, for programs that read files.

    It takes the batches of ``pairs`` from the start of its epoch on, without moving it, and shows progress. Called
    again after it was stopped, it goes on where it was: the bytes are the same. A whole data set stays as it is.
    ``export.json`` says what it was made from, so that nothing else is continued by mistake.

    Args:
        collate: made with ``returns="batch"``, without a chain: each picture then depends on its row alone.
        pairs: of one rank.
        folder: made if need be; empty, or begun by such a call.
        format: :class:`Coco`, :class:`Yolo`, :class:`ClassFolders` or :class:`Shards`.
        images: number of pictures.
        min_visible: least uncovered share of an object on the canvas that is written, in [0, 1].

    Returns:
        The folder.

    Raises:
        InputError: for arguments that do not fit, and a folder that holds anything else.
    """
    _check(collate, pairs, format)
    count, least = check_int("images", images), check_number("min_visible", min_visible, 0, 1)
    classes, place = collate.objects.classes, Path(folder)
    format.check(classes)
    _check_folder(place)
    place.mkdir(parents=True, exist_ok=True)
    with held(place):
        plan = _plan(collate, pairs, format, count, least)
        known = _begun(place, plan)
        if not known["finished"]:
            for inner in (
                path for path in place.iterdir() if path.is_dir()
            ):  # what was killed left its files here, too
                remove_partial(inner)
            (place / PARTS).mkdir(exist_ok=True)
            _write_parts(collate, pairs, place, format, count, least)
            _finish(place, format, pairs, count, classes)
            write_json(place / PLAN, {**plan, "finished": True})
        shutil.rmtree(place / PARTS, ignore_errors=True)
    return place


def _check(collate: Any, pairs: Any, format: Any) -> None:
    check_instance("collate", collate, CAGCollate)
    check_instance("pairs", pairs, PairSampler)
    if isinstance(format, type) or not isinstance(format, Format):
        fail("format", "Coco(), Yolo(), ClassFolders() or Shards()", describe(format))
    if collate.returns != "batch":
        fail("collate", "one that returns whole batches", f"returns={collate.returns!r}",
             'Pass CAGCollate(..., returns="batch").')  # fmt: skip
    if collate.chain is not None:
        fail("collate", "one without a chain", repr(collate.chain),
             "With it a picture depends on those before it, and nothing could be resumed.")  # fmt: skip
    if pairs.world_size != 1:
        fail("pairs", "the sampler of one rank", f"world_size={pairs.world_size}", "Pass rank=0, world_size=1.")


def _check_folder(place: Path) -> None:
    if place.exists() and not place.is_dir():
        fail("folder", "a folder", f"{str(place)!r}, which is a file")
    names = os.listdir(place) if place.exists() else []
    if PLAN not in names and any(not name.startswith(".") for name in names):
        fail("folder", "an empty folder, or one that this function began", f"{str(place)!r}, which holds other files",
             "Choose another folder.")  # fmt: skip


def _plan(collate: CAGCollate[Batch], pairs: PairSampler, format: Format, images: int, least: float) -> dict[str, Any]:
    """All that the bytes depend on, as far as it can be told, as plain data."""
    photos = [stage.references.photos for stage in collate.ranges.finish if hasattr(stage, "references")]
    settings = {
        "format": format, "images": images, "min_visible": least, "classes": list(collate.objects.classes),
        "size": collate.size, "ranges": collate.ranges, "strength": collate.strength, "dtype": collate.dtype,
        "adversaries": collate.adversaries, "epoch": pairs.epoch, "pairs": pairs.state_dict()["configuration"],
        "objects": collate.objects.pyramid.checksum(), "contexts": collate.composer.contexts.pyramid.checksum(),
        "references": [bank.pyramid.checksum() for bank in photos],
    }  # fmt: skip
    found: dict[str, Any] = plain(settings)
    return found


def _begun(place: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan in the folder, which must be this one; written if there is none."""
    if not (place / PLAN).exists():
        write_json(place / PLAN, {**plan, "finished": False})
    known = read_json(place / PLAN, "folder", "an export of this function", "Choose another folder.")
    other = differences(plan, {name: value for name, value in known.items() if name != "finished"})
    if other:
        fail("folder", "an export with the same arguments", f"{str(place)!r}, which differs in {'; '.join(other[:3])}",
             "Choose another folder, or pass the arguments that it was begun with.")  # fmt: skip
    return known


def _write_parts(
    collate: CAGCollate[Batch], pairs: PairSampler, place: Path, format: Format, images: int, least: float
) -> None:
    """The parts from the first that is not there. Its entries are written last: they say that its files are whole."""
    total, classes = _parts(pairs, format, images), collate.objects.classes
    first = next((part for part in range(total) if not _entries_at(place, part).exists()), total)
    batches = _batches(collate, pairs, first * format.batches)

    def write(file: tuple[str, bytes]) -> None:
        (place / file[0]).parent.mkdir(exist_ok=True)
        write_bytes(place / file[0], file[1])

    with progress("writing", first / total) as log, ThreadPoolExecutor(_THREADS) as threads:
        for part in range(first, total):
            pictures: list[Picture] = []
            for number in range(part * format.batches, (part + 1) * format.batches):
                start = _before(pairs, number)
                if start < images:
                    batch = next(batches)
                    pictures += pictures_of(batch, start, min(len(batch.images), images - start), least)
            made = list(threads.map(lambda picture: format.files(picture, classes), pictures))
            files = format.gathered(part, [file for some, _ in made for file in some])
            for _ in threads.map(write, files):  # asks each for its error
                pass
            write_json(_entries_at(place, part), {"entries": [entry for _, entry in made]})
            log((part + 1) / total, f"{pictures[-1].number + 1:,} pictures")


def _batches(collate: CAGCollate[Batch], pairs: PairSampler, first: int) -> Iterator[Batch]:
    """All batches from one on, epoch after epoch."""
    own, (epoch, batch) = copy.deepcopy(pairs), divmod(first, len(pairs))
    own.load_state_dict({**pairs.state_dict(), "epoch": pairs.epoch + epoch, "batch": batch})
    while True:
        for rows in own:
            yield collate(rows)


def _before(pairs: PairSampler, batches: int) -> int:
    """How many pictures come in the first batches."""
    epochs, rest = divmod(batches, len(pairs))
    whole = pairs.samples // pairs.batch_size * pairs.batch_size if pairs.drop_last else pairs.samples
    return epochs * whole + rest * pairs.batch_size


def _parts(pairs: PairSampler, format: Format, images: int) -> int:
    """How many parts so many pictures take."""
    whole = _before(pairs, len(pairs))
    batches = images // whole * len(pairs) + -(-(images % whole) // pairs.batch_size)
    return -(-batches // format.batches)


def _entries_at(place: Path, part: int) -> Path:
    return place / PARTS / f"{part:06d}.json"


def _finish(place: Path, format: Format, pairs: PairSampler, images: int, classes: Sequence[str]) -> None:
    """Write what is about all pictures."""

    def entries() -> Iterator[Any]:
        for part in range(_parts(pairs, format, images)):
            known = read_json(_entries_at(place, part), "folder", "whole parts", "Remove it: the rest is made again.")
            yield from known["entries"]

    for name, pieces in format.finish(entries, classes):
        write_pieces(place / name, pieces)
