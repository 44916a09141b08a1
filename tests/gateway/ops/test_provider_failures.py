"""What becomes of a turn whose model provider fails, breaks off or cuts the answer.

Over HTTP, through a real gateway with the built-in agent, against a provider on this machine.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from agent_gateway.apps.config import AppConfig, LayerTemplate, default_app
from agent_gateway.errors import FAILURES
from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import ModelServer, serving
from tests.support.fakes.model_steps import (
    NO_RETRY,
    Answer,
    Cut,
    Raw,
    Refusal,
    Step,
    StreamError,
    answer,
    call,
    page,
    refuse,
    think,
)
from tests.support.fakes.script import Gate
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.log_lines import TURNS, kept_lines
from tests.support.rows import add_app, newest_turn, rows_of

KEY = "sk-very-secret-0123456789"
WORDS = "canary of the provider"
LEAK = f"{WORDS}: bad key {KEY}"
"""What error bodies say: none of it may be told to anybody."""
AT_ONCE = {"retry-after-ms": "1"}
NUMBERS = count()
BOTH = pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelServer]:
    with serving(KEY) as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", KEY)
        yield provider


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, provider: ModelServer) -> Iterator[GatewayServer]:
    """A gateway with the built-in agent, and a model provider on this machine."""
    assert provider.base_url
    with GatewayServer(tmp_path_factory.mktemp("provider"), model="openai-chat:m") as server:
        yield server


ChatWith = Callable[..., Chat]


@pytest.fixture
def chat_with(server: GatewayServer) -> Iterator[ChatWith]:
    """Makes somebody who talks to an app with this model, which shows its thoughts."""
    with ExitStack() as stack:

        def chat(model: str, kind: str = "openai-chat", at: GatewayServer = server) -> Chat:
            return _chat_with(stack, at, model, kind)

        yield chat


def _chat_with(stack: ExitStack, server: GatewayServer, model: str, kind: str) -> Chat:
    app = default_app()
    model_layer = LayerTemplate(name="llm", type="llm", config={"model": f"{kind}:{model}"})
    layers = [layer for layer in app.composition.layers if layer.name != "llm"] + [model_layer]
    config = app.model_dump(exclude_unset=True) | {"name": model, "mode": "agent-chat"}
    composition = app.composition.model_copy(update={"layers": layers})
    key = f"key-of-{kind}-{model}-{next(NUMBERS)}"
    add_app(server.settings.resolved_database_url(), key, AppConfig(**config | {"composition": composition}))
    return Chat(stack.enter_context(server.client(key)), "ada")


@dataclass(frozen=True)
class Failing:
    """What a provider does, and what has to become of the turn."""

    step: Step
    status: int
    code: str
    cause: str
    """How the cause begins."""
    tries: int = 1
    """How often the provider is asked."""
    says: str = ""
    """What else the cause says."""
    kept: str = ""
    """The part of the answer that the user keeps."""


def half_a_call(finish: str | None) -> Answer:
    return answer("Hi ", call("ask_human", '{"title": "Wh'), finish=finish)


def foreign(body: bytes, kind: str = "application/json") -> Refusal:
    return Refusal(200, body, {"content-type": kind})


CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
REFUSED_TO_SAY = {"choices": [{"index": 0, "delta": {"refusal": LEAK}, "finish_reason": None}]}
FAILED: Json = {
    "type": "response.failed",
    "sequence_number": 9,
    "response": {
        "id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": [],
        "status": "failed", "error": {"code": "server_error", "message": LEAK},
        "parallel_tool_calls": True, "tool_choice": "auto",
    },
}  # fmt: skip

FAILURES_OF_PROVIDERS = {
    "401": Failing(refuse(401, LEAK), 400, "provider_not_initialize", "InvokeAuthorizationError 401"),
    "403": Failing(refuse(403, LEAK), 400, "provider_not_initialize", "InvokeAuthorizationError 403"),
    "402": Failing(refuse(402, LEAK), 400, "provider_quota_exceeded", "QuotaExceededError 402"),
    "404": Failing(refuse(404, LEAK), 400, "model_currently_not_support", "ModelNotFoundError 404"),
    "404 with a code": Failing(
        refuse(404, LEAK, code="model_not_found"), 400, "model_currently_not_support",
        "ModelNotFoundError 404", says="model_not_found",
    ),
    "404 page": Failing(page(404, LEAK), 400, "model_currently_not_support", "ModelNotFoundError 404"),
    "400": Failing(refuse(400, LEAK), 400, "completion_request_error", "InvokeBadRequestError 400"),
    "413": Failing(refuse(413, LEAK), 400, "completion_request_error", "InvokeBadRequestError 413"),
    "too long, by its code": Failing(
        refuse(400, LEAK, code="context_length_exceeded"), 400, "context_length_exceeded",
        "ContextLengthExceededError 400",
    ),
    "too long, by its text": Failing(
        refuse(400, f"prompt is too long: 9 tokens {LEAK}"), 400, "context_length_exceeded",
        "ContextLengthExceededError 400",
    ),
    "too long, as a failure of the server": Failing(
        refuse(500, f"the input exceeds the context length {LEAK}"), 400, "context_length_exceeded",
        "ContextLengthExceededError 500",
    ),
    "quota": Failing(
        refuse(429, LEAK, code="insufficient_quota"), 400, "provider_quota_exceeded",
        "QuotaExceededError 429",
    ),
    "429": Failing(refuse(429, LEAK), 429, "rate_limit_error", "InvokeRateLimitError 429", tries=3),
    "429 for a moment": Failing(
        refuse(429, LEAK, headers={"retry-after": "0"}), 429, "rate_limit_error",
        "InvokeRateLimitError 429", tries=3, says="it asks to wait 0 s",
    ),
    "429 for long": Failing(
        refuse(429, LEAK, headers={"retry-after": "11"}), 429, "rate_limit_error",
        "InvokeRateLimitError 429", says="it asks to wait 11 s",
    ),
    "429 for good": Failing(
        refuse(429, LEAK, headers=NO_RETRY), 429, "rate_limit_error", "InvokeRateLimitError 429"
    ),
    "500": Failing(
        refuse(500, LEAK, headers=AT_ONCE), 503, "provider_unavailable",
        "InvokeServerUnavailableError 500", tries=3,
    ),
    "503": Failing(
        refuse(503, LEAK, headers=AT_ONCE), 503, "provider_unavailable",
        "InvokeServerUnavailableError 503", tries=3,
    ),
    "502 page": Failing(
        page(502, LEAK, headers=AT_ONCE), 503, "provider_unavailable",
        "InvokeServerUnavailableError 502", tries=3,
    ),
    "page": Failing(
        page(200, LEAK), 503, "provider_unavailable", "AnswerUnreadableError", says="base URL"
    ),
    "other JSON": Failing(
        foreign(json.dumps({"text": LEAK}).encode()), 503, "provider_unavailable",
        "AnswerUnreadableError",
    ),
    "nothing": Failing(
        foreign(b"", "text/event-stream"), 503, "provider_unavailable", "AnswerUnreadableError"
    ),
    "redirect": Failing(
        Refusal(307, LEAK.encode(), {"location": "/elsewhere"}), 503, "provider_unavailable",
        "AnswerUnreadableError",
    ),
    "cut before the answer": Failing(
        answer(Cut()), 503, "provider_unavailable", "InvokeConnectionError", tries=3
    ),
    "cut in the answer": Failing(
        answer("Hi ", Cut()), 503, "provider_unavailable", "InvokeConnectionError", kept="Hi "
    ),
    "broken JSON": Failing(
        answer("Hi ", Raw(f"data: {{{LEAK}\n\n".encode())), 503, "provider_unavailable",
        "AnswerUnreadableError", kept="Hi ",
    ),
    "JSON of another shape": Failing(
        answer("Hi ", Raw(f'data: ["{LEAK}"]\n\n'.encode())), 503, "provider_unavailable",
        "AnswerUnreadableError", kept="Hi ",
    ),
    "no UTF-8": Failing(
        answer("Hi ", Raw(b'data: {"a": "\xff"}\n\n')), 503, "provider_unavailable",
        "AnswerUnreadableError", kept="Hi ",
    ),
    "error in the stream": Failing(
        answer("Hi ", StreamError(LEAK)), 503, "provider_unavailable",
        "InvokeServerUnavailableError 500", kept="Hi ",
    ),
    "error before the answer": Failing(
        answer(StreamError(LEAK)), 503, "provider_unavailable", "InvokeServerUnavailableError 500", tries=3
    ),
    "rate limit in the stream": Failing(
        answer("Hi ", StreamError(LEAK, "rate_limit_exceeded")), 429, "rate_limit_error",
        "InvokeRateLimitError 429", kept="Hi ",
    ),
    "too long, in the stream": Failing(
        answer("Hi ", StreamError(LEAK, "context_length_exceeded")), 400, "context_length_exceeded",
        "ContextLengthExceededError 400", kept="Hi ",
    ),
    "no finish reason": Failing(
        answer("Hi ", finish=None), 502, "answer_incomplete", "AnswerIncompleteError", kept="Hi "
    ),
    "no finish reason, half a tool call": Failing(
        half_a_call(None), 502, "answer_incomplete", "AnswerIncompleteError", kept="Hi "
    ),
    "no finish reason, a tool call": Failing(
        answer("Hi ", call("ask_human"), finish=None), 502, "answer_incomplete",
        "AnswerIncompleteError", kept="Hi ",
    ),
    "error as the finish reason": Failing(
        answer("Hi ", finish="error"), 502, "answer_incomplete", "AnswerIncompleteError", kept="Hi "
    ),
    "longest answer, half a tool call": Failing(
        half_a_call("length"), 400, "output_length_exceeded", "OutputLengthExceededError", kept="Hi "
    ),
    "longest answer, nothing said": Failing(
        answer(think("Hm."), finish="length"), 400, "output_length_exceeded", "OutputLengthExceededError"
    ),
    "filtered, nothing said": Failing(
        answer(finish="content_filter"), 400, "content_filtered", "ContentFilterError"
    ),
    "empty": Failing(answer(), 502, "answer_incomplete", "AnswerUnusableError", tries=2, says="empty"),
    "only thoughts": Failing(
        answer(think("Hm.")), 502, "answer_incomplete", "AnswerUnusableError", tries=2
    ),
    "a tool that does not exist": Failing(
        answer(call("nothing_like_that")), 502, "answer_incomplete", "AnswerUnusableError", tries=2,
        says="a tool that does not exist",
    ),
}  # fmt: skip
ONLY_CHAT = {
    "refusal": Failing(
        answer(Raw(f"data: {json.dumps(CHUNK | REFUSED_TO_SAY)}\n\n".encode())),
        400,
        "content_filtered",
        "ContentFilterError",
    )
}
ONLY_RESPONSES = {
    "failed response": Failing(
        answer("Hi ", Raw(f"data: {json.dumps(FAILED)}\n\n".encode()), finish=None),
        503,
        "provider_unavailable",
        "InvokeServerUnavailableError 500",
        kept="Hi ",
    )
}
ALL = FAILURES_OF_PROVIDERS | ONLY_CHAT | ONLY_RESPONSES
CASES = [(kind, name) for name in FAILURES_OF_PROVIDERS for kind in ("openai-chat", "openai-responses")]
CASES += [("openai-chat", name) for name in ONLY_CHAT]
CASES += [("openai-responses", name) for name in ONLY_RESPONSES]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_failure_is_told_stored_and_logged_and_the_conversation_goes_on(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, kind: str, name: str
) -> None:
    """Each failure has its own code and cause, and nothing that the provider said leaves the gateway."""
    failing = ALL[name]
    model = f"{name} {kind}".replace(" ", "-")
    provider.script(model, *[failing.step] * failing.tries, "Fine.")
    chat = chat_with(model, kind)
    with kept_lines("agent_gateway") as lines:
        begun = chat.background("Hello")
        heard = chat.resumed(begun["task_id"])
        wait_until(lambda: [line for line in lines if line["logger"] == TURNS])
    [line] = [line for line in lines if line["logger"] == TURNS]
    assert (heard.last["event"], heard.last["status"], heard.last["code"]) == (
        "error",
        failing.status,
        failing.code,
    ), line
    assert heard.last["message"] == FAILURES[failing.code]
    assert heard.answer == failing.kept
    message = chat.message(begun["conversation_id"])
    assert (message["status"], message["error"]) == ("error", FAILURES[failing.code])
    assert message["answer"] == failing.kept

    row = rows_of(server.settings.resolved_database_url(), begun["task_id"])
    assert row.snapshot is None
    assert row.turn.cause is not None
    assert str(row.turn.cause["kind"]) == failing.cause.split()[0]
    assert line["code"] == failing.code
    assert line["cause"].startswith(failing.cause)
    assert failing.says in line["cause"]
    told = f"{lines} {row.turn.cause} {heard.raw!r} {message}"
    assert KEY not in told
    assert WORDS not in told
    assert "ERROR" not in {line["level"].upper() for line in lines}

    assert len(provider.of(model)) == failing.tries
    again = chat.blocking("Again", conversation_id=begun["conversation_id"])
    assert again["answer"] == "Fine."
    assert len(provider.of(model)) == failing.tries + 1


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("m-401", 400, "provider_not_initialize"),
        ("m-429", 429, "rate_limit_error"),
        ("m-html", 503, "provider_unavailable"),
        ("m-empty", 502, "answer_incomplete"),
    ],
)
def test_a_failure_before_the_answer_has_its_status(
    chat_with: ChatWith, model: str, status: int, code: str
) -> None:
    body = refused(chat_with(model).post("Hello", response_mode="blocking"), status, code)
    assert body["message"] == FAILURES[code]


PASSING = {
    "a failure of the server": refuse(500, headers=AT_ONCE),
    "a rate limit": refuse(429, headers=AT_ONCE),
    "a cut connection": answer(Cut()),
    "an error in place of an answer": answer(StreamError("Overloaded", "overloaded")),
    "a conflict that passes": refuse(409, headers={"x-should-retry": "true"} | AT_ONCE),
}


@BOTH
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_before_the_answer_begins_is_tried_again(
    provider: ModelServer, chat_with: ChatWith, kind: str, name: str
) -> None:
    model = f"passes {name} {kind}".replace(" ", "-")
    provider.script(model, PASSING[name], PASSING[name], answer("Hi ", "there!"))
    heard = chat_with(model, kind).streaming("Hello")
    assert (heard.last["event"], heard.answer) == ("message_end", "Hi there!")
    one, two, three = provider.of(model)
    assert one.body == two.body == three.body
    assert one.headers["authorization"] == f"Bearer {KEY}"


def test_a_failure_between_two_tool_calls_is_tried_again_as_well(
    provider: ModelServer, chat_with: ChatWith
) -> None:
    """Words of the same turn have been streamed, but none of the request that failed."""
    steps = [answer("Let me see. ", call("one")), refuse(500, headers=AT_ONCE), answer("Nothing.")]
    provider.script("fails-later", *steps)
    heard = chat_with("fails-later").streaming("Hello")
    assert (heard.last["event"], heard.answer) == ("message_end", "Let me see. Nothing.")
    assert [len(request.results) for request in provider.of("fails-later")] == [0, 1, 1]


def test_a_turn_that_waits_to_try_again_can_be_stopped(provider: ModelServer, chat_with: ChatWith) -> None:
    provider.script("waits", refuse(429, headers={"retry-after": "10"}), "Fine.")
    chat = chat_with("waits")
    begun = chat.background("Hello")
    wait_until(lambda: provider.of("waits"))
    chat.stop(begun["task_id"])
    assert chat.resumed(begun["task_id"]).last["event"] == "message_end"
    assert len(provider.of("waits")) == 1
    assert chat.blocking("Again", conversation_id=begun["conversation_id"])["answer"] == "Fine."


@pytest.mark.parametrize("beginning", ["", "Hi "])
def test_a_provider_that_stalls_ends_the_turn_and_is_left(
    tmp_path: Path, provider: ModelServer, chat_with: ChatWith, beginning: str
) -> None:
    """Before its answer, or in the middle of it."""
    model = f"stalls{len(beginning)}"
    stall = answer(beginning, Gate()) if beginning else answer("Hi", held=Gate())
    provider.script(model, stall, "Fine.")
    with GatewayServer(tmp_path, model="openai-chat:m", idle_timeout_seconds=1.0) as server:
        chat = chat_with(model, at=server)
        begun = chat.background("Hello")
        heard = chat.resumed(begun["task_id"])
        assert (heard.last["event"], heard.last["code"]) == ("error", "turn_timeout")
        assert chat.message(begun["conversation_id"])["answer"] == heard.answer == beginning
        [request] = provider.of(model)
        wait_until(lambda: request.abandoned)
        assert chat.blocking("Again", conversation_id=begun["conversation_id"])["answer"] == "Fine."


@BOTH
def test_a_stop_leaves_the_provider(provider: ModelServer, chat_with: ChatWith, kind: str) -> None:
    model = f"stopped-{kind}"
    provider.script(model, answer("Hi ", Gate(), "there!"), "Fine.")
    chat = chat_with(model, kind)
    with chat.open("Hello") as stream:
        stream.until("Hi ")
        chat.stop(stream.task_id)
        heard = stream.rest()
    [request] = provider.of(model)
    wait_until(lambda: request.abandoned)
    assert heard.last["event"] == "message_end"
    again = chat.blocking("Again", conversation_id=heard.conversation_id)
    assert again["answer"] == "Fine."
    sent = json.dumps(provider.of(model)[1].body)
    assert "Hi " in sent


@BOTH
@pytest.mark.parametrize(
    ("model", "reason"), [("m", "stop"), ("m-length", "length"), ("m-filter", "content_filter")]
)
def test_why_the_model_stopped_is_told_and_stored(
    chat_with: ChatWith, kind: str, model: str, reason: str
) -> None:
    chat = chat_with(model, kind)
    heard = chat.streaming("Hello")
    assert (heard.last["event"], heard.answer) == ("message_end", "Hi there!")
    assert heard.last["metadata"]["finish_reason"] == reason
    assert chat.message(heard.conversation_id)["metadata"] == heard.last["metadata"]
    assert chat.resumed(heard.task_id).last["metadata"] == heard.last["metadata"]
    assert chat.blocking("Hello")["metadata"]["finish_reason"] == reason


THOUGHTS = {
    "reasoning_content": answer(think("Let me ", "see."), "Hi ", "there!"),
    "reasoning": answer(think("Let me ", "see.", style="reasoning"), "Hi ", "there!"),
    "tags": answer(think("Let me ", "see.", style="tags"), "Hi ", "there!"),
    "tags with other text": answer("<think>Let me ", "see.</think>Hi ", "there!"),
    "tags in one piece": answer("<think>Let me see.</think>\n\nHi there!"),
    "tags in two pieces": answer("\n<th", "ink>Let me ", "see.</thi", "nk>", "\n\n", "Hi there!"),
}
CASES_OF_THOUGHTS = [("openai-chat", name) for name in THOUGHTS] + [
    ("openai-responses", "reasoning_content")  # there it is a summary
]


@pytest.mark.parametrize(("kind", "name"), CASES_OF_THOUGHTS)
def test_thoughts_are_steps_and_no_part_of_the_answer(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, kind: str, name: str
) -> None:
    model = f"thinks {name} {kind}".replace(" ", "-")
    provider.script(model, THOUGHTS[name], "Fine.")
    chat = chat_with(model, kind)
    heard = chat.streaming("Hello")
    assert (heard.last["event"], heard.answer) == ("message_end", "Hi there!")
    thoughts = [event["thought"] for event in heard.events if event["event"] == "agent_thought"]
    assert thoughts[-1] == "Let me see."
    message = chat.message(heard.conversation_id)
    assert message["answer"] == "Hi there!"
    assert [step["thought"] for step in message["agent_thoughts"]] == ["Let me see."]
    assert "Let me see." not in chat.blocking("Again", conversation_id=heard.conversation_id)["answer"]
    database = server.settings.resolved_database_url()
    stored = rows_of(database, newest_turn(database, heard.conversation_id)).snapshot
    assert stored is not None


def test_what_is_said_about_tags_stays_in_the_answer(provider: ModelServer, chat_with: ChatWith) -> None:
    said = "Write <think> before and </think> after it, or <th"
    provider.script(
        "about-tags", answer(said[:10], said[10:40], said[40:]), answer("<thi"), answer(" <think")
    )
    chat = chat_with("about-tags")
    assert [chat.streaming("How?").answer for _ in range(3)] == [said, "<thi", " <think"]


@BOTH
def test_parallel_tool_calls_have_a_step_each_and_the_answer_follows(
    provider: ModelServer, chat_with: ChatWith, kind: str
) -> None:
    """Their fragments come in turns. This app has no tools, so both fail, and the model is told so."""
    model = f"parallel-{kind}"
    calls = [call("one", {"a": 1}, fragments=3), call("two", {"b": [2]}, fragments=4)]
    provider.script(model, answer("Let me see. ", *calls), "Nothing.")
    chat = chat_with(model, kind)
    heard = chat.streaming("Hello")
    assert (heard.last["event"], heard.answer) == ("message_end", "Let me see. Nothing.")
    steps = chat.message(heard.conversation_id)["agent_thoughts"]
    assert [(step["tool"], json.loads(step["tool_input"])) for step in steps] == [
        ("one", {"a": 1}),
        ("two", {"b": [2]}),
    ]
    assert all("Unknown tool" in step["observation"] for step in steps)
    first, second = provider.of(model)
    assert (len(first.results), len(second.results)) == (0, 2)
