"""Training as the command runs it: announces the cost, shows progress, and stops after a step when asked."""

import time
from pathlib import Path

from kornia_cag.command.signals import finishing
from kornia_cag.command.wording import worded
from kornia_cag.core import ranks
from kornia_cag.core.checks import Diverged
from kornia_cag.core.progress import duration, progress, say
from kornia_cag.training.run import Training

SAVE_EVERY = 20.0  # seconds


def attended(training: Training, name: str, *, save: Path | None = None, more: int = 0) -> None:
    """Run a training to its end, reporting on standard error before the first step and as it progresses.

    Args:
        training: new, or loaded from a checkpoint.
        name: prefix of every line.
        save: as for :meth:`Training.run`.
        more: number of trainings still to come after this one.

    Raises:
        Diverged: as :meth:`Training.run` does, prefixed with the name.
        InputError: as :meth:`Training.run` does, about ``--model``.
        Interrupted: after Ctrl-C or SIGTERM, once the step is done and the run is saved.
    """
    if training.share < 1:
        _announce(training, name, more)
    try:
        with worded(function="--model"), finishing() as stop, progress(name, training.share) as log:
            training.run(save=save, save_every=SAVE_EVERY, log=log if ranks.here()[0] == 0 else None, stop=stop)
    except Diverged as error:
        raise Diverged(f"{name}: {error}") from error


def _announce(training: Training, name: str, more: int) -> None:
    if training.compile:
        say(f"{name}: compiling, about a minute, or less if an earlier run cached its kernels")
        start = time.perf_counter()
        training.compile_graph()
        say(f"{name}: compiled in {duration(time.perf_counter() - start)}, not counted in the times and speeds below")
    seconds = training.seconds_left()
    budget, size = training.budget, training.recipe.batch_size
    begun = f", {training.seen:,} of them done" if training.seen else ""
    time_ = "unknown time" if seconds is None else f"about {duration(seconds)}"
    after = f"; {more} more trainings, {duration(seconds * more)} if each takes as long" if seconds and more else ""
    count = ranks.here()[1]
    where = "this machine" if count == 1 else f"{count} ranks"
    say(f"{name}: a budget of {budget:,} images{begun}, in batches of {size:,}; {time_} on {where}, going by "
        f"the first steps{after}")  # fmt: skip
