"""Every way in which a backend fails, and what becomes of the turn.

Whatever it is: one terminal event, or the HTTP status when nothing was sent yet, with a text that
is safe; the message is stored as failed with what was said so far; the old session snapshot stays;
the conversation continues; nothing is left running.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from agent_gateway import ending
from agent_gateway.causes import Cause
from agent_gateway.domain.events import Result
from agent_gateway.errors import FAILURES
from agent_gateway.limits import Limits, TurnLimits
from agent_gateway.settings import Settings
from tests.support.chat import Chat, refused
from tests.support.fakes.script import (
    Cut,
    Forget,
    Gate,
    Keepalive,
    Raw,
    Script,
    ScriptSource,
    Step,
    Trim,
    cancelled,
    delta,
    fail,
    refuse,
    script,
    succeed,
    text,
    thinking,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import EARLY_FAILURES_HAVE_A_STATUS, GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.log_lines import TURNS, kept_lines
from tests.support.rows import newest_turn, rows_of

SECRET = "sk-do-not-show"
LEAK = f"401 from provider: api_key={SECRET} <html>"
STATUSES = {
    "rate_limit_error": 429,
    "provider_not_initialize": 400,
    "provider_quota_exceeded": 400,
    "completion_request_error": 400,
    "agent_run_limit_exceeded": 400,
    "model_currently_not_support": 400,
    "context_length_exceeded": 400,
    "output_length_exceeded": 400,
    "content_filtered": 400,
    "answer_incomplete": 502,
    "output_invalid": 502,
    "backend_refused": 502,
    "provider_unavailable": 503,
    "service_unavailable": 503,
    "turn_interrupted": 500,
    "turn_timeout": 504,
    "provider_timeout": 504,
    "internal_server_error": 500,
}
"""The table of the contract, written down once more."""
GARBAGE = Raw(b"data: <html>no run event</html>\n\n")

FAILING_RUNS: dict[str, tuple[str, list[Step]]] = {
    "rate limit": ("rate_limit_error", [fail("InvokeRateLimitError", LEAK)]),
    "authorization": ("provider_not_initialize", [fail("InvokeAuthorizationError", LEAK)]),
    "bad request": ("completion_request_error", [fail("InvokeBadRequestError", LEAK)]),
    "run limit": ("agent_run_limit_exceeded", [fail(None, LEAK, error_type="agent_run_limit_exceeded")]),
    "model quota": ("provider_quota_exceeded", [fail("AgentLLMQuotaExceededError", LEAK)]),
    "quota": ("provider_quota_exceeded", [fail("QuotaExceededError", LEAK)]),
    "credentials": ("provider_not_initialize", [fail("CredentialsValidateFailedError", LEAK)]),
    "permission": ("completion_request_error", [fail("PluginPermissionDeniedError", LEAK)]),
    "plugin": ("completion_request_error", [fail("PluginNotFoundError", LEAK)]),
    "binding": ("completion_request_error", [fail("binding_lost", LEAK)]),
    "knowledge": ("completion_request_error", [fail("knowledge_base_not_found", LEAK, error_type="tool")]),
    "type and reason": ("rate_limit_error", [fail("InvokeRateLimitError", LEAK, error_type="SomethingNew")]),
    "connection": ("provider_unavailable", [fail("InvokeConnectionError", LEAK)]),
    "server unavailable": ("provider_unavailable", [fail("InvokeServerUnavailableError", LEAK)]),
    "shutdown": ("service_unavailable", [fail("shutdown", LEAK)]),
    "model not found": ("model_currently_not_support", [fail("InvokeBadRequestError", "model_not_found")]),
    "context too long": ("context_length_exceeded", [fail(None, f"{LEAK}: context_length_exceeded")]),
    "longest output": ("output_length_exceeded", [fail("OutputLengthExceededError", LEAK)]),
    "content filter": ("content_filtered", [fail("ContentFilterError", LEAK)]),
    "broken off": ("answer_incomplete", [fail(None, "peer closed connection without sending " + SECRET)]),
    "timeout": ("provider_timeout", [fail("InvokeTimeoutError", LEAK)]),
    "no fitting output": ("output_invalid", [fail("OutputInvalidError", LEAK)]),
    "plugin daemon": ("internal_server_error", [fail("PluginDaemonInternalServerError", LEAK)]),
    "no reason": ("internal_server_error", [fail(None, LEAK)]),
    "unknown reason": ("internal_server_error", [fail("SomethingNew", LEAK)]),
    "reason is no text": ("internal_server_error", [fail({"a": [1]}, LEAK)]),  # type: ignore[arg-type]
    "cancelled by somebody else": ("turn_interrupted", [cancelled("operator", LEAK)]),
    "two terminal events": ("rate_limit_error", [fail("InvokeRateLimitError", LEAK), succeed(output="late")]),
    # The second reader is the final read, before the gateway makes an end itself.
    "garbage frames": ("internal_server_error", [GARBAGE, Cut(), GARBAGE, Cut(), succeed(output="late")]),
    "run lost": ("turn_interrupted", [Forget(), Cut()]),
    "log trimmed": ("turn_interrupted", [Trim(0), Cut(), *text("more"), succeed()]),
}
"""What follows the run's start, or its first text, and the code clients get."""

REFUSALS: dict[str, tuple[str, ScriptSource]] = {
    "401": ("backend_refused", refuse(401)),
    "422": ("backend_refused", refuse(422)),
    "500": ("internal_server_error", refuse(500)),
    "404": ("backend_refused", refuse(404)),
    "garbage": ("internal_server_error", Script(create="garbage")),
    "cut after sending": ("service_unavailable", Script(create="cut")),
}
"""How POST /runs is answered, and the code clients get."""

PARTIAL = "So far"


@dataclass(frozen=True)
class World:
    """A gateway that is impatient with its backend, the backend, and one end user."""

    server: GatewayServer
    fake: ScriptedBackend
    chat: Chat

    @property
    def database(self) -> str:
        return self.server.settings.resolved_database_url()


@pytest.fixture(scope="module")
def own_fake() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        yield backend


PATIENT = Limits(requests=EARLY_FAILURES_HAVE_A_STATUS)


@pytest.fixture(scope="module")
def impatient(own_fake: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    with gateway_of(own_fake, tmp_path_factory.mktemp("failures")) as server:
        yield server


@pytest.fixture(scope="module")
def own_client(impatient: GatewayServer) -> Iterator[httpx.Client]:
    with impatient.client() as client:
        yield client


@pytest.fixture
def world(
    impatient: GatewayServer,
    own_client: httpx.Client,
    own_fake: ScriptedBackend,
    user: str,
) -> Iterator[World]:
    own_fake.requests.clear()
    own_fake.cancels.clear()
    own_fake.streams.clear()
    yield World(impatient, own_fake, Chat(own_client, user))
    own_fake.broken_streams, own_fake.broken_status = 0, 500


@pytest.fixture
def bounded(
    own_fake: ScriptedBackend,
    tmp_path: Path,
    user: str,
) -> Iterator["Bounded"]:
    bounds = {"idle_timeout_seconds": 3.0, "turn_timeout_seconds": 4.0}
    limits = Limits(turn=TurnLimits(final_read_seconds=0.5), requests=EARLY_FAILURES_HAVE_A_STATUS)
    with gateway_of(own_fake, tmp_path, limits=limits, **bounds) as server, server.client() as client:
        yield Bounded(server, own_fake, Chat(client, user))


class Bounded(World):
    """A gateway whose turns may be silent for 3 and last for 4 seconds: longer than an echo takes."""


def gateway_of(
    fake: ScriptedBackend, folder: Path, *, limits: Limits = PATIENT, **settings: Any
) -> GatewayServer:
    return GatewayServer(
        folder,
        backend_url=fake.url,
        limits=limits,
        **{"backend_reconnect_seconds": 0.3, "ping_seconds": 0.1, **settings},
    )


@contextmanager
def a_failing_turn(world: World, code: str, partial: str, *, runs: int | None = 1) -> Generator[str]:
    """A conversation around a turn that fails in the block; checks all that is true of any failure.

    `runs` is how often the failing turn may post to /runs; None leaves that open.
    """
    first = world.chat.blocking("before")
    conversation = first["conversation_id"]
    old = rows_of(world.database, first["task_id"]).snapshot
    posts = world.fake.posts
    with kept_lines(TURNS) as lines:
        yield conversation
        wait_until(lambda: lines)
    message = world.chat.message(conversation)
    assert (message["status"], message["error"]) == ("error", FAILURES[code])
    assert message["answer"] == partial
    assert SECRET not in str(message)

    rows = rows_of(world.database, newest_turn(world.database, conversation))
    assert (rows.turn.state, rows.turn.outcome, rows.turn.error_code) == ("ended", "failed", code)
    assert rows.turn.lease_until is None
    [line] = lines
    cause = msgspec.convert(rows.turn.cause, Cause)
    assert (line["level"], line["outcome"], line["code"]) == ("warning", "failed", code)
    assert (line["task_id"], line["request_id"]) == (rows.turn.id, rows.turn.request_id)
    assert line.get("run_id") == rows.turn.run_id
    assert (line["app"], line["cause"]) == ("default", str(cause))
    assert SECRET not in f"{line} {cause}"
    assert old is not None
    assert rows.snapshot is not None
    assert (rows.snapshot.seq, rows.snapshot.data) == (old.seq, old.data)
    if runs is not None:
        assert world.fake.posts == posts + runs
    nothing_runs(world)

    after = world.chat.blocking("after", conversation_id=conversation)
    assert after["answer"] == "You said: after."
    assert world.fake.requests[-1].body["session_snapshot"] is not None
    assert rows_of(world.database, after["task_id"]).turn.outcome == "completed"


def nothing_runs(world: World) -> None:
    """No turn in the gateway, no reader at the backend, no connection to the database in use."""
    wait_until(lambda: not world.server.gateway.live.running())
    world.fake.wait_until(lambda: world.fake.open_streams == 0)


def told(body: Json, code: str) -> None:
    """The error of a stream or of a response: code, status and text of the table, nothing else."""
    assert (body["code"], body["status"]) == (code, STATUSES[code])
    assert body["message"] == FAILURES[code]


def fails_with_status(world: World, code: str, conversation: str, response_mode: str) -> None:
    response = world.chat.post("go", conversation_id=conversation, response_mode=response_mode)
    body = refused(response, STATUSES[code], code)
    assert body == {"code": code, "message": FAILURES[code], "status": STATUSES[code]}


def fails_with_event(world: World, code: str, conversation: str, partial: str = PARTIAL) -> list[Json]:
    """The events of a turn that says something and then fails."""
    heard = world.chat.streaming("go", conversation_id=conversation)
    assert [event["event"] for event in heard.events if event["event"] in ("error", "message_end")] == [
        "error"
    ]
    assert heard.last["event"] == "error"
    told(heard.last, code)
    assert heard.answer == partial
    assert SECRET.encode() not in heard.raw
    assert heard.ids == sorted(set(heard.ids))
    return heard.events


@pytest.mark.parametrize("name", FAILING_RUNS)
def test_a_run_that_fails_at_once_has_an_error_status(world: World, name: str) -> None:
    code, steps = FAILING_RUNS[name]
    with a_failing_turn(world, code, "") as conversation:
        world.fake.queue(script(*steps))
        fails_with_status(world, code, conversation, "streaming")


@pytest.mark.parametrize("name", FAILING_RUNS)
def test_a_run_that_fails_after_some_text_ends_with_an_error_event(world: World, name: str) -> None:
    code, steps = FAILING_RUNS[name]
    with a_failing_turn(world, code, PARTIAL) as conversation:
        world.fake.queue(script(text("So ", "far"), *steps))
        fails_with_event(world, code, conversation)


@pytest.mark.parametrize("name", FAILING_RUNS)
def test_a_failed_run_gives_a_blocking_caller_an_error_status(world: World, name: str) -> None:
    code, steps = FAILING_RUNS[name]
    with a_failing_turn(world, code, PARTIAL) as conversation:
        world.fake.queue(script(text("So ", "far"), *steps))
        fails_with_status(world, code, conversation, "blocking")


def test_the_log_names_the_kind_of_a_failure_and_not_its_text(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fake.queue(
        script(fail("QuotaExceededError", LEAK, error_type="quota")), script(fail(f"{SECRET} in <b>", LEAK))
    )
    assert [world.chat.post("go").status_code for _ in range(2)] == [400, 500]
    lines = [one.__dict__ for one in caplog.records if one.name == "agent_gateway.turns.end_report"]
    assert [line["cause"] for line in lines] == ["QuotaExceededError (quota)", "run_failed"]
    assert [line["code"] for line in lines] == ["provider_quota_exceeded", "internal_server_error"]
    assert SECRET not in caplog.text


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_run_is_not_retried(world: World, name: str, response_mode: str) -> None:
    code, refusal = REFUSALS[name]
    with a_failing_turn(world, code, "", runs=1) as conversation:
        world.fake.queue(refusal)
        fails_with_status(world, code, conversation, response_mode)


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_a_backend_that_keeps_stopping_is_retried_within_the_budget(world: World, response_mode: str) -> None:
    with a_failing_turn(world, "service_unavailable", "", runs=None) as conversation:
        posts = world.fake.posts
        world.fake.script = refuse(503)
        try:
            fails_with_status(world, "service_unavailable", conversation, response_mode)
        finally:
            world.fake.script = script(text("You said: after."), succeed())
        assert world.fake.posts > posts + 1


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_a_backend_that_refuses_connections_is_unavailable(world: World, response_mode: str) -> None:
    with a_failing_turn(world, "service_unavailable", "", runs=0) as conversation:
        world.fake.stop()
        try:
            fails_with_status(world, "service_unavailable", conversation, response_mode)
        finally:
            world.fake.start()


def test_a_cut_backend_stream_resumes_without_loss_or_duplicates(world: World) -> None:
    pieces = [f"{number} " for number in range(40)]
    steps: list[Step] = [*text(*pieces[:2])]
    for piece in pieces[2:]:
        cut: list[Step] = [Raw(b'id: 1-0\nevent: x\ndata: {"type":"half'), Cut()]
        steps += [delta(piece), *(cut if len(steps) % 9 == 0 else []), *([Cut(clean=True)] * (piece == "7 "))]
    world.fake.queue(script(*steps, succeed(output="".join(pieces))))
    heard = world.chat.streaming()
    assert heard.answer == "".join(pieces)
    assert heard.last["event"] == "message_end"
    assert len(heard.ids) == len(set(heard.ids))
    assert len(world.fake.streams) > 3
    assert world.fake.posts == 1
    nothing_runs(world)


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_a_backend_stream_that_stays_cut_fails_within_the_budget(world: World, response_mode: str) -> None:
    with a_failing_turn(world, "service_unavailable", PARTIAL) as conversation:
        world.fake.queue(script(text("So ", "far"), *[Cut()] * 100))
        if response_mode == "streaming":
            fails_with_event(world, "service_unavailable", conversation)
        else:
            fails_with_status(world, "service_unavailable", conversation, "blocking")
        assert 1 < len(world.fake.streams) < 100, "it gave up long before the last cut"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "backend_refused"), (404, "turn_interrupted"), (200, "internal_server_error")],
)
def test_a_backend_stream_that_never_opens_fails_the_turn(world: World, status: int, code: str) -> None:
    with a_failing_turn(world, code, "") as conversation:
        world.fake.broken_streams, world.fake.broken_status = 2, status
        world.fake.queue(script(text("never seen"), succeed()))
        fails_with_status(world, code, conversation, "streaming")


def test_a_backend_whose_store_is_down_fails_the_turn_after_the_budget(world: World) -> None:
    with a_failing_turn(world, "internal_server_error", PARTIAL) as conversation:
        gate = Gate()
        world.fake.queue(script(text("So ", "far"), gate, Cut(), succeed()))
        with world.chat.open("go", conversation_id=conversation) as stream:
            stream.until(PARTIAL)
            world.fake.broken_streams, world.fake.broken_status = 1000, 500
            gate.open()
            told(stream.rest().last, "internal_server_error")
        world.fake.broken_streams = 0


def test_the_first_of_two_terminal_events_wins(world: World) -> None:
    world.fake.queue(script(text("done"), succeed(), fail("InvokeRateLimitError"), cancelled()))
    heard = world.chat.streaming()
    assert [event["event"] for event in heard.events] == ["message", "message_end"]
    assert world.chat.message(heard.conversation_id)["status"] == "normal"
    assert rows_of(world.database, heard.task_id).snapshot is not None


def test_a_failed_run_that_brings_a_snapshot_moves_it_forward(world: World) -> None:
    first = world.chat.blocking()
    layers = world.fake.requests[-1].body["composition"]["layers"]
    state: Json = {"lifecycle_state": "new", "runtime_state": {}}
    new = {"schema_version": 1, "layers": [{"name": layer["name"], **state} for layer in layers]}
    world.fake.queue(script(fail("shutdown", session_snapshot=new, usage={"total_tokens": 7})))
    refused(world.chat.post(conversation_id=first["conversation_id"]), 503, "service_unavailable")
    assert world.chat.message(first["conversation_id"])["total_tokens"] == 7
    world.chat.blocking(conversation_id=first["conversation_id"])
    assert world.fake.requests[-1].body["session_snapshot"] == new


def test_a_terminal_event_found_by_the_final_read_decides(world: World) -> None:
    """Garbage ends the reading, but the run's log does have its end (R8)."""
    world.fake.queue(script(text("Hel", "lo"), GARBAGE, Cut(), thinking("hm"), text("!"), succeed()))
    heard = world.chat.streaming(params={"mode": "agent-chat"})
    assert heard.answer == "Hello!"
    assert heard.kinds == ["agent_message", "agent_message", "agent_thought", "agent_message", "message_end"]
    assert heard.ids == [1, 2, 3, 4, 6]
    stored = world.chat.message(heard.conversation_id)
    assert (stored["answer"], stored["status"]) == ("Hello!", "normal")
    assert world.fake.cancels == []


def test_the_final_read_finds_why_the_run_failed(world: World) -> None:
    with a_failing_turn(world, "rate_limit_error", PARTIAL) as conversation:
        world.fake.queue(script(text("So ", "far"), GARBAGE, Cut(), fail("InvokeRateLimitError", LEAK)))
        fails_with_event(world, "rate_limit_error", conversation)


@contextmanager
def ticking(tick: Callable[[int], Step]) -> Generator[list[Step]]:
    """Steps that happen one each 0.1 s while the block lasts, at whose end there are some left."""
    gates = [Gate() for _ in range(600)]
    over = threading.Event()

    def run() -> None:
        for gate in gates:
            if over.wait(0.1):
                return
            gate.open()

    ticker = threading.Thread(target=run)
    ticker.start()
    try:
        yield [step for number, gate in enumerate(gates) for step in (gate, tick(number))]
        assert ticker.is_alive()
    finally:
        over.set()
        ticker.join()


def test_keepalives_do_not_extend_the_idle_timeout(bounded: Bounded) -> None:
    """The backend says nothing but keepalives: 504 after the idle deadline, and the run is cancelled."""
    with (
        a_failing_turn(bounded, "turn_timeout", PARTIAL) as conversation,
        ticking(lambda _: Keepalive()) as keepalives,
    ):
        bounded.fake.queue(script(text("So ", "far"), *keepalives, cancel="ignore"))
        fails_with_event(bounded, "turn_timeout", conversation)
        bounded.fake.wait_until(lambda: len(bounded.fake.cancels) >= 1)


def test_a_silent_run_gives_a_blocking_caller_504(bounded: Bounded) -> None:
    with a_failing_turn(bounded, "turn_timeout", PARTIAL) as conversation:
        bounded.fake.queue(script(text("So ", "far"), Gate()))
        fails_with_status(bounded, "turn_timeout", conversation, "blocking")


def test_an_endless_run_ends_at_the_turns_deadline(bounded: Bounded) -> None:
    with ticking(lambda number: delta(f"{number} ")) as words:
        bounded.fake.queue(script(text("On and on: "), *words, cancel="ignore"))
        heard = bounded.chat.streaming()
    told(heard.last, "turn_timeout")
    assert heard.kinds.count("error") == 1
    assert "message_end" not in heard.kinds
    stored = bounded.chat.message(heard.conversation_id)
    assert stored["answer"] == heard.answer
    assert heard.answer.startswith("On and on: 0 1 ")
    nothing_runs(bounded)


@pytest.mark.parametrize("response_mode", ["streaming", "blocking"])
def test_a_backend_that_never_answers_the_post_is_not_retried(bounded: Bounded, response_mode: str) -> None:
    with a_failing_turn(bounded, "turn_timeout", "", runs=1) as conversation:
        bounded.fake.queue(Script(create="hang"))
        fails_with_status(bounded, "turn_timeout", conversation, response_mode)


def test_limits_have_sane_defaults() -> None:
    """What the tests above shorten is long enough in real life."""
    settings = Settings(_env_file=None)
    assert settings.backend_reconnect_seconds >= 10
    assert settings.idle_timeout_seconds == 300
    assert settings.turn_timeout_seconds == 3600


def test_a_turn_whose_end_cannot_be_made_fails_and_the_next_one_runs(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Result:
        raise ValueError("no end can be made of this")

    with monkeypatch.context() as patched:
        patched.setattr(ending, "conclude", broken)
        failed = chat.streaming()
    assert (failed.last["event"], failed.last["code"]) == ("error", "internal_server_error")
    again = chat.streaming("Again", conversation_id=failed.conversation_id)
    assert (again.last["event"], again.answer) == ("message_end", "You said: Again.")
