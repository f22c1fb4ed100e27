"""A lock that lets only one process at a time write into a folder."""

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
UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems without locks, such as some network ones


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a results folder; the system releases the lock however this process ends.

    Removes partial files of killed processes.

    Raises:
        InputError: if another process already holds the folder; names the process if known.
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
             "Wait until it ends, or choose another folder.")  # fmt: skip
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNKNOWN:
            raise
        warnings.warn(f"{str(folder)!r} lies where nothing can be locked: keep other runs out of it", stacklevel=3)
    try:
        remove_partial(folder)
        with suppress(OSError):  # only a courtesy: a full disk is reported when real data is written
            write_text(holder, f"process {os.getpid()} on {platform.node() or 'this machine'}")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()
