"""A recipe refuses what no training could use, by the name of the field."""

from dataclasses import replace

import pytest

from kornia_cag import InputError, Recipe
from kornia_cag.training.recipes import SIGNS


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "a\nb"), ("size", 8), ("procedural", 0), ("images", 0), ("batch_size", 0), ("width", 0),
     ("local", 10), ("local", 81), ("views", 0), ("samples_per_class", 0), ("learning_rate", -1.0), ("smoothing", 1.5),
     ("ema", 1.5), ("dropout", 1.5), ("map_dropout", -0.1), ("ink", (0, 0, 256)), ("thickness", (5,)), ("reset", 1.5),
     ("learning_rate", 0.0), ("smoothing", 1.0), ("ema", 1), ("dropout", 1.0), ("map_dropout", 1.0), ("strength", 2.0),
     ("network", "other"), ("fit", "stretch"), ("kind", "photos")],
)  # fmt: skip
def test_a_field_out_of_range_is_named(untyped: None, field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field}: expected "):
        replace(SIGNS, **{field: value})  # type: ignore[arg-type]


def test_hard_pairing_needs_a_chain() -> None:
    with pytest.raises(InputError, match=r"^hard_pairing: expected a recipe with a chain"):
        replace(SIGNS, reset=None, hard_pairing=True)


def test_fields_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Recipe("mine", 64, SIGNS.ranges)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("classes", "said"), [("aa", "at least one character, none twice, got 'aa'"), ("a\U0010ffff", "one that the font")]
)
def test_glyphs_that_cannot_be_drawn_are_the_fault_of_classes(classes: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^classes: expected {said}") as caught:
        replace(SIGNS, classes=classes).objects(None, device="cpu")
    assert caught.value.argument == "classes"
