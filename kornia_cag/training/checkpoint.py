"""Saved trainings: written, and read: first its plan, then types, sizes and values of everything saved."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_cag.core.checks import check_int, check_number, fail, first_few
from kornia_cag.core.plain import differences
from kornia_cag.core.ranks import here
from kornia_cag.core.saved import (
    LARGEST,
    check_alike,
    check_fields,
    check_like,
    check_plain,
    check_type,
    check_weights,
    refused,
)
from kornia_cag.core.storage import make_again, read_last, write_torch
from kornia_cag.loading.chain import dealt, gathered
from kornia_cag.loading.collate import CAGCollate

AFRESH = "Start afresh with a new Training."
OF_THIS_VERSION = "a run saved by this version"


def read(path: Path, plan: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """Read what :meth:`kornia_cag.training.run.Training.save` wrote; checks the plan, :func:`check_saved` the rest.

    Args:
        path: the file; if it is missing or damaged, the save before is read, with a warning.
        plan: plan of the run to resume.

    Returns:
        The saved run, and the file that holds it.

    Raises:
        InputError: for another kind of file, a damaged one, and one with another plan.
    """
    state, path = read_last(path, "path", "a run saved by kornia-cag train", AFRESH)
    if not isinstance(state, dict) or "plan" not in state:
        fail("path", "a run saved by kornia-cag train", f"{str(path)!r}, which is another file")
    with refused(path, "path", OF_THIS_VERSION, AFRESH):
        check_plain("plan", state["plan"])
    if other := differences(*_without_threads(plan, state["plan"])):
        fail("path", "the arguments of the saved run", first_few(other),
             "Repeat the arguments of the first run." + _threads(other))  # fmt: skip
    return state, path


def write(path: Path, state: dict[str, Any], *, last: tuple[Path, int] | None) -> None:
    """Write a saved run, by the first of all ranks; make its folder again, and keep the one before, where they are its.

    Args:
        path: the file.
        state: of the run.
        last: the file that this run saved to or was loaded from last, and its step: another run's is not kept, nor one
            that was too damaged to be loaded.
    """
    if here()[0] > 0:
        return
    own = last is not None and last[0] == path
    if own:
        make_again(path.parent)
    write_torch(path, state, keep=own)


def _without_threads(mine: dict[str, Any], saved: Any) -> tuple[dict[str, Any], Any]:
    """Both plans; without the number of threads, if one of them is for several ranks, which have no common number."""
    if isinstance(saved, dict) and None in (mine["threads"], saved.get("threads")):
        return {**mine, "threads": None}, {**saved, "threads": None}
    return mine, saved


def _threads(other: list[str]) -> str:
    """Advice on restoring the saved number of threads, if it differs."""
    saved = [line.partition("(saved: ")[2].rstrip(")") for line in other if line.startswith("threads ")]
    return f" Call torch.set_num_threads({saved[0]})." if saved else ""


def check_saved(
    state: Any, mine: dict[str, Any], model: nn.Module, size: tuple[int, int], classes: int, objects: int
) -> None:
    """Require the state of a run with the same plan; collate, sampler and monitor check their own parts further.

    Args:
        state: as read.
        mine: state of a run with this plan before its first batch.
        model: model of the run, for whose parameters the optimizer holds moments.
        size: canvas ``(height, width)``, pixels.
        classes: number of classes.
        objects: number of objects per scene, distractors included.

    Raises:
        InputError: naming the field.
    """
    check_fields("its content", state, mine)
    if state["network"] != mine["network"]:
        fail("network", "that of the plan", "another")
    check_int("seen", state["seen"], 0, LARGEST)
    check_int("steps", state["steps"], 0, state["seen"])
    check_number("seconds", state["seconds"], 0, LARGEST)
    finite = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for name in ("model", "average"):
        check_weights(name, state[name], mine[name], finite)
    for name in ("loss", "loader", "rng", "cuda_rng"):
        check_alike(name, state[name], mine[name])
    _check_optimizer(state["optimizer"], mine["optimizer"], list(model.parameters()))
    _check_chain(check_fields("collate", state["collate"], mine["collate"])["chain"], size, classes, objects)
    check_type("monitor", state["monitor"], type(mine["monitor"]))


def _check_optimizer(state: Any, mine: dict[str, Any], parameters: list[nn.Parameter]) -> None:
    check_fields("optimizer", state, mine)
    saved, wanted = state["param_groups"], mine["param_groups"]
    check_alike("optimizer.param_groups", saved, wanted)
    for group, own in zip(saved, wanted, strict=True):
        if group != {**own, "lr": group["lr"]}:  # set by every step
            fail("optimizer.param_groups", "the settings of the recipe", "others")
    check_type("optimizer.state", state["state"], dict)
    for key, moments in state["state"].items():
        parameter = parameters[check_int("a key of optimizer.state", key, 0, len(parameters) - 1)]
        like = {
            "step": torch.zeros((), dtype=torch.float32, device="cpu"),
            "exp_avg": parameter,
            "exp_avg_sq": parameter,
        }
        check_alike(f"optimizer.state.{key}", moments, like)


def _check_chain(chain: Any, size: tuple[int, int], classes: int, objects: int) -> None:
    """Check that stored composites fit the canvas and show known classes."""
    images, labels = (chain.get(name) if isinstance(chain, dict) else None for name in ("images", "labels"))
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor) or images.ndim == 0:
        return  # none yet; the chain refuses incomplete states
    check_like("collate.chain.images", images, torch.empty(len(images), 3, *size, device="meta"))
    check_like("collate.chain.labels", labels, torch.empty(len(images), objects, dtype=torch.int64, device="cpu"))
    told = chain["targets"].get("labels") if isinstance(chain.get("targets"), dict) else None
    for name, found in (("labels", labels), ("targets", told)):
        if isinstance(found, Tensor) and found.numel() and not -1 <= int(found.min()) <= int(found.max()) < classes:
            fail(f"collate.chain.{name}", f"classes below {classes}", "others")


def collated(collate: CAGCollate[Any]) -> dict[str, Any]:
    """The state of the collates of all ranks, which call this together, as a single process has it."""
    state = collate.state_dict()
    return state if state["chain"] is None else {**state, "chain": gathered(state["chain"], *here())}


def restore(collate: CAGCollate[Any], state: dict[str, Any]) -> None:
    """Load a rank's part of the state of :func:`collated`, whatever number of ranks had it."""
    chain = state["chain"]
    collate.load_state_dict(state if chain is None else {**state, "chain": dealt(chain, *here())})


def random_state(device: torch.device) -> dict[str, Any]:
    """Torch's random state on the CPU and the device."""
    return {
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the entries of :func:`random_state`."""
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"], device)
