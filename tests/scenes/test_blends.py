import pytest
import torch
from conftest import make_contexts
from hypothesis import given, settings
from hypothesis import strategies as st
from stacked import average, blend, hard, over
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.core.checks import InputError
from kornia_cag.core.randomness import sample_keys
from kornia_cag.scenes.blends import MODES
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.composer import Composer
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import Framing, PoseRange
from kornia_cag.scenes.ranges import SceneRange


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
    torch.testing.assert_close(blend(front, behind, "difference", 1.0).flatten(), torch.tensor([0.6, 0.6, 0.7]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(MODES))
def test_stays_in_range(seed: int, opacity: float, mode: str) -> None:
    front, behind = layers(seed)
    out = blend(front, behind, mode, opacity)  # type: ignore[arg-type]
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


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_looped(mode: str) -> None:
    front, behind = layers()
    out = blend(front, behind, mode, 0.4)  # type: ignore[arg-type]
    for i in range(2):
        assert torch.equal(out[i], blend(front[i], behind[i], mode, 0.4))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode: str) -> None:
    front, behind = layers(dtype=torch.float64)
    assert (front[:, 3] - 0.5).abs().min() > 1e-4  # where "hard" jumps
    inputs = front.requires_grad_(), behind.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, b: blend(f, b, mode, 0.6), inputs)  # type: ignore[arg-type]


@pytest.mark.usefixtures("untyped")
def test_unknown_mode_and_bad_opacity() -> None:
    with pytest.raises(InputError, match=r"^blend: expected one of 'over', 'hard', 'average', 'difference', got 'add'"):
        blend(*layers(), "add", 0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^opacity: expected a number in \[0, 1\], got 1.5"):
        blend(*layers(), "average", 1.5)


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


@pytest.mark.parametrize("mode", ["over", "hard"])
@pytest.mark.parametrize("framing", [None, Framing()])
@pytest.mark.parametrize("lit", [False, True])
def test_white_on_white_is_invisible(device: torch.device, mode: str, framing: Framing | None, lit: bool) -> None:
    """Whatever the pose, no edge of a white object shows before white: nothing bleeds from transparent pixels."""
    light = ColorRange(exposure=(-2, 0), contrast=(0.5, 1), tint=(-0.3, 0), veil=(0, 0.3), illumination=(-0.4, 0.4))
    ranges = SceneRange(
        pose=PoseRange(angle=(-180, 180), scale=(0.2, 1.3), shear=(-30, 30), perspective=(-0.3, 0.3),
                       elastic=(0, 0.1), hole=(0, 0.3)),
        framing=framing, color=light if lit else ColorRange((1, 1), (0, 0), (1, 1)), blend=mode,  # type: ignore[arg-type]
        camera=CameraRange(low_resolution=(0, 2)),
    )  # fmt: skip
    objects, contexts = white_banks(device, 1.0)
    rows = torch.arange(48, device=device)
    keys = sample_keys(torch.zeros_like(rows), torch.zeros_like(rows), rows)
    composer = Composer(objects, contexts, (24, 30), ranges)
    scene = composer(rows % 3, rows % 2, keys)
    assert scene.masks.amax((1, 2, 3)).min() > 0.3
    nothing = Composer(empty_like(objects), contexts, (24, 30), ranges)(rows % 3, rows % 2, keys)
    assert (scene.images - nothing.images).abs().max() < 1 / 255
    if not lit:
        assert (scene.images - 1).abs().max() < 1 / 255


def empty_like(bank: ObjectBank) -> ObjectBank:
    empty = bank.with_ink((0, 0, 0))
    empty.pyramid.atlas.zero_()
    return empty


def test_grey_on_white_is_visible() -> None:
    """The test above can fail."""
    objects, _ = white_banks(torch.device("cpu"), 0.5)
    _, contexts = white_banks(torch.device("cpu"), 1.0)
    rows = torch.arange(3)
    keys = sample_keys(rows, rows, rows)
    scene = Composer(objects, contexts, (24, 24))(rows, rows % 2, keys)
    assert (scene.images.amax((1, 2, 3)) - scene.images.amin((1, 2, 3))).min() > 0.3


def test_contexts_do_not_matter_under_an_opaque_object() -> None:
    opaque = torch.nn.functional.pad(torch.ones(1, 4, 8, 8), (1, 1, 1, 1))
    solid = ObjectBank.from_tensors(opaque, size=8)
    close = SceneRange(pose=PoseRange(scale=(4, 4)))
    rows = torch.arange(4)
    keys = sample_keys(rows * 0, rows * 0, rows)
    composer = Composer(solid, make_contexts(), (12, 12), close)
    here, there = composer(rows * 0, rows, keys), composer(rows * 0, rows + 2, keys)
    torch.testing.assert_close(here.images, there.images, rtol=0, atol=1e-5)
