"""Names in pictures: whatever a file is called, it is written in letters and fits."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kornia_cag.command.lettering import DRAWN, drawable, fitted, font

ASCII = [chr(code) for code in range(32, 127)]


def ink(char):
    return bytes(font(40).getmask(char))


MISSING = ink("\U0010ffff")  # the box that the font draws for what it lacks


@pytest.mark.parametrize("char", [*ASCII, *DRAWN])
def test_the_font_has_what_is_drawn(char):
    assert ink(char) != MISSING


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("stop", "stop"),
        ("Überholverbot", "Uberholverbot"),
        ("знак остановки", "znak ostanovki"),
        ("停车", "TingChe"),
        (unicodedata.normalize("NFD", "한국"), "HanGug"),  # as macOS names files
        ("قف هنا", "qf hna"),
        ("\N{HANGUL LETTER IEUNG}\N{HANGUL LETTER A}", "a"),  # the first is not said
        ("\N{OCTAGONAL SIGN}", ":octagonal_sign:"),
        ("e\N{COMBINING ACUTE ACCENT}", "e"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe", "gnp.exe"),
        ("two\nlines", "two lines"),
        ("\ue000", "U+E000"),
        ("\udcff.png", "U+DCFF.png"),  # a byte that is no UTF-8
        ("\N{ZERO WIDTH SPACE}", "U+200B"),
        ("-5 °", "-5 °"),
    ],
)
def test_names_are_readable(name, shown):
    assert drawable(name) == shown


@given(st.text(max_size=40))
def test_every_name_can_be_drawn(text):
    shown = drawable(text)
    assert set(shown) <= {*ASCII, *DRAWN}
    assert bool(shown) == bool(text)


@given(st.text(max_size=400), st.integers(30, 300), st.integers(1, 3))
def test_lines_fit(text, width, lines):
    found = fitted(text, width, 11, lines)
    assert 1 <= len(found) <= lines
    assert all(font(11).getlength(line) <= width for line in found)


def test_long_names_keep_both_ends():
    (line,) = fitted("speed_limit_on_the_motorway_when_it_is_wet_120", 120, 11)
    assert line.startswith("speed_l")
    assert line.endswith("t_120")
    assert "…" in line


def test_lines_end_where_a_word_does():
    assert fitted("znak ostanovki", 78, 11, 2) == ["znak", "ostanovki"]
    assert fitted("speed_limit_30", 78, 11, 2) == ["speed_limit_", "30"]
    assert fitted("禁止停车", 78, 11, 2) == ["JinZhiTing", "Che"]
    assert fitted("stop", 78, 11, 2) == ["stop"]
    assert fitted("Uberholverbot", 72, 11, 2) == ["Uberholver", "bot"]  # no letter is left alone
