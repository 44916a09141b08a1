"""A process without descriptors: running turns continue, and no turn starts that could only fail."""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_gateway.errors import StoreUnavailable
from agent_gateway.store.db.errors import mapped_errors
from tests.support.chat import refused
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import wait_until


def descriptors(pid: int) -> set[int]:
    return {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}


@contextmanager
def nothing_more(process: GatewayProcess) -> Generator[None]:
    """While this lasts the process can open no further descriptor; what is open stays."""
    pid = process._process.pid
    used, before = descriptors(pid), set[int]()
    while used != before:
        # One that is just being closed would leave a place.
        used, before = descriptors(pid), used
    lowest_free = next(number for number in range(len(used) + 1) if number not in used)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_a_process_without_descriptors_ends_its_turns_and_begins_none(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    process = fleet.process(LEASE_SECONDS=3)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chat, other = fleet.chat(process, user), fleet.chat(process, user)
    wait_until(lambda: other.client.get("/readyz").status_code == 200)
    with chat.open() as stream:
        stream.until("So far")
        with nothing_more(process):
            # On a connection that is open already.
            refused(other.client.get("/readyz"), 503, "service_unavailable")
            refused(other.post(response_mode="background"), 503, "service_unavailable")
            assert other.client.get("/healthz").status_code == 200
            gate.open()
            heard = stream.rest()
        assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    wait_until(lambda: other.client.get("/readyz").status_code == 200)
    assert other.blocking()["answer"] == "So far, so good"
    turn = fleet.rows(heard.task_id).turn
    assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 1, 0)
    assert fake.posts == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_system_error_is_not_reported_as_bad_data(error: Exception) -> None:
    """The end of a turn is then retried, and not given up as one that cannot be stored."""
    with pytest.raises(StoreUnavailable), mapped_errors:
        raise error
