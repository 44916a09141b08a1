"""`agent-gateway backend` as processes on one Postgres: kill -9, SIGSTOP, cancels and clocks (R19)."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from agent_gateway.backend.protocol import TERMINAL
from tests.support.databases import postgres_database
from tests.support.fakes.model_server import serving
from tests.support.fakes.model_steps import answer
from tests.support.fakes.script import Gate
from tests.support.gateway_process import START_SECONDS, BackendProcess
from tests.support.gateway_server import wait_until
from tests.support.json_type import Json

LEASE_SECONDS: Final = 1.5
BOUND: Final = 30.0
LONG: Final = "count to 10000"


class Replicas:
    """Starts backends that share a database; all are killed when the test is over."""

    def __init__(self, stack: ExitStack, folder: Path, url: str) -> None:
        self._stack = stack
        self._folder = folder
        self._url = url
        self._number = 0

    def start(self, **settings: Any) -> BackendProcess:
        self._number += 1
        folder = self._folder / f"backend-{self._number}"
        folder.mkdir(exist_ok=True)
        given: dict[str, Any] = {"DATABASE_URL": self._url, "LEASE_SECONDS": LEASE_SECONDS, **settings}
        return self._stack.enter_context(BackendProcess(folder, **given))


@pytest.fixture
def replicas(postgres_url: str, tmp_path: Path) -> Iterator[Replicas]:
    with ExitStack() as stack:
        yield Replicas(stack, tmp_path, postgres_url)


class Reader:
    """Reads the stream of a run in a thread, byte by byte, until it ends or breaks."""

    def __init__(self, process: BackendProcess, run_id: str, after: str = "") -> None:
        self._url = f"{process.url}/runs/{run_id}/events/sse"
        self._params = {"after": after} if after else {}
        self.raw = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with httpx.stream(
                "GET", self._url, params=self._params, timeout=BOUND, trust_env=False
            ) as response:
                assert response.status_code == 200, response.read()
                for piece in response.iter_raw():
                    self.raw += piece
        except httpx.HTTPError:
            pass

    @property
    def frames(self) -> list[bytes]:
        """The whole frames so far."""
        return [frame for frame in self.raw.split(b"\n\n")[:-1] if frame.startswith(b"id: ")]

    @property
    def events(self) -> list[Json]:
        return [json.loads(frame.split(b"\ndata: ", 1)[1]) for frame in self.frames]

    def until(self, count: int) -> "Reader":
        """Wait for so many events."""
        wait_until(lambda: len(self.frames) >= count)
        return self

    def ended(self) -> list[Json]:
        """Wait for the end of the stream; all events."""
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.events


def body(user: str, **more: Any) -> Json:
    config = {key: more.pop(key) for key in ("model", "on_process_lost") if key in more}
    layers = [
        {"name": "user", "type": "plain.prompt", "config": {"user": user}},
        {"name": "history", "type": "pydantic_ai.history"},
        {"name": "llm", "type": "llm", "config": config},
    ]
    return {"composition": {"schema_version": 1, "layers": layers}, **more}


def create(process: BackendProcess, user: str, **more: Any) -> str:
    answer = httpx.post(f"{process.url}/runs", json=body(user, **more), timeout=BOUND, trust_env=False)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def status(process: BackendProcess, run_id: str) -> Json:
    answer = httpx.get(f"{process.url}/runs/{run_id}", timeout=BOUND, trust_env=False)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def text_of(events: list[Json]) -> str:
    return "".join(str(event.get("agent_message_delta") or "") for event in events)


def ends_of(events: list[Json]) -> list[str]:
    return [event["type"] for event in events if event["type"] in TERMINAL]


def cancel(process: BackendProcess, run_id: str) -> httpx.Response:
    reason = {"reason": "user", "message": "enough"}
    return httpx.post(f"{process.url}/runs/{run_id}/cancel", json=reason, timeout=BOUND, trust_env=False)


@pytest.mark.slow
def test_a_reader_of_a_killed_run_gets_what_was_streamed_and_then_its_end(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG)
    here, there = Reader(one, run_id), Reader(two, run_id)
    here.until(30)
    there.until(10)
    one.send(signal.SIGKILL)
    here.ended()
    told = there.ended()
    assert there.frames[: len(here.frames)] == here.frames, "what anybody saw is in the log"
    assert told[0]["type"] == "run_started"
    assert ends_of(told) == ["run_failed"]
    assert told[-1]["data"]["reason"] == "process_lost"
    assert text_of(told).startswith("I am the demo agent, and I count to 10000: 1 2 3 ")
    # The same bytes for everyone who comes later, from anywhere.
    three = replicas.start()
    for process in (two, three):
        again = Reader(process, run_id)
        again.ended()
        assert again.frames == there.frames
    rest = Reader(three, run_id, after=told[20]["id"])
    rest.ended()
    assert rest.frames == there.frames[21:]
    assert status(three, run_id)["status"] == "failed"
    page = httpx.get(f"{three.url}/runs/{run_id}/events?limit=5", trust_env=False).json()
    assert page["events"] == told[:5]


@pytest.mark.slow
def test_many_that_find_a_dead_run_at_once_end_it_once(replicas: Replicas) -> None:
    one, *others = [replicas.start() for _ in range(3)]
    made = [create(one, LONG) for _ in range(5)]
    for run_id in made:
        Reader(one, run_id).until(5)
    one.send(signal.SIGKILL)
    readers = [(run_id, Reader(process, run_id)) for run_id in made for process in others]
    told = {run_id: set[bytes]() for run_id in made}
    for run_id, reader in readers:
        assert ends_of(reader.ended()) == ["run_failed"]
        told[run_id].add(b"".join(reader.frames))
    assert [len(versions) for versions in told.values()] == [1] * 5


@pytest.mark.slow
def test_a_run_that_has_said_nothing_is_started_again(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider")
    with serving() as provider:
        provider.script("m", answer(Gate()), "Hi there!")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        one, two = replicas.start(), replicas.start()
        wish = {"model": "openai-chat:m", "on_process_lost": "restart"}
        run_id = create(one, "Hi", **wish)
        reader = Reader(two, run_id).until(1)
        wait_until(lambda: provider.requests)
        one.send(signal.SIGKILL)
        told = reader.ended()
    assert [event["type"] for event in told].count("run_started") == 1
    assert ends_of(told) == ["run_succeeded"]
    assert told[-1]["data"]["output"] == text_of(told) == "Hi there!"
    assert [int(event["id"].partition("-")[2]) for event in told] == list(range(1, len(told) + 1))


@pytest.mark.slow
def test_a_run_whose_text_was_streamed_is_not_started_again(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG, on_process_lost="restart")
    reader = Reader(two, run_id).until(5)
    one.send(signal.SIGKILL)
    told = reader.ended()
    assert (ends_of(told), told[-1]["data"]["reason"]) == (["run_failed"], "process_lost")


@pytest.mark.slow
def test_a_frozen_owner_that_comes_back_appends_nothing(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG)
    here, there = Reader(one, run_id).until(10), Reader(two, run_id).until(10)
    one.send(signal.SIGSTOP)
    told = there.ended()
    assert (ends_of(told), told[-1]["data"]["reason"]) == (["run_failed"], "process_lost")
    one.send(signal.SIGCONT)
    # Its own reader stays, and gets the end that the other process made.
    assert here.ended() == told
    assert status(one, run_id)["status"] == "failed"
    later = Reader(two, run_id)
    later.ended()
    assert later.frames == there.frames == here.frames


@pytest.mark.slow
def test_a_cancel_reaches_the_owner_from_anywhere(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG)
    reader = Reader(one, run_id).until(10)
    for process in (two, one, two):
        answer = cancel(process, run_id)
        assert (answer.status_code, answer.json()) == (200, {"run_id": run_id, "status": "cancelled"})
    told = reader.ended()
    assert ends_of(told) == ["run_cancelled"]
    assert told[-1]["data"]["reason"] == "user"
    assert told[-1]["data"]["session_snapshot"], "its own process ended it, with what it leaves"
    done = create(one, "Hi")
    Reader(two, done).ended()
    assert cancel(two, done).status_code == 409
    assert cancel(two, "0199a0a0-0000-7000-8000-000000000000").status_code == 404


@pytest.mark.slow
def test_a_cancelled_run_whose_process_is_gone_ends_as_cancelled(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG)
    Reader(one, run_id).until(5)
    one.send(signal.SIGSTOP)
    assert cancel(two, run_id).json()["status"] in ("running", "cancelled")
    told = Reader(two, run_id).ended()
    assert ends_of(told) == ["run_cancelled"]


@pytest.mark.slow
def test_a_repeated_request_gets_its_run_at_any_replica(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG, idempotency_key="mine")
    assert create(two, LONG, idempotency_key="mine") == run_id
    assert create(one, LONG, idempotency_key="mine") == run_id
    assert create(two, LONG, idempotency_key="other") != run_id
    for process in (one, two):
        cancel(process, run_id)


@pytest.mark.slow
def test_a_replica_that_leaves_ends_its_runs(replicas: Replicas) -> None:
    one, two = replicas.start(), replicas.start()
    run_id = create(one, LONG)
    here, there = Reader(one, run_id).until(10), Reader(two, run_id).until(10)
    one.send(signal.SIGTERM)
    one.exited()
    told = there.ended()
    assert (ends_of(told), told[-1]["data"]["reason"]) == (["run_failed"], "shutdown")
    assert here.ended() == told


@pytest.mark.slow
def test_a_restarted_process_on_sqlite_replays_and_ends_its_runs(tmp_path: Path) -> None:
    """No lease is waited for: the file belongs to one process."""
    with BackendProcess(tmp_path, LEASE_SECONDS=3600) as process:
        finished, run_id = create(process, "Hi"), create(process, LONG)
        whole = Reader(process, finished)
        whole.ended()
        cut = Reader(process, run_id).until(20)
        process.send(signal.SIGKILL)
        cut.ended()
    with BackendProcess(tmp_path, LEASE_SECONDS=3600) as process:
        again = Reader(process, finished)
        again.ended()
        assert again.frames == whole.frames
        rest = Reader(process, run_id)
        told = rest.ended()
        assert rest.frames[: len(cut.frames)] == cut.frames
        assert (ends_of(told), told[-1]["data"]["reason"]) == (["run_failed"], "process_lost")
        assert ends_of(Reader(process, create(process, "Hi")).ended()) == ["run_succeeded"]


@pytest.mark.slow
def test_a_restarted_process_on_sqlite_starts_a_silent_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider")
    with serving() as provider:
        provider.script("m", answer(Gate()), "Hi there!")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        with BackendProcess(tmp_path) as process:
            wish = {"model": "openai-chat:m", "on_process_lost": "restart"}
            run_id = create(process, "Hi", **wish)
            wait_until(lambda: provider.requests)
            process.send(signal.SIGKILL)
            process.exited()
        with BackendProcess(tmp_path) as process:
            told = Reader(process, run_id).ended()
    assert ends_of(told) == ["run_succeeded"]
    assert text_of(told) == "Hi there!"


def test_one_process_has_the_file_of_a_backend(tmp_path: Path) -> None:
    with BackendProcess(tmp_path), pytest.raises(AssertionError, match="is served by another process"):
        BackendProcess(tmp_path)


@pytest.mark.slow
def test_a_backend_waits_until_its_database_is_migrated(tmp_path: Path) -> None:
    def started(url: str) -> None:
        stack.enter_context(BackendProcess(tmp_path, DATABASE_URL=url))

    with postgres_database() as url, ExitStack() as stack:
        thread = threading.Thread(target=started, args=(url,), daemon=True)
        thread.start()
        output = tmp_path / "output-0"
        wait_until(
            lambda: output.exists() and "run `agent-gateway migrate`" in output.read_text(), START_SECONDS
        )
        from agent_gateway.store.db.database import Database
        from agent_gateway.store.db.migrations import migrate
        from tests.support.databases import complete

        async def bring_up_to_date() -> None:
            database = Database(url)
            try:
                await migrate(database)
            finally:
                await database.close()

        complete(bring_up_to_date())
        thread.join(START_SECONDS)
        assert not thread.is_alive()
