"""The event log: late readers cost what they read, and what it takes is counted."""

from agent_gateway.domain.events import AgentThought, ClosingMessage, LLMChunk, TurnEvent
from agent_gateway.domain.turns import Step
from agent_gateway.turns.log import MAX_WRITE, EventLog


def counted_log(events: list[TurnEvent]) -> tuple[EventLog[str], list[int]]:
    """A log of these events, and the positions of those that it has encoded."""
    encoded: list[int] = []

    def encode(event: TurnEvent, form: str) -> bytes:
        encoded.append(event.position)
        return f"{form}{event.position:9d}".encode()

    log = EventLog(encode)
    log.extend(events)
    return log, encoded


def test_a_late_reader_has_only_the_rest_encoded() -> None:
    log, encoded = counted_log([LLMChunk(number, "x") for number in range(1, 100_001)])
    index = log.index_after(99_990)
    data, reached = log.read("a", index)
    assert (len(data), reached) == (10 * 10, 100_000)
    assert encoded == list(range(99_991, 100_001))
    # Whoever comes after that shares them; an early reader gets as much as one write takes.
    log.read("a", index)
    data, reached = log.read("a", 0)
    assert MAX_WRITE <= len(data) < MAX_WRITE + 20
    assert len(encoded) == len(set(encoded)) == reached + 10


def test_a_reader_that_keeps_up_shares_each_frame() -> None:
    log, encoded = counted_log([])
    for number in range(1, 4):
        log.extend([LLMChunk(number, "x")])
        assert log.read("a", number - 1) == log.read("a", number - 1) == (b"a%9d" % number, number)
    assert encoded == [1, 2, 3]


def test_what_it_takes_is_counted() -> None:
    texts = ["x" * 1000, "\N{GRINNING FACE}" * 1000]
    log, _ = counted_log([LLMChunk(1, texts[0])])
    assert 1000 < log.size < 1300
    log.extend([LLMChunk(2, texts[1])])
    assert 5000 < log.size < 5600, "four bytes a character"
    before = log.size
    log.extend([AgentThought(3, Step(1, 3, "x" * 1000, "t", "y" * 1000, "z" * 1000))])
    log.extend([ClosingMessage(4, "x" * 1000)])
    assert 4000 < log.size - before < 5500
    before = log.told_size
    assert log.size == before
    log.read("a", 0)
    assert log.size - before > 40


def test_a_frozen_log_takes_no_more() -> None:
    log, encoded = counted_log([LLMChunk(number, "x") for number in range(1, 11)])
    shared, _ = log.read("a", 0)
    log.freeze()
    before = log.size
    assert log.read("a", 0) == (shared, 10)
    assert len(encoded) == 10
    for _ in range(2):
        assert log.read("b", 0)[0].count(b"b") == 10
    assert len(encoded) == 30
    assert log.size == before
