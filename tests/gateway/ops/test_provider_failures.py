"""What becomes of a turn whose model provider fails, breaks off or cuts the answer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from agent_gateway.apps.config import AppConfig, LayerTemplate, default_app
from agent_gateway.errors import FAILURES
from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import serving
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.log_lines import TURNS, kept_lines
from tests.support.rows import add_app, newest_turn, rows_of

KEY = "sk-very-secret-0123456789"
REASONS = [("m", "stop"), ("m-length", "length"), ("m-filter", "content_filter")]
BROKEN = [
    ("openai-chat", "m-end", "answer_incomplete"),
    ("openai-responses", "m-end", "answer_incomplete"),
    ("openai-chat", "m-cut", "provider_unavailable"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A gateway with the built-in agent, and a model provider on this machine."""
    with serving(KEY) as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", KEY)
        with GatewayServer(tmp_path_factory.mktemp("provider"), model="openai-chat:m") as server:
            yield server


ChatWith = Callable[..., Chat]


@pytest.fixture
def chat_with(server: GatewayServer) -> Iterator[ChatWith]:
    """Makes somebody who talks to an app with this model."""
    with ExitStack() as stack:

        def chat(model: str, kind: str = "openai-chat") -> Chat:
            return _chat_with(stack, server, model, kind)

        yield chat


def _chat_with(stack: ExitStack, server: GatewayServer, model: str, kind: str) -> Chat:
    app = default_app()
    model_layer = LayerTemplate(name="llm", type="llm", config={"model": f"{kind}:{model}"})
    layers = [layer for layer in app.composition.layers if layer.name != "llm"] + [model_layer]
    config = app.model_dump(exclude_unset=True) | {"name": model}
    composition = app.composition.model_copy(update={"layers": layers})
    key = f"key-of-{kind}-{model}"
    add_app(server.settings.resolved_database_url(), key, AppConfig(**config | {"composition": composition}))
    return Chat(stack.enter_context(server.client(key)), "ada")


@pytest.mark.parametrize(
    ("model", "status", "code", "cause"),
    [
        ("m-401", 400, "provider_not_initialize", "InvokeAuthorizationError 401"),
        ("m-402", 400, "provider_quota_exceeded", "QuotaExceededError 402"),
        ("m-404", 400, "model_currently_not_support", "ModelNotFoundError 404"),
        ("m-code-model_not_found-404", 400, "model_currently_not_support", "ModelNotFoundError 404"),
        (
            "m-code-context_length_exceeded-400",
            400,
            "context_length_exceeded",
            "ContextLengthExceededError 400",
        ),
        ("m-code-insufficient_quota-429", 400, "provider_quota_exceeded", "QuotaExceededError 429"),
        ("m-429", 429, "rate_limit_error", "InvokeRateLimitError 429"),
        ("m-400", 400, "completion_request_error", "InvokeBadRequestError 400"),
        ("m-503", 503, "provider_unavailable", "InvokeServerUnavailableError 503"),
    ],
)
def test_each_failure_of_a_provider_has_its_own_code_and_cause(
    server: GatewayServer, chat_with: ChatWith, model: str, status: int, code: str, cause: str
) -> None:
    chat = chat_with(model)
    with kept_lines(TURNS) as lines:
        refused(chat.post("Hello", response_mode="blocking"), status, code)
        wait_until(lambda: lines)
    [line] = lines
    assert line["code"] == code
    assert line["cause"].startswith(cause)
    row = rows_of(server.settings.resolved_database_url(), line["task_id"]).turn
    assert row.cause is not None
    assert str(row.cause["kind"]) == cause.split(maxsplit=1)[0]
    assert KEY not in f"{lines} {row.cause}"


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
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


@pytest.mark.parametrize(("kind", "model", "code"), BROKEN)
def test_an_answer_that_a_provider_breaks_off_is_a_failed_turn_with_what_was_said(
    server: GatewayServer, chat_with: ChatWith, kind: str, model: str, code: str
) -> None:
    chat = chat_with(model, kind)
    heard = chat.streaming("Hello")
    assert (heard.last["event"], heard.last["code"]) == ("error", code)
    message = chat.message(heard.conversation_id)
    assert (message["status"], message["error"]) == ("error", FAILURES[code])
    assert message["answer"] == heard.answer
    assert heard.answer in {"Hi there!", "Hi "}
    database = server.settings.resolved_database_url()
    assert rows_of(database, newest_turn(database, heard.conversation_id)).snapshot is None
