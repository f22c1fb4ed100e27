"""Where the boxes of a folder of pictures are told, if nobody says so."""

from pathlib import Path

from kornia_cag.banks.folders import SUFFIXES
from kornia_cag.banks.pictures import check_path, kind_of
from kornia_cag.core.checks import InputError, fail

TABLES = (".csv", ".json")
WAYS = "boxes for its pictures: a .csv or .json in it or beside it, or text files as of YOLO"


def find_boxes(folder: str | Path) -> Path:
    """The file, or the folder of text files, with the boxes of a folder's pictures, as ``load_boxes`` takes it.

    It may be the only ``.csv`` or ``.json`` file in the folder; one beside the folder, of its name (``street.csv`` for
    ``street/``); text files among the pictures, named as these are; or in ``labels/val`` for pictures in
    ``images/val``, as YOLO has it.

    Args:
        folder: of the pictures.

    Raises:
        InputError: for none of these, and for several.
    """
    folder = check_path("real", folder)
    if kind_of(folder) != "folder":
        fail("real", "a folder of pictures", f"{str(folder)!r}, which is none", "Check the path.")
    try:
        inside = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
        beside = [path for path in (folder.parent / f"{folder.name}{ending}" for ending in TABLES) if path.is_file()]
        found = inside or beside
        texts = not found and _among(folder)
    except OSError as error:
        raise InputError(f"real: expected a folder that can be read, got {folder} ({error.strerror}).") from error
    if len(found) > 1:
        fail("real", f"one file with boxes for {str(folder)!r}", " and ".join(path.name for path in found),
             "Pass one of them as boxes.")  # fmt: skip
    source = found[0] if found else folder if texts else _labels(folder)
    if source is not None:
        return source
    return fail("real", WAYS, f"{str(folder)!r} without any", "Pass them as boxes.")


def _among(folder: Path) -> bool:
    """Whether some text file has the name of a picture beside it: others, such as a README, tell no boxes."""
    paths = list(folder.rglob("*"))
    pictures = {path.with_suffix("") for path in paths if path.suffix.lower() in SUFFIXES}
    return any(path.with_suffix("") in pictures for path in paths if path.suffix == ".txt")


def _labels(folder: Path) -> Path | None:
    """The folder of YOLO's text files that belongs to a folder of pictures."""
    parts = folder.absolute().parts
    if "images" not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index("images")
    labels = Path(*parts[:place], "labels", *parts[place + 1 :])
    return labels if labels.is_dir() else None
