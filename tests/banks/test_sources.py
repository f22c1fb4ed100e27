import itertools

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from kornia_cag.banks.sources import EVERY, Mark, Reading, Shuffled
from kornia_cag.core.checks import InputError


class Counted:
    """Numbers with a state, which say how many of them were read."""

    def __init__(self, count):
        self.count, self.at, self.read, self.loaded = count, 0, 0, []

    def __iter__(self):
        while self.at < self.count:
            self.at, self.read = self.at + 1, self.read + 1
            yield self.at - 1

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.loaded.append(state["at"])
        self.at = state["at"]


def taken(reading, count):
    return [reading.next() for _ in range(count)]


def test_items_come_with_their_places_pass_after_pass():
    found = taken(Reading([7, 8, 9]), 7)
    assert [item for _, item in found] == [7, 8, 9, 7, 8, 9, 7]
    assert [(mark.passes, mark.item) for mark, _ in found] == [(k // 3, k % 3) for k in range(7)]


@pytest.mark.parametrize("make", [lambda: range(700), lambda: lambda: iter(range(700)), lambda: Counted(700)])
def test_reading_goes_on_anywhere(make):
    found = taken(Reading(make()), 1500)
    for place in (0, 1, 255, 256, 257, 699, 700, 701, 1200):
        mark = Mark.read(found[place][0].state_dict())
        fresh = Reading(make())
        fresh.seek(mark)
        assert taken(fresh, 300) == found[place : place + 300]


def test_a_source_with_a_state_is_not_read_from_its_beginning():
    mark, _ = taken(Reading(Counted(10_000)), 5 * EVERY + 10)[-1]
    source = Counted(10_000)
    reading = Reading(source)
    reading.seek(mark)
    assert reading.next()[1] == 5 * EVERY + 9
    assert source.loaded == [5 * EVERY]
    assert source.read == 10


def test_every_pass_begins_where_the_source_first_was():
    source = Counted(5)
    source.at = 2
    assert [item for _, item in taken(Reading(source), 7)] == [2, 3, 4, 2, 3, 4, 2]


@pytest.mark.parametrize("source", [[], lambda: iter(()), Counted(0)])
def test_an_empty_source_is_refused_when_it_is_read(source):
    with pytest.raises(InputError, match=r"^source: expected at least one picture, got none\."):
        Reading(source).next()


def test_what_cannot_be_read_twice_is_refused_at_its_end():
    reading = Reading(iter([1, 2]))
    taken(reading, 2)
    with pytest.raises(InputError, match=r"got none when it was read again\. Pass a function that returns a fresh one"):
        reading.next()


def test_a_source_that_has_become_shorter_is_refused():
    reading = Reading([1, 2])
    reading.seek(Mark(0, 5))
    with pytest.raises(InputError, match=r"expected at least 5 items, as when the state was saved, got 2"):
        reading.next()


@pytest.mark.parametrize("source", ["photos/", b"png", 3, None])
def test_other_sources_are_refused(source):
    with pytest.raises(InputError, match=r"^source: expected an iterable of pictures, or a function that returns one"):
        Reading(source)


def test_a_function_that_gives_no_iterable_is_refused():
    with pytest.raises(InputError, match=r"^source\(\): expected an iterable of pictures, got 3"):
        Reading(lambda: 3).next()


@pytest.mark.parametrize("state", [3, {}, {"passes": 0, "item": 1, "kept": 2, "state": None},
                                   {"passes": -1, "item": 1, "kept": 0, "state": None}])  # fmt: skip
def test_other_marks_are_refused(state):
    with pytest.raises(InputError, match=r"^state"):
        Mark.read(state)


def test_shuffled_paths_come_once_a_pass_and_in_another_order_each_time():
    paths = [f"{k}.png" for k in range(50)]
    found = list(itertools.islice(Shuffled(paths, seed=3), 150))
    passes = [found[k : k + 50] for k in (0, 50, 100)]
    assert [sorted(part) for part in passes] == 3 * [sorted(paths)]
    assert len({tuple(part) for part in passes} | {tuple(paths)}) == 4
    assert list(itertools.islice(Shuffled(paths, seed=3), 150)) == found
    assert list(itertools.islice(Shuffled(paths, seed=4), 50)) != passes[0]
    later = Shuffled(paths, seed=3)
    later.load_state_dict({"next": 77})
    assert list(itertools.islice(later, 73)) == found[77:]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_a_loader_of_torchdata_goes_on_from_its_state():
    def reading():
        return Reading(StatefulDataLoader(list(range(700)), batch_size=None))

    found = taken(reading(), 1500)
    assert [item for _, item in found] == [k % 700 for k in range(1500)]
    for place in (300, 699, 1000, 1200):
        fresh = reading()
        fresh.seek(Mark.read(found[place][0].state_dict()))
        assert found[place][0].kept >= 256
        assert [item for _, item in taken(fresh, 900)] == [k % 700 for k in range(place, place + 900)]
