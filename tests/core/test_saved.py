import pytest
import torch

from kornia_cag import InputError
from kornia_cag.core.saved import check_alike, check_fields, check_like, check_names, check_plain, check_type, refused

DEEP = []
for _ in range(50_000):
    DEEP = [DEEP]
ROUND = []
ROUND.append(ROUND)
LIKE = {"a": 1, "b": [0.5, "x"], "c": None, "d": (True,), "e": torch.zeros(2, 3), "f": -1}


def test_what_is_alike_passes():
    check_alike("x", {"a": 7, "b": [1e9, ""], "c": None, "d": (False,), "e": torch.ones(2, 3).double(), "f": -9}, LIKE)
    check_plain("x", {"a": [1, 2.0, None, {"b": True}]})
    assert check_names("x", ["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("a", v) for v in (True, 1.0, "1", None, -1, 2**63, 10**400, DEEP, ROUND, torch.tensor(1))],
        *[("b", v) for v in ([0.5], (0.5, "x"), [1, "x"], [float("nan"), "x"], {}, DEEP, "ab")],
        *[("c", v) for v in (0, [], DEEP)],
        *[("d", v) for v in ([True], (1,), ())],
        *[("e", v) for v in (torch.zeros(3, 2), torch.zeros(2, 3).long(), torch.zeros(2, 3).to_sparse(), [0.0] * 6,
                             torch.full((2, 3), float("nan")), torch.full((2, 3), float("inf")),
                             torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3, device="meta"))],
    ],
)  # fmt: skip
def test_what_is_not_alike_is_named(name, value):
    with pytest.raises(InputError, match=rf"^x\.{name}(\[\d\])?: expected .*, got ") as caught:
        check_alike("x", {**LIKE, name: value}, LIKE)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [{}, {**LIKE, "g": 1}, {**LIKE, 3: 1}, list(LIKE), None, DEEP])
def test_fields_are_neither_missing_nor_more(value):
    with pytest.raises(InputError, match=r"^x: expected "):
        check_fields("x", value, LIKE)


@pytest.mark.parametrize("value", [{1: 2}, {"a": torch.zeros(2)}, (1,), b"x", DEEP, ROUND, {"a": DEEP}, {"a": {2: 3}}])
def test_what_json_does_not_know_is_not_plain(value):
    with pytest.raises(InputError):
        check_plain("x", value)


@pytest.mark.parametrize("value", ["ab", (), ["a", "a"], ["a", 1], {"a": 1}, None])
def test_names_are_texts_and_differ(value):
    with pytest.raises(InputError, match=r"^x(\[1\])?: "):
        check_names("x", value)


def test_infinity_is_only_for_those_who_ask():
    tensor = torch.tensor([float("-inf"), 0.0])
    assert check_like("x", tensor, torch.zeros(2), finite=False) is not None
    with pytest.raises(InputError, match="x: expected finite numbers"):
        check_like("x", tensor, torch.zeros(2))


@pytest.mark.parametrize("error", [InputError("a.b: expected c, got d."), RuntimeError("one\ntwo"), KeyError("x")])
def test_whatever_goes_wrong_is_one_error_that_names_the_file(error):
    with pytest.raises(InputError) as caught, refused("f.pt", "file", "another", "Do that."):
        raise error
    assert str(caught.value).startswith("file: expected another, got 'f.pt' (")
    assert str(caught.value).endswith("). Do that.")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="x: expected int or None, got 'a'"):
        check_type("x", "a", int, type(None))


def test_a_number_too_long_to_print_is_named():
    with pytest.raises(
        InputError, match="x: expected an integer of at least 0 and at most 9223372036854775807, got one int"
    ):
        check_alike("x", 10**5000, 1)
