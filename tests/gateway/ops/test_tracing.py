"""Traces, as a collector gets them: spans of requests and turns, how they relate, what is never in them."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_gateway import tracing
from agent_gateway.domain.events import Endings, Result
from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Caller, Turn, TurnRequest
from agent_gateway.spans import SCHEMA_URL
from agent_gateway.store.turns.intake import Repeated, StartedTurn
from agent_gateway.store.turns.reader import TurnStatus
from tests.support.chat import Chat, refused
from tests.support.command import Command, Operator, refusal
from tests.support.fakes import model_server
from tests.support.fakes.collector import Collector, Kept
from tests.support.fakes.script import Gate, ask_human, fail, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, adopted, die, within
from tests.support.gateway_process import START_SECONDS, GatewayProcess, environment
from tests.support.gateway_server import (
    API_KEY,
    BOUND,
    NO_KEY_IS_REMEMBERED,
    TAKEN_OVER,
    GatewayServer,
    StartGateway,
    is_ready,
    wait_until,
)
from tests.support.log_lines import Line, kept_lines
from tests.support.rows import apply_app, make_key, rows_of

CANARY = "canary-of-the-coal-mine"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
LOST = "spans do not reach their collector"


@pytest.fixture(autouse=True)
def each_gateway_has_sent_its_last() -> Iterator[None]:
    """No test leaves a thread to the next one, whose lines it would take."""
    yield
    wait_until(no_spans_are_sent)


def no_spans_are_sent() -> bool:
    return not [one for one in threading.enumerate() if one.name == "last spans"]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that all processes of a test send to, soon after a span has ended."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@contextmanager
def serving(folder: Path, fake: ScriptedBackend, user: str) -> Generator[tuple[GatewayServer, Chat]]:
    """A gateway, which reads the environment when it starts, and a user of it."""
    with GatewayServer(folder, backend_url=fake.url) as server, server.client() as client:
        yield server, Chat(client, user)


def turns(collector: Collector, number: int) -> list[Kept]:
    """The spans of turns, once there are so many."""
    wait_until(lambda: len(collector.of_kind("client")) >= number)
    return collector.of_kind("client")


def posts(collector: Collector, number: int = 1) -> list[Kept]:
    """The spans of posts of messages, once there are so many."""

    def arrived() -> list[Kept]:
        return [span for span in collector.of_kind("server") if span.name == "POST /chat-messages"]

    wait_until(lambda: len(arrived()) >= number)
    return arrived()


def passed_on(fake: ScriptedBackend) -> list[str]:
    """Trace and span of which each run was told that it belongs there."""
    return [request.headers["traceparent"][3:-3] for request in fake.requests]


# -- what a trace looks like -----------------------------------------------------------------------------


def test_a_turn_is_a_span_below_that_of_its_request_and_above_its_run(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    with serving(tmp_path, fake, user) as (_, chat):
        heard = chat.streaming("Hello", headers={"traceparent": PARENT, "X-Request-Id": "request-1"})
        [turn], [request] = turns(collector, 1), posts(collector)
    assert (request.trace_id, request.parent_id) == (TRACE, SPAN)
    assert (turn.trace_id, turn.parent_id, turn.links) == (TRACE, request.span_id, [])
    assert passed_on(fake) == [turn.parent]
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/chat-messages",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "agent_gateway.request_id": "request-1",
    }
    told = turn.attributes
    assert turn.name == "invoke_agent default"
    assert told["gen_ai.operation.name"] == "invoke_agent"
    assert told["gen_ai.provider.name"] == "agent_gateway"
    assert told["gen_ai.agent.name"] == told["agent_gateway.app"] == "default"
    assert {"gen_ai.agent.id", "gen_ai.agent.version", "agent_gateway.run_id"} < set(told)
    assert told["gen_ai.conversation.id"] == heard.conversation_id
    usage = heard.last["metadata"]["usage"]
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"] > 0
    assert (told["agent_gateway.task_id"], told["agent_gateway.request_id"]) == (heard.task_id, "request-1")
    assert (told["agent_gateway.turn.outcome"], told["agent_gateway.turn.adoptions"]) == ("completed", 0)
    assert told["agent_gateway.turn.queued_seconds"] == 0
    assert told["agent_gateway.turn.first_event_seconds"] > 0
    assert (turn.failed, request.failed) == (False, False)
    assert {span.schema_url for span in (turn, request)} == {SCHEMA_URL}
    assert turn.resource["service.name"] == "agent-gateway"
    assert turn.resource["service.version"] == "0.1.0"


def test_a_failed_turn_has_its_code_and_cause_and_no_words_of_the_provider(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    fake.queue(script(text("Half an "), fail("InvokeRateLimitError", CANARY)))
    with serving(tmp_path, fake, user) as (_, chat):
        refused(chat.post("Hello", response_mode="blocking"), 429, "rate_limit_error")
        [turn], [request] = turns(collector, 1), posts(collector)
    assert turn.failed
    assert turn.attributes["error.type"] == "rate_limit_error"
    assert turn.attributes["agent_gateway.turn.cause"] == "InvokeRateLimitError"
    assert turn.attributes["agent_gateway.turn.outcome"] == "failed"
    # By the conventions, 4xx is no failure of a server.
    assert (request.failed, request.attributes["http.response.status_code"]) == (False, 429)
    assert CANARY not in turn.text + request.text


def test_the_span_of_a_turn_says_why_its_model_stopped(
    tmp_path: Path, collector: Collector, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_server.serving("Hello") as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        with GatewayServer(tmp_path, model="openai-chat:m-length") as server, server.client() as client:
            Chat(client, user).blocking("Hello")
            [turn] = turns(collector, 1)
    assert turn.attributes["gen_ai.response.finish_reasons"] == ["length"]
    # The agent framework makes spans of its own only for those who ask for them there.
    assert {span.name for span in collector.spans} <= {turn.name, "POST /chat-messages", "GET"}


def test_a_queued_turn_is_one_span_from_its_begin_on(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, gate: Gate, user: str
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    with serving(tmp_path, fake, user) as (_, chat):
        first = chat.background("Long")
        second = chat.background("Next", conversation_id=first["conversation_id"])
        gate.open()
        chat.resumed(second["task_id"])
        one, two = turns(collector, 2)
    assert [span.attributes["agent_gateway.task_id"] for span in (one, two)] == [
        first["task_id"],
        second["task_id"],
    ]
    assert one.trace_id != two.trace_id
    assert two.links == []
    assert two.attributes["agent_gateway.turn.queued_seconds"] > 0
    assert passed_on(fake) == [one.parent, two.parent]


def test_a_turn_has_the_version_of_the_app_that_its_conversation_keeps(
    start_gateway: StartGateway, fake: ScriptedBackend, collector: Collector, database_url: str, user: str
) -> None:
    _, key = make_key(database_url, apply_app(database_url, "an-app").app_id)
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        old = chat.blocking("One")
        apply_app(database_url, "an-app", opening_statement="Hello")
        kept, new = chat.blocking("Two", conversation_id=old["conversation_id"]), chat.blocking("One")
        spans = turns(collector, 3)
    versions = [span.attributes["gen_ai.agent.version"] for span in spans]
    stored = [rows_of(database_url, one["task_id"]).turn.app_version_id for one in (old, kept, new)]
    assert versions == stored
    assert versions[0] == versions[1] != versions[2]


def test_the_turn_that_carries_an_answer_is_below_the_request_with_the_answer(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    fake.queue(script(ask_human("Shall I?")))
    with serving(tmp_path, fake, user) as (_, chat):
        asked = chat.blocking("Hello")
        form = chat.message(asked["conversation_id"])["extra_contents"][0]["form_definition"]
        answer = {"user": user, "action": form["actions"][0]["id"]}
        submitted = chat.client.post(f"/form/human_input/{form['form_token']}", json=answer).json()
        chat.resumed(submitted["task_id"])
        _, turn = turns(collector, 2)
        route = "POST /form/human_input/{form_token}"
        wait_until(lambda: [span for span in collector.spans if span.name == route])
    [request] = [span for span in collector.spans if span.name == route]
    assert (turn.trace_id, turn.parent_id) == (request.trace_id, request.span_id)
    assert turn.attributes["agent_gateway.task_id"] == submitted["task_id"]
    [message] = json.loads(turn.attributes["gen_ai.input.messages"])
    assert message["parts"][0]["content"], "what the store made of the form"
    assert form["form_token"] not in str([span.text for span in collector.spans])


def test_a_path_without_a_route_is_not_told(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    with serving(tmp_path, fake, user) as (_, chat):
        chat.client.request("PROPFIND", f"/{CANARY}")
        wait_until(lambda: [one for one in collector.spans if one.name == "HTTP"])
        [odd] = [one for one in collector.spans if one.name == "HTTP"]
    assert odd.attributes["http.request.method"] == "_OTHER"
    assert "http.route" not in odd.attributes
    assert CANARY not in odd.text


# -- one end for each span -------------------------------------------------------------------------------


def test_a_turn_that_is_stopped_in_its_queue_says_so(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, gate: Gate, user: str
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    with serving(tmp_path, fake, user) as (_, chat):
        running = chat.background("Long")
        queued = chat.background("Next", conversation_id=running["conversation_id"])
        chat.stop(queued["task_id"])
        [stopped] = turns(collector, 1)
        gate.open()
    assert stopped.attributes["agent_gateway.task_id"] == queued["task_id"]
    assert stopped.attributes["agent_gateway.turn.outcome"] == "stopped"


def test_a_turn_that_ended_while_its_status_was_read_stays_ours_and_has_one_span(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    gate: Gate,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    with kept_lines("") as lines, serving(tmp_path, fake, user) as (server, chat):
        chat.background("Long")
        maintenance = server.gateway.maintenance
        [live] = server.gateway.live.running()
        reader = maintenance._store.reader
        statuses = reader.statuses

        async def late(task_ids: list[TaskId]) -> dict[TaskId, TurnStatus]:
            gate.open()
            async with asyncio.timeout(BOUND):
                await live.ended.wait()
            return await statuses(task_ids)

        monkeypatch.setattr(reader, "statuses", late)
        # So that its own turns are read as well.
        maintenance._guard.missed()
        within(server, maintenance.refresh_statuses())
        assert live.runner.owned
        [turn] = turns(collector, 1)
    assert turn.attributes["agent_gateway.turn.outcome"] == "completed"
    assert told(lines) == []


def test_a_turn_that_is_lost_while_its_end_is_stored_has_that_end(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    gate: Gate,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A heartbeat between the commit and its return finds that the turn is no longer ours."""
    fake.queue(script(text("Half "), gate, succeed()))
    with serving(tmp_path, fake, user) as (server, chat):
        chat.background("Long")
        [live] = server.gateway.live.running()
        owned = server.gateway.turns.owned
        finish = owned.finish

        async def late(turn: Turn, endings: Endings) -> Result | None:
            result = await finish(turn, endings)
            live.runner.demote()
            # The runner hears of that first.
            for _ in range(10):
                await asyncio.sleep(0)
            return result

        monkeypatch.setattr(owned, "finish", late)
        gate.open()
        [turn] = turns(collector, 1)
        server.stop()
    assert turn.attributes["agent_gateway.turn.outcome"] == "completed"
    assert len(collector.of_kind("client")) == 1


def test_a_turn_that_ended_before_its_begin_returned_leaves_no_span_open(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    gate: Gate,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    with serving(tmp_path, fake, user) as (server, chat):
        running = chat.background("Long")
        live, intake = server.gateway.live, server.gateway.turns.intake
        begin = intake.begin

        async def late(
            caller: Caller, request: TurnRequest, task_id: TaskId | None = None
        ) -> StartedTurn | Repeated:
            begun = await begin(caller, request, task_id)
            assert task_id is not None
            follower = await live.follow(task_id)
            assert follower is not None
            gate.open()
            async with asyncio.timeout(BOUND):
                await follower.ended.wait()
            return begun

        monkeypatch.setattr(intake, "begin", late)
        queued = chat.background("Next", conversation_id=running["conversation_id"])
        spans = turns(collector, 3)
    found = {
        (span.attributes["agent_gateway.task_id"], span.attributes["agent_gateway.turn.outcome"])
        for span in spans
    }
    assert found == {
        (running["task_id"], "completed"),
        (queued["task_id"], "queued"),
        (queued["task_id"], "completed"),
    }


# -- turns that change their process ---------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["released", "lost"])
def test_an_adopted_turn_goes_on_in_its_trace_with_a_link_to_where_it_was_begun(
    fleet: Fleet, fake: ScriptedBackend, collector: Collector, gate: Gate, user: str, gone: str
) -> None:
    fake.queue(script(text("Half "), gate, text("whole"), succeed()))
    fleet.limits = TAKEN_OVER
    # The gateways of one process trace together.
    first, second = fleet.start(), fleet.start()
    task_id = fleet.chat(first, user).background("Long", headers={"traceparent": PARENT})["task_id"]
    fake.wait_until(lambda: fake.open_streams == 1)
    if gone == "released":
        within(first, first.gateway.live.drain(BOUND))
    else:
        die(first)
    adopted(second, task_id)
    gate.open()
    assert fleet.chat(second, user).resumed(task_id).kinds[-1] == "message_end"
    before, after = turns(collector, 2)
    assert before.attributes["agent_gateway.turn.outcome"] == gone
    assert after.attributes["agent_gateway.turn.outcome"] == "completed"
    assert {span.attributes["agent_gateway.task_id"] for span in (before, after)} == {task_id}
    assert (before.trace_id, before.links) == (TRACE, [])
    assert (after.trace_id, after.parent_id) == (TRACE, before.span_id)
    assert after.links == [(before.trace_id, before.span_id)]
    assert '"begun"' in after.text
    assert (before.failed, after.failed) == (False, False)
    assert fleet.rows(task_id).turn.traceparent == f"00-{before.parent}-01"


def test_a_turn_that_only_waited_in_its_process_says_so(
    fleet: Fleet, fake: ScriptedBackend, collector: Collector, gate: Gate, user: str
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    first, second = fleet.start(), fleet.start()
    running = fleet.chat(first, user).background("Long")
    queued = fleet.chat(second, user).background("Next", conversation_id=running["conversation_id"])
    die(second)
    [waited] = turns(collector, 1)
    gate.open()
    fleet.chat(first, user).resumed(queued["task_id"])
    _, _, driven = turns(collector, 3)
    assert waited.attributes["agent_gateway.turn.outcome"] == "queued"
    assert waited.attributes["agent_gateway.task_id"] == queued["task_id"]
    assert driven.links == [(waited.trace_id, waited.span_id)]


@pytest.mark.slow
def test_each_worker_sends_its_own_spans(
    postgres_url: str, tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    settings = {"BACKEND_URL": fake.url, "API_KEY": API_KEY, "DATABASE_URL": postgres_url}
    with GatewayProcess(tmp_path, "--workers", "2", **settings) as process:
        wait_until(lambda: is_up(process), START_SECONDS)

        def instances() -> set[str]:
            with process.client() as client:
                assert client.get("/info").status_code == 200
            return {span.resource["service.instance.id"] for span in collector.of_kind("server")}

        wait_until(lambda: len(instances()) == 2)


def is_up(process: GatewayProcess) -> bool:
    with process.client() as client:
        return is_ready(client)


@pytest.mark.slow
def test_the_backend_server_continues_the_trace(tmp_path: Path, collector: Collector, user: str) -> None:
    logged = tmp_path / "backend.log"
    command = [sys.executable, "-m", "agent_gateway", "backend", "--port", "0"]
    with logged.open("wb") as output:
        own = environment(LOG_FORMAT="json", DATA_DIR=tmp_path / "backend")
        named = own | {"OTEL_SERVICE_NAME": "the-agent"}
        backend = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=named)
    try:
        listening = re.compile(r"Uvicorn running on (http://\S+)")
        wait_until(lambda: listening.search(logged.read_text()), START_SECONDS)
        found = listening.search(logged.read_text())
        assert found
        with GatewayServer(tmp_path, backend_url=found[1]) as server, server.client() as client:
            Chat(client, user).blocking(CANARY)
            [turn], [post] = turns(collector, 1), posts(collector)
            wait_until(lambda: len(runs(collector)) == 2)
    finally:
        backend.terminate()
        backend.wait(START_SECONDS)
    assert {(span.name, span.trace_id, span.parent_id) for span in runs(collector)} == {
        ("POST /runs", turn.trace_id, turn.span_id),
        ("GET /runs/{run_id}/events/sse", turn.trace_id, turn.span_id),
    }
    assert {span.resource["service.name"] for span in runs(collector)} == {"the-agent"}
    assert turn.parent_id == post.span_id
    assert CANARY not in str([span.text for span in collector.spans])


def runs(collector: Collector) -> list[Kept]:
    return [span for span in collector.of_kind("server") if "/runs" in span.name]


# -- what is in no span ----------------------------------------------------------------------------------


def called_with_canaries(chat: Chat, user: str) -> None:
    """A turn that is full of canaries, and requests that have them in each place."""
    heard = chat.streaming(CANARY, inputs={CANARY: CANARY}, headers={"Idempotency-Key": CANARY})
    ended = chat.client.get(f"/chat-messages/{heard.task_id}/events", params={"user": user, "x": CANARY})
    assert CANARY in ended.text
    for path in (f"/{CANARY}", f"/form/human_input/{CANARY}", f"/files/{CANARY}/file-preview"):
        chat.client.get(path, params={"ticket": CANARY}, headers={"Cookie": CANARY, "User-Agent": CANARY})


def test_no_span_has_texts_tickets_queries_keys_or_users(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    with serving(tmp_path, fake, user) as (server, chat):
        called_with_canaries(chat, user)
        server.stop()
    assert len(collector.spans) >= 6
    for secret in (CANARY, API_KEY, user):
        assert secret not in str([span.text for span in collector.spans])


def test_texts_of_turns_are_in_their_spans_when_they_are_asked_for(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with serving(tmp_path, fake, user) as (server, chat):
        called_with_canaries(chat, user)
        server.stop()
    [turn] = collector.of_kind("client")
    said = {"type": "text", "content": CANARY}
    assert json.loads(turn.attributes["gen_ai.input.messages"]) == [{"role": "user", "parts": [said]}]
    [answer] = json.loads(turn.attributes["gen_ai.output.messages"])
    assert answer["role"] == "assistant"
    assert CANARY in answer["parts"][0]["content"]
    assert CANARY not in str([span.text for span in collector.of_kind("server")])


# -- what the environment decides ------------------------------------------------------------------------


def test_the_standard_variables_name_the_service_and_choose_what_is_sampled(
    tmp_path: Path,
    fake: ScriptedBackend,
    collector: Collector,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with serving(tmp_path, fake, user) as (server, chat):
        chat.blocking("Not sampled")
        chat.blocking("Sampled", headers={"traceparent": PARENT})
        server.stop()
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert len(collector.of_kind("client")) == 1
    assert {span.resource["service.name"] for span in collector.spans} == {"front"}
    assert {span.resource["deployment.environment.name"] for span in collector.spans} == {"test"}
    assert {(one["x-tenant"], one["content-encoding"]) for one in collector.requests} == {("seven", "gzip")}
    # The backend hears of both, and that the first is not recorded.
    assert [one.headers["traceparent"][-2:] in {"00", "02"} for one in fake.requests] == [True, False]


LOADED = """
import asyncio, sys
from agent_gateway.app import create_app
from agent_gateway.settings import Settings
app = create_app(Settings())
before = set(sys.modules)
async def run():
    async with app.router.lifespan_context(app):
        pass
asyncio.run(run())
ours = ("agent_gateway.spans", "requests", "opentelemetry.sdk", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(ours)])
print([name for name in set(sys.modules) - before if name.startswith("opentelemetry")])
"""


def test_a_process_that_traces_nothing_has_imported_nothing_for_it(tmp_path: Path) -> None:
    """The web framework imports the interface of OpenTelemetry in any case; nothing is added to that."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=environment(DATA_DIR=tmp_path, API_KEY=API_KEY) | {"OTEL_TRACES_EXPORTER": "none"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "[]"]


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing of the extra was installed."""
    for name in list(sys.modules):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "agent_gateway.spans", raising=False)
    for name in ("sdk", "exporter"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.{name}", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")


NEEDED = "is not installed: pip install 'agent-gateway[tracing]', or set OTEL_TRACES_EXPORTER=none"


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize("service", ["serve", "backend"])
def test_without_the_extra_a_start_names_it(command: Command, service: str) -> None:
    assert refusal(command(service, "--port", "0")).endswith(NEEDED)


@pytest.mark.usefixtures("without_the_extra")
def test_without_the_extra_check_names_it(command: Command) -> None:
    assert re.search(f"^traces: +WRONG +.*{re.escape(NEEDED)}$", command("check").stdout, re.MULTILINE)


WRONG = [
    ("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization: Bearer {CANARY}"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_serve_refuses_a_wrong_value_in_one_line_and_changes_nothing(
    tmp_path: Path, name: str, value: str
) -> None:
    database = tmp_path / "gateway.db"
    done = Operator(tmp_path, f"sqlite:///{database}").try_(
        "serve", "--port", "0", **{"OTEL_TRACES_EXPORTER": "otlp", name: value}
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith(f"error: {name}: it has to be ")
    assert CANARY not in done.stderr
    assert not database.exists()


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_check_refuses_a_wrong_value(
    command: Command, collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    checked = command("check").stdout
    assert re.search(f"^traces: +WRONG +{name}: it has to be ", checked, re.MULTILINE)
    assert CANARY not in checked
    assert collector.requests == []


def test_check_refuses_what_the_sdk_does_not_take(
    command: Command, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: this process would begin, and fail later."""

    def made(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("agent_gateway.spans.BatchSpanProcessor", made)
    checked = command("check").stdout
    assert re.search("^traces: +WRONG +the OTEL_.* cannot be used: RuntimeError$", checked, re.MULTILINE)
    assert collector.requests == []


def test_check_refuses_what_cannot_be_done(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"collector:4318/{CANARY}")
    said = "OTEL_EXPORTER_OTLP_ENDPOINT: it has to be a URL with http or https"
    checked = command("check").stdout
    assert re.search(f"^traces: +WRONG +{said}$", checked, re.MULTILINE)
    assert CANARY not in checked


@pytest.mark.parametrize("status", [401, 302, 503])
def test_check_asks_the_collector_once(command: Command, collector: Collector, status: int) -> None:
    assert "their collector takes them" in command("check").stdout
    collector.answers = status
    checked = command("check").stdout
    assert f"their collector does not take them: it answers {status}\n" in checked
    assert collector.spans == []
    assert len(collector.requests) == 2


def test_check_finds_that_the_collector_is_not_there(
    command: Command, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_port}/{CANARY}")
    checked = command("check").stdout
    assert "their collector does not take them: ConnectionError\n" in checked
    assert CANARY not in checked


# -- a collector that is away ----------------------------------------------------------------------------


def told(lines: list[Line]) -> list[str]:
    return [line["message"] for line in lines if line["level"] in {"warning", "error"}]


def test_a_collector_that_refuses_is_told_once_and_that_it_is_back(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str
) -> None:
    collector.answers = 401
    with kept_lines("") as lines, serving(tmp_path, fake, user) as (server, chat):
        for number in range(4):
            chat.blocking("Hello")
            wait_until(lambda least=number + 1: len(collector.requests) >= least)
        wait_until(lambda: told(lines))
        collector.answers = 200
        chat.blocking("Hello")
        turns(collector, 1)
        wait_until(lambda: len(told(lines)) == 2)
        server.stop()
    begin, end = told(lines)
    assert begin == f"{LOST}: it answers 401"
    assert end.startswith(f"{LOST} no longer, after ")


def test_a_collector_that_hangs_delays_no_turn_and_a_stop_only_for_a_moment(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.2)
    # No request is given up, and none tried again, before the test is over.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    collector.gate.clear()
    with kept_lines("") as lines, serving(tmp_path, fake, user) as (server, chat):
        chat.blocking("Hello")
        wait_until(lambda: collector.requests)
        # Spans are sent by one request at a time, and that one hangs.
        for _ in range(3):
            assert chat.blocking("Hello")["answer"]
        server.stop()
        assert (len(collector.requests), collector.spans) == (1, [])
        collector.gate.set()
        wait_until(no_spans_are_sent)
    assert told(lines) == []
    assert len(collector.of_kind("client")) == 4


def test_spans_that_cannot_wait_are_told_as_lost(
    tmp_path: Path, fake: ScriptedBackend, collector: Collector, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    collector.gate.clear()
    with kept_lines("") as lines, serving(tmp_path, fake, user) as (server, chat):
        for _ in range(2):
            chat.blocking("Hello")
        wait_until(lambda: told(lines))
        collector.gate.set()
        server.stop()
    assert told(lines)[0] == f"{LOST}: too many wait to be sent"


def test_a_collector_that_is_not_there_is_told_without_its_address(
    tmp_path: Path, fake: ScriptedBackend, user: str, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_port}/{CANARY}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with kept_lines("") as lines, serving(tmp_path, fake, user) as (server, chat):
        assert chat.blocking("Hello")["answer"]
        wait_until(lambda: told(lines))
        server.stop()
    assert told(lines) == [f"{LOST}: ConnectionError"]
    assert CANARY not in str([line for line in lines if line["level"] != "debug"])
