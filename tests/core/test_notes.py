from dataclasses import dataclass

from kornia_cag.core.notes import notes
from kornia_cag.scenes.ranges import SceneRange


@dataclass
class Told:
    """Something.

    Attributes:
        first: one, in units of
            :class:`.Two`: ``three``; None: four.
        second: five.

    Raises:
        third: not a field.
    """


def test_notes_are_plain_text_in_one_line():
    assert notes(Told) == {"first": "one, in units of Two: three; null: four", "second": "five"}
    assert notes(SceneRange)["pose"] == "where the object lies"
    assert notes(int) == {}
