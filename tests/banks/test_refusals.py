"""All that is wrong in a folder is said at once."""

import pytest
import torch
from test_folders import cut_out, save

from kornia_cag import InputError, ObjectBank
from kornia_cag.banks import folders, pictures


@pytest.fixture
def noise(rng):
    return torch.randint(256, (20, 30, 3), generator=rng, dtype=torch.uint8).numpy()


def reported(call):
    with pytest.raises(InputError) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    return line


def test_all_problems_are_said_at_once(tmp_path, noise):
    save(tmp_path / "cat" / "1.png", cut_out())
    for i in range(5):
        save(tmp_path / "cat" / f"bad{i}.png", noise)
    (tmp_path / "cat" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "cat" / "note.txt").write_text("hello")
    said = reported(lambda: folders.read_objects(tmp_path))
    assert said.startswith(f"{tmp_path}: expected only what can be used, got 7 problems: (1) cat/bad0.png, ")
    assert "cat/bad2.png and 2 more: expected a picture with transparency" in said
    assert "(2) cat/note.txt: expected a picture file" in said
    assert "(3) cat/broken.png: expected a picture (" in said
    assert said.endswith('Mend them, or pass on_error="skip".')
    (tmp_path / "dog").mkdir()
    said = reported(lambda: folders.read_objects(tmp_path))
    assert "8 problems: " in said
    assert "dog: expected at least one picture, got none." in said
    assert "on_error" not in said  # would not mend the empty class
    said = reported(lambda: folders.read_objects(tmp_path, on_error="skip"))
    assert said == f"{tmp_path / 'dog'}: expected at least one picture, got none."


def test_skipping_is_not_advised_where_it_would_empty_a_class(tmp_path, noise):
    save(tmp_path / "cat.png", cut_out())
    for name in ("dog", "cow"):
        save(tmp_path / f"{name}.png", noise)
    assert "on_error" not in reported(lambda: folders.read_objects(tmp_path))
    assert reported(lambda: folders.read_contexts(tmp_path / ".", on_error="raise")).count("opaque picture") == 1
    save(tmp_path / "bull.png", cut_out())
    assert reported(lambda: folders.read_contexts(tmp_path)).endswith('Mend them, or pass on_error="skip".')
    assert "on_error" not in reported(lambda: folders.read_contexts(tmp_path, on_error=None))


def test_two_layouts_and_bad_files_are_one_report(tmp_path):
    save(tmp_path / "cat" / "1.png", cut_out())
    for name in ("a.txt", "cat/b.txt"):
        (tmp_path / name).write_text("hello")
    for name in ("dog.png", "dog.webp"):
        save(tmp_path / name, cut_out())
    said = reported(lambda: folders.list_objects(tmp_path))
    assert all(part in said for part in ("3 problems", "both: dog.png and cat/", "a.txt, cat/b.txt: "))


def test_a_report_is_bounded_and_reading_stops(tmp_path, noise, monkeypatch):
    for i in range(130):
        save(tmp_path / f"{i:03}.png", noise[:4, :4])
    read = []
    monkeypatch.setattr(
        folders, "read_rgba", lambda path, **options: [read.append(path), pictures.read_rgba(path, **options)][1]
    )
    said = reported(lambda: folders.read_objects(tmp_path))
    assert len(read) == 100
    assert "100 or more problems: (1) 000.png, 001.png, 002.png and 97 more: " in said
    for i in range(30):
        path = tmp_path / "of" / f"{'long name ' * 20}{i}.png"
        save(path, noise[:4, :4])
        (tmp_path / "of" / f"{i}.txt").write_text("hello")
    assert len(reported(lambda: folders.list_objects(tmp_path))) < 2000


def test_a_bank_of_any_size_reports_all(tmp_path, noise):
    save(tmp_path / "a" / "1.png", cut_out())
    save(tmp_path / "a" / "2.png", noise)
    (tmp_path / "a" / "note.txt").write_text("hello")
    assert {reported(lambda size=size: ObjectBank.from_folder(tmp_path, size=size)) for size in ("auto", 16)} == {
        reported(lambda: folders.read_objects(tmp_path))
    }
