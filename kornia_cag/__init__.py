"""Train image models from one clean picture per class: every batch is composed and hardened on the device.

The life of a batch: a :class:`PairSampler` deals out :class:`Rows`, objects paired with contexts; a :class:`CAGCollate`
draws a :class:`Scene` for each and renders it with a :class:`Composer` from an :class:`ObjectBank` and a
:class:`ContextBank`, offers earlier composites as contexts through a :class:`ContextChain`, and lets every
:class:`Adversary` work, such as :class:`ScenePGD` and :class:`PGD`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_cag.adversary.free import Free
    from kornia_cag.adversary.frozen import frozen
    from kornia_cag.adversary.pixels import PGD
    from kornia_cag.adversary.presets import BIM, FGSM, MIFGSM
    from kornia_cag.adversary.recapture import Recapture
    from kornia_cag.adversary.scenes import ScenePGD
    from kornia_cag.adversary.stage import Adversary, Draft, External
    from kornia_cag.adversary.worst import WorstOf
    from kornia_cag.banks.contexts import ContextBank
    from kornia_cag.banks.objects import ObjectBank
    from kornia_cag.banks.stream import ContextStream
    from kornia_cag.core.checks import Diverged, InputError
    from kornia_cag.core.draws import Draws
    from kornia_cag.evaluation.boxes import load_boxes
    from kornia_cag.evaluation.detection import evaluate_detector
    from kornia_cag.evaluation.monitor import OverfittingMonitor
    from kornia_cag.export.coco import Coco
    from kornia_cag.export.dataset import write_dataset
    from kornia_cag.export.folders import ClassFolders, Yolo
    from kornia_cag.export.pictures import Format, Picture
    from kornia_cag.export.shards import Shards
    from kornia_cag.loading.batch import Batch
    from kornia_cag.loading.chain import ContextChain
    from kornia_cag.loading.collate import CAGCollate
    from kornia_cag.loading.confusion import HardPairing
    from kornia_cag.loading.detections import (
        Detections,
        detection_targets,
        full_masks,
        instance_map,
        semantic_map,
        visible_masks,
    )
    from kornia_cag.loading.prefetch import Prefetcher
    from kornia_cag.sampling.pairs import PairSampler
    from kornia_cag.sampling.rows import Rows
    from kornia_cag.scenes.adaptation import FourierMix, Histograms, LabStatistics
    from kornia_cag.scenes.blends import Average, Blend, Difference, Hard, MultiBand, Over, Poisson
    from kornia_cag.scenes.camera import CameraRange
    from kornia_cag.scenes.choices import OneOf
    from kornia_cag.scenes.composer import Composer
    from kornia_cag.scenes.depth import DepthRange
    from kornia_cag.scenes.edges import Eroded, Feather, Smeared
    from kornia_cag.scenes.finishes import Finish, Unkeyed
    from kornia_cag.scenes.framing import Framing
    from kornia_cag.scenes.harmony import HarmonyRange
    from kornia_cag.scenes.layout import Anywhere, Band, Layout, Maps, Place
    from kornia_cag.scenes.light import ColorRange
    from kornia_cag.scenes.pose import PoseRange
    from kornia_cag.scenes.ranges import SceneRange
    from kornia_cag.scenes.references import References
    from kornia_cag.scenes.scene import Scene
    from kornia_cag.scenes.shadows import SunRange
    from kornia_cag.scenes.strength import Ramp
    from kornia_cag.scenes.targets import Composites, Targets
    from kornia_cag.training.detector import Detector
    from kornia_cag.training.exported import export_network
    from kornia_cag.training.network import load_network
    from kornia_cag.training.objectives import attacked_loss, mixed_loss, trades_loss
    from kornia_cag.training.recipe import Recipe
    from kornia_cag.training.recipe_file import load_recipe, save_recipe
    from kornia_cag.training.run import Training
    from kornia_cag.training.task import DetectionTask

__version__: str  # of the installation, asked for when it is needed

__all__ = [
    "BIM",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Adversary",
    "Anywhere",
    "Average",
    "Band",
    "Batch",
    "Blend",
    "CAGCollate",
    "CameraRange",
    "ClassFolders",
    "Coco",
    "ColorRange",
    "Composer",
    "Composites",
    "ContextBank",
    "ContextChain",
    "ContextStream",
    "DepthRange",
    "DetectionTask",
    "Detections",
    "Detector",
    "Difference",
    "Diverged",
    "Draft",
    "Draws",
    "Eroded",
    "External",
    "Feather",
    "Finish",
    "Format",
    "FourierMix",
    "Framing",
    "Free",
    "Hard",
    "HardPairing",
    "HarmonyRange",
    "Histograms",
    "InputError",
    "LabStatistics",
    "Layout",
    "Maps",
    "MultiBand",
    "ObjectBank",
    "OneOf",
    "Over",
    "OverfittingMonitor",
    "PairSampler",
    "Picture",
    "Place",
    "Poisson",
    "PoseRange",
    "Prefetcher",
    "Ramp",
    "Recapture",
    "Recipe",
    "References",
    "Rows",
    "Scene",
    "ScenePGD",
    "SceneRange",
    "Shards",
    "Smeared",
    "SunRange",
    "Targets",
    "Training",
    "Unkeyed",
    "WorstOf",
    "Yolo",
    "attacked_loss",
    "detection_targets",
    "evaluate_detector",
    "export_network",
    "frozen",
    "full_masks",
    "instance_map",
    "load_boxes",
    "load_network",
    "load_recipe",
    "mixed_loss",
    "save_recipe",
    "semantic_map",
    "trades_loss",
    "visible_masks",
    "write_dataset",
]

_STAGES = {  # module: what it gives; loaded when first asked for, so that a command can answer before torch is there
    "core.checks": ("Diverged", "InputError"),
    "core.draws": ("Draws",),
    "banks.contexts": ("ContextBank",),
    "banks.objects": ("ObjectBank",),
    "banks.stream": ("ContextStream",),
    "sampling.pairs": ("PairSampler",),
    "sampling.rows": ("Rows",),
    "scenes.adaptation": ("FourierMix", "Histograms", "LabStatistics"),
    "scenes.blends": ("Average", "Blend", "Difference", "Hard", "MultiBand", "Over", "Poisson"),
    "scenes.camera": ("CameraRange",),
    "scenes.choices": ("OneOf",),
    "scenes.composer": ("Composer",),
    "scenes.depth": ("DepthRange",),
    "scenes.edges": ("Eroded", "Feather", "Smeared"),
    "scenes.finishes": ("Finish", "Unkeyed"),
    "scenes.framing": ("Framing",),
    "scenes.harmony": ("HarmonyRange",),
    "scenes.layout": ("Anywhere", "Band", "Layout", "Maps", "Place"),
    "scenes.light": ("ColorRange",),
    "scenes.pose": ("PoseRange",),
    "scenes.ranges": ("SceneRange",),
    "scenes.references": ("References",),
    "scenes.scene": ("Scene",),
    "scenes.shadows": ("SunRange",),
    "scenes.strength": ("Ramp",),
    "scenes.targets": ("Composites", "Targets"),
    "adversary.free": ("Free",),
    "adversary.frozen": ("frozen",),
    "adversary.pixels": ("PGD",),
    "adversary.presets": ("BIM", "FGSM", "MIFGSM"),
    "adversary.recapture": ("Recapture",),
    "adversary.scenes": ("ScenePGD",),
    "adversary.stage": ("Adversary", "Draft", "External"),
    "adversary.worst": ("WorstOf",),
    "loading.batch": ("Batch",),
    "loading.chain": ("ContextChain",),
    "loading.collate": ("CAGCollate",),
    "loading.confusion": ("HardPairing",),
    "loading.detections": (
        "Detections",
        "detection_targets",
        "full_masks",
        "instance_map",
        "semantic_map",
        "visible_masks",
    ),
    "loading.prefetch": ("Prefetcher",),
    "export.coco": ("Coco",),
    "export.dataset": ("write_dataset",),
    "export.folders": ("ClassFolders", "Yolo"),
    "export.pictures": ("Format", "Picture"),
    "export.shards": ("Shards",),
    "evaluation.boxes": ("load_boxes",),
    "evaluation.detection": ("evaluate_detector",),
    "evaluation.monitor": ("OverfittingMonitor",),
    "training.detector": ("Detector",),
    "training.exported": ("export_network",),
    "training.network": ("load_network",),
    "training.objectives": ("attacked_loss", "mixed_loss", "trades_loss"),
    "training.recipe": ("Recipe",),
    "training.recipe_file": ("load_recipe", "save_recipe"),
    "training.run": ("Training",),
    "training.task": ("DetectionTask",),
}
_HOME = {name: stage for stage, names in _STAGES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module that holds it; a module of the package; or the version that is installed."""
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version(__name__)
        except metadata.PackageNotFoundError:  # a checkout that is only on the path
            return "unknown"
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
