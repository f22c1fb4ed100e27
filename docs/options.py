"""The command's parser as the site shows it: its texts are plain, so what reST would read as markup is escaped."""

import argparse
import re

from kornia_cag.command import usage


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    return escaped(usage.parser())


def escaped(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with the help of every option, also of its subcommands, escaped."""
    for action in parser._actions:
        action.help = action.help and re.sub(r"([*`|\\])", r"\\\1", action.help)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                escaped(inner)
    return parser
