"""The event log: who waits for an event gets it, and the end."""

import asyncio

import pytest

from agent_gateway.domain.events import LLMChunk
from agent_gateway.turns.log import EventLog

READERS = 1_000
BOUND = 30.0

pytestmark = pytest.mark.anyio


async def test_every_reader_gets_every_event() -> None:
    """Events while others are being called, readers that come and go meanwhile, and the end."""
    log = EventLog()

    async def read() -> str:
        index, heard = 0, ""
        while True:
            await log.wait(index, BOUND)
            if log.closed and len(log.events) == index:
                return heard
            texts = [event.text for event in log.events[index:] if isinstance(event, LLMChunk)]
            heard, index = heard + "".join(texts), index + len(texts)

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    for number in range(50):
        log.extend([LLMChunk(number + 1, f"{number} ")])
        readers += [asyncio.create_task(read()) for _ in range(5)]
        for gone in readers[number : number + 3]:
            gone.cancel()
        del readers[number : number + 3]
        await asyncio.sleep(0)
    log.close()
    async with asyncio.timeout(20):
        heard = await asyncio.gather(*readers)
    assert set(heard) == {"".join(f"{number} " for number in range(50))}
    assert len(log.caught_up) == 0
