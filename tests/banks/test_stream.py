import copy
import gc
import io
import itertools
import subprocess
import sys
import tarfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_cag import ContextBank, ContextStream, InputError
from kornia_cag.banks import stream as streams


def picture(number, side=8):
    """One colour, which says its number."""
    return np.full((side, side, 3), [number >> 16, number >> 8 & 255, number & 255], np.uint8)


def pictures(count=None, start=0):
    return (picture(number) for number in (itertools.count(start) if count is None else range(start, count)))


def encoded(array, kind="png"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def held(stream):
    """The numbers of the pictures in the slots."""
    texels = stream.bank.pyramid.level(0)[:, :, 0, 0].int().cpu()
    return ((texels[:, 0] << 16) + (texels[:, 1] << 8) + texels[:, 2]).tolist()


def fill(stream, slots, epoch):
    slots = torch.as_tensor(slots)
    stream.refill(slots, torch.full_like(slots, epoch))
    return [held(stream)[slot] for slot in slots.tolist()]


def make(source=pictures, *, slots=6, size=8, **options):
    return ContextStream(source, slots=slots, size=size, **options)


def test_a_slot_holds_the_picture_of_its_epoch_and_no_other_is_touched(device):
    with make(device=device) as stream:
        place = stream.bank.pyramid.atlas.data_ptr()
        assert fill(stream, [4, 1, 4], 0) == [4, 1, 4]
        assert fill(stream, range(6), 0) == [0, 1, 2, 3, 4, 5]
        assert fill(stream, [5], 1) == [11]
        assert held(stream) == [0, 1, 2, 3, 4, 11]
        assert fill(stream, [0, 2], 2) == [12, 14]
        assert held(stream) == [12, 1, 14, 3, 4, 11]
        assert stream.bank.pyramid.atlas.data_ptr() == place  # graphs go on reading there
        assert len(stream) == 6
        assert (stream.size, stream.device.type) == (8, device.type)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_a_slot_holds_depends_on_no_thread(workers):
    rng = np.random.default_rng(workers)

    def source():
        for number in itertools.count():
            time.sleep(rng.random() * 0.001)
            yield encoded(np.repeat(picture(number), 1 + number * 7 % 40, axis=1))

    with make(source, slots=10, workers=workers) as stream:
        for epoch in range(5):
            order = rng.permutation(10)
            for part in np.split(order, [3, 7]):
                assert fill(stream, part, epoch) == [epoch * 10 + slot for slot in part]


def test_pictures_stay_for_several_epochs():
    with make(epochs=3) as stream:
        assert [fill(stream, [1, 2], epoch) for epoch in range(7)] == 3 * [[1, 2]] + 3 * [[7, 8]] + [[13, 14]]
        assert stream.refill(torch.tensor([0, 1]), torch.tensor([6, 8])) is None  # the same pictures
        with pytest.raises(InputError, match=r"^rows: expected those of one epoch, or of the 3 with the same pictures"):
            stream.refill(torch.tensor([0, 1]), torch.tensor([8, 9]))


def test_epochs_may_be_left_out_and_come_again():
    with make() as stream:
        assert fill(stream, [3, 0], 5) == [33, 30]
        assert fill(stream, [3, 1], 1) == [9, 7]
        assert fill(stream, [0, 3], 5) == [30, 33]
        assert fill(stream, [2], 6) == [38]
        assert fill(stream, [2], 4) == [26]


def test_a_short_source_starts_again_at_its_end():
    with make(lambda: pictures(4), slots=6) as stream:
        assert fill(stream, range(6), 0) == [0, 1, 2, 3, 0, 1]
        assert fill(stream, range(6), 1) == [2, 3, 0, 1, 2, 3]


def as_items(folder):
    """The files of a folder in the forms in which items come."""
    paths = sorted(folder.iterdir())
    yield "paths", paths
    yield "strings", [str(path) for path in paths]
    yield "bytes", [path.read_bytes() for path in paths]
    yield "dicts", [{"label": 3, "image": str(path)} for path in paths]
    yield "webdataset", [{"__key__": "a/b", "cls": b"7", path.suffix[1:]: path.read_bytes()} for path in paths]
    yield "Hugging Face", [{"image": {"bytes": path.read_bytes(), "path": None}} for path in paths]
    yield "tuples", [(5, path) for path in paths]


@pytest.fixture
def photos(tmp_path):
    """Files that a reader could get wrong: turned by EXIF, of other modes and sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (mode, suffix) in enumerate(itertools.product(("RGB", "L", "CMYK"), ("jpg", "tif"))):
        array = rng.integers(0, 256, (40 + 9 * number, 57, {"RGB": 3, "L": 1, "CMYK": 4}[mode]), np.uint8)
        image = Image.fromarray(array.squeeze(), mode)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(folder / f"{number}.{suffix}", exif=exif)
    Image.fromarray(rng.integers(0, 256, (600, 900, 3), np.uint8)).save(folder / "large.jpg")
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / "fits.png")
    return folder


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_pictures_look_as_in_a_resident_bank(photos):
    resident = ContextBank.from_folder(photos, size=16)
    for form, items in as_items(photos):
        with make(items, slots=len(items), size=16) as stream:
            fill(stream, range(len(items)), 0)
            assert torch.equal(stream.bank.pyramid.atlas, resident.pyramid.atlas), form


def test_tensors_and_arrays_and_images_look_as_in_a_resident_bank():
    images = torch.rand(3, 3, 20, 31), (255 * torch.rand(3, 3, 16, 16)).byte()
    for batch in images:
        resident = ContextBank.from_tensors(batch, size=16).pyramid.atlas
        forms = [batch, [(image, 1) for image in batch]]
        if batch.dtype == torch.uint8:
            arrays = [image.permute(1, 2, 0).numpy() for image in batch]
            forms += [arrays, [Image.fromarray(array) for array in arrays]]
        for items in forms:
            with make(items, slots=3, size=16) as stream:
                fill(stream, range(3), 0)
                assert torch.equal(stream.bank.pyramid.atlas, resident)


def test_a_folder_comes_in_another_order_in_every_pass(tmp_path):
    (tmp_path / "below").mkdir()
    for number in range(8):
        Image.fromarray(picture(number)).save(tmp_path / ("below" if number % 2 else ".") / f"{number}.png")
    with ContextStream.from_folder(tmp_path, slots=8, size=8, seed=1) as stream:
        passes = [fill(stream, range(8), epoch) for epoch in range(3)]
    assert [sorted(order) for order in passes] == 3 * [list(range(8))]
    assert passes[0] != passes[1] != passes[2]
    with ContextStream.from_folder(tmp_path, slots=8, size=8, seed=1) as again:
        assert fill(again, range(8), 2) == passes[2]
    (tmp_path / "notes.txt").touch()
    with pytest.warns(UserWarning, match=r"skipped 1 bad file\(s\): notes\.txt"):
        ContextStream.from_folder(tmp_path, slots=8, size=8)
    with pytest.raises(InputError, match=r"notes"):
        ContextStream.from_folder(tmp_path, slots=8, size=8, on_error="raise")


def damaged(count=None):
    """Pictures, every third of which cannot be used."""
    for number in itertools.count() if count is None else range(count):
        whole = encoded(picture(number))
        yield whole[:-30] if number % 3 == 1 else whole


@pytest.mark.parametrize("workers", [1, 4])
def test_the_next_good_picture_takes_the_place_of_a_bad_one(workers):
    good = [number for number in range(200) if number % 3 != 1]
    with make(damaged, workers=workers) as stream:
        with pytest.warns(UserWarning, match=r"^contexts: skipped item 1 of the source: expected a whole picture, got"):
            assert fill(stream, [5, 2, 0], 0) == [good[5], good[2], good[0]]
        assert stream.skipped == 3
        assert fill(stream, range(6), 1) == good[6:12]
        assert fill(stream, range(6), 4) == good[24:30]
        assert stream.skipped == 15
        assert len(stream.reasons) == streams.REASONS
        assert stream.reasons[1].startswith("item 4 of the source: expected a whole picture")


@pytest.mark.parametrize(("slots", "usable"), [(7, None), (8, None), (9, 8), (30, 8)])
@pytest.mark.filterwarnings("ignore:contexts. skipped:UserWarning")
def test_it_says_if_fewer_pictures_than_slots_can_be_used(slots, usable, tmp_path):
    for number, data in enumerate(damaged(12)):
        (tmp_path / f"{number}.png").write_bytes(data)
    with make(lambda: damaged(12), slots=slots) as one, ContextStream.from_folder(tmp_path, slots=slots, size=8) as two:
        for stream in (one, two):
            assert stream.usable is None
            for epoch in range(4):
                fill(stream, range(slots), epoch)
            assert stream.usable == usable


def test_bad_pictures_can_stop_it():
    with make(damaged, on_error="raise") as stream:
        assert fill(stream, [0], 0) == [0]
        for _ in range(2):
            with pytest.raises(InputError, match=r"^item 1 of the source: expected a whole picture"):
                fill(stream, [1], 0)


def test_transparent_pictures_and_missing_files_are_skipped():
    clear = Image.new("RGBA", (8, 8))
    with make([clear, "nowhere.png", picture(5)], slots=1) as stream:
        with pytest.warns(UserWarning, match=r"expected a PIL image without transparency"):
            assert fill(stream, [0], 0) == [5]
        assert "nowhere.png" in stream.reasons[1]


def test_a_source_of_which_nothing_can_be_used_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "MOST_SKIPPED", 20)
    with make([b"no picture", b"nor this"]) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            with pytest.raises(InputError, match=r"^source: expected pictures that can be used, got 20 that cannot"):
                fill(stream, [0], 0)


@pytest.mark.parametrize(("item", "key", "got"), [
    (3, None, "got 3"),
    ({"__key__": "shard/7", "json": "{}"}, None, r"^item 2 of the source \(shard/7\): expected"),
    ({"jpg": picture(2)}, "png", r"expected an entry 'png', got \['jpg'\]"),
    ((1, picture(2)), 2, "expected an entry 2"),
])  # fmt: skip
def test_items_without_a_picture_are_named_when_they_are_due(item, key, got):
    good = {"png": picture(1)} if isinstance(key, str) else (0, 0, picture(1))
    with make([good, good, item], key=key, workers=2) as stream:
        fill(stream, [0, 1], 0)
        for _ in range(2):
            with pytest.raises(InputError, match=got):
                fill(stream, [2], 0)


def test_a_key_says_which_picture():
    with make([{"image": picture(1), "depth": picture(2)}], slots=1, key="depth") as stream:
        assert fill(stream, [0], 0) == [2]
    with make([(picture(1), picture(2))], slots=1, key=1) as stream:
        assert fill(stream, [0], 0) == [2]


def test_what_a_source_raises_is_raised_by_the_batch_that_needs_it():
    def source():
        yield from pictures(8)
        raise ConnectionError("the server is gone")

    with make(source, slots=5, workers=3) as stream:
        assert fill(stream, range(5), 0) == [0, 1, 2, 3, 4]
        assert fill(stream, [2, 0], 1) == [7, 5]
        for _ in range(2):
            with pytest.raises(ConnectionError, match=r"the server is gone"):
                fill(stream, [3], 1)
        assert fill(stream, [1], 1) == [6]


def test_an_empty_source_is_refused():
    with make([]) as stream, pytest.raises(InputError, match=r"^source: expected at least one picture, got none"):
        fill(stream, [0], 0)


@pytest.mark.parametrize("epoch", [0, 3, 4])
@pytest.mark.filterwarnings("ignore:contexts. skipped:UserWarning")
def test_a_state_goes_on_to_the_bit(epoch):
    with make(damaged) as one, make(lambda: damaged()) as other:
        for earlier in range(epoch + 1):
            fill(one, [1, 4], earlier)
        state = copy.deepcopy(one.state_dict())
        assert torch.load(saved(state), weights_only=True) == state
        other.load_state_dict(state)
        assert fill(other, [4, 1], epoch) == fill(one, [4, 1], epoch)
        for later in (epoch, epoch + 1, epoch + 2):
            assert fill(other, range(6), later) == fill(one, range(6), later)
            assert other.skipped == one.skipped
        assert other.state_dict() == one.state_dict()


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_a_state_knows_the_epoch_before_as_well():
    """A batch may be composed ahead, of the next epoch."""
    reads = []

    def source():
        reads.append(0)
        for array in pictures():
            reads[-1] += 1
            yield array

    with make(source, slots=50) as one, make(source, slots=50, workers=1) as other:
        for epoch in range(10):
            fill(one, [7], epoch)
        other.load_state_dict(one.state_dict())
        assert fill(other, [7], 8) == [8 * 50 + 7]
        assert "places" in one.state_dict()
        assert [place["generation"] for place in one.state_dict()["places"]] == [8, 9]
        assert [place["item"] for place in one.state_dict()["places"]] == [400, 450]


def test_a_folder_goes_on_where_it_was_moved_to_but_not_with_other_files(tmp_path):
    (tmp_path / "old" / "below").mkdir(parents=True)
    for name in ("0.png", "1.png", "below/2.png"):
        Image.fromarray(picture(3)).save(tmp_path / "old" / name)
    folder = ContextStream.from_folder(tmp_path / "old", slots=2, size=8)
    state = folder.state_dict()
    assert state["files"] == folder.files
    assert folder.files["count"] == 3
    moved = (tmp_path / "old").rename(tmp_path / "new")
    ContextStream.from_folder(moved, slots=2, size=8).load_state_dict(state)
    (moved / "1.png").rename(moved / "below" / "1.png")
    with pytest.raises(InputError, match=r"^state: expected the state of a stream with files=.*like the saved one"):
        ContextStream.from_folder(moved, slots=2, size=8).load_state_dict(state)
    with pytest.raises(InputError, match=r"with files=\{\}"):
        make(slots=2).load_state_dict(state)


@pytest.mark.parametrize(("change", "said"), [
    (lambda state: 3, "the state_dict of a ContextStream"),
    (lambda state: {**state, "slots": 5}, "the state of a stream with slots=6, got slots=5"),
    (lambda state: {**state, "epochs": 2}, "epochs=1, got epochs=2"),
    (lambda state: {**state, "places": 1}, "list"),
    (lambda state: {**state, "places": [{}]}, "generation"),
    (lambda state: {**state, "places": [{"generation": 0, "skipped": 0}]}, "a place in a source"),
])  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_other_states_are_refused(change, said):
    stream = make()
    with pytest.raises(InputError, match=f"^state.*{said}"):
        stream.load_state_dict(change(stream.state_dict()))


@pytest.mark.parametrize(("options", "said"), [
    ({"slots": 0}, "^slots: expected an integer of at least 1"),
    ({"size": 60}, "^size: expected a power of two"),
    ({"epochs": 0}, "^epochs: "),
    ({"workers": 0}, "^workers: "),
    ({"on_error": "ignore"}, "^on_error: expected one of 'raise', 'skip'"),
    ({"source": "photos"}, r"ContextStream\.from_folder"),
])  # fmt: skip
def test_impossible_arguments_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        make(**options)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "contexts"]


def test_threads_end_when_it_is_closed_and_when_it_is_forgotten():
    count = torch.get_num_threads()
    stream = make(workers=3)
    assert threads() == []  # nothing begins before the first batch
    fill(stream, [0], 0)
    assert len(threads()) == 3
    assert torch.get_num_threads() == count
    stream.close()
    assert threads() == []
    fill(stream, [0], 0)  # it is there
    with pytest.raises(InputError, match=r"^contexts: expected an open stream, got a closed one"):
        fill(stream, [0], 1)
    other = make(workers=2)
    fill(other, [0], 0)
    del other
    gc.collect()
    assert threads() == []


def test_it_stops_reading_when_there_is_enough():
    read = []

    def source():
        for array in pictures():
            read.append(0)
            yield array

    with make(source, slots=20, workers=2) as stream:
        fill(stream, [0], 0)
        time.sleep(0.3)
        assert len(read) <= 20 + 2 + 1
        before = len(read)
        fill(stream, range(10), 0)
        time.sleep(0.3)
        assert len(read) == before + 9


def test_waiting_is_counted():
    def source():
        for array in pictures():
            time.sleep(0.02)
            yield array

    with make(source, slots=5) as stream:
        assert stream.waited == 0
        fill(stream, range(5), 0)
        assert 0.05 < (waited := stream.waited) < 5
        time.sleep(0.5)
        fill(stream, range(5), 1)
        assert stream.waited < waited + 0.05


def test_a_process_ends_though_the_source_does_not_answer():
    code = """
import numpy as np, time, torch
from kornia_cag import ContextStream
def source():
    yield np.zeros((8, 8, 3), np.uint8)
    time.sleep(1000)
stream = ContextStream(source, slots=2, size=8, workers=2, device="cpu")
stream.refill(torch.tensor([0]), torch.tensor([0]))
print("done")
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (said.stdout, said.stderr) == ("done\n", "")


def test_other_threads_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters)
    with make(damaged, slots=40, workers=4) as stream, pytest.warns(UserWarning, match=r"skipped"):
        fill(stream, range(40), 3)
    assert [each for each in warnings.filters if each not in before][1:] == []


def test_an_unusable_colour_profile_is_said_once():
    file = io.BytesIO()
    Image.fromarray(picture(3)).save(file, "png", icc_profile=b"nonsense")
    with make([file.getvalue()], slots=4) as stream, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert fill(stream, range(4), 0) == 4 * [3]
    assert len(said) == 1
    assert "item 0 of the source is read as sRGB" in str(said[0].message)


def test_it_stays_in_its_process():
    with pytest.raises(InputError, match=r"Pass num_workers=0 to the loader"):
        copy.deepcopy(make())


def test_it_says_what_it_is():
    assert repr(make()) == "ContextStream(slots=6, size=8, epochs=1, device='cpu', skipped=0)"


def members(paths):
    """The pictures of tar files, one after the other, as encoded bytes."""
    for path in paths:
        with tarfile.open(path, "r|*") as shard:  # from front to back, so that it may be a pipe
            for member in shard:
                if Path(member.name).suffix in (".jpg", ".png"):
                    yield shard.extractfile(member).read()


def test_tar_shards_are_read_by_a_generator(tmp_path):
    paths = []
    for shard in range(3):
        paths.append(tmp_path / f"shard-{shard}.tar")
        with tarfile.open(paths[-1], "w") as file:
            for number in range(4 * shard, 4 * shard + 4):
                for name, data in ((f"{number:03}.cls", b"7"), (f"{number:03}.png", encoded(picture(number)))):
                    about = tarfile.TarInfo(name)
                    about.size = len(data)
                    file.addfile(about, io.BytesIO(data))
    with make(lambda: members(paths), slots=5) as stream:
        assert [fill(stream, range(5), epoch) for epoch in (0, 1, 2)] == [
            [0, 1, 2, 3, 4],
            [5, 6, 7, 8, 9],
            [10, 11, 0, 1, 2],
        ]


class Silent:
    """A source that answers no more after some pictures, until it is told to."""

    def __init__(self, count):
        self.count, self.answer, self.asked = count, threading.Event(), threading.Event()

    def __call__(self):
        yield from pictures(self.count)
        self.asked.set()
        self.answer.wait(60)
        yield from pictures(start=self.count)


@pytest.fixture
def silent():
    source = Silent(3)
    yield source
    source.answer.set()


def test_closing_waits_no_longer_for_many_threads(silent, monkeypatch):
    monkeypatch.setattr(streams, "PATIENCE", 0.5)
    stream = make(silent, workers=8)
    fill(stream, [0], 0)
    assert silent.asked.wait(5)
    before = time.monotonic()
    stream.close()
    assert time.monotonic() - before < 1.5
    assert len(threads()) == 1  # only the one that is in the source
    silent.answer.set()
    for thread in threads():
        thread.join(5)
    assert threads() == []


@pytest.mark.parametrize("when", ["release", "take"])
def test_closing_from_another_thread_is_an_error_that_says_so(when, monkeypatch):
    """At the worst moments: a picture was taken, and before the next one is."""
    with make(slots=20, workers=1) as stream:
        fill(stream, [0], 0)
        act = getattr(streams.Supply, when)

        def meanwhile(supply, *count):
            closing = threading.Thread(target=stream.close)
            closing.start()
            closing.join()
            return act(supply, *count)

        monkeypatch.setattr(streams.Supply, when, meanwhile)
        with pytest.raises(InputError, match=r"^contexts: expected an open stream, got a closed one"):
            fill(stream, [0], 1)


def test_closing_while_it_begins_ends_the_threads(monkeypatch):
    stream, seek = make(workers=2), streams.Reading.seek

    def meanwhile(reading, mark):
        seek(reading, mark)
        stream.close()

    monkeypatch.setattr(streams.Reading, "seek", meanwhile)
    with pytest.raises(InputError, match=r"^contexts: expected an open stream, got a closed one"):
        fill(stream, [0], 0)
    assert threads() == []


@pytest.mark.parametrize("elsewhere", ["state", "epoch before"])
def test_a_source_that_does_not_answer_is_named_when_reading_has_to_begin_elsewhere(elsewhere, silent, monkeypatch):
    monkeypatch.setattr(streams, "ANSWER", 0.3)
    stream = make(silent, slots=2, workers=2)
    assert fill(stream, [0], 0) == [0]
    assert fill(stream, [0], 1) == [2]
    assert silent.asked.wait(5)

    def begin():
        return stream.load_state_dict(stream.state_dict()) if elsewhere == "state" else fill(stream, [1], 0)

    for _ in range(2):
        with pytest.raises(InputError, match=r"^source: expected an answer within 0\.3 s, before it is read from"):
            begin()
    silent.answer.set()
    monkeypatch.setattr(streams, "ANSWER", 5.0)
    begin()
    assert [fill(stream, [1, 0], epoch) for epoch in (0, 1, 2)] == [[1, 0], [3, 2], [5, 4]]
    stream.close()
