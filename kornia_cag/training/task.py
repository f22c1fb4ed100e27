"""``DetectionTask``: what makes a recipe one that finds objects in whole photographs, each with its box."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from kornia_cag.adversary.losses import cross_entropy
from kornia_cag.core.checks import check_choice, check_int, check_number, describe, fail
from kornia_cag.core.plain import plain
from kornia_cag.loading.batch import Batch
from kornia_cag.loading.detections import Detections
from kornia_cag.scenes.layout import Layout
from kornia_cag.scenes.targets import Targets

Told = Literal["one", "all"]
UNUSED: dict[str, object] = {
    "hard_pairing": False,
    "smoothing": 0,
    "grey": False,
    "local": 0,
    "dropout": 0,
    "map_dropout": 0,
    "views": 1,
    "fit": "squash",
}  # fields of a recipe that detection has no use for, and what they then are

NAMING: dict[str, object] = {"loss": cross_entropy, "target": None, "early_stop": False}  # of attacks, likewise


@dataclass(frozen=True, kw_only=True)
class DetectionTask:
    """Objects are found wherever they lie in a photograph, instead of being named in a close crop.

    Attributes:
        classes: one: objects are found, whatever they are; all: each is found by its class.
        name: what all objects are called if they are one class.
        objects: highest number of objects per scene; ``ranges.layout.count`` says how many of them a scene shows.
        min_visible: least uncovered share of an object that is to be found, in [0, 1].
    """

    classes: Told = "one"
    name: str = "object"
    objects: int = 4
    min_visible: float = 0.0

    def __post_init__(self) -> None:
        check_choice("classes", self.classes, get_args(Told))
        check_int("objects", self.objects, 1, 100)
        check_number("min_visible", self.min_visible, 0, 1)
        if not isinstance(self.name, str) or not 0 < len(self.name) <= 100 or not self.name.isprintable():
            fail("name", "a name of 1 to 100 printable characters", describe(self.name))

    def check(self, fields: Mapping[str, object], layout: Layout | None) -> None:
        """Require that the other fields of a recipe go with the task.

        Raises:
            InputError: naming the first that does not.
        """
        for name, rest in UNUSED.items():
            if fields[name] != rest:
                fail(name, f"{_written(rest)} in a recipe of detection", _written(fields[name]), "Leave it out.")
        for name in ("scene_attack", "attack"):
            for part, rest in NAMING.items():
                if getattr(fields[name], part, rest) != rest:
                    fail(f"{name}.{part}", "to be left out in a recipe of detection, whose own loss is raised",
                         str(plain(getattr(fields[name], part))))  # fmt: skip
        if layout is not None and layout.count is not None and layout.count[1] > self.objects:
            fail("ranges.layout.count", f"at most the {self.objects} of detection.objects", str(layout.count[1]))

    def names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """The classes that a network tells apart, of those that the objects have."""
        return classes if self.classes == "all" else (self.name,)

    def targets(self, known: Batch | Targets) -> Detections:
        """What is to be found in a batch; does not wait for the device."""
        found = Detections.of(known, min_visible=self.min_visible)
        if self.classes == "all":
            return found
        return replace(found, labels=torch.where(found.present, 0, -1))


def _written(value: object) -> str:
    """A field as a recipe's file has it: of an object, the name of its class."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return value if isinstance(value, str) else type(value).__name__
