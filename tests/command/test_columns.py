from kornia_cag.command.columns import padded, width


def test_characters_take_as_many_places_as_a_terminal_gives_them():
    assert [width(text) for text in ("stop", "größer", "gro\u0308ßer", "停止", "🚗", "")] == [4, 6, 6, 4, 2, 0]
    assert [padded(text, 5) for text in ("stop", "停止", "a\u0308", "longer")] == [
        "stop ",
        "停止 ",
        "a\u0308    ",
        "longer",
    ]
