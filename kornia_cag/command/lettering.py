"""Text in pictures: any name in letters that the font at hand can draw.

The font that comes with Pillow has ASCII and little else, and would draw a box for every other character. A machine may
have no other font, and a picture should not depend on which ones it has. So other scripts are transliterated.
"""

import unicodedata
from functools import cache

from anyascii import anyascii
from PIL import ImageFont

DRAWN = "©«°±»…™"  # beyond ASCII, and in Pillow's font
SEPARATORS = " _-."  # a line may end after these
ALEF = "\N{ARABIC LETTER ALEF}"  # AnyAscii leaves it out, with most of the vowels that Arabic writes
IDEOGRAPHS = "\u3400"  # the first of them
LEAST = 3  # characters of a last line: one alone looks lost
NARROWEST = 2  # pixels that a character takes, at least

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """The font that comes with Pillow; ``size`` in pixels."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """The text in characters that the font has, in one line, and never empty unless the text is.

    Letters of other scripts become the Latin letters nearest to them, an emoji its name, and what has no name, or is
    all that there is and invisible, its code point.
    """
    plain = "".join(map(_plain, unicodedata.normalize("NFC", text)))
    return plain if plain.strip() else "".join(f"U+{ord(char):04X}" for char in text)


def _plain(char: str) -> str:
    if char in DRAWN or (char.isascii() and char.isprintable()):
        return char
    if char.isascii() or char in "\x85\u2028\u2029":
        return " "  # a line break, a tab
    latin = "a" if char == ALEF else "".join(anyascii(char).splitlines())
    kind = unicodedata.category(char)
    # Joins or turns its neighbours, is an accent on one, or a letter that is not said; the ideographs come after those.
    unseen = kind in ("Cf", "Mn", "Me") or (kind.startswith("L") and char < IDEOGRAPHS)
    return latin or ("" if unseen else f"U+{ord(char):04X}")


def fitted(text: str, width: float, size: int, lines: int = 1) -> list[str]:
    """Break :func:`drawable` text into lines, and leave out its middle if they do not hold it.

    Names of one folder often begin alike and end alike, so both ends stay.

    Args:
        text: any text.
        width: of a line, pixels.
        size: of the font, pixels.
        lines: most lines.
    """
    left, kept = drawable(text).strip(), list[str]()
    while len(kept) < lines - 1 and _width(left, size) > width:
        end = _fits(left, width, size)
        at = max((place for place in range(1, end + 1) if _parts(left[place - 1 : place + 1])), default=0)
        wasted = at < end / 2 and _width(left[at:], size) > width  # by a line that ends so early
        end = min(end, max(len(left) - LEAST, 1)) if wasted or not at else at
        kept.append(left[:end].rstrip())
        left = left[end:].lstrip()
    return [*kept, _shortened(left, width, size)]


def _parts(pair: str) -> bool:
    """Whether a line may end between these two characters: transliterated Chinese has a capital in each syllable."""
    return pair[0] in SEPARATORS or (pair[0].islower() and pair[1:].isupper())


def _shortened(text: str, width: float, size: int) -> str:
    if _width(text, size) <= width:
        return text
    most = min(len(text) - 1, int(width / NARROWEST))
    keep = next((keep for keep in range(most, 1, -1) if _width(_without_middle(text, keep), size) <= width), 1)
    return _without_middle(text, keep)


def _without_middle(text: str, keep: int) -> str:
    head, tail = text[: (keep + 1) // 2].rstrip(), text[len(text) - keep // 2 :].lstrip()
    return f"{head}…{tail}"


def _fits(text: str, width: float, size: int) -> int:
    """How many characters of the text fit into a line, at least one."""
    most = min(len(text), int(width / NARROWEST))
    return next((end for end in range(most, 1, -1) if _width(text[:end], size) <= width), 1)


def _width(text: str, size: int) -> float:
    return font(size).getlength(text)
