"""Data sets on disk: what is in them, and that stopping changes nothing."""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch
import yaml
from conftest import make_contexts, make_objects
from PIL import Image

from kornia_cag import (
    CAGCollate,
    ClassFolders,
    Coco,
    ContextChain,
    InputError,
    PairSampler,
    PoseRange,
    Rows,
    SceneRange,
    Shards,
    Yolo,
    detection_targets,
    write_dataset,
)
from kornia_cag.export import dataset
from kornia_cag.export.pictures import pictures_of
from kornia_cag.export.rle import rle

NAMES = ("disc", "square", "diamond", "bar", "cross")
FORMATS = [Coco(), Coco(image="jpeg", masks=False), Yolo(), ClassFolders(), Shards(batches=2)]


def collate_of(**options):
    objects = make_objects()
    objects = type(objects).from_tensors(
        [torch.cat([torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)), disc(i)]) for i in range(5)],
        size=32, classes=NAMES, labels=range(5), device="cpu",
    )  # fmt: skip
    ranges = SceneRange(pose=PoseRange(scale=(0.3, 0.9), translate=(-1, 1)))
    return CAGCollate(objects, make_contexts(), (24, 30), **{"ranges": ranges, "returns": "batch", **options})


def disc(number):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    return ((x.abs() ** (1 + number) + y.abs() ** (1 + number)) < 0.9).float()[None]


def pairs_of(**options):
    return PairSampler(range(5), 7, **{"batch_size": 8, "seed": 3, "samples_per_class": 4, **options})


def contents(folder):
    """All files but the lock, with what they hold."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def composed(images, pairs=None, **options):
    """The same batches by an ordinary loop."""
    found, pairs = [], pairs or pairs_of()
    while sum(len(batch.images) for batch in found) < images:
        found += [collate_of(**options)(rows) for rows in pairs]
    return found


class Stopped(Exception):
    pass


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_stopped_and_resumed_the_bytes_are_the_same(format, tmp_path, monkeypatch):
    """Stopped at every write of a file in turn, until none is left: 45 pictures, two epochs of 20 and a part of one."""
    whole = write_dataset(collate_of(), pairs_of(), tmp_path / "whole", format, images=45)
    want = contents(whole)
    assert not (whole / ".parts").exists()
    plain, budget = dataset.write_bytes, [0]

    def limited(path, data):
        budget[0] -= 1
        if budget[0] < 0:
            raise Stopped
        plain(path, data)

    monkeypatch.setattr(dataset, "write_bytes", limited)
    monkeypatch.setattr(dataset, "_THREADS", 1)
    stops = 0
    for _ in range(60):
        budget[0] = 17 if stops % 2 else 30
        try:
            write_dataset(collate_of(), pairs_of(), tmp_path / "parts", format, images=45)
            break
        except Stopped:
            stops += 1
    assert stops >= (0 if isinstance(format, Shards) else 1)
    assert contents(tmp_path / "parts") == want


def test_shards_stopped_after_the_first(tmp_path, monkeypatch):
    format, plain = Shards(batches=2), dataset.write_json
    want = contents(write_dataset(collate_of(), pairs_of(), tmp_path / "whole", format, images=45))

    def stopping(path, value):
        if path.name == "000001.json":
            raise Stopped
        plain(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_json", stopping)
        with pytest.raises(Stopped):
            write_dataset(collate_of(), pairs_of(), tmp_path / "parts", format, images=45)
    assert (tmp_path / "parts" / "shard-000000.tar").exists()
    assert contents(write_dataset(collate_of(), pairs_of(), tmp_path / "parts", format, images=45)) == want


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    def stopping(*arguments):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_finish", stopping)
        with pytest.raises(Stopped):
            write_dataset(collate_of(), pairs_of(), tmp_path / "data", Coco(), images=8)
    left = [tmp_path / "data" / name / f".{'0a' * 8}.partial" for name in ("images", ".parts", "")]
    for path in left:
        path.write_text("half")
    write_dataset(collate_of(), pairs_of(), tmp_path / "data", Coco(), images=8)
    assert not any(path.exists() for path in left)


def test_a_whole_data_set_stays_as_it_is(tmp_path):
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", Yolo(), images=9)
    want = contents(folder)
    pairs = pairs_of()
    before = pairs.state_dict()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert write_dataset(collate_of(), pairs, str(folder), Yolo(), images=9) == folder
    assert contents(folder) == want
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == times
    assert pairs.state_dict() == before


def test_a_sampler_begins_at_its_epoch(tmp_path):
    pairs, later = pairs_of(), pairs_of()
    later.set_epoch(1)
    first = write_dataset(collate_of(), pairs, tmp_path / "first", Yolo(), images=40)
    second = write_dataset(collate_of(), later, tmp_path / "second", Yolo(), images=20)
    for number in range(20):
        one, other = (first / f"images/{20 + number:08d}.png"), second / f"images/{number:08d}.png"
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("options", [{}, {"drop_last": True}])
def test_coco_holds_what_was_composed(options, tmp_path):
    folder = write_dataset(collate_of(), pairs_of(**options), tmp_path / "data", Coco(), images=27)
    known = json.loads((folder / "annotations.json").read_text())
    assert known["categories"] == [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    assert [one["id"] for one in known["images"]] == list(range(1, 28))
    assert [one["id"] for one in known["annotations"]] == list(range(1, 1 + len(known["annotations"])))
    batches = composed(27, pairs_of(**options))
    images = torch.cat([batch.images for batch in batches])
    dicts = [one for batch in batches for one in detection_targets(batch, first_label=1)][:27]
    for number, (about, one) in enumerate(zip(known["images"], dicts, strict=True)):
        assert about == {"id": number + 1, "file_name": f"{number:08d}.png", "width": 30, "height": 24}
        with Image.open(folder / "images" / about["file_name"]) as opened:
            pixels = np.asarray(opened)
        want = (images[number] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, want)
        found = [annotation for annotation in known["annotations"] if annotation["image_id"] == number + 1]
        assert len(found) == len(one["labels"])
        for annotation, box, label, mask in zip(found, one["boxes"], one["labels"], one["masks"], strict=True):
            x, y, w, h = annotation["bbox"]
            assert [x, y, x + w, y + h] == box.tolist()
            assert annotation["category_id"] == label
            assert annotation["segmentation"] == rle(mask.numpy())
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
    assert 15 < len(known["annotations"]) < 27  # some are out of sight


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
def test_coco_is_read_by_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", Coco(), images=20)
    read = coco.COCO(str(folder / "annotations.json"))
    for annotation in read.loadAnns(read.getAnnIds()):
        mask = read.annToMask(annotation)
        assert mask.shape == (24, 30)
        assert mask.sum() == annotation["area"]


def test_yolo_holds_boxes_as_shares(tmp_path):
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", Yolo(image="jpeg"), images=20)
    assert yaml.safe_load((folder / "data.yaml").read_text()) == {"train": "images", "names": dict(enumerate(NAMES))}
    dicts = [one for batch in composed(20) for one in detection_targets(batch, first_label=0)]
    assert len(list((folder / "images").glob("*.jpg"))) == 20
    empty = 0
    for number, one in enumerate(dicts[:20]):
        lines = (folder / f"labels/{number:08d}.txt").read_text().splitlines()
        empty += not lines
        assert len(lines) == len(one["labels"])
        for line, box, label in zip(lines, one["boxes"], one["labels"], strict=True):
            kind, *numbers = line.split()
            x, y, w, h = (float(value) * side for value, side in zip(numbers, (30, 24, 30, 24), strict=True))
            assert int(kind) == label
            torch.testing.assert_close(torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2]), box)
    assert 0 < empty < 20


def test_folders_of_classes(tmp_path):
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", ClassFolders(), images=20)
    labels = torch.cat([batch.labels for batch in composed(20)])
    for number, label in enumerate(labels.tolist()):
        assert (folder / NAMES[label] / f"{number:08d}.png").exists()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(NAMES)


def test_shards_are_tar_files_with_json(tmp_path):
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", Shards(image="png", batches=2), images=45)
    assert json.loads((folder / "classes.json").read_text()) == list(NAMES)
    batches, number = composed(45), 0
    dicts = [one for batch in batches for one in detection_targets(batch, first_label=0)]
    images = torch.cat([batch.images for batch in batches])
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            members = archive.getmembers()
            assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
            for picture, about in zip(members[::2], members[1::2], strict=True):
                assert (picture.name, about.name) == (f"{number:08d}.png", f"{number:08d}.json")
                known = json.load(archive.extractfile(about))
                pixels = np.asarray(Image.open(io.BytesIO(archive.extractfile(picture).read())))
                assert np.array_equal(pixels, (images[number] * 255).round().byte().permute(1, 2, 0).numpy())
                assert known["boxes"] == dicts[number]["boxes"].tolist()
                assert known["labels"] == dicts[number]["labels"].tolist()
                assert known["masks"] == [rle(mask.numpy()) for mask in dicts[number]["masks"]]
                number += 1
    assert number == 45


def test_several_objects_and_what_shows_too_little(tmp_path):
    index = torch.arange(12)
    layers = (index[:, None] + torch.arange(3)) % 5
    batch = collate_of()(Rows.of(layers, contexts=index % 7, index=index))
    every, some = (pictures_of(batch, 5, 10, least) for least in (0.0, 0.9))
    assert [picture.number for picture in every] == list(range(5, 15))
    assert sum(len(p.labels) for p in every) > sum(len(p.labels) for p in some) > 0
    assert all((picture.share >= 0.9).all() for picture in some)
    assert np.array_equal(every[3].classes, layers[3].numpy())
    with pytest.raises(InputError, match=r"^pairs: expected one object with a label .* got classes \[0, 1, 2\]"):
        ClassFolders().files(every[0], NAMES)


def test_bytes_are_taken_as_they_are():
    batch = collate_of(dtype=torch.uint8)(next(iter(pairs_of())))
    (picture,) = pictures_of(batch, 0, 1, 0.0)
    assert np.array_equal(picture.image, batch.images[0].permute(1, 2, 0).numpy())


@pytest.mark.usefixtures("untyped")
def test_nothing_else_is_continued(tmp_path):
    folder = write_dataset(collate_of(), pairs_of(), tmp_path / "data", Coco(), images=8)
    for changed in (
        {"collate": collate_of(ranges=SceneRange())},
        {"collate": collate_of(strength=0.5)},
        {"pairs": pairs_of(seed=4)},
        {"format": Yolo()},
        {"format": Coco(quality=90)},
        {"images": 16},
        {"min_visible": 0.5},
    ):
        given = {"collate": collate_of(), "pairs": pairs_of(), "format": Coco(), "images": 8, **changed}
        with pytest.raises(InputError, match=r"^folder: expected an export with the same .* which differs"):
            write_dataset(folder=folder, **given)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"^folder: expected an empty folder, .* which holds other files"):
        write_dataset(collate_of(), pairs_of(), tmp_path / "other", Coco(), images=8)
    with pytest.raises(InputError, match=r"^folder: expected a folder, got .*, which is a file"):
        write_dataset(collate_of(), pairs_of(), tmp_path / "other" / "letter.txt", Coco(), images=8)
    assert os.listdir(tmp_path / "other") == ["letter.txt"]


@pytest.mark.usefixtures("untyped")
def test_bad_arguments(tmp_path):
    def refused(match, **changed):
        given = {"collate": collate_of(), "pairs": pairs_of(), "format": Coco(), "images": 8, **changed}
        with pytest.raises(InputError, match=match):
            write_dataset(folder=tmp_path / "data", **given)
        assert not (tmp_path / "data").exists()

    refused(r"^collate: expected one that returns whole batches", collate=collate_of(returns="pair"))
    refused(r"^collate: expected one without a chain", collate=collate_of(chain=ContextChain()))
    refused(r"^collate: expected CAGCollate, got 3", collate=3)
    refused(r"^pairs: expected the sampler of one rank", pairs=pairs_of(rank=0, world_size=2))
    refused(r"^format: expected Coco\(\), Yolo\(\), ClassFolders\(\) or Shards\(\), got <class", format=Coco)
    refused(r"^images: expected an integer of at least 1", images=0)
    refused(r"^min_visible: expected a number in \[0, 1\]", min_visible=2)
    with pytest.raises(InputError, match=r"^image: expected one of 'png', 'jpeg', got 'gif'"):
        Coco(image="gif")
    with pytest.raises(InputError, match=r"^quality: expected an integer"):
        Yolo(quality=101)
    with pytest.raises(InputError, match=r"^batches: expected an integer"):
        Shards(batches=0)
    for bad in ("a/b", "", ".x", "x ", "a:b"):
        with pytest.raises(InputError, match=r"^classes: expected names that folders can have"):
            ClassFolders().check([bad])
    with pytest.raises(InputError, match=r"^classes: expected names that differ by more"):
        ClassFolders().check(["Stop", "stop"])
