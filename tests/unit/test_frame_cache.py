"""A live turn's frames: late readers cost only what they read, and cached frames are counted."""

from typing_extensions import override

from agent_gateway.domain.events import AgentThought, ClosingMessage, LLMChunk, TurnEvent
from agent_gateway.domain.ids import ConversationId, MessageId, TaskId
from agent_gateway.domain.turns import Step
from agent_gateway.routes.streams.frames import MAX_WRITE, FrameCache, FrameEncoder, FrameVariant
from agent_gateway.store.turns.reader import TurnView
from agent_gateway.turns.log import EventLog

A = FrameVariant("chat", ids=False)
B = FrameVariant("agent", ids=True)
VIEW = TurnView(TaskId("t"), ConversationId("c"), MessageId("m"), 0, "chat", ended=False)


class CountingEncoder(FrameEncoder):
    """Notes the positions of the events that it has encoded."""

    def __init__(self) -> None:
        super().__init__(VIEW, str)
        self.encoded: list[int] = []

    @override
    def encode(self, event: TurnEvent, variant: FrameVariant) -> bytes:
        self.encoded.append(event.position)
        return super().encode(event, variant)


def counted(events: list[TurnEvent], readers: int = 2) -> tuple[EventLog, FrameCache, list[int]]:
    """A log of these events, its frames, and the positions of the events that were encoded."""
    encoder = CountingEncoder()
    log = EventLog()
    log.readers = readers
    log.extend(events)
    return log, FrameCache(log, encoder), encoder.encoded


def test_only_the_rest_is_encoded_for_a_late_reader() -> None:
    log, cache, encoded = counted([LLMChunk(number, "x") for number in range(1, 100_001)])
    index = log.index_after(99_990)
    data, reached = cache.read(A, index)
    assert (data.count(b"data: "), reached) == (10, 100_000)
    assert encoded == list(range(99_991, 100_001))
    # A reader after that shares them; an early one gets as much as one write takes.
    cache.read(A, index)
    data, reached = cache.read(A, 0)
    assert MAX_WRITE <= len(data) < MAX_WRITE + 300
    assert len(encoded) == len(set(encoded)) == reached + 10


def test_readers_that_keep_up_share_each_frame() -> None:
    log, cache, encoded = counted([])
    for number in range(1, 4):
        log.extend([LLMChunk(number, "x")])
        data, reached = cache.read(A, number - 1)
        assert cache.read(A, number - 1) == (data, reached)
        assert (data.count(b'"event_id":%d,' % number), reached) == (1, number)
    assert encoded == [1, 2, 3]


def test_no_frame_is_kept_for_a_lone_reader() -> None:
    log, cache, encoded = counted([LLMChunk(number, "x") for number in range(1, 11)], readers=1)
    first = cache.read(A, 0)
    assert log.size == log.events_size
    # Another one comes, and a third: from now on they share.
    log.readers = 3
    assert cache.read(A, 0) == cache.read(A, 0) == first
    assert encoded == [*range(1, 11), *range(1, 11)]
    assert log.size > log.events_size + len(first[0])


def test_the_size_of_a_log_counts_its_events_and_frames() -> None:
    texts = ["x" * 1000, "\N{GRINNING FACE}" * 1000]
    log, cache, _ = counted([LLMChunk(1, texts[0])])
    assert 1000 < log.size < 1300
    log.extend([LLMChunk(2, texts[1])])
    assert 5000 < log.size < 5600, "four bytes a character"
    before = log.size
    log.extend([AgentThought(3, Step(1, 3, "x" * 1000, "t", "y" * 1000, "z" * 1000))])
    log.extend([ClosingMessage(4, "x" * 1000)])
    assert 4000 < log.size - before < 5500
    assert log.size == log.events_size
    data, _ = cache.read(A, 0)
    assert log.size - log.events_size > len(data)


def test_a_frozen_log_does_not_grow() -> None:
    log, cache, encoded = counted([LLMChunk(number, "x") for number in range(1, 11)])
    shared, _ = cache.read(A, 0)
    log.freeze()
    before = log.size
    assert cache.read(A, 0) == (shared, 10)
    assert len(encoded) == 10
    for _ in range(2):
        assert cache.read(B, 0)[0].count(b"data: ") == 10
    assert len(encoded) == 30
    assert log.size == before
