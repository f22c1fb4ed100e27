"""YAML documents as plain data: read with a bound on everything, by a reader that can build nothing else."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from kornia_cag.core.checks import describe, fail

MOST_BYTES, MOST_DEPTH = 2**16, 12
_PLAIN = {"": None, "~": None, "null": None, "true": True, "false": False}
_NONE = "Write null for none; put in quotes what begins with #."
_INT, _FLOAT = (
    re.compile(r"[-+]?\d+(_\d+)*", re.ASCII),
    re.compile(r"[-+]?(\d+(_\d+)*\.?\d*|\.\d+)(e[-+]?\d+)?", re.I | re.A),
)


class Document(NamedTuple):
    """What a document holds, and where."""

    value: Any  # of dict, list, str, int, float, bool and None
    lines: dict[str, int]  # line of each field, by its dotted path, from 1


def read_document(path: str | Path, expected: str) -> Document:
    """Read a file.

    Args:
        path: the file.
        expected: what it should be, for errors.

    Raises:
        InputError: naming file and line, for what is no YAML, is too long or too deep, has two values for a field, or
            uses anchors, aliases or tags, by which a short text stands for a long or a strange one; and for a field
            without a value, which may be one that YAML takes for a comment: null is written out.
    """
    name = str(path)
    if "\0" in name or not Path(path).exists():
        fail("path", f"a file with {expected}", f"{name!r}, which is not there")
    if not Path(path).is_file():
        fail("path", f"a file with {expected}", f"{name!r}, which is no file")
    with Path(path).open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        fail(name, f"{expected} of at most {MOST_BYTES:,} bytes", "a longer file")
    try:
        return _Reader(name, expected).read(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _refuse(name, line, f"{expected} in UTF-8", f"the byte 0x{content[error.start]:02x}")


def read_value(text: str, name: str) -> Any:
    """Read one value, such as ``[-30, 30]``; ``name`` is what errors call it.

    Raises:
        InputError: as :func:`read_document`, and for a comment, which in one value is more likely a part of it.
    """
    if len(text) > MOST_BYTES:
        fail(name, f"a value of at most {MOST_BYTES:,} characters", "a longer one")
    reader = _Reader(name, "a value in YAML", numbered=False)
    found = reader.read(text)
    if (rest := text[reader.end :].strip()).startswith("#"):
        fail(name, "a value in YAML", f"{describe(rest)}, which is a comment there",
             "Leave it out, or put the value in quotes.")  # fmt: skip
    if not found.lines:
        fail(name, "a value", "nothing", _NONE)
    return found.value


def scalar(text: str) -> Any:
    """What an unquoted word is: null, a truth value, a number, or itself.

    As in YAML 1.2: ``no`` and ``on`` are words, ``1:30`` is no number, ``1e-3`` is one. As in Python: so is ``1_000``.
    """
    word = text.strip()
    if word.lower() in _PLAIN:
        return _PLAIN[word.lower()]
    if len(word) > 40:
        return word
    if _INT.fullmatch(word):
        return int(word)
    return float(word) if _FLOAT.fullmatch(word) else word


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _refuse(name: str, line: int | None, expected: str, got: str) -> NoReturn:
    fail(name if line is None else f"{name}, line {line}", expected, got)


class _Reader:
    """Builds plain data from the events of a parser, which are made one by one, so nothing is read past an error."""

    def __init__(self, name: str, expected: str, *, numbered: bool = True) -> None:
        self.name, self.expected, self.numbered = name, expected, numbered
        self.events: Iterator[yaml.Event] = iter(())
        self.lines: dict[str, int] = {}
        self.end = 0  # characters up to the end of the value

    def read(self, text: str) -> Document:
        try:
            self.events = self._followed(yaml.parse(text, Loader=yaml.SafeLoader))
            next(self.events)  # the stream
            start = next(self.events)
            value = None
            if isinstance(start, yaml.DocumentStartEvent):
                value = self._value(next(self.events), ())
                next(self.events)  # the document's end
                if not isinstance(more := next(self.events), yaml.StreamEndEvent):
                    self._refuse(more, "one document", "another one")
            return Document(value, self.lines)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = error.problem or error.context or "which is none"
        except yaml.reader.ReaderError as error:
            mark, reason = None, f"{error.reason}, at character {error.position + 1}"
        line = None if mark is None or not self.numbered else mark.line + 1
        return _refuse(self.name, line, self.expected, f"text that is not YAML ({reason})")

    def _followed(self, events: Iterable[yaml.Event]) -> Iterator[yaml.Event]:
        for event in events:
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent) and event.end_mark is not None:
                self.end = event.end_mark.index
            yield event

    def _value(self, event: yaml.Event, path: tuple[str, ...]) -> Any:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._refuse(event, "values written out", "an anchor or alias")
        if getattr(event, "tag", None) not in (None, "!"):
            self._refuse(event, "values without tags", f"the tag {event.tag!r}")  # type: ignore[attr-defined]
        if len(path) > MOST_DEPTH:
            self._refuse(event, f"values nested up to {MOST_DEPTH} deep", "deeper ones")
        self.lines.setdefault(".".join(path), _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
                items.append(self._value(event, (*path, str(len(items)))))
            return items
        text: str = event.value  # type: ignore[attr-defined]
        if event.style is not None:  # type: ignore[attr-defined]
            return text
        if not text:
            place = f"{self.name}, line {_line(event)}" if self.numbered else self.name
            fail(": ".join(filter(None, (place, ".".join(path)))), "a value", "nothing", _NONE)
        return scalar(text)

    def _mapping(self, path: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                self._refuse(event, "the name of a field", "something else")
            if event.value in found:
                self._refuse(event, f"{'.'.join((*path, event.value))} once", "a second one")
            self.lines[".".join((*path, event.value))] = _line(event)
            found[event.value] = self._value(next(self.events), (*path, event.value))
        return found

    def _refuse(self, event: yaml.Event, expected: str, got: str) -> NoReturn:
        _refuse(self.name, _line(event) if self.numbered else None, expected, got)
