"""The event log with many readers: all are woken, and other tasks do not wait for all of them."""

import asyncio
import socket

import pytest

from agent_gateway.domain.events import LLMChunk
from agent_gateway.turns.log import WAKE_AT_ONCE, EventLog

READERS = 1_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_other_tasks_run_between_the_readers_of_a_log() -> None:
    """Counted: how many readers ran before a socket that was ready all the time was looked at."""
    log = EventLog()
    ran = 0
    at_probe: list[int] = []

    async def read() -> None:
        nonlocal ran
        await log.wait(0, 60)
        ran += 1

    readers = [asyncio.create_task(read()) for _ in range(READERS)]
    await asyncio.sleep(0)
    here, there = socket.socketpair()
    with here, there:
        loop = asyncio.get_running_loop()

        def look() -> None:
            here.recv(1)
            at_probe.append(ran)
            if ran < READERS:
                there.send(b"x")

        loop.add_reader(here, look)
        there.send(b"x")
        log.extend([LLMChunk(1, "a")])
        async with asyncio.timeout(20):
            await asyncio.gather(*readers)
        loop.remove_reader(here)
    assert len(at_probe) >= READERS // WAKE_AT_ONCE / 2
    assert max(b - a for a, b in zip([0, *at_probe], at_probe, strict=False)) <= 2 * WAKE_AT_ONCE


@pytest.mark.anyio
async def test_every_reader_gets_every_event() -> None:
    """Events while others are being woken, readers that come and go meanwhile, and the end."""
    log = EventLog()

    async def read() -> str:
        index, heard = 0, ""
        while True:
            if len(log.events) > index:
                texts = [event.text for event in log.events[index:] if isinstance(event, LLMChunk)]
                heard, index = heard + "".join(texts), index + len(texts)
            elif log.closed:
                return heard
            else:
                await log.wait(index, 60)

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


@pytest.mark.anyio
async def test_a_wait_ends_after_its_bound() -> None:
    log = EventLog()
    assert await log.wait(0, 0.01) is False
    log.close()
    assert await log.wait(0, 0.01) is True
