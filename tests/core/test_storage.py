import errno
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from kornia_cag import InputError
from kornia_cag.core import storage
from kornia_cag.core.storage import (
    read_json,
    read_torch,
    remove_partial,
    write_bytes,
    write_json,
    write_pieces,
    write_text,
    write_torch,
)

ABOUT = ("file", "one of a run", "Write it again.")
VALUE = {"a": torch.arange(6.0).view(2, 3), "b": (1, "x", None, 0.5), "c": {"d": [True]}}


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# --- writing


def test_a_file_in_pieces_is_whole_or_not_there(tmp_path):
    def pieces(last):
        yield b"one"
        if last is None:
            raise KeyError
        yield last

    write_pieces(tmp_path / "a", pieces(b" two"))
    for name in "ab":
        with pytest.raises(KeyError):
            write_pieces(tmp_path / name, pieces(None))
    assert (tmp_path / "a").read_bytes() == b"one two"
    assert files(tmp_path) == ["a"]


def test_a_file_is_whole_and_nothing_lies_beside_it(tmp_path):
    write_bytes(tmp_path / "a", b"one")
    write_bytes(tmp_path / "a", memoryview(b"other"))
    write_text(str(tmp_path / "b"), "ä\n")
    assert (tmp_path / "a").read_bytes() == b"other"
    assert (tmp_path / "b").read_bytes() == b"\xc3\xa4\n"
    assert files(tmp_path) == ["a", "b"]


def test_a_new_file_has_the_rights_that_any_has(tmp_path):
    write_bytes(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_a_name_may_be_as_long_as_the_system_has_it(tmp_path):
    write_bytes(tmp_path / ("a" * 255), b"x")
    assert files(tmp_path) == ["a" * 255]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # such as a device, which the superuser may replace
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "a pipe, a device"), ("link", "a pipe, a device"), ("folder", "a folder")):
        with pytest.raises(InputError, match=f"path: expected the name of a file, got '.*{name}', which is {kind}"):
            write_bytes(tmp_path / name, b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert files(tmp_path) == ["folder", "link", "pipe"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_bytes(b"one")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a")
    write_bytes(tmp_path / "link", b"other")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"other"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch, step, error):
    def refuse(*_):
        raise error

    write_bytes(tmp_path / "a", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, step, refuse)
        with pytest.raises(type(error)) as caught:
            write_bytes(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert files(tmp_path) == ["a"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"[Errno 28] No space left on device: {str(tmp_path / 'a')!r}"


def test_the_file_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        true = getattr(os, name)
        monkeypatch.setattr(storage.os, name, lambda *a, name=name, true=true: (done.append(name), true(*a))[1])
    write_bytes(tmp_path / "a", b"x")
    assert done[:2] == ["fsync", "replace"]


@pytest.mark.parametrize("name", ["", "a\0b", "missing/a"])
def test_what_no_file_can_be_called(tmp_path, name):
    with pytest.raises((InputError, OSError)) as caught:
        write_bytes(tmp_path / name, b"x")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    names = [f".{'0a' * 8}.partial", "b.partial", ".c.partial", "d"]
    for name in names:
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert files(tmp_path) == sorted(names[1:])


# --- checksums


def test_convention_a_file_of_torch_ends_in_the_digest_of_all_before(tmp_path):
    write_torch(tmp_path / "a.pt", VALUE)
    data = (tmp_path / "a.pt").read_bytes()
    assert data[-71:] == b"sha256:" + hashlib.sha256(data[:-71]).hexdigest().encode()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.comment == data[-71:]
        assert archive.testzip() is None
    for mmap in (False, True):
        plain = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
        assert torch.equal(plain.pop("a"), VALUE["a"])
        assert plain == {"b": VALUE["b"], "c": VALUE["c"]}
    assert torch.equal(read_torch(tmp_path / "a.pt", *ABOUT)["a"], VALUE["a"])


def test_convention_json_ends_in_the_digest_of_itself_with_zeros_there(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1, "b": [None, "ä"]})
    text = (tmp_path / "a.json").read_bytes()
    digest = json.loads(text)["sha256"]
    assert text.endswith(f'  "sha256": "{digest}"\n}}\n'.encode())
    assert hashlib.sha256(text.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
    assert read_json(tmp_path / "a.json", *ABOUT) == {"a": 1, "b": [None, "ä"]}


def test_a_file_may_be_moved_and_copied(tmp_path):
    write_torch(tmp_path / "a.pt", VALUE)
    (tmp_path / "b").mkdir()
    (tmp_path / "a.pt").rename(tmp_path / "b" / "c.pt")
    assert read_torch(tmp_path / "b" / "c.pt", *ABOUT)["b"] == VALUE["b"]


UNSIGNED = "which bears no checksum: it is damaged, or another program or an earlier version wrote it"


@pytest.mark.parametrize("read", [read_json, read_torch])
@pytest.mark.parametrize("data", [b"", b"x", b"{}", b"PK\3\4", b"sha256:" + b"0" * 64, b'"\n}\n', b"\0" * 5000])
def test_a_file_without_a_checksum_is_refused(tmp_path, read, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a", *ABOUT)
    assert str(caught.value) == f"file: expected one of a run, got {str(tmp_path / 'a')!r}, {UNSIGNED}. Write it again."


def test_what_torch_alone_wrote_is_refused(tmp_path):
    torch.save(VALUE, tmp_path / "a.pt")
    with pytest.raises(InputError, match=UNSIGNED):
        read_torch(tmp_path / "a.pt", *ABOUT)


def signed(data):
    """Bytes of a ZIP archive with a right checksum: what somebody may send."""
    data = data[:-2] + (71).to_bytes(2, "little")
    return data + b"sha256:" + hashlib.sha256(data).hexdigest().encode()


class Code:
    def __reduce__(self):
        return print, ("called",)


def packed():
    """An archive of torch, compressed: little on the disk, much in memory."""
    file, small = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(100_000)}, file)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    return small.getvalue()


def code():
    file = io.BytesIO()
    torch.save({"a": Code(), "b": OrderedDict}, file)
    return file.getvalue()


@pytest.mark.parametrize("make", [code, packed, lambda: b"PK\5\6" + b"\0" * 18, lambda: b"\0" * 100])
def test_a_right_checksum_opens_no_other_file(tmp_path, capsys, make):
    (tmp_path / "a.pt").write_bytes(signed(make()))
    with pytest.raises(InputError) as caught:
        read_torch(tmp_path / "a.pt", *ABOUT)
    assert "which holds other things than tensors and plain values" in str(caught.value)
    assert not re.search(r"weights_only|unsafe|allowlist|\n", str(caught.value))  # torch's advice
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a": ' * 5000, "[", '{"a": 1e', '{"a": ' + "9" * 5000 + ","])
def test_json_that_no_reader_takes(tmp_path, body):
    text = f'{body}\n  "sha256": "{"0" * 64}"\n}}\n'
    digest = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "a.json").write_text(text.replace("0" * 64, digest))
    with pytest.raises(InputError, match="which is no JSON object"):
        read_json(tmp_path / "a.json", *ABOUT)


@pytest.mark.parametrize("read", [read_json, read_torch])
@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file"), ("", "Is a directory"), ("a\0", "no file can")]
)
def test_a_file_that_cannot_be_read(tmp_path, read, name, reason):
    with pytest.raises(InputError, match=rf"which cannot be read \({reason}"):
        read(f"{tmp_path}/{name}", *ABOUT)
