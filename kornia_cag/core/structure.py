"""Frozen dataclasses to plain data and back: by their annotations alone, so data can name nothing but what they allow.

A field is written as its type asks: a number, a pair, a word of several. Where several classes are possible, the key
``type`` names the one; the class's name alone stands for one with its defaults.
"""

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NoReturn, TypeGuard, Union, get_args, get_origin, get_type_hints

from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from kornia_cag.core.checks import InputError, describe, fail, one_line
from kornia_cag.core.document import scalar
from kornia_cag.core.notes import notes
from kornia_cag.core.numerals import fraction

TYPE = "type"  # the key that names a class
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}


class Structure:
    """Converts classes whose fields are numbers, words, tuples, other such classes, and unions of these.

    Args:
        classes: for a protocol or the like, the classes that can stand for it.
        names: for a type of functions or other values, the values by name.
    """

    def __init__(self, classes: Mapping[Any, tuple[type, ...]], names: Mapping[Any, Mapping[str, Any]]) -> None:
        self._classes, self._names = classes, names
        self._converter = Converter(forbid_extra_keys=True)
        for kind in (int, float, bool, str):
            self._converter.register_structure_hook(kind, self._read)
        self._converter.register_structure_hook_factory(self._is_leaf, lambda _: self._read)
        self._converter.register_structure_hook_factory(_is_class, self._reader)
        self._converter.register_unstructure_hook_factory(self._is_leaf, self._writer)

    def read(self, data: Any, kind: type, label: Callable[[str], str]) -> Any:
        """The instance of a class that plain data describes.

        Args:
            data: a dictionary by field, of dictionaries, lists and JSON's values.
            kind: the class.
            label: what errors call a field, given its path, such as ``"pose.angle"``.

        Raises:
            InputError: naming the first field that is unknown, missing, of another type, or out of its range.
        """
        try:
            return self._converter.structure(data, kind)
        except (ClassValidationError, InputError) as error:
            path, message = self._first(error, (), kind, kind)
        raise InputError(one_line(label(path) + message), label(path))

    def write(self, value: Any) -> dict[str, Any]:
        """The plain data of an instance.

        Raises:
            InputError: for a part that data cannot describe, such as a class or function of the user's own.
        """
        written: dict[str, Any] = self._converter.unstructure(value)
        return written

    def choices(self, kind: type) -> dict[str, tuple[str, ...]]:
        """The fields of a class that name one of several classes or values, and what they may name."""
        found = {}
        for name, hint in get_type_hints(kind).items():
            parts = _parts(hint)
            classes = self._possible(parts)
            known = next((tuple(self._names[part]) for part in parts if part in self._names), ())
            if known or len(classes) > 1:
                found[name] = known or tuple(classes)
        return found

    def classes(self, kind: type) -> Iterator[str]:
        """The names of all classes that the fields of a class, and the fields of those, may name."""
        for hint in get_type_hints(kind).values():
            for name, inner in self._possible(_parts(hint)).items():
                yield from (name, *self.classes(inner))

    # --- from data

    def _is_leaf(self, kind: Any) -> bool:
        """Whether a type is any but a dataclass."""
        many = get_origin(kind) in (Union, types.UnionType, Literal, tuple)
        return many or any(kind == known for known in (*self._classes, *self._names))

    def _reader(self, kind: type) -> Callable[[Any, Any], Any]:
        build: Callable[[Any, Any], Any] = make_dict_structure_fn(kind, self._converter)

        def read(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                self._refuse(value, kind)
            return build({str(name): item for name, item in value.items()}, kind)

        return read

    def _read(self, value: Any, kind: Any) -> Any:
        """A value of any type but a dataclass."""
        parts = _parts(kind)
        classes = self._possible(parts)
        if isinstance(value, dict) and classes:
            return self._object(value, classes)
        if isinstance(value, str) and value in classes:
            return self._object({TYPE: value}, classes)
        for part in parts:
            fits, found = self._leaf(value, part)
            if fits:
                return found
        return self._refuse(value, kind)

    def _possible(self, parts: tuple[Any, ...]) -> dict[str, type]:
        """The classes that these types allow, by name."""
        own = (self._classes.get(part, (part,) if _is_class(part) else ()) for part in parts)
        return {kind.__name__: kind for several in own for kind in several}

    def _object(self, value: dict[str, Any], classes: dict[str, type]) -> Any:
        fields = dict(value)
        named = fields.pop(TYPE, next(iter(classes)) if len(classes) == 1 else None)
        if not isinstance(named, str) or named not in classes:
            fail(TYPE, f"one of {', '.join(classes)}", _told(named), _meant(str(named), classes))
        return self._converter.structure(fields, classes[named])

    def _leaf(self, value: Any, kind: Any) -> tuple[bool, Any]:
        """Whether a value is one of a type, and what it then is."""
        if kind in self._names:
            known = self._names[kind]
            return (True, known[value]) if isinstance(value, str) and value in known else (False, None)
        if get_origin(kind) is Literal:
            return isinstance(value, str) and value in get_args(kind), value
        if get_origin(kind) is tuple:
            return self._items(value, get_args(kind))
        if kind is float and isinstance(value, str) and "/" in value:
            try:
                return True, fraction(value)
            except (ValueError, ZeroDivisionError, OverflowError):
                return False, None
        if kind is int and type(value) is float and value.is_integer():  # 1e6
            return True, int(value)
        return type(value) is kind or (kind is float and type(value) is int), value

    def _items(self, value: Any, kinds: tuple[Any, ...]) -> tuple[bool, Any]:
        if isinstance(value, str) and "," in value:
            value = [scalar(part) for part in value.split(",")]
        if not isinstance(value, list | tuple):
            return False, None
        wanted = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(wanted) != len(value):
            return False, None
        if self._possible(wanted):
            return True, tuple(self._read(item, kind) for item, kind in zip(value, wanted, strict=True))
        found = [self._leaf(item, kind) for item, kind in zip(value, wanted, strict=True)]
        return all(fits for fits, _ in found), tuple(item for _, item in found)

    # --- errors

    def _refuse(self, value: Any, kind: Any) -> NoReturn:
        fail("", self._words(kind), _told(value))

    def _words(self, kind: Any) -> str:
        """What a type asks for."""
        parts, classes = _parts(kind), self._possible(_parts(kind))
        if len(parts) > 1:
            simple = [part for part in parts if part is not type(None) and not self._possible((part,))]
            words = [*map(self._words, simple), *([_chosen(classes)] if classes else [])]
            return " or ".join([*words, "null"] if type(None) in parts else words)
        if kind in self._names:
            return f"one of {', '.join(self._names[kind])}"
        if get_origin(kind) is Literal:
            return f"one of {', '.join(map(str, get_args(kind)))}"
        if get_origin(kind) is tuple:
            first, *more = get_args(kind)
            several = {int: "integers", float: "numbers", str: "words"}.get(first, self._words(first))
            if get_args(kind) == (float, float):
                return "a pair [low, high] of numbers"
            return f"a list of {several}" if more[-1:] == [...] else f"a list of {1 + len(more)} {several}"
        return _WORDS.get(kind) or _chosen(classes)

    def _first(self, error: BaseException, path: tuple[str, ...], kind: Any, whole: type) -> tuple[str, str]:
        """The field that the first error is about, and the message after its name."""
        if not isinstance(error, ClassValidationError):
            argument = getattr(error, "argument", "")
            message = str(error).removeprefix(argument) + _meaning(kind, argument)
            return ".".join(filter(None, (*path, argument))), message
        noted, others = error.group_exceptions()
        for unknown in (other for other in others if isinstance(other, ForbiddenExtraKeysError)):
            return self._unknown((*path, min(unknown.extra_fields)), error.cl, whole)
        if others:
            return self._first(others[0], path, error.cl, whole)
        inner, note = noted[0]
        place = (*path, note.name)
        if isinstance(inner, KeyError):
            return ".".join(place), f": expected {self._words(note.type)}, got nothing.{_meaning(error.cl, note.name)}"
        if isinstance(inner, InputError) and not inner.argument:
            return ".".join(place), f"{inner}{_meaning(error.cl, note.name)}"
        return self._first(inner, place, note.type, whole)

    def _unknown(self, path: tuple[str, ...], kind: type, whole: type) -> tuple[str, str]:
        names, place = [field.name for field in dataclasses.fields(kind)], ".".join(path)
        near = [other for other in self.places(whole) if other.rpartition(".")[2] == path[-1]]
        near += [".".join((*path[:-1], name)) for name in get_close_matches(path[-1], names, 1)]
        if near:
            return place, f": expected the name of a field, got another one. Did you mean {near[0]}?"
        if not names:
            return place, f": expected no field, since {kind.__name__} has none, got one."
        return place, f": expected one of {', '.join(names)}, got another name."

    def places(self, kind: type, path: tuple[str, ...] = ()) -> Iterator[str]:
        """The dotted paths of all fields that instances of a class may have."""
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield ".".join((*path, field.name))
            for inner in self._possible(_parts(hints[field.name])).values():
                yield from self.places(inner, (*path, field.name))

    # --- to data

    def _writer(self, kind: Any) -> Callable[[Any], Any]:
        parts = _parts(kind)
        classes = self._possible(parts)
        others = [part for part in parts if part is not type(None) and not self._possible((part,))]

        def write(value: Any) -> Any:
            if value is None and type(None) in parts:
                return None
            if (known := classes.get(type(value).__name__)) is type(value):
                named = {TYPE: known.__name__} if len(classes) > 1 or others else {}
                return named | self._converter.unstructure(value)
            for part in others:
                if part in self._names:
                    found = [name for name, item in self._names[part].items() if item is value]
                    return found[0] if found else self._refuse(value, kind)
                if get_origin(part) is tuple:
                    inner = get_args(part)[0]
                    return [self._converter.unstructure(item, unstructure_as=inner) for item in value]
                return value
            return self._refuse(value, kind)

        return write


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types that a type is a union of; itself alone if it is none."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_class(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _chosen(classes: Mapping[str, type]) -> str:
    return f"{'one' if len(classes) > 1 else 'the fields'} of {', '.join(classes)}"


def _told(value: Any) -> str:
    return "nothing" if value is None else describe(value)


def _meant(given: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(given, known, 1)
    return f"Did you mean {near[0]}?" if near else ""


def _meaning(kind: Any, name: str) -> str:
    note = notes(kind).get(name, "") if isinstance(kind, type) else ""
    return f" Its meaning: {note}." if note else ""
