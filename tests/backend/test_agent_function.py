"""Agent functions in the embedded backend: what they get, what becomes of what they yield, how they end."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from agent_gateway.agent import (
    Action,
    AgentError,
    AgentFunction,
    Answer,
    Field,
    File,
    Message,
    Question,
    Step,
    Thought,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)
from agent_gateway.backend.embedded import EmbeddedBackend
from agent_gateway.backend.embedded.function.agent import PlainAgents
from agent_gateway.backend.embedded.runs import Cancellation
from agent_gateway.backend.fold.question import read_question
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer, OnExit, RunEvent
from tests.support.run_log import open_log
from tests.support.run_reader import Reader, events_of

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # seconds until a test that waits for nothing gives up
SECRET = "sk-very-secret-0123456789"
HERE = "test_agent_function.py"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def backend_of(function: AgentFunction | None = None) -> AsyncGenerator[EmbeddedBackend]:
    """A backend with this agent, or with the demo agent."""
    agents = None if function is None else PlainAgents(function)
    async with open_log() as log:
        backend = EmbeddedBackend("", log, pace=0, agents=agents)
        try:
            async with asyncio.timeout(LIMIT):
                yield backend
        finally:
            await backend.aclose()


def request(
    user: str = "Hello", *, model: str | None = "ignored", context: Any = None, files: Any = None, **more: Any
) -> CreateRunRequest:
    """A request with these words, what an earlier run left (`snapshot`), what a human said (`results`)."""
    prompt = {"user": user} if files is None else {"user": user, "files": files}
    layers = [
        Layer("soul", "plain.prompt", config={"prefix": "Be kind."}),
        Layer("user_prompt", "plain.prompt", config=prompt),
        Layer("execution_context", "vendor.execution_context", config=context or {"user_id": "ada"}),
        Layer("history", "pydantic_ai.history"),
        Layer("llm", "vendor.plugin.llm", config={"model": model}),
    ]
    snapshot = more.get("snapshot")
    return CreateRunRequest(
        Composition(1, layers),
        session_snapshot=None if snapshot is None else msgspec.Raw(msgspec.json.encode(snapshot)),
        deferred_tool_results=more.get("results"),
        on_exit=more.get("on_exit"),
        metadata={"conversation_id": "c1"},
    )


class Told:
    """All events of one run, and what a gateway makes of them."""

    def __init__(self, events: list[RunEvent]) -> None:
        self.fold = Fold()
        self.fold.feed(events)
        self.type = events[-1].type
        self.kinds = [json.loads(bytes(event.data))["event_kind"] for event in events[1:-1]]
        self.end: dict[str, Any] = json.loads(bytes(events[-1].data))
        self.body = b"".join(bytes(event.data) for event in events)

    @property
    def answer(self) -> str:
        return self.fold.answer

    @property
    def history(self) -> dict[str, Any]:
        """The state of the history layer in the snapshot."""
        [layer] = [one for one in self.end["session_snapshot"]["layers"] if one["name"] == "history"]
        state: dict[str, Any] = layer["runtime_state"]
        return state


async def ask(backend: EmbeddedBackend, wish: CreateRunRequest) -> Told:
    return Told(await events_of(backend, await backend.create_run(wish)))


async def run(function: AgentFunction, wish: CreateRunRequest | None = None) -> Told:
    async with backend_of(function) as backend:
        return await ask(backend, wish or request())


def yields(*steps: Any) -> AgentFunction:
    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        for step in steps:
            yield step

    return agent


def keeps(turns: list[Turn], say: str = "Fine.") -> AgentFunction:
    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        turns.append(turn)
        yield say

    return agent


# -- what an agent gets ------------------------------------------------------------------------------


async def test_an_agent_gets_the_words_and_all_that_the_app_sends() -> None:
    turns: list[Turn] = []
    image = {"delivery": "multimodal", "type": "image", "filename": "a.png", "mime_type": "image/png"}
    paper = {"delivery": "download", "type": "document", "url": "https://x.test/b.pdf"}
    context = {"user_id": "ada", "conversation_id": "c2", "city": "Lisbon"}
    await run(keeps(turns), request(context=context, files=[image | {"base64_data": "aGk="}, paper]))
    [turn] = turns
    assert turn.query == "Hello"
    assert (turn.instructions, turn.history, turn.state, turn.answer) == ("Be kind.", (), {}, None)
    assert turn.files == (
        File(b"hi", "image/png", "a.png", kind="image"),
        File(url="https://x.test/b.pdf", kind="document"),
    )
    assert (turn.user_id, turn.conversation_id, turn.context["city"]) == ("ada", "c2", "Lisbon")
    assert not turn.auxiliary


async def test_the_conversation_is_that_of_the_request_if_no_layer_names_it() -> None:
    turns: list[Turn] = []
    await run(keeps(turns), request(on_exit=OnExit("delete")))
    assert (turns[0].conversation_id, turns[0].auxiliary) == ("c1", True)


async def test_history_and_state_come_back_in_the_next_turn() -> None:
    seen: list[tuple[Any, ...]] = []

    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        seen.append((turn.history, dict(turn.state)))
        turn.state["count"] = turn.state.get("count", 0) + 1
        yield "Fi"
        yield "ne.\0"

    async with backend_of(agent) as backend:
        first = await ask(backend, request("One"))
        await ask(backend, request("Two", snapshot=first.end["session_snapshot"]))
        await ask(backend, request("Other"))
    said = (Message("user", "One"), Message("assistant", "Fine.\ufffd"))
    assert seen == [((), {}), (said, {"count": 1}), ((), {})]


async def test_a_conversation_goes_on_when_one_kind_of_agent_takes_the_place_of_another() -> None:
    turns: list[Turn] = []
    async with backend_of() as demo, backend_of(keeps(turns)) as plain:
        first = await ask(demo, request("My name is Ada. What is 2 + 3?", model=None))
        second = await ask(plain, request("Go on", snapshot=first.end["session_snapshot"]))
        third = await ask(
            demo, request("What is my name?", model=None, snapshot=second.end["session_snapshot"])
        )
    assert turns[0].history == (
        Message("user", "My name is Ada. What is 2 + 3?"),
        Message("assistant", first.answer),
    )
    assert "Your name is Ada: you told me in message 1" in third.answer


async def test_without_a_history_layer_nothing_is_remembered() -> None:
    turns: list[Turn] = []
    wish = CreateRunRequest(
        Composition(1, [Layer("p", "plain.prompt", config={"user": "Hello"}), Layer("llm", "llm")])
    )
    told = await run(keeps(turns), wish)
    assert told.type == "run_succeeded"
    assert all(layer["runtime_state"] == {} for layer in told.end["session_snapshot"]["layers"])


async def test_a_run_that_cleans_up_does_not_call_the_agent() -> None:
    turns: list[Turn] = []
    async with backend_of(keeps(turns)) as backend:
        wish = request()
        wish.composition.layers.pop()
        wish.on_exit = OnExit("delete")
        told = await ask(backend, wish)
    assert (told.type, told.end["output"], turns) == ("run_succeeded", None, [])


# -- what it yields ----------------------------------------------------------------------------------


async def test_steps_become_what_a_gateway_shows() -> None:
    first, second = ToolCall("find", {"q": "x"}, "1"), ToolCall("find", "y", "2")
    told = await run(
        yields(
            Thought("I "),
            Thought("look."),
            first,
            second,
            ToolResult("2", ["b"]),
            ToolResult("1", "a"),
            Usage(3, 4),
            Thought("Good."),
            "",
            "Done",
            File(b"1,2", "text/csv"),
            ".",
            Usage(1),
        )
    )
    assert told.type == "run_succeeded"
    assert (told.answer, told.end["output"]) == ("Done.", "Done.")
    assert [(step.thought, step.tool, step.tool_input, step.observation) for step in told.fold.steps] == [
        ("I look.", "", "", ""),
        ("", "find", '{"q":"x"}', "a"),
        ("", "find", "y", '["b"]'),
        ("Good.", "", "", ""),
    ]
    assert [(file.media_type, file.data) for file in told.fold.files] == [("text/csv", b"1,2")]
    assert told.kinds.count("part_end") == 2
    usage = told.end["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 4, 8)


async def test_a_character_that_is_cut_in_two_is_put_together() -> None:
    told = await run(yields("half \ud83d", "\ude00 done \ud83d"))
    assert told.answer == told.end["output"] == "half \U0001f600 done \ufffd"
    assert told.history["messages"][1]["parts"][0]["content"] == told.answer


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (5, "the agent yielded int, which is no step"),
        (None, "the agent yielded NoneType, which is no step"),
        (ToolResult("nothing", 1), "the agent yielded a ToolResult without its ToolCall"),
        (ToolCall("x", object()), "the agent yielded a value that is not JSON"),
        (File(b"", "text/csv"), "a File that is yielded needs data and a media_type"),
        (Thought(b"x"), "the text of a Thought is no str"),  # pyrefly: ignore[bad-argument-type]
    ],
    ids=["int", "none", "result", "args", "file", "thought"],
)
async def test_what_is_no_step_fails_the_run_and_its_line_is_told(step: Any, said: str) -> None:
    told = await run(yields("Well", step, "never"))
    assert (told.type, told.end["error"], told.answer) == ("run_failed", said, "Well")
    assert told.end["cause"].startswith(f"{said} (")
    assert HERE in told.end["cause"]


async def test_a_state_that_is_not_json_fails_the_run() -> None:
    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        turn.state["when"] = object()
        yield "Fine."

    told = await run(agent)
    assert (told.type, told.end["error"]) == ("run_failed", "the state of the agent is not JSON")


# -- questions ---------------------------------------------------------------------------------------


QUESTION = Question(
    "How big?",
    title="Size",
    fields=(Field("size", "Size", ("S", "L"), required=True), Field("why", "Why")),
    actions=(Action("ok", "OK", "primary"),),
    id="q1",
)


async def test_a_question_ends_the_turn_and_its_answer_begins_the_next() -> None:
    turns: list[Turn] = []
    ended: list[str] = []

    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        turns.append(turn)
        if turn.answer:
            yield "Thanks."
            return
        try:
            yield "Well."
            yield QUESTION
            ended.append("went on")
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            ended.append("closed")

    result = {"status": "submitted", "action": {"id": "ok", "label": "OK"}, "values": {"size": "S"}}
    async with backend_of(agent) as backend:
        asked = await ask(backend, request("Order"))
        assert ended == ["closed"], "the run ended before its agent"
        snapshot = asked.end["session_snapshot"]
        answered = await ask(
            backend, request("OK", snapshot=snapshot, results={"calls": {"q1": result}, "metadata": {}})
        )
        wrong = await ask(backend, request("OK", snapshot=snapshot, results={"calls": {"q2": result}}))
        late = {"calls": {"q1": {"status": "timeout", "action": None, "message": None}}}
        await ask(backend, request("Nobody answered", snapshot=snapshot, results=late))
    shown = read_question(asked.end["deferred_tool_call"])
    assert (shown.tool_call_id, shown.definition.title, shown.text) == ("q1", "Size", "How big?")
    assert [(one.name, one.kind, one.required) for one in shown.definition.inputs] == [
        ("size", "select", True),
        ("why", "paragraph", False),
    ]
    assert [option.value for option in shown.definition.inputs[0].options] == ["S", "L"]
    assert [(one.id, one.label, one.style) for one in shown.definition.actions] == [("ok", "OK", "primary")]
    assert answered.answer == "Thanks."
    assert turns[1].query == "OK"
    assert turns[1].answer == Answer("q1", "submitted", "ok", {"size": "S"})
    assert turns[1].history == (Message("user", "Order"), Message("assistant", "Well.\n\nHow big?"))
    assert "question" not in answered.history
    assert (wrong.type, wrong.end["error"]) == (
        "run_failed",
        "the deferred tool results do not belong to an open call",
    )
    assert turns[2].answer == Answer("q1", "timeout")


# -- how it ends early -------------------------------------------------------------------------------


class Stopped:
    """A run that is cancelled once the agent has said `until`."""

    def __init__(self, until: str = "One. ") -> None:
        self.until = until
        self.seen: list[str] = []

    async def of(self, function: AgentFunction) -> Told:
        async with backend_of(function) as backend:
            run_id = await backend.create_run(request())
            async with Reader(backend, run_id) as reader:
                said = ""
                while not said.endswith(self.until):
                    said += "".join(event.agent_message_delta or "" for event in await reader.batch())
                await backend.runs.cancel(run_id, Cancellation("user", "stopped"))
            return Told(await events_of(backend, run_id))


async def test_a_stop_reaches_the_agent_where_it_waits_and_keeps_what_was_said() -> None:
    stopped = Stopped()

    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        try:
            turn.state["begun"] = True
            yield Usage(7)
            yield "One. "
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.seen.append("cancelled")
            raise
        finally:
            stopped.seen.append("closed")

    told = await stopped.of(agent)
    assert stopped.seen == ["cancelled", "closed"]
    assert (told.type, told.end["reason"]) == ("run_cancelled", "user")
    texts = [message["parts"][0]["content"] for message in told.history["messages"]]
    assert (texts, told.history["state"]) == (["Hello", "One. "], {"begun": True})
    assert told.end["usage"]["prompt_tokens"] == 7


async def test_an_agent_that_never_waits_can_be_stopped_and_holds_up_no_other_run() -> None:
    stopped = Stopped()

    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        try:
            while True:
                yield "One. "
        finally:
            stopped.seen.append("closed")

    told = await stopped.of(agent)
    assert (told.type, stopped.seen) == ("run_cancelled", ["closed"])
    assert told.history["messages"][1]["parts"][0]["content"].startswith("One. ")


async def test_an_agent_that_takes_no_notice_of_a_stop_is_closed_at_its_next_yield() -> None:
    stopped = Stopped()

    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        yield "One. "
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield "Two."
                stopped.seen.append("went on")

    told = await stopped.of(agent)
    assert (told.type, told.answer, stopped.seen) == ("run_cancelled", "One. Two.", [])


async def test_an_error_while_the_agent_is_stopped_does_not_change_how_the_turn_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        try:
            yield "One. "
            await asyncio.Event().wait()
        finally:
            raise RuntimeError(SECRET)

    told = await Stopped().of(agent)
    assert told.type == "run_cancelled"
    assert told.history["messages"][1]["parts"][0]["content"] == "One. "
    assert f"RuntimeError at tests/backend/{HERE}:" in caplog.text
    assert SECRET not in caplog.text


async def test_of_a_turn_that_was_stopped_before_it_said_anything_nothing_is_kept() -> None:
    begun = asyncio.Event()

    async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
        turn.state["begun"] = True
        begun.set()
        await asyncio.Event().wait()
        yield "never"

    async with backend_of(agent) as backend:
        run_id = await backend.create_run(request())
        await begun.wait()
        await backend.cancel(run_id)
        told = Told(await events_of(backend, run_id))
    assert told.type == "run_cancelled"
    assert "session_snapshot" not in told.end


async def test_a_backend_that_ends_closes_the_agent_first() -> None:
    seen: list[str] = []

    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        try:
            yield "One. "
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    async with backend_of(agent) as backend:
        run_id = await backend.create_run(request())
        async with Reader(backend, run_id) as reader:
            while not any(event.agent_message_delta for event in await reader.batch()):
                pass
        await backend.aclose()
        told = Told(await events_of(backend, run_id))
    assert (told.type, told.end["reason"], seen) == ("run_failed", "shutdown", ["closed"])


async def test_an_agent_that_cancels_itself_has_failed() -> None:
    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        yield "One. "
        raise asyncio.CancelledError

    told = await run(agent)
    assert (told.type, told.end["error"]) == ("run_failed", "the agent was cancelled by its own code")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError(SECRET), "KeyError"),
        (ExceptionGroup(SECRET, [ValueError(SECRET)]), "ValueError"),
        (UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET), "UnicodeEncodeError"),
        (SystemExit(SECRET), "SystemExit"),
    ],
)
async def test_the_text_of_an_exception_is_told_to_nobody(
    caplog: pytest.LogCaptureFixture, error: BaseException, kind: str
) -> None:
    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        yield "Well"
        raise error

    with caplog.at_level(logging.DEBUG):
        told = await run(agent)
    assert (told.type, told.end["error"], told.answer) == ("run_failed", f"the agent failed ({kind})", "Well")
    assert told.end["cause"].startswith(f"{kind} at tests/backend/{HERE}:")
    assert SECRET not in caplog.text
    assert SECRET.encode() not in told.body
    assert "session_snapshot" not in told.end


async def test_an_agent_error_is_told_to_the_operator_with_its_reason() -> None:
    async def agent(_: Turn) -> AsyncGenerator[Step, None]:
        yield "Well"
        raise AgentError("the shop is closed", reason="InvokeRateLimitError")

    told = await run(agent)
    assert (told.end["error"], told.end["cause"]) == ("the shop is closed", "the shop is closed")
    assert told.end["reason"] == "InvokeRateLimitError"
