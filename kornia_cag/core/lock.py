"""One process at a time writes into a folder."""

import errno
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kornia_cag.core.checks import fail
from kornia_cag.core.storage import remove_partial, write_text

LOCK, HOLDER = ".lock", ".holder"
UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without locks, as some in a network are


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder of results; the system lets go of it however this one ends.

    What a process that was killed had begun to write there is removed.

    Raises:
        InputError: where another process holds the folder already, which is named where it is known.
    """
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = " ".join(holder.read_text(errors="replace").split())[:80]
        except OSError:  # not yet written
            who = "another process"
        fail("folder", "a folder that no other run writes to", f"{str(folder)!r}, in use by {who}",
             "Wait for its end, or give another folder.")  # fmt: skip
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNKNOWN:
            raise
        warnings.warn(f"{str(folder)!r} lies where nothing can be locked: keep other runs out of it", stacklevel=3)
    try:
        remove_partial(folder)
        with suppress(OSError):  # a courtesy to the next: a full disk is told when there is something to lose
            write_text(holder, f"process {os.getpid()} on {platform.node() or 'this machine'}")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()
