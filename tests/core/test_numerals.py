import pytest

from kornia_cag.core.numerals import fraction


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("1e-2/2", 0.005), (" -1 / 4 ", -0.25)]
)
def test_a_fraction_is_a_number(text, value):
    assert fraction(text) == value


@pytest.mark.parametrize("text", ["", "/", "8/", "/255", "8/0", "1/2/3", "a/b"])
def test_anything_else_is_none(text):
    with pytest.raises((ValueError, ZeroDivisionError)):
        fraction(text)
