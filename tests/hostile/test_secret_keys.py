"""Processes with different secret keys on one database: keys and tickets of one are nothing to the other."""

import signal
from typing import Final

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import processes
from agent_gateway.store.secret_marks import ALIVE_SECONDS
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import wait_until
from tests.support.rows import look

ANOTHER: Final = "another-secret-as-long-as-they-have-to-be"


def readiness(process: GatewayProcess) -> tuple[int, str]:
    response = httpx.get(f"{process.url}/readyz", timeout=20, trust_env=False)
    return response.status_code, response.json().get("message", "")


def ready(process: GatewayProcess) -> bool:
    return readiness(process)[0] == 200


@pytest.mark.slow
def test_a_process_with_another_secret_key_is_not_ready_and_changes_nothing(fleet: Fleet, user: str) -> None:
    one = fleet.process()
    wait_until(lambda: ready(one))
    other = fleet.process(SECRET_KEY=ANOTHER)
    wait_until(lambda: "AGENT_GATEWAY_SECRET_KEY" in readiness(other)[1])
    assert readiness(other)[0] == 503
    assert "Other processes work on this database with another AGENT_GATEWAY_SECRET_KEY" in other.output
    assert ANOTHER not in other.output
    # The key of the first was not replaced, and its turns are its own.
    assert fleet.chat(one, user).blocking()["answer"]
    assert ready(one)
    # When the first has left, the other is right.
    one.send(signal.SIGTERM)
    one.exited()
    wait_until(lambda: ready(other))
    assert fleet.chat(other, user).blocking()["answer"]


@pytest.mark.slow
def test_a_killed_process_with_another_key_delays_the_next_only_briefly(fleet: Fleet) -> None:
    one = fleet.process()
    wait_until(lambda: ready(one))
    one.send(signal.SIGKILL)
    one.exited()
    other = fleet.process(SECRET_KEY=ANOTHER)
    wait_until(lambda: "AGENT_GATEWAY_SECRET_KEY" in readiness(other)[1])

    async def age(session: AsyncSession) -> None:
        await session.execute(update(processes).values(noted_at=now_plus(-ALIVE_SECONDS - 1)))

    look(fleet.database_url, age)
    wait_until(lambda: ready(other))


@pytest.mark.slow
def test_processes_with_the_same_secret_key_share_keys_and_tickets(fleet: Fleet) -> None:
    processes = [fleet.process() for _ in range(3)]
    for process in processes:
        wait_until(lambda process=process: ready(process))
        assert "SECRET_KEY" not in process.output
