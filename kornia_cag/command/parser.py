"""What reads a command line: argparse, with errors in one line. Nothing here needs torch."""

import argparse
import itertools
import re
import sys
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Reports a command line that cannot be parsed in one line."""

    def __init__(self, **options: Any) -> None:
        self._options: set[str] = set()
        self._commands = False
        super().__init__(**options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As argparse does."""
        action = super().add_argument(*names, **options)
        self._options.update(action.option_strings)
        return action

    def add_subparsers(self, **options: Any) -> Any:
        """As argparse does."""
        self._commands = True
        return super().add_subparsers(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but name unknown options first: argparse would take their values for positional ones."""
        given = list(sys.argv[1:] if args is None else args)
        ours = itertools.takewhile(lambda text: text.startswith("-") or not self._commands, given)
        for text in itertools.takewhile(lambda text: text != "--", ours):
            self._check_known(text.partition("=")[0])
        return super().parse_known_args(given, namespace)

    def _check_known(self, name: str) -> None:
        """Require that an argument is no option, or one of this parser's, in full or the beginning of one."""
        if not re.match(r"--?[a-zA-Z]", name) or " " in name or any(own.startswith(name) for own in self._options):
            return
        known = {own.lstrip("-"): own for own in sorted(self._options)}  # the dashes make any two look alike
        near = get_close_matches(name.lstrip("-"), known, 1)
        fix = f". Did you mean {known[near[0]]}?" if near else ""
        self.error(f"{name}: expected an option of {self.prog}, got an unknown one{fix}")

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        from kornia_cag.core.checks import one_line

        self.exit(2, f"kornia-cag: {one_line(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Like argparse, which however swallows write errors."""
        if message:
            print(message, end="", file=file or sys.stderr, flush=True)


class Version(argparse.Action):
    """Print the version that is installed: asked for only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Exit with status 0."""
        from kornia_cag import __version__

        print(f"kornia-cag {__version__}", flush=True)
        parser.exit()
