"""What is wrong in a folder, in one report: nobody should have to mend a file to hear of the next one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kornia_cag.core.checks import InputError, check_choice, fail, first_few, one_line

ON_ERROR = ("raise", "skip")
SKIP = ', or pass on_error="skip"'  # in the advice on a file
TAKE_OUT = f"Take it out of the folder{SKIP}."
KINDS = 5  # most problems told apart in a report
ENOUGH = 100  # bad files after which reading stops: all of a large folder may be of the wrong kind

Found = list[tuple[Path, str]]


@dataclass(frozen=True)
class Refusals:
    """Collects what is wrong below ``folder``, to raise all of it at once, or to warn once of what was skipped.

    Attributes:
        folder: all paths lie in it.
        on_error: ``"raise"``; ``"skip"``; or None: raise, where skipping is not on offer.
        found: bad files and what is wrong with them.
        lasting: places with problems that remain if bad files are skipped.
        emptied: places of which skipping would leave nothing.
        profiles: files with an unusable colour profile, of which it only warns.
    """

    folder: Path
    on_error: str | None
    found: Found = field(default_factory=list)
    lasting: Found = field(default_factory=list)
    emptied: list[Path] = field(default_factory=list)
    profiles: Found = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_error is not None:
            check_choice("on_error", self.on_error, ON_ERROR)

    @contextmanager
    def at(self, path: Path) -> Iterator[None]:
        """Collect an error about a file that may be skipped."""
        with self._into(self.found, path):
            yield

    @contextmanager
    def always_at(self, path: Path) -> Iterator[None]:
        """Collect an error that skipping files does not mend."""
        with self._into(self.lasting, path):
            yield

    @contextmanager
    def _into(self, found: Found, path: Path) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            found.append((path, str(error).removeprefix(f"{path}: ")))

    def nothing_left(self, path: Path, expected: str, bad: Found) -> None:
        """Report that no good file is left in a place; without skipping, its bad files say all there is to say."""
        if self.on_error != "skip" and bad:
            self.emptied.append(path)
        else:
            with self.always_at(path):
                fail(str(path), expected, f"none: {self._summary(bad)}" if bad else "none")

    @property
    def enough(self) -> bool:
        """Whether so much is wrong already that reading on would not help."""
        return self.on_error != "skip" and len(self.found) >= ENOUGH

    def settle(self) -> None:
        """Raise what has to be raised, else warn of what was skipped.

        Raises:
            InputError: naming the file, or for several problems the folder and the first few of them.
        """
        problems = self.lasting + ([] if self.on_error == "skip" else self.found)
        if problems:
            raise InputError(self._report(problems))
        if self.found:
            warnings.warn(f"{self.folder}: skipped {len(self.found)} bad file(s): {self._summary(self.found)}",
                          stacklevel=3)  # fmt: skip
        if self.profiles:
            warnings.warn(f"{self.folder}: read {len(self.profiles)} file(s) as sRGB, whose colour profile cannot be "
                          f"used: {self._summary(self.profiles)}", stacklevel=3)  # fmt: skip

    def _report(self, problems: Found) -> str:
        if len(problems) == 1:
            ((path, reason),) = problems
            return one_line(f"{path}: {self._advised(reason)}")
        alike: dict[str, list[str]] = {}
        for path, reason in problems:
            alike.setdefault(reason.replace(SKIP, ""), []).append(self._name(path))
        often = sorted(alike.items(), key=lambda kind: -len(kind[1]))
        told = [f"({n}) {first_few(names)}: {reason}" for n, (reason, names) in enumerate(often[:KINDS], 1)]
        more = sum(len(names) for _, names in often[KINDS:])
        told += [f"And {more} more."] if more else []
        told += [f"Mend them{SKIP}."] if self.on_error is not None and not (self.lasting or self.emptied) else []
        count = f"{len(problems)}{' or more' if self.enough else ''} problems"
        return one_line(f"{self.folder}: expected only what can be used, got {count}: {' '.join(told)}")

    def _advised(self, reason: str) -> str:
        return reason if self.on_error is not None else reason.replace(SKIP, "")

    def _name(self, path: Path) -> str:
        return "the folder" if path == self.folder else str(path.relative_to(self.folder))

    def _summary(self, found: Found) -> str:
        return first_few([f"{self._name(path)} ({unadvised(reason)})" for path, reason in found], ";")


def unadvised(reason: str) -> str:
    """What is wrong with a file, without the advice to take it out or to skip it: it is skipped already."""
    return reason.replace(f" {TAKE_OUT}", "").replace(SKIP, "").rstrip(".")
