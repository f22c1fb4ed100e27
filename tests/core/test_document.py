"""A document is plain data, or one line that says where it is not; whatever it holds, in little time."""

import os
import time

import pytest

from kornia_cag import InputError
from kornia_cag.core.document import MOST_BYTES, read_document, read_value, scalar


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(content):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "a.yaml").write_bytes(data)
        return "a.yaml"

    return write


def test_values_and_their_lines(written):
    text = "# a\na: 1\nb:\n  c: [1, -2.5]\n  d: {e: x, 'f': 'no'}\n\ng: null\nh: |\n  two\n  lines\n"
    value, lines = read_document(written(text), "a document")
    assert value == {"a": 1, "b": {"c": [1, -2.5], "d": {"e": "x", "f": "no"}}, "g": None, "h": "two\nlines\n"}
    assert [lines[place] for place in ("a", "b", "b.c", "b.d.f", "g", "h")] == [2, 3, 4, 5, 7, 8]
    assert read_document(written(""), "a document").value is None
    assert read_document(written("\ufeffa: 1\r\nb: 2\r\n"), "a document").value == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-30", -30), ("900_000", 900_000), ("1e-3", 1e-3), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0),
     ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("no", "no"), ("on", "on"),
     ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("8/255", "8/255"), ("50%", "50%"), ("2.1rad", "2.1rad"),
     ("nan", "nan"), (".inf", ".inf"), ("0x10", "0x10"), ("٣", "٣"), ("9" * 5000, "9" * 5000), ("e5", "e5"),
     ("-", "-"), ("1_", "1_"), ("1__0", "1__0"), ("1_.5", "1_.5"), ("_1", "_1"), ("1_0.5", 10.5)],
)  # fmt: skip
def test_a_word_is_a_number_only_if_it_looks_like_one(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\n  b: 2\n", "a.yaml, line 2: expected a recipe, got text that is not YAML (mapping values are not all"),
        ("a: [1, 2\nb: 3\n", "a.yaml, line 2: expected a recipe, got text that is not YAML"),
        ("a: 'x\n", "a.yaml, line 2: expected a recipe, got text that is not YAML"),
        ("a:\n\tb: 1\n", "a.yaml, line 2: expected a recipe, got text that is not YAML (found character '\\t'"),
        ("a: \x07\n", "a.yaml: expected a recipe, got text that is not YAML (special characters are not allowed, at"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml, line 3: expected a once, got a second one."),
        ("b:\n  c: 1\n  c: 1\n", "a.yaml, line 3: expected b.c once, got a second one."),
        ("a: &x 1\nb: *x\n", "a.yaml, line 1: expected values written out, got an anchor or alias."),
        ("a: *x\n", "a.yaml, line 1: expected values written out"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: expected values without tags, got the tag 'tag:yaml"),
        ("a: !!str 1\n", "line 1: expected values without tags"),
        ("&x a: 1\n", "line 1: expected the name of a field, got something else."),
        ("b: 1\n!!str a: 1\n", "line 2: expected the name of a field, got something else."),
        ("[a]: 1\n", "line 1: expected the name of a field, got something else."),
        ("{a: 1}: 1\n", "line 1: expected the name of a field"),
        ("b: 1\na:\n", "a.yaml, line 2: a: expected a value, got nothing. Write null for none; put in"),
        ("b:\n  c: #ff0000\nd: 1\n", "a.yaml, line 2: b.c: expected a value, got nothing."),
        ("a:\n  - 1\n  -\n", "a.yaml, line 3: a.1: expected a value, got nothing."),
        ("--- # a", "a.yaml, line 1: expected a value, got nothing."),
        ("a: 1\n---\nb: 1\n", "line 2: expected one document, got another one."),
        ("a: " + "[" * 50 + "]" * 50, "line 1: expected values nested up to 12 deep, got deeper ones."),
        (b"a: \xff\n", "a.yaml, line 1: expected a recipe in UTF-8, got the byte 0xff."),
        (b"\x00" * 100, "a.yaml: expected a recipe, got text that is not YAML"),
        (os.urandom(1000) + b"\xff", "a.yaml, line "),
        (b"a: 1\n" * MOST_BYTES, "a.yaml: expected a recipe of at most 65,536 bytes, got a longer file."),
    ],
)
def test_what_is_no_document_is_said_with_its_line(written, content, said):
    with pytest.raises(InputError) as caught:
        read_document(written(content), "a recipe")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    for name, said in (("b.yaml", "which is not there"), (".", "which is no file"), ("pipe.yaml", "which is no file"),
                       ("a\0b", "which is not there")):  # fmt: skip
        with pytest.raises(InputError, match=rf"path: expected a file with a recipe, got .*, {said}"):
            read_document(name, "a recipe")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "[" * MOST_BYTES, "{a: " * (MOST_BYTES // 4), "- " * (MOST_BYTES // 2), "? " * (MOST_BYTES // 2),
     "a:\n" + "".join(" " * i + "a:\n" for i in range(300)), "x" * MOST_BYTES, "'" * MOST_BYTES, '"\\' * 30_000,
     "a: [" + "1," * 30_000, "<<: " * 16_000, "# " * 30_000, "%" * MOST_BYTES, "&" * MOST_BYTES, "- [" * 20_000],
    ids=range(15),
)  # fmt: skip
def test_nothing_takes_long(written, text):
    start = time.process_time()
    try:
        read_document(written(text[:MOST_BYTES]), "a recipe")
    except InputError as error:
        assert len(str(error)) < 3000  # noqa: PT017
    assert time.process_time() - start < 60


def test_a_value_of_its_own():
    assert read_value("[-30, 30]", "x") == [-30, 30]
    assert read_value("-30,30", "x") == "-30,30"
    assert read_value("null", "x") is None
    assert read_value(" '#1 # 2' ", "x") == "#1 # 2"
    assert read_value("a#b", "x") == "a#b"
    assert read_value("{type: Ramp, start: 1}", "x") == {"type": "Ramp", "start": 1}
    for text in ("[1", "a: b: c", "&a 1", "!!str 1", "[" * 99, "x" * 10**6, "\0"):
        with pytest.raises(InputError, match=r"^x: expected "):
            read_value(text, "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "x: expected a value, got nothing. Write null for none;"), (" ", "x: expected a value, got nothing."),
     ("---", "x: expected a value, got nothing."), ("{a: }", "x: a: expected a value, got nothing."),
     ("#ff0000", "x: expected a value in YAML, got '#ff0000', which is a comment there. Leave it out, or put the val"),
     ("run #3", "x: expected a value in YAML, got '#3', which is a comment there."),
     ("[1, 2] # 3", "x: expected a value in YAML, got '# 3', which")],
)  # fmt: skip
def test_a_value_is_not_taken_for_null_or_cut_short(text, said):
    with pytest.raises(InputError) as caught:
        read_value(text, "x")
    assert str(caught.value).startswith(said)
