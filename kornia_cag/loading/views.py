"""``views="all blends"``: every scene of a batch, once under each blend of a :class:`OneOf`."""

from dataclasses import replace
from typing import Any

from kornia_cag.core.checks import describe, fail
from kornia_cag.core.records import joined
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.choices import OneOf
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.earlier import Earlier
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.scenes.targets import Composites

ALL_BLENDS = "all blends"


class Views:
    """Composes batches of rows as a :class:`Renderer` does, all of them under one blend after the other.

    Args:
        renderers: one for each blend: each compiles and captures for itself.
    """

    def __init__(self, renderers: tuple[Renderer, ...]) -> None:
        self._renderers = renderers
        self._known: tuple[Composer, tuple[Composer, ...]] | None = None

    def __len__(self) -> int:
        return len(self._renderers)

    @property
    def compiled(self) -> bool:
        """Whether batches are composed by compiled graphs."""
        return all(renderer.compiled for renderer in self._renderers)

    def compile(self) -> None:
        """Use compiled graphs from the next batch on: one for each blend."""
        for renderer in self._renderers:
            renderer.compile()

    def twin(self) -> "Views":
        """The same with its own memory."""
        return Views(tuple(renderer.twin() for renderer in self._renderers))

    def __getstate__(self) -> dict[str, Any]:
        return {"_renderers": self._renderers, "_known": None}

    def __call__(
        self, composer: Composer, rows: Rows, strength: float | Ramp, earlier: Earlier | None, *, targets: bool,
        scene: bool,
    ) -> Composites:  # fmt: skip
        """Compose a batch: all rows under the first blend, then all under the second, and so on."""
        if self._known is None or self._known[0] is not composer:
            ranges = [replace(composer.ranges, blend=replace(blend_of(composer.ranges), only=place))
                      for place in range(len(self))]  # fmt: skip
            self._known = composer, tuple(replace(composer, ranges=own, warn=False) for own in ranges)
        pairs = zip(self._renderers, self._known[1], strict=True)
        return joined([renderer(own, rows, strength, earlier, targets=targets, scene=scene) for renderer, own in pairs])


def blend_of(ranges: SceneRange) -> OneOf:
    """The blends that ``views="all blends"`` shows.

    Raises:
        InputError: for ranges that have a single blend.
    """
    if not isinstance(ranges.blend, OneOf):
        fail("views", "ranges with several blends", describe(ranges.blend),
             "Pass ranges=SceneRange(blend=OneOf((Over(), Feather()))).")  # fmt: skip
    return ranges.blend
