"""Train image models from one clean picture per class: composites made, paired and hardened on the device.

The way of a batch: :class:`PairSampler` draws rows of ids, :class:`CAGCollate` composes them with a :class:`Composer`
from an :class:`ObjectBank` and a :class:`ContextBank`, offers earlier composites as contexts through a
:class:`ContextChain`, chooses hard scenes by :class:`ScenePGD` or :class:`WorstOf`, and hardens the batch with
:class:`PGD` or :func:`FGSM`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_cag.attack import BIM, FGSM, MIFGSM, PGD
    from kornia_cag.banks import ContextBank, ObjectBank
    from kornia_cag.chain import ContextChain
    from kornia_cag.checks import Diverged, InputError
    from kornia_cag.collate import Batch, CAGCollate, Ramp
    from kornia_cag.compose import Composer, Scene, SceneRange
    from kornia_cag.free import Free
    from kornia_cag.hard_pairing import HardPairing
    from kornia_cag.lending import frozen
    from kornia_cag.monitor import OverfittingMonitor
    from kornia_cag.objectives import attacked_loss, mixed_loss, trades_loss
    from kornia_cag.pairing import PairSampler
    from kornia_cag.photometric import CameraRange, ColorRange
    from kornia_cag.pose import Framing, PoseRange
    from kornia_cag.prefetch import Prefetcher
    from kornia_cag.recapture import Recapture
    from kornia_cag.scene_attack import ScenePGD, WorstOf

__version__ = "0.1.0"

__all__ = [
    "BIM",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Batch",
    "CAGCollate",
    "CameraRange",
    "ColorRange",
    "Composer",
    "ContextBank",
    "ContextChain",
    "Diverged",
    "Framing",
    "Free",
    "HardPairing",
    "InputError",
    "ObjectBank",
    "OverfittingMonitor",
    "PairSampler",
    "PoseRange",
    "Prefetcher",
    "Ramp",
    "Recapture",
    "Scene",
    "ScenePGD",
    "SceneRange",
    "WorstOf",
    "attacked_loss",
    "frozen",
    "mixed_loss",
    "trades_loss",
]

_STAGES = {  # module: what it gives; loaded when first asked for, so that a command can answer before torch is there
    "attack": ("BIM", "FGSM", "MIFGSM", "PGD"),
    "banks": ("ContextBank", "ObjectBank"),
    "chain": ("ContextChain",),
    "checks": ("Diverged", "InputError"),
    "collate": ("Batch", "CAGCollate", "Ramp"),
    "compose": ("Composer", "Scene", "SceneRange"),
    "free": ("Free",),
    "hard_pairing": ("HardPairing",),
    "lending": ("frozen",),
    "monitor": ("OverfittingMonitor",),
    "objectives": ("attacked_loss", "mixed_loss", "trades_loss"),
    "pairing": ("PairSampler",),
    "photometric": ("CameraRange", "ColorRange"),
    "pose": ("Framing", "PoseRange"),
    "prefetch": ("Prefetcher",),
    "recapture": ("Recapture",),
    "scene_attack": ("ScenePGD", "WorstOf"),
}
_HOME = {name: stage for stage, names in _STAGES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module that holds it; or a module of the package."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
