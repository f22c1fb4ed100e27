"""Text in columns of a terminal, where some characters take two places, and some none."""

import unicodedata


def width(text: str) -> int:
    """Places that a text takes on a terminal: two for a wide character (Chinese, emoji), none for an accent."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def padded(text: str, places: int) -> str:
    """The text, followed by as many spaces as it takes to fill the places."""
    return text + " " * max(0, places - width(text))
