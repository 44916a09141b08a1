"""The embedded backend in process: the demo agent, sessions, cancel, and a model server on this machine."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel

from agent_gateway.backend.embedded import EmbeddedBackend, check_model
from agent_gateway.backend.embedded.agent.builtin import EmbeddedAgents
from agent_gateway.backend.embedded.agent.calculator import calculate
from agent_gateway.backend.embedded.agent.demo import MAX_COUNT, answer
from agent_gateway.backend.embedded.agent.models import ModelKey
from agent_gateway.backend.embedded.runs import Cancellation, Emit, RunFailed, Stopping
from agent_gateway.backend.embedded.runs.registry import Runs
from agent_gateway.backend.embedded.runs.run import FROM_START, LoggedEvent
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import TERMINAL, Composition, CreateRunRequest, Layer, OnExit, RunEvent
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Usage
from agent_gateway.errors import BackendUnreachable, ConfigError, RunLost
from tests.support.fakes.model_server import ModelServer
from tests.support.run_log import open_log
from tests.support.run_reader import Reader, events_of

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # seconds until a test that waits for nothing gives up
API_KEY = "sk-very-secret-0123456789"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def embedded(model: str = "", pace: float = 0) -> AsyncGenerator[EmbeddedBackend]:
    async with open_log() as log:
        backend = EmbeddedBackend(model, log, pace=pace)
        try:
            async with asyncio.timeout(LIMIT):
                yield backend
        finally:
            await backend.aclose()


def layers(user: Any, model: str | None = None) -> list[Layer]:
    return [
        Layer("soul", "plain.prompt", config={"prefix": "Be kind."}),
        Layer("user_prompt", "plain.prompt", config={"user": user}),
        Layer("execution_context", "vendor.execution_context", config={"tenant_id": "t"}),
        Layer("history", "pydantic_ai.history"),
        Layer("llm", "vendor.plugin.llm", config={"model": model} if model else {}),
    ]


def request(user: Any, snapshot: bytes | None = None, model: str | None = None) -> CreateRunRequest:
    return CreateRunRequest(
        Composition(1, layers(user, model)),
        session_snapshot=None if snapshot is None else msgspec.Raw(snapshot),
    )


class Told:
    """All events that a reader got of one run."""

    def __init__(self, events: list[RunEvent]) -> None:
        self.events = events
        self.types = [event.type for event in events]
        self.text = "".join(event.agent_message_delta or "" for event in events)
        self.agent_events = [json.loads(bytes(event.data)) for event in events[1:-1]]
        self.end: dict[str, Any] = json.loads(bytes(events[-1].data))

    @property
    def snapshot(self) -> bytes:
        return json.dumps(self.end["session_snapshot"]).encode()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.agent_events if event["event_kind"] == kind]

    def thinking(self) -> str:
        parts = [event["part"] for event in self.of_kind("part_end")]
        return "".join(str(part["content"]) for part in parts if part["part_kind"] == "thinking")


async def listen(backend: EmbeddedBackend, run_id: RunId) -> Told:
    told = Told(await events_of(backend, run_id))
    assert told.types[0] == "run_started"
    assert [kind for kind in told.types if kind in TERMINAL] == [told.types[-1]]
    return told


async def ask(backend: EmbeddedBackend, wish: CreateRunRequest) -> Told:
    return await listen(backend, await backend.create_run(wish))


# The demo agent


async def test_a_plain_answer_streams_word_by_word_and_names_the_demo_agent() -> None:
    async with embedded() as backend:
        told = await ask(backend, request("Hello \u2028 there"))
    assert told.types[-1] == "run_succeeded"
    assert told.end["output"] == told.text
    assert 'You said: "Hello there"' in told.text
    assert "I am the demo agent" in told.text
    assert len([1 for event in told.events if event.agent_message_delta]) == len(told.text.split())
    assert [layer["name"] for layer in told.end["session_snapshot"]["layers"]] == [
        layer.name for layer in layers("")
    ]
    assert {layer["lifecycle_state"] for layer in told.end["session_snapshot"]["layers"]} == {"suspended"}
    assert told.end["usage"].keys() == set(Usage.__struct_fields__)
    assert told.end["usage"]["total_tokens"] > 0
    assert told.end["usage"]["total_price"] == "0"


async def test_ids_grow_and_the_events_look_like_the_recorded_ones() -> None:
    async with embedded() as backend:
        run = await backend.runs.create(request("what is 12*7?"))
        await listen(backend, run.id)
    numbers = [event.number for event in run.events]
    assert numbers == list(range(1, len(numbers) + 1))
    times = [int(event.id.partition("-")[0]) for event in run.events]
    assert times == sorted(times)
    for event in run.events:
        body = json.loads(event.body)
        assert list(body)[:5] == ["id", "run_id", "created_at", "type", "data"]
        assert ("agent_message_delta" in body) == (event.type == "pydantic_ai_event")
        assert b"\n" not in event.body


async def test_an_arithmetic_query_is_answered_with_a_thought_and_a_tool_call() -> None:
    async with embedded() as backend:
        told = await ask(backend, request("What is 12*7?"))
    assert "calculator" in told.thinking()
    (call,) = told.of_kind("function_tool_call")
    (result,) = told.of_kind("function_tool_result")
    assert (call["part"]["tool_name"], call["part"]["args"]) == ("calculate", '{"expression":"12*7"}')
    assert result["part"]["tool_call_id"] == call["part"]["tool_call_id"]
    assert result["part"]["content"] == "12*7 = 84"
    assert told.text == "12*7 = 84. I am the demo agent, and my tools told me so."


async def test_a_query_for_time_and_arithmetic_makes_two_tool_calls() -> None:
    async with embedded() as backend:
        told = await ask(backend, request(["What time is it", "and what is (2+3) × 4?"]))
    results = told.of_kind("function_tool_result")
    assert {result["part"]["tool_name"] for result in results} == {"calculate", "current_time"}
    assert "(2+3) * 4 = 20" in told.text
    assert re.search(r"It is \d\d:\d\d:\d\d UTC on \w+day, ", told.text)


async def test_a_second_turn_remembers_the_first() -> None:
    async with embedded() as backend:
        first = await ask(backend, request("My name is Ada."))
        second = await ask(backend, request("What is my name?", first.snapshot))
        third = await ask(backend, request("What did I say before?", second.snapshot))
    assert "Nice to meet you, Ada." in first.text
    assert "Your name is Ada: you told me in message 1" in second.text
    assert 'Before this, in message 2 of our conversation, you said: "What is my name?".' in third.text
    assert b"Be kind." not in third.snapshot  # instructions come with each request, copies would pile up


async def test_without_a_history_layer_nothing_is_remembered() -> None:
    async with embedded() as backend:
        composition = Composition(
            1, [layer for layer in layers("My name is Ada.") if layer.name != "history"]
        )
        first = await ask(backend, CreateRunRequest(composition))
    assert all(layer["runtime_state"] == {} for layer in first.end["session_snapshot"]["layers"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Please count to 5", "I count to 5: 1 2 3 4 5. Done."),
        ("count up to 999999999", f"I count to {MAX_COUNT}:"),
        ("Tell me a long story", "On day 40 "),
        ("what is my name?", "You have not told me your name yet."),
        ("do you remember", "You said nothing before this"),
    ],
)
async def test_the_demo_agent_answers_by_its_rules(query: str, expected: str) -> None:
    text = answer([query])
    assert expected in text
    assert "I am the demo agent" in text


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*7", "84"),
        ("2 ** 10 - 1", "1023"),
        ("-(7 // 2) % 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("1 ** 100000", "1"),
        ("2 ** -2", "0.25"),
    ],
)
async def test_the_calculator_computes_expressions(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["9**9**9**9", "2**100000", "(-8)**0.5", "1/0", "1e308*10", "10.0**400", "1" * 300, "(" * 150,
     "__import__('os')", "a", "'a'*9", "True", "1 if 1 else 2", "", "1 2"],
)  # fmt: skip
async def test_the_calculator_refuses_hostile_expressions_at_once(expression: str) -> None:
    started = time.thread_time()
    with pytest.raises(ValueError):  # noqa: PT011 - all of its texts are for the user
        calculate(expression)
    assert time.thread_time() - started < 1


# Requests that cannot be run


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (CreateRunRequest(Composition(1, [Layer("x", "vendor.nope")])), "'vendor.nope' is not registered"),
        (request("  \n"), "must not be blank"),
        (CreateRunRequest(Composition(1, [Layer("llm", "vendor.llm")])), "must not be blank"),
        (request({"not": "text"}), "must be a text or a list of texts"),
        (CreateRunRequest(Composition(1, [Layer("p", "plain.prompt", config=[1])])), "must be a mapping"),
        (request("hi", b'{"layers":[{"name":"other"}]}'), "layer names must match"),
        (request("hi", b'"secret"'), "cannot be read"),
    ],
)
async def test_an_invalid_request_fails_after_run_started(wish: CreateRunRequest, error: str) -> None:
    async with embedded() as backend:
        told = await listen(backend, (await backend.runs.create(wish)).id)
    assert told.types == ["run_started", "run_failed"]
    assert error in told.end["error"]
    assert told.end["reason"] is None


async def test_an_unknown_model_of_a_composition_is_not_named_to_the_operator() -> None:
    """A user may have chosen it."""
    async with embedded() as backend:
        told = await ask(backend, request("hi", model="no-such-model"))
    assert told.types == ["run_started", "run_failed"]
    assert told.end == {
        "error": "the model 'no-such-model' cannot be used (UserError)",
        "reason": "ModelNotFoundError",
        "cause": "the model of the composition cannot be used (UserError)",
    }


async def test_an_unreadable_history_fails_the_run_without_being_repeated() -> None:
    async with embedded() as backend:
        told = await ask(backend, request("hi"))
        broken = told.snapshot.replace(b'"kind": "request"', b'"kind": "secret"')
        assert broken != told.snapshot
        told = await ask(backend, request("hi", broken))
    said = "the session snapshot's history cannot be read"
    assert told.end == {"error": said, "reason": None, "cause": said}


async def test_a_clean_up_run_closes_the_session() -> None:
    async with embedded() as backend:
        first = await ask(backend, request("hi"))
        wish = request("", first.snapshot)
        wish.on_exit = OnExit("delete")
        wish.composition.layers.pop()
        snapshot = json.loads(first.snapshot)
        snapshot["layers"].pop()
        wish.session_snapshot = msgspec.Raw(json.dumps(snapshot).encode())
        closed = await ask(backend, wish)
        again = await ask(backend, request("hi", _with_llm(closed)))
    assert closed.types == ["run_started", "run_succeeded"]
    assert closed.end["output"] is None
    assert {layer["lifecycle_state"] for layer in closed.end["session_snapshot"]["layers"]} == {"closed"}
    assert again.end["error"] == "a closed session cannot be resumed"


def _with_llm(told: Told) -> bytes:
    snapshot = told.end["session_snapshot"]
    snapshot["layers"].append({"name": "llm", "lifecycle_state": "closed", "runtime_state": {}})
    return json.dumps(snapshot).encode()


# Runs


async def first_words(backend: EmbeddedBackend, run_id: RunId) -> None:
    async with Reader(backend, run_id) as reader:
        while not any(event.agent_message_delta for event in await reader.batch()):
            pass


async def test_a_run_cancelled_in_the_middle_keeps_its_text() -> None:
    async with embedded(pace=0.001) as backend:
        run_id = await backend.create_run(request("count to 10000"))
        await first_words(backend, run_id)
        await asyncio.gather(backend.cancel(run_id), backend.cancel(run_id))
        told = await listen(backend, run_id)
        async with backend.runs.opened(run_id) as run:
            assert run.status == "cancelled"
        after = await ask(backend, request("What did I say before?", told.snapshot))
    assert told.types[-1] == "run_cancelled"
    assert told.end["reason"] == "user"
    assert told.end["usage"]["completion_tokens"] > 0
    assert told.text.startswith("I ")
    assert "Done" not in told.text
    assert 'you said: "count to 10000"' in after.text


async def test_a_run_can_be_cancelled_before_its_first_step_but_not_after_its_end() -> None:
    async with embedded() as backend:
        run_id = await backend.create_run(request("hi"))
        await backend.cancel(run_id)
        told = await listen(backend, run_id)
        done = await ask(backend, request("hi"))
        assert done.types[-1] == "run_succeeded"
        await backend.cancel(run_id)
        await backend.cancel(RunId("unknown"))
    assert told.types == ["run_started", "run_cancelled"]
    assert told.end == {"reason": "user", "message": "stopped by the user"}


async def test_shutdown_fails_running_runs_and_refuses_new_ones() -> None:
    async with embedded(pace=0.001) as backend:
        run_id = await backend.create_run(request("count to 10000"))
        await first_words(backend, run_id)
        listening = asyncio.create_task(listen(backend, run_id))
        await backend.aclose()
        told = await listening
        with pytest.raises(BackendUnreachable) as refused:
            await backend.create_run(request("hi"))
    said = "run cancelled during server shutdown"
    assert told.end == {"error": said, "reason": "shutdown", "cause": said}
    assert refused.value.nothing_sent


async def test_all_readers_of_a_run_get_the_same_events() -> None:
    async with embedded() as backend:
        run_id = await backend.create_run(request("count to 100"))
        await first_words(backend, run_id)  # a reader that leaves
        tellings = await asyncio.gather(*(listen(backend, run_id) for _ in range(5)))
        tellings.append(await listen(backend, run_id))
        with pytest.raises(RunLost):
            await listen(backend, RunId("unknown"))
    assert len({msgspec.json.encode(told.events) for told in tellings}) == 1


async def test_finished_runs_are_dropped_by_size_and_a_broken_agent_ends_its_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        emit(json.dumps("x" * 1000).encode(), b"null")
        raise KeyError(API_KEY)

    async with asyncio.timeout(LIMIT), open_log() as log:
        runs = Runs(execute, log, keep_bytes=6000)
        made = [await runs.create(request("hi")) for _ in range(10)]
        for run in made:
            await run.ended()
        assert [run.status for run in made] == ["failed"] * 10
        kept = [run for run in made if run.id in runs._runs]
        assert made[-1] in kept
        assert 1 < len(kept) < 5
        # What is not in memory is read from the log.
        for run in made:
            async with runs.opened(run.id) as read:
                assert read.events == run.events
        await runs.aclose()
    assert b"unexpectedly" in made[0].events[-1].body
    assert API_KEY not in caplog.text
    assert "KeyError" in caplog.text


async def test_a_reader_gets_events_once_they_are_logged_and_its_errors_are_its_own() -> None:
    heard: list[list[str]] = []
    late: list[list[str]] = []
    seen: list[int] = []
    """How many batches the first reader had behind each event."""
    begin, go_on = asyncio.Event(), asyncio.Event()

    def types(batches: list[list[str]]) -> Callable[[Sequence[LoggedEvent]], None]:
        return lambda batch: batches.append([event.type for event in batch])

    def broken(batch: Sequence[LoggedEvent]) -> None:
        if batch[-1].type != "run_started":
            raise LookupError("mine")

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        await begin.wait()
        for number in range(2):
            logged = emit(b"{}", b'"%d"' % number)
            seen.append(len(heard))
            await logged
            seen.append(len(heard))
        await go_on.wait()
        return b'{"output":""}'

    async with asyncio.timeout(LIMIT), open_log() as log:
        runs = Runs(execute, log)
        run = await runs.create(request("hi"))
        first = asyncio.ensure_future(run.read(FROM_START, types(heard)))
        leaving = asyncio.ensure_future(run.read(FROM_START, types([])))
        failing = asyncio.ensure_future(run.read(FROM_START, broken))
        await asyncio.sleep(0)
        assert len(run._readers) == 3
        begin.set()
        with pytest.raises(LookupError, match="mine"):
            await failing
        leaving.cancel()
        await asyncio.wait({leaving})
        while len(seen) < 4:
            await run.next_batch(len(run.events))
        second = asyncio.ensure_future(run.read(FROM_START, types(late)))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, second)
        assert run._readers == []
        await runs.aclose()
    event = "pydantic_ai_event"
    assert late == [["run_started", event, event], ["run_succeeded"]]
    assert heard == [["run_started"], [event], [event], ["run_succeeded"]]
    assert seen == [1, 2, 2, 3]


async def test_an_event_is_one_line_however_its_agent_writes_json() -> None:
    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        await emit(json.dumps({"event_kind": "x\n"}, indent=1).encode(), b"null")
        return b'{\n"output": ""}'

    async with asyncio.timeout(LIMIT), open_log() as log:
        runs = Runs(execute, log, keep_bytes=0)
        first, second = [await runs.create(request("hi")) for _ in range(2)]
        await asyncio.gather(first.ended(), second.ended())
        async with runs.opened(first.id) as read:
            assert read is not first
            assert [json.loads(event.body)["type"] for event in read.events] == [
                "run_started",
                "pydantic_ai_event",
                "run_succeeded",
            ]
            assert json.loads(read.events[1].body)["data"] == {"event_kind": "x\n"}
        await runs.aclose()


async def test_the_first_terminal_event_counts_even_if_the_task_does_not_end() -> None:
    release = asyncio.Event()

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        emit(b"{}", b'"late"')
        raise RunFailed("late")

    async with asyncio.timeout(LIMIT), open_log() as log:
        runs = Runs(execute, log, stop_seconds=0.05)
        run = await runs.create(request("hi"))
        try:
            await run.next_batch(FROM_START)
            await asyncio.sleep(0)
            await runs.cancel(run.id, Cancellation("user", None))
            await run.ended()
            assert run.status == "cancelled"
        finally:
            release.set()
        await runs.aclose()
        with pytest.raises(Stopping):
            await runs.create(request("hi"))
        assert run.task is not None
        await asyncio.wait({run.task})
    assert [event.type for event in run.events] == ["run_started", "run_cancelled"]


def test_importing_the_package_does_not_load_the_agent_framework() -> None:
    code = (
        "import sys, agent_gateway.backend.embedded; "
        "print([m for m in ('pydantic_ai', 'openai', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# A real model string, with a model server on this machine


@pytest.fixture
async def model_server(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ModelServer]:
    async with ModelServer(repeats=API_KEY) as models:
        monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
        yield models


async def test_a_model_sees_the_images_of_a_newer_prompt_layer(model_server: ModelServer) -> None:
    """By their bytes or their URL, now and in later turns; of other files it gets the URL."""
    image = {"delivery": "multimodal", "type": "image", "mime_type": "image/png", "format": "png"}
    files = [
        {**image, "base64_data": "aW1hZ2U="},
        {**image, "url": "https://x.test/a.png"},
        {
            "delivery": "download",
            "type": "document",
            "transfer_method": "remote_url",
            "url": "https://x.test/b",
        },
    ]
    async with embedded("openai-chat:m") as backend:
        wish = request("")
        wish.composition.layers[1] = Layer(
            "user_prompt", "vendor.user_prompt", config={"text": "Hi", "files": files}
        )
        first = await ask(backend, wish)
        assert first.types[-1] == "run_succeeded", first.end
        await ask(backend, request("Again", first.snapshot))
    for body in model_server.bodies:
        [said] = [part["content"] for part in body["messages"] if part["role"] == "user"][:1]
        assert [part.get("text") or part["image_url"]["url"] for part in said] == [
            "Hi",
            "A file (image/png):",
            "data:image/png;base64,aW1hZ2U=",
            "A file (image/png):",
            "https://x.test/a.png",
            "Attached document: https://x.test/b",
        ]
    async with embedded() as backend:
        broken = request("Hi")
        broken.composition.layers[1].config = {"text": "Hi", "files": [{**image, "base64_data": "!"}]}
        assert (await ask(backend, broken)).end["error"] == "a file of the prompt is not base64"


@pytest.mark.parametrize("prefix", ["openai", "openai-chat"])
async def test_a_character_split_by_the_model_is_joined(model_server: ModelServer, prefix: str) -> None:
    """To the reader, and to the model itself when it is asked again."""
    async with embedded(f"{prefix}:m-halves") as backend:
        first = await ask(backend, request("Hello"))
        second = await ask(backend, request("Again", first.snapshot))
    fold = Fold()
    told = fold.feed(first.events)
    assert [(event.position, getattr(event, "text", "")) for event in told] == [
        (1, "half "),
        (2, "\U0001f600 done"),
    ]
    assert first.end["output"] == "half \U0001f600 done"
    assert second.types[-1] == "run_succeeded"
    assert "half \U0001f600 done" in json.dumps(model_server.bodies[1], ensure_ascii=False)


async def test_text_sent_back_to_the_model_after_a_tool_has_whole_characters() -> None:
    """This includes the next round of the same run."""
    heard: list[bytes] = []

    async def stream(
        messages: list[ModelMessage], _: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaThinkingPart] | dict[int, DeltaToolCall]]:
        heard.append(ModelMessagesTypeAdapter.dump_json(messages))
        if len(heard) == 1:
            yield {0: DeltaThinkingPart(content="Hm \ud83d")}
            yield {0: DeltaThinkingPart(content="\ude00")}
            yield "half \ud83d"
            yield "\ude00 done"
            yield {2: DeltaToolCall("clock", '{"zone":"\ud83d', tool_call_id="1")}
            yield {2: DeltaToolCall(None, '\ude00"}')}
        else:
            yield "It is nine."

    def clock(zone: str) -> str:
        return zone

    agent = Agent[object, str](FunctionModel(stream_function=stream), tools=[clock])
    async with embedded() as backend:
        assert isinstance(backend._agents, EmbeddedAgents)
        backend._agents._models._agents[ModelKey("")] = agent
        told = await ask(backend, request("Hello"))
    fold = Fold()
    fold.feed(told.events)
    assert told.types[-1] == "run_succeeded", told.end
    assert fold.answer == "half \U0001f600 doneIt is nine."
    assert [step.thought or step.tool for step in fold.steps] == ["Hm \U0001f600", "clock"]
    assert (fold.steps[1].tool_input, fold.steps[1].observation) == ('{"zone":"\U0001f600"}', "\U0001f600")
    assert "half \U0001f600 done".encode() in heard[1]
    assert len(heard) == 2


@pytest.mark.parametrize("prefix", ["openai", "openai-chat"])
async def test_a_real_model_streams_and_remembers(model_server: ModelServer, prefix: str) -> None:
    async with embedded(f"{prefix}:m") as backend:
        first = await ask(backend, request("My name is Ada."))
        second = await ask(backend, request("What is my name?", first.snapshot))
    assert [told.types[-1] for told in (first, second)] == ["run_succeeded"] * 2, first.end
    assert (first.text, first.end["output"]) == ("Hi there!", "Hi there!")
    assert first.end["usage"]["prompt_tokens"] == 11
    assert first.end["usage"]["total_tokens"] == 14
    sent = json.dumps(model_server.bodies[1])
    assert "My name is Ada." in sent
    assert "What is my name?" in sent
    assert sent.count("Be kind.") == 1


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("m-429", "InvokeRateLimitError"),
        ("m-402", "QuotaExceededError"),
        ("m-401", "InvokeAuthorizationError"),
        ("m-403", "InvokeAuthorizationError"),
        ("m-400", "InvokeBadRequestError"),
        ("m-404", "ModelNotFoundError"),
        ("m-422", "InvokeBadRequestError"),
        ("m-500", "InvokeServerUnavailableError"),
        ("m-503", "InvokeServerUnavailableError"),
        ("m-cut", "InvokeConnectionError"),
    ],
)
@pytest.mark.usefixtures("model_server")
async def test_a_provider_failure_has_a_reason_and_never_shows_the_key(
    model: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded("openai-chat:m") as backend:
        run = await backend.runs.create(request("hi", model=f"openai-chat:{model}"))
        told = await listen(backend, run.id)
        assert run.error == told.end["error"]
        after = await ask(backend, request("hi"))
    assert (told.types[-1], told.end["reason"]) == ("run_failed", reason)
    assert after.types[-1] == "run_succeeded"
    assert API_KEY.encode() not in b"".join(event.body for event in run.events)
    assert API_KEY not in caplog.text


async def test_a_run_that_keeps_calling_tools_fails_at_its_limit() -> None:
    async def stream(
        messages: list[ModelMessage], _: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaThinkingPart] | dict[int, DeltaToolCall]]:
        yield {0: DeltaToolCall("again", "{}", tool_call_id=str(len(messages)))}

    def again() -> str:
        return "again"

    async with embedded() as backend:
        agent = Agent[object, str](FunctionModel(stream_function=stream), tools=[again])
        assert isinstance(backend._agents, EmbeddedAgents)
        backend._agents._models._agents[ModelKey("")] = agent
        told = await ask(backend, request("Hello"))
    assert (told.types[-1], told.end["reason"]) == ("run_failed", "agent_run_limit_exceeded")


async def test_an_unreachable_provider_is_a_connection_error(
    monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    async with embedded("openai-chat:m") as backend:
        told = await ask(backend, request("hi"))
    assert told.end["reason"] == "InvokeConnectionError"


@pytest.mark.parametrize("model", ["openai:gpt-5-mini", "nonsense", "nonsense:model"])
async def test_an_unusable_model_is_a_configuration_error(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=model):
        check_model(model)
