"""The one way to write and read files: whole or not at all, with a checksum that reading verifies.

A file is written under a temporary name, flushed to disk and renamed, so that a full disk, a kill or a power cut leaves
the previous version intact. Where asked for, that stays beside it, under the name of :func:`earlier`. The checksum is
inside the file, which may be moved: SHA-256 of all other bytes, in torch files as the comment of the ZIP archive, which
``torch.load`` ignores, in JSON as the last entry.
"""

import hashlib
import io
import json
import os
import secrets
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from kornia_cag.core.checks import InputError, fail
from kornia_cag.core.plain import plain, to_json

PARTIAL = ".partial"  # suffix of a file being written
_COMMENT = b"sha256:"  # ZIP comment, before the digest
_ENTRY, _END = b'"sha256": "', b'"\n}\n'  # JSON around the digest
_DIGITS = 64
_UNSIGNED = "which bears no checksum: it is damaged, or another program or an earlier version wrote it"
_DAMAGED = "which is damaged: its checksum is another"


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write or replace a file, whole or not at all: see :func:`write_pieces`."""
    write_pieces(path, [data])


def earlier(path: str | Path) -> Path:
    """Where the version before is kept: ``checkpoint.previous.pt`` beside ``checkpoint.pt``, or what that links to."""
    place = Path(os.path.realpath(path) if os.path.islink(path) else path)
    return place.with_suffix(f".previous{place.suffix}")


def write_pieces(path: str | Path, pieces: Iterable[bytes | memoryview], *, keep: bool = False) -> None:
    """Write or replace a file piece by piece, whole or not at all.

    Args:
        path: the file.
        pieces: its content.
        keep: keep the version before, see :func:`earlier`. At any moment one of the two is there, and whole.

    Raises:
        OSError: naming the file, for a full disk, a folder that is not writable and the like. The old file is unchanged
            then, and nothing is left next to it.
        InputError: for an invalid file name, or an existing path that is not a file: a folder, a device, a pipe.
    """
    _check_name(path)
    place = Path(os.path.realpath(path))  # a link stays a link
    partial = place.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if keep and place.exists():
            os.replace(place, earlier(place))
        os.replace(partial, place)
    except OSError as error:
        error.filename = str(path)
        if error.filename2 is not None:  # of a rename
            del error.filename2
        raise
    finally:
        with suppress(OSError):  # there is none after success
            partial.unlink()
    _flush_folder(place.parent)


def _check_name(path: str | Path) -> None:
    if "\0" in str(path):
        fail("path", "the name of a file", f"{str(path)!r}, which contains NUL")
    if os.path.exists(path) and not os.path.isfile(path):  # a rename would replace a device with a file
        kind = "a folder" if os.path.isdir(path) else "a pipe, a device or the like"
        fail("path", "the name of a file", f"{str(path)!r}, which is {kind}")


def check_place(path: str | Path) -> None:
    """Require a place where :func:`write_bytes` can write, before the work starts.

    Raises:
        InputError: for a name that no file can have, and a folder that is missing or not writable.
    """
    _check_name(path)
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        fail("path", "a file in a folder that exists", repr(str(path)))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        fail("path", "a file in a folder that can be written to", f"{str(path)!r} ({reason})")


def make_again(folder: Path) -> None:
    """Make a folder that was there when the work began, with a warning that its files are lost."""
    if not folder.exists():
        folder.mkdir(parents=True)
        warnings.warn(f"{folder}: it was removed while it was in use; it is made again, without its files",
                      stacklevel=3)  # fmt: skip


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut, if the system allows it."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_partial(folder: Path) -> None:
    """Remove partial files of killed processes from a folder; nobody else may be writing there."""
    for file in folder.glob(f".{'[0-9a-f]' * 16}{PARTIAL}"):
        file.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text in UTF-8, like :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: dict[str, Any]) -> None:
    """Write one JSON object, reduced by :func:`kornia_cag.core.plain.plain`, with its checksum as the last entry.

    The checksum covers the bytes of the file, with sixty-four zeros in place of itself.
    """
    text = to_json({**plain(value), "sha256": "0" * _DIGITS}).encode() + b"\n"
    write_bytes(path, text[: -_DIGITS - len(_END)] + _digest(text) + _END)


def write_torch(path: str | Path, value: Any, *, keep: bool = False) -> None:
    """Write tensors and plain values in plain containers, for ``torch.load(path, weights_only=True)``.

    The checksum covers all bytes before it.

    Args:
        path: the file.
        value: what it holds.
        keep: keep the version before, see :func:`earlier`.
    """
    file = io.BytesIO()  # in memory first: torch raises its own error for a full disk
    torch.save(value, file)
    file.seek(-2, os.SEEK_END)  # an archive ends in the length of its comment
    file.write(struct.pack("<H", len(_COMMENT) + _DIGITS))
    with file.getbuffer() as written:
        digest = _digest(written)
    file.write(_COMMENT + digest)
    with file.getbuffer() as written:
        write_pieces(path, [written], keep=keep)


def read_json(path: str | Path, argument: str, expected: str, fix: str = "") -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without its checksum.

    Args:
        path: the file.
        argument: argument to name in errors.
        expected: what the file should be, briefly.
        fix: advice for errors.

    Raises:
        InputError: for a file that is unreadable, damaged, or written by something else.
    """
    refuse = _refusal(path, argument, expected, fix)
    data = _bytes(path, refuse)
    body, digest, end = data[: -_DIGITS - len(_END)], data[-_DIGITS - len(_END) : -len(_END)], data[-len(_END) :]
    if end != _END or not body.endswith(_ENTRY):
        refuse(_UNSIGNED)
    if _digest(body + b"0" * _DIGITS + _END) != digest:
        refuse(_DAMAGED)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # nested deeper than anything written here
        value = None
    if not isinstance(value, dict):
        refuse("which is no JSON object")
    del value["sha256"]
    return value


def read_torch(path: str | Path, argument: str, expected: str, fix: str = "") -> Any:
    """Read what :func:`write_torch` wrote, on the CPU: plain values and tensors, of any types and sizes.

    Args:
        path: the file.
        argument: argument to name in errors.
        expected: what the file should be, briefly.
        fix: advice for errors.

    Raises:
        InputError: for a file that is unreadable, damaged, or written by something else; never with torch's advice to
            load it unsafely.
    """
    refuse = _refusal(path, argument, expected, fix)
    data = _bytes(path, refuse)
    ending = len(_COMMENT) + _DIGITS
    body, comment = memoryview(data)[:-ending], data[-ending:]
    if not comment.startswith(_COMMENT) or bytes(body[-2:]) != struct.pack("<H", ending):
        refuse(_UNSIGNED)
    if _digest(body) != comment[len(_COMMENT) :]:
        refuse(_DAMAGED)
    file = io.BytesIO(data)
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)  # torch does not compress
        if stored and sum(part.file_size for part in parts) <= len(data):
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # a malicious file can make the readers of archives and pickles raise anything
        pass
    return refuse("which holds other things than tensors and plain values")


def read_last(path: str | Path, argument: str, expected: str, fix: str = "") -> tuple[Any, Path]:
    """Read a file of :func:`write_torch`, or if it is missing or damaged the version before, with a warning.

    Args:
        path: the file.
        argument: argument to name in errors.
        expected: what the file should be, briefly.
        fix: advice for errors.

    Returns:
        What was read, and from which file.

    Raises:
        InputError: about ``path``, if neither can be read.
    """
    try:
        return read_torch(path, argument, expected, fix), Path(path)
    except InputError as error:
        before = earlier(path)
        with suppress(InputError):
            value = read_torch(before, argument, expected, fix)
            warnings.warn(f"{error} Going on from {str(before)!r}, the save before.", stacklevel=2)
            return value, before
        raise


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _refusal(path: str | Path, argument: str, expected: str, fix: str) -> Callable[[str], NoReturn]:
    return lambda why: fail(argument, expected, f"{str(path)!r}, {why}", fix)


def _bytes(path: str | Path, refuse: Callable[[str], NoReturn]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:  # NUL
        reason = "no file can have this name"
    return refuse(f"which cannot be read ({reason})")
