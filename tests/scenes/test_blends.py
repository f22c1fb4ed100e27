import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from composing import RANGES, make_composer, rows, same
from conftest import make_contexts
from hypothesis import given, settings
from hypothesis import strategies as st
from stacked import average, blend, hard, over
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import InputError
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.blends import Average, Blend, Difference, Hard, MultiBand, Over, Poisson
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.chunks import Renderer
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.edges import Eroded, Feather, Smeared
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange

EACH = (Over(), Hard(), Average(0.6), Difference())
BLENDS = st.one_of(st.sampled_from(EACH), st.builds(Average, st.floats(0, 1)))


def layers(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A premultiplied layer and an opaque picture."""
    generator = torch.Generator().manual_seed(seed)
    straight, behind = (torch.rand(2, 3, 5, 6, generator=generator, dtype=dtype) for _ in range(2))
    alpha = torch.rand(2, 1, 5, 6, generator=generator, dtype=dtype)
    return torch.cat([straight * alpha, alpha], dim=1), behind


def test_transparent_shows_the_context(device: torch.device) -> None:
    _, behind = layers()
    behind = behind.to(device)
    empty = torch.zeros(2, 4, 5, 6, device=device)
    assert torch.equal(over(empty, behind), behind)
    assert torch.equal(hard(empty, behind), behind)
    torch.testing.assert_close(average(empty, behind, 0.25), 0.75 * behind)


def test_opaque_hides_the_context(device: torch.device) -> None:
    front, behind = layers()
    solid = torch.cat([front[:, :3], torch.ones(2, 1, 5, 6)], dim=1).to(device)
    assert torch.equal(over(solid, behind.to(device)), solid[:, :3])
    assert torch.equal(hard(solid, behind.to(device)), solid[:, :3])
    assert torch.equal(average(solid, behind.to(device), 1.0), solid[:, :3])


def test_over_by_hand() -> None:
    front = torch.tensor([0.3, 0.0, 0.6, 0.6])[:, None, None]
    behind = torch.tensor([0.5, 1.0, 0.0])[:, None, None]
    torch.testing.assert_close(over(front, behind).flatten(), torch.tensor([0.5, 0.4, 0.6]))


def test_hard_takes_the_straight_colour_above_one_half() -> None:
    front = torch.tensor([[0.26, 0.52], [0.25, 0.5], [0.4, 0.8]]).T[None, [0, 0, 0, 1]][..., None, :]
    behind = torch.full((1, 3, 1, 3), 0.1)
    got = hard(front, behind)[0, 0, 0]
    torch.testing.assert_close(got, torch.tensor([0.5, 0.1, 0.5]))


def test_average_by_hand() -> None:
    front = torch.tensor([0.9, 0.0, 0.3, 1.0])[:, None, None]
    behind = torch.tensor([0.3, 0.6, 1.0])[:, None, None]
    torch.testing.assert_close(average(front, behind, 2 / 3).flatten(), torch.tensor([0.7, 0.2, 1.6 / 3]))


def test_difference_by_hand() -> None:
    front = torch.tensor([0.9, 0.0, 0.3, 1.0])[:, None, None]
    behind = torch.tensor([0.3, 0.6, 1.0])[:, None, None]
    torch.testing.assert_close(blend(Difference(), front, behind).flatten(), torch.tensor([0.6, 0.6, 0.7]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), BLENDS)
def test_stays_in_range(seed: int, how: Blend) -> None:
    front, behind = layers(seed)
    out = blend(how, front, behind)
    assert out.shape == behind.shape
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_over_lies_between_colour_and_context(seed: int) -> None:
    front, behind = layers(seed)
    color = front[:, :3] / front[:, 3:].clamp(min=1e-6)
    out = over(front, behind)
    assert (out >= torch.minimum(color, behind) - 1e-5).all()
    assert (out <= torch.maximum(color, behind) + 1e-5).all()


def test_over_is_associative_with_a_second_layer() -> None:
    """Two layers one after the other, or merged before (Porter and Duff)."""
    (top, behind), (middle, _) = layers(0), layers(1)
    merged = top + (1 - top[:, 3:]) * middle
    torch.testing.assert_close(over(top, over(middle, behind)), over(merged, behind))


@pytest.mark.parametrize("how", EACH)
def test_batched_equals_looped(how: Blend) -> None:
    front, behind = layers()
    out = blend(how, front, behind)
    for i in range(2):
        assert torch.equal(out[i], blend(how, front[i], behind[i]))


@pytest.mark.parametrize("how", EACH)
def test_planes_equal_pictures(how: Blend) -> None:
    """Channel by channel, with an edge of each sample's own."""
    front, behind = layers()
    edge = torch.tensor([0.3, 0.7])[:, None, None]
    planes = [how(front[:, c], front[:, 3], behind[:, c], edge) for c in range(3)]
    assert torch.equal(torch.stack(planes, dim=1), how(front[:, :3], front[:, 3:], behind, edge[:, None]))


@pytest.mark.parametrize("how", EACH)
def test_a_blend_is_a_value(how: Blend) -> None:
    assert pickle.loads(pickle.dumps(how)) == how
    assert len({*EACH, how}) == len(EACH)
    with pytest.raises(FrozenInstanceError):
        how.opacity = 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", EACH)
def test_gradcheck(how: Blend) -> None:
    front, behind = layers(dtype=torch.float64)
    assert (front[:, 3] - 0.5).abs().min() > 1e-4  # where "hard" jumps
    inputs = front.requires_grad_(), behind.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, b: blend(how, f, b), inputs)


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan"), "half", None])
@pytest.mark.usefixtures("untyped")
def test_bad_opacity(bad: Any) -> None:
    with pytest.raises(InputError, match=r"^opacity: expected a number in \[0, 1\], got "):
        Average(bad)


def white_banks(device: torch.device, level: float) -> tuple[ObjectBank, ContextBank]:
    """Soft-edged discs of one grey, in transparent pixels of any colour, and contexts of that same grey."""
    y, x = torch.meshgrid(torch.linspace(-1.1, 1.1, 40), torch.linspace(-1.1, 1.1, 40), indexing="ij")
    noise = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    images = []
    for softness in (1.0, 3.0, 20.0):
        alpha = ((1 - (x**2 + y**2).sqrt()) * softness).clamp(0, 1)
        images.append(torch.cat([torch.where(alpha > 0, level, noise), alpha[None]]))
    contexts = ContextBank.from_tensors(torch.full((2, 3, 16, 16), level), size=16, device=device)
    return ObjectBank.from_tensors(images, size=32, device=device), contexts


@pytest.mark.parametrize(
    "how",
    [Over(), Hard(), Feather(width=(0, 1.5)), Feather(width=(0, 1.5), kind="box"), Eroded(), Smeared(length=(0, 2)),
     MultiBand(), Poisson(), Poisson(mixed=True)],
)  # fmt: skip
@pytest.mark.parametrize("framing", [None, Framing()])
@pytest.mark.parametrize("lit", [False, True])
def test_white_on_white_is_invisible(device: torch.device, how: Blend, framing: Framing | None, lit: bool) -> None:
    """Whatever the pose, no edge of a white object shows before white: nothing bleeds from transparent pixels."""
    light = ColorRange(exposure=(-2, 0), contrast=(0.5, 1), tint=(-0.3, 0), veil=(0, 0.3), illumination=(-0.4, 0.4))
    ranges = SceneRange(
        pose=PoseRange(angle=(-180, 180), scale=(0.2, 1.3), shear=(-30, 30), perspective=(-0.3, 0.3),
                       elastic=(0, 0.1), hole=(0, 0.3)),
        framing=framing, blend=how,
        color=light if lit else ColorRange(brightness=(1, 1), exposure=(0, 0), contrast=(1, 1)),
        camera=CameraRange(low_resolution=(0, 2)),
    )  # fmt: skip
    objects, contexts = white_banks(device, 1.0)
    index = torch.arange(48, device=device)
    rows = Rows.of(index % 3, index % 2, index)
    made = Composer(objects, contexts, (24, 30), ranges)(rows)
    assert made.targets is not None
    assert made.targets.masks.amax((1, 2, 3)).min() > 0.3
    nothing = Composer(empty_like(objects), contexts, (24, 30), ranges)(rows)
    assert (made.images - nothing.images).abs().max() < 1 / 255
    if not lit:
        assert (made.images - 1).abs().max() < 1 / 255


def empty_like(bank: ObjectBank) -> ObjectBank:
    return replace(bank, pyramid=replace(bank.pyramid, atlas=torch.zeros_like(bank.pyramid.atlas)))


def test_grey_on_white_is_visible() -> None:
    """The test above can fail."""
    objects, _ = white_banks(torch.device("cpu"), 0.5)
    _, contexts = white_banks(torch.device("cpu"), 1.0)
    index = torch.arange(3)
    images = Composer(objects, contexts, (24, 24))(Rows.of(index, index % 2, index, epoch=index, seed=index)).images
    assert (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).min() > 0.3


def test_contexts_do_not_matter_under_an_opaque_object() -> None:
    opaque = torch.nn.functional.pad(torch.ones(1, 4, 8, 8), (1, 1, 1, 1))
    solid = ObjectBank.from_tensors(opaque, size=8)
    close = SceneRange(pose=PoseRange(scale=(4, 4)))
    index = torch.arange(4)
    rows = Rows.of(index * 0, index, index)
    composer = Composer(solid, make_contexts(), (12, 12), close)
    here, there = composer(rows), composer(rows.replaced(contexts=index + 2))
    torch.testing.assert_close(here.images, there.images, rtol=0, atol=1e-5)


@dataclass(frozen=True)
class Lighten(Blend):
    """The brighter of the object on black and what lies behind it."""

    gain: float = 0.9
    on_black: ClassVar[bool] = True

    def __call__(self, rgb: Tensor, alpha: Tensor, behind: Tensor, edge: float | Tensor = 0.5) -> Tensor:
        return torch.maximum(self.gain * rgb, behind)


def lightened(gain: float, bank: ObjectBank | None = None) -> Composer:
    plain = ColorRange(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
    ranges = SceneRange(pose=RANGES["pose"].pose, color=plain, blend=Lighten(gain))
    composer = make_composer(ranges, (18, 22))
    return composer if bank is None else replace(composer, objects=bank)


def test_a_blend_of_ones_own() -> None:
    table = rows(9, layers=2)
    nothing = lightened(1.0, empty_like(lightened(1.0).objects))(table).images
    weak, strong = (lightened(gain)(table) for gain in (0.5, 1.0))
    assert strong.targets is not None
    outside = strong.targets.full.sum(dim=1, keepdim=True).expand(-1, 3, -1, -1) == 0
    for made in (weak, strong):
        assert torch.equal(made.images[outside], nothing[outside])
    assert (strong.images >= weak.images).all()
    assert (weak.images >= nothing).all()
    assert (strong.images > weak.images)[~outside].float().mean() > 0.2


@pytest.mark.compile
def test_a_blend_of_ones_own_compiled() -> None:
    torch._dynamo.reset()
    composer, table, renderer = lightened(0.9), rows(9), Renderer()
    renderer.compile()
    fast, slow = renderer(composer, table, 1.0, None, targets=True, scene=True), composer(table)
    assert same(fast.keys, slow.keys)
    assert ((fast.images - slow.images).abs() < 1 / 255).float().mean() > 0.98
