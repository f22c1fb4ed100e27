"""The ``kornia-cag`` command. A user error ends in one line and status 2, never in a traceback."""

import io
import sys
from collections.abc import Sequence

from kornia_cag.command.usage import parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: success; 1: the training diverged; 2: user error; 3: another rank of a training ended; 130: Ctrl-C; 143: SIGTERM;
    137 and the like: a rank was killed by that signal, less 128.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for class names the terminal cannot display
    try:
        options = parsed(arguments)
    except OSError as error:  # the text of --help cannot be written
        print(f"kornia-cag: {error}", file=sys.stderr)
        return 2
    from kornia_cag.command.running import run  # loads torch

    return run(options, sys.argv[1:] if arguments is None else arguments)
