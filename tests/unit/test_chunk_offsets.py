"""Marks give every chunk of a stored answer its position again (R13)."""

import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from agent_gateway.backend.fold.conclusion import conclude
from agent_gateway.backend.protocol import RunEvent
from agent_gateway.domain.events import GATEWAY_REPLACE, LLMChunk, Result, events_after, rest_of
from agent_gateway.domain.turns import Outcome, Step
from agent_gateway.store.turns.chunk_offsets import StoredChunks, pack, unpack
from tests.support.fakes.run_events import ends, fed, runs


def stored(chunks: list[LLMChunk]) -> Sequence[LLMChunk]:
    return unpack(pack(chunks), "".join(chunk.text for chunk in chunks))


@given(st.dictionaries(st.integers(1, GATEWAY_REPLACE), st.text(min_size=1), max_size=50))
def test_chunks_are_the_same_after_packing_and_unpacking(texts: dict[int, str]) -> None:
    chunks = [LLMChunk(position, texts[position]) for position in sorted(texts)]
    assert stored(chunks) == tuple(chunks)


def test_without_offsets_there_are_no_chunks() -> None:
    assert unpack(b"", "") == unpack(b"", "text of a row that has no marks") == ()
    assert unpack(pack([]), "") == ()


def test_the_stored_bytes_are_fixed() -> None:
    """Rows outlive releases: what was written once has to be read by every later one."""
    marks = zlib.compress(struct.pack("<6I", 1, 2, 1, 3, 2, 1))
    chunks = (LLMChunk(1, "Hel"), LLMChunk(3, "lo"), LLMChunk(4, "\N{GRINNING FACE}"))
    assert unpack(marks, "Hello\N{GRINNING FACE}") == chunks


def test_offsets_take_about_a_byte_a_chunk() -> None:
    lengths = random.Random(1)
    for count in (1_000, 20_000):
        chunks = [LLMChunk(number + 1, "x" * lengths.randint(1, 9)) for number in range(count)]
        assert len(pack(chunks)) < 1.1 * count
        assert stored(chunks) == tuple(chunks)


class Counted(StoredChunks):
    """Stored chunks that count how many of them were made."""

    made = 0

    @override
    def __getitem__(self, index: Any) -> Any:
        self.made += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("left", [0, 1, 10])
def test_a_late_reader_costs_only_the_chunks_it_reads(left: int) -> None:
    """Only the chunks that are sent are made from a million stored ones, and a few to find them."""
    count = 1_000_000
    chunks = Counted("x" * count, range(1, count + 1), range(1, count + 1))
    steps = (Step(1, 5, thought="early"),)
    result = Result(Outcome.COMPLETED, chunks, steps, count + 2, text="x" * count)
    told = rest_of(result, count - left)
    assert [event.position for event in told] == [*range(count - left + 1, count + 1), count + 1, count + 2]
    assert chunks.made < left + 40
    first = next(events_after(result, 0))
    assert (first.position, chunks.made < left + 90) == (1, True)


@given(runs, ends)
def test_a_turn_read_from_its_row_gives_the_same_events_as_the_live_one(
    run: list[RunEvent], end: RunEvent
) -> None:
    fold, _ = fed(*run, end)
    live = conclude(fold, stop_asked=False)
    read = Result(
        outcome=Outcome(live.outcome.value),
        chunks=unpack(pack(live.chunks), live.answer),
        steps=live.steps,
        end_position=live.end_position,
        error_code=live.error_code,
        usage=live.usage,
    )
    for after in range(live.end_position + 1):
        assert rest_of(read, after) == rest_of(live, after)
