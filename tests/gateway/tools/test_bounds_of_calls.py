"""A result of a tool has a size that a model can take, and what is left out is told."""

from typing import Any

import pytest
from pydantic_ai.messages import BinaryContent, ToolReturn

from agent_gateway.backend.embedded.tools.calls import MAX_FILE, MAX_ITEMS, MAX_RESULT, bounded

LARGE = b"x" * (MAX_FILE + 1)
SMALL = BinaryContent(b"x", media_type="image/png")


@pytest.mark.parametrize("result", [None, "", "text", 1, {"a": [1]}, ["a", "b"], SMALL])
def test_a_small_result_stays_as_it_is(result: Any) -> None:
    assert bounded(result) == result


def test_a_long_text_and_long_data_are_cut_and_say_so() -> None:
    assert bounded("x" * (MAX_RESULT + 5)).endswith("… (5 more characters are left out)")
    cut = bounded({"a": "x" * MAX_RESULT})
    assert cut.startswith('{"a":"xxx')
    assert "more characters are left out" in cut


def test_what_is_no_json_becomes_its_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    assert bounded(Odd()) == "odd"


def test_a_large_file_is_only_told_of() -> None:
    told = f"(a file of {len(LARGE)} bytes, which is too big)"
    assert bounded(LARGE) == bounded(BinaryContent(LARGE, media_type="image/png")) == told
    assert bounded(b"x") == BinaryContent(b"x", media_type="application/octet-stream")
    assert bounded([SMALL, "text", LARGE]) == [SMALL, "text", told]


def test_of_many_files_the_first_are_kept() -> None:
    assert len(bounded([SMALL] * (MAX_ITEMS + 1))) == MAX_ITEMS


def test_both_parts_of_a_return_are_bounded() -> None:
    given = ToolReturn("x" * (MAX_RESULT + 1), content=["see", BinaryContent(LARGE, media_type="image/png")])
    found = bounded(given)
    assert found.return_value.endswith("(1 more characters are left out)")
    assert found.content == ["see", f"(a file of {len(LARGE)} bytes, which is too big)"]
    assert bounded(ToolReturn("a", content="b")).content == "b"
    assert bounded(ToolReturn("a")).content is None
