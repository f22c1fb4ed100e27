"""The one way to write files and to read them back: whole or not at all, with a checksum that reading verifies.

A file is written beside its place, flushed to the disk and renamed, so that a full disk, a kill or a power cut leaves
what was there before. The checksum lies in the file itself, which may be moved: SHA-256 of all other bytes, in files of
torch as the comment of the ZIP archive, which ``torch.load`` passes over, in JSON as the last entry.
"""

import hashlib
import io
import json
import os
import secrets
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from kornia_cag.core.checks import fail
from kornia_cag.core.plain import plain, to_json

PARTIAL = ".partial"  # ends the name of a file that is being written
_COMMENT = b"sha256:"  # of a ZIP archive, before the digest
_ENTRY, _END = b'"sha256": "', b'"\n}\n'  # of a JSON document, around the digest
_DIGITS = 64
_UNSIGNED = "which bears no checksum: it is damaged, or another program or an earlier version wrote it"
_DAMAGED = "which is damaged: its checksum is another"


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Put ``data`` in the place of a file, whole or not at all.

    Raises:
        OSError: which names the file, for a full disk, a folder that cannot be written to and the like. Then the file
            is as it was, and nothing lies beside it.
        InputError: for a name that no file can have, and for what is there and no file: a folder, a device, a pipe.
    """
    if "\0" in str(path):
        fail("path", "the name of a file", f"{str(path)!r}, which holds NUL")
    if os.path.exists(path) and not os.path.isfile(path):  # a rename would put a file in the place of a device
        kind = "a folder" if os.path.isdir(path) else "a pipe, a device or the like"
        fail("path", "the name of a file", f"{str(path)!r}, which is {kind}")
    place = Path(os.path.realpath(path))  # a link stays one
    partial = place.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, place)
    except OSError as error:
        error.filename = str(path)
        if error.filename2 is not None:  # of a rename
            del error.filename2
        raise
    finally:
        with suppress(OSError):  # there is none after all has gone well
            partial.unlink()
    _flush_folder(place.parent)


def _flush_folder(folder: Path) -> None:
    """Let the new name survive a power cut, where the system allows it."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in a folder; nobody else may be writing there."""
    for file in folder.glob(f".{'[0-9a-f]' * 16}{PARTIAL}"):
        file.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text in UTF-8, as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: dict[str, Any]) -> None:
    """Write one JSON object, reduced by :func:`kornia_cag.core.plain.plain`, with its checksum as the last entry.

    The checksum is over the bytes of the file with sixty-four zeros in its own place.
    """
    text = to_json({**plain(value), "sha256": "0" * _DIGITS}).encode() + b"\n"
    write_bytes(path, text[: -_DIGITS - len(_END)] + _digest(text) + _END)


def write_torch(path: str | Path, value: Any) -> None:
    """Write what ``torch.load(path, weights_only=True)`` reads: tensors and plain values in plain containers.

    The checksum is over all bytes before it.
    """
    file = io.BytesIO()  # in memory first: torch has an error of its own for a full disk
    torch.save(value, file)
    file.seek(-2, os.SEEK_END)  # an archive ends in the length of its comment
    file.write(struct.pack("<H", len(_COMMENT) + _DIGITS))
    with file.getbuffer() as written:
        digest = _digest(written)
    file.write(_COMMENT + digest)
    with file.getbuffer() as written:
        write_bytes(path, written)


def read_json(path: str | Path, argument: str, expected: str, fix: str = "") -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without its checksum.

    Args:
        path: the file.
        argument: what an error is about.
        expected: what the file should be, in a few words.
        fix: the way out.

    Raises:
        InputError: for a file that cannot be read, that is damaged, or that something else wrote.
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
    except (ValueError, RecursionError):  # nested more deeply than anything that is written here
        value = None
    if not isinstance(value, dict):
        refuse("which is no JSON object")
    del value["sha256"]
    return value


def read_torch(path: str | Path, argument: str, expected: str, fix: str = "") -> Any:
    """Read what :func:`write_torch` wrote, on the CPU: plain values and tensors, of whatever types and sizes.

    Args:
        path: the file.
        argument: what an error is about.
        expected: what the file should be, in a few words.
        fix: the way out.

    Raises:
        InputError: for a file that cannot be read, that is damaged, or that something else wrote; never with torch's
            advice to load it unsafely.
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
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)  # torch packs nothing
        if stored and sum(part.file_size for part in parts) <= len(data):
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # whatever a file that was made on purpose raises in readers of archives and pickles
        pass
    return refuse("which holds other things than tensors and plain values")


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
