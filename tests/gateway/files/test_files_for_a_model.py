"""What a model gets of the files of a message, and what becomes of the files that it makes.

The built-in agent runs, in the gateway or behind it; a provider on this machine keeps what it is sent.
"""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import BinaryImage, FilePart, ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from typing_extensions import override

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.backend.embedded.agent import models
from agent_gateway.backend.shown_files import MAX_ENTRY_BYTES, MAX_TEXT_BYTES
from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import ModelServer, serving
from tests.support.fakes.model_steps import ModelRequest, Raw, answer, call, refuse
from tests.support.fakes.script import Gate
from tests.support.files import PNG, local, upload
from tests.support.gateway_process import START_SECONDS, environment
from tests.support.gateway_server import BOUND, GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.log_lines import kept_lines
from tests.support.rows import add_app, rows_of

PDF = b"%PDF-1.4\n" + bytes(range(256)) + b"\n%%EOF"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelServer]:
    with serving() as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", "sk-test")
        patch.setenv("VLLM_BASE_URL", provider.base_url)
        yield provider


@pytest.fixture(scope="module")
def server(provider: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A gateway with the built-in agent in it."""
    with GatewayServer(tmp_path_factory.mktemp("gateway"), model="openai-chat:m") as server:
        yield server


@contextmanager
def agent_process(folder: Path) -> Generator[str]:
    """The address of `agent-gateway backend`."""
    output = folder / "backend-output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_gateway", "backend", "--port", "0"],
            env=environment(MODEL="openai-chat:m"),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "running on" in output.read_text() or process.poll() is not None, START_SECONDS)
        found = re.search(r"running on (\S+)", output.read_text())
        assert found, output.read_text()
        yield found[1]
    finally:
        process.kill()
        process.wait(BOUND)


@pytest.fixture(scope="module")
def behind(provider: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A gateway whose backend is the built-in agent in a process of its own."""
    folder = tmp_path_factory.mktemp("behind")
    with agent_process(folder) as url, GatewayServer(folder / "data", backend_url=url) as server:
        yield server


Talk = Callable[..., Chat]


@pytest.fixture
def talk(server: GatewayServer) -> Iterator[Talk]:
    """Makes somebody who talks to an app with this model."""
    with ExitStack() as stack:

        def chat(model: str = "openai-chat:m", at: GatewayServer = server) -> Chat:
            key = f"key-of-{model}"
            layers = [layer.model_dump() for layer in default_app().composition.layers]
            layers[-1] = {"name": "llm", "type": "llm", "config": {"model": model}}
            config = default_app().model_dump(exclude_unset=True) | {"composition": {"layers": layers}}
            add_app(at.settings.resolved_database_url(), key, AppConfig.model_validate(config))
            return Chat(stack.enter_context(at.client(key)), f"user-{os.urandom(4).hex()}")

        yield chat


def said(request: ModelRequest, number: int = -1) -> list[Json]:
    """The contents of one message of the user, as the provider got them."""
    messages = [one["content"] for one in request.messages if one.get("role") == "user"]
    content = messages[number]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts(request: ModelRequest, number: int = -1) -> list[str]:
    return [part["text"] for part in said(request, number) if "text" in part]


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def text_file(chat: Chat, name: str, data: bytes) -> Json:
    return local(upload(chat, name, data, "text/plain")["id"], "document")


# -- what comes with a query -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["server", "behind"])
def test_images_pdfs_and_texts_reach_the_model_with_their_content(
    provider: ModelServer, talk: Talk, request: pytest.FixtureRequest, where: str
) -> None:
    """Without a word about files in the app, in the order of the message, and without an address."""
    chat = talk(at=request.getfixturevalue(where))
    files = [
        local(upload(chat)["id"]),
        local(upload(chat, "report.pdf", PDF, "application/pdf")["id"], "document"),
        text_file(chat, "notes.md", "# Grüße\n```\ncode\n```\n".encode()),
        text_file(chat, "data.csv", "a,b\r\n1,2".encode("utf-16")),
    ]
    answered = chat.blocking("What is this?", files=files)
    assert answered["answer"] == "Hi there!"
    assert said(provider.requests[-1]) == [
        {"type": "text", "text": "What is this?"},
        {"type": "text", "text": 'The file "cat.png" (image/png):'},
        {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}},
        {"type": "text", "text": 'The file "report.pdf" (application/pdf):'},
        {
            "type": "file",
            "file": {"file_data": data_url("application/pdf", PDF), "filename": "filename.pdf"},
        },
        {
            "type": "text",
            "text": 'The file "notes.md" (text/markdown):\n````\n# Grüße\n```\ncode\n```\n\n````',
        },
        {"type": "text", "text": 'The file "data.csv" (text/csv):\n```\na,b\r\n1,2\n```'},
    ]
    message = chat.message(answered["conversation_id"])
    assert message["query"] == "What is this?"
    assert len(message["message_files"]) == 4


def test_the_responses_api_gets_them_too(provider: ModelServer, talk: Talk) -> None:
    chat = talk("openai-responses:m")
    pdf = local(upload(chat, "report.pdf", PDF, "application/pdf")["id"], "document")
    assert chat.blocking("Look", files=[local(upload(chat)["id"]), pdf])["answer"] == "Hi there!"
    [query, _, image, _, document] = said(provider.requests[-1])
    assert query["text"] == "Look"
    assert (image["type"], image["image_url"]) == ("input_image", data_url("image/png", PNG))
    assert (document["type"], document["file_data"]) == ("input_file", data_url("application/pdf", PDF))


def test_what_is_too_large_or_no_text_is_told_of_in_a_line(provider: ModelServer, talk: Talk) -> None:
    chat = talk()
    half = b"\x89PNG" + bytes(MAX_ENTRY_BYTES // 2)
    files = [
        local(upload(chat, "one.png", half)["id"]),
        local(upload(chat, "two.png", half)["id"]),
        local(upload(chat, "small.pdf", PDF, "application/pdf")["id"], "document"),
        text_file(chat, "large.csv", b"x" * (MAX_TEXT_BYTES + 1)),
        text_file(chat, "small.csv", b"y"),
        text_file(chat, "broken.txt", b"\xff\x00\xff"),
        text_file(chat, "empty.txt", b""),
        local(upload(chat, "song.mp3", b"la", "audio/mpeg")["id"], "audio"),
    ]
    chat.blocking("Look", files=files)
    told = [re.sub(r"http://127\S+", "URL", text) for text in texts(provider.requests[-1])]
    assert told == [
        "Look",
        'The file "one.png" (image/png):',
        f'Attached image "two.png" (image/png, {len(half)} bytes): URL',
        'The file "small.pdf" (application/pdf):',
        f'Attached document "large.csv" (text/csv, {MAX_TEXT_BYTES + 1} bytes): URL',
        'The file "small.csv" (text/csv):\n```\ny\n```',
        'Attached document "broken.txt" (text/plain, 3 bytes): URL',
        'The file "empty.txt" (text/plain):\n```\n\n```',
        'Attached audio "song.mp3" (audio/mpeg, 2 bytes): URL',
    ]
    assert len(provider.requests[-1].images) == 1


def test_a_model_that_takes_no_pdf_gets_its_line(provider: ModelServer, talk: Talk) -> None:
    """Also in later turns; an image and a text it takes."""
    chat = talk("vllm:m")
    pdf = local(upload(chat, "report.pdf", PDF, "application/pdf")["id"], "document")
    files = [local(upload(chat)["id"]), pdf, text_file(chat, "a.txt", b"text")]
    first = chat.blocking("Look", files=files)
    chat.blocking("Again", conversation_id=first["conversation_id"])
    for request in provider.requests[-2:]:
        _, _, line, text = texts(request, 0)
        assert line.startswith(f'Attached document "report.pdf" (application/pdf, {len(PDF)} bytes): http')
        assert text == 'The file "a.txt" (text/plain):\n```\ntext\n```'
        assert request.images == [data_url("image/png", PNG)]
        assert "file_data" not in json.dumps(request.body)


def test_remote_files_are_never_fetched_here(provider: ModelServer, talk: Talk) -> None:
    """The provider gets the URL of an image; of others the model gets the line."""
    chat = talk()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        names = {"a.png": "image", "b.pdf": "document", "c.txt": "document"}
        files = [
            {"type": kind, "transfer_method": "remote_url", "url": f"{base}/{name}"}
            for name, kind in names.items()
        ]
        assert chat.blocking("Look", files=files)["answer"] == "Hi there!"
        with pytest.raises(BlockingIOError):
            listener.accept()
    request = provider.requests[-1]
    assert request.images == [f"{base}/a.png"]
    assert texts(request)[2:] == [
        f'Attached document "b.pdf" (application/pdf, unknown size): {base}/b.pdf',
        f'Attached document "c.txt" (text/plain, unknown size): {base}/c.txt',
    ]


def test_a_message_that_waited_brings_its_files(provider: ModelServer, talk: Talk, gate: Gate) -> None:
    model = f"m-{os.urandom(4).hex()}"
    provider.script(model, answer("One.", held=gate), "Two.")
    chat = talk(f"openai-chat:{model}")
    first = chat.background("First")
    wait_until(lambda: provider.of(model))
    files = [local(upload(chat)["id"])]
    waiting = chat.background("And this?", conversation_id=first["conversation_id"], files=files)
    assert len(provider.of(model)) == 1
    gate.open()
    heard = chat.resumed(waiting["task_id"])
    assert heard.answer == "Two."
    second = provider.of(model)[1]
    assert second.images == [data_url("image/png", PNG)]
    assert texts(second)[0] == "And this?"


def test_files_are_in_the_history_after_a_restart(provider: ModelServer, tmp_path: Path) -> None:
    settings: Json = {"model": "openai-chat:m"}
    with GatewayServer(tmp_path, **settings) as server, server.client() as client:
        chat = Chat(client, "ada")
        pdf = local(upload(chat, "report.pdf", PDF, "application/pdf")["id"], "document")
        files = [local(upload(chat)["id"]), pdf, text_file(chat, "a.txt", b"text")]
        first = chat.blocking("Look", files=files)
        before = said(provider.requests[-1])
    with GatewayServer(tmp_path, **settings) as server, server.client() as client:
        Chat(client, "ada").blocking("Again", conversation_id=first["conversation_id"])
    assert said(provider.requests[-1], 0) == before
    assert len(before) == 6
    assert texts(provider.requests[-1]) == ["Again"]


def test_old_files_leave_the_history_when_they_are_too_large_together(
    provider: ModelServer, talk: Talk
) -> None:
    """The oldest first; their lines stay. 16 MiB are kept, with those of the new message."""
    chat = talk()
    images = [b"\x89PNG" + os.urandom(7 * MIB) for _ in range(3)]
    conversation = ""
    for number, image in enumerate(images):
        kept = local(upload(chat, f"{number}.png", image)["id"])
        answered = chat.blocking(f"Image {number}", conversation_id=conversation, files=[kept])
        conversation = answered["conversation_id"]
        assert provider.requests[-1].images == [
            data_url("image/png", one) for one in images[max(0, number - 1) : number + 1]
        ]
    chat.blocking("And now?", conversation_id=conversation)
    request = provider.requests[-1]
    assert request.images == [data_url("image/png", one) for one in images[1:]]
    query, line = texts(request, 0)
    assert query == "Image 0"
    assert line.startswith(f'Attached image "0.png" (image/png, {len(images[0])} bytes): http')


def test_a_provider_that_refuses_a_file_fails_the_turn_clearly(provider: ModelServer, talk: Talk) -> None:
    model = f"m-{os.urandom(4).hex()}"
    provider.script(model, "Hi.", refuse(400, "invalid image"), "Well.")
    chat = talk(f"openai-chat:{model}")
    first = chat.blocking("Hello")
    conversation = first["conversation_id"]
    files = [local(upload(chat)["id"])]
    failed = chat.post("Look", response_mode="blocking", conversation_id=conversation, files=files)
    refused(failed, 400, "completion_request_error")
    assert chat.blocking("Never mind", conversation_id=conversation)["answer"] == "Well."
    assert provider.of(model)[2].images == [], "the next turn continues from before the failed one"


def test_the_demo_agent_says_what_it_was_given(tmp_path: Path) -> None:
    with GatewayServer(tmp_path) as server, server.client() as client:
        chat = Chat(client, "ada")
        answered = chat.blocking("Hello", files=[local(upload(chat)["id"])])
    assert (
        f'You said: "Hello Attached image "cat.png" (image/png, {len(PNG)} bytes): http' in answered["answer"]
    )


# -- what an agent makes -----------------------------------------------------------------------------


class _Drawing(StreamedResponse):
    """An answer that is an image and nothing else."""

    @override
    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        part = FilePart(content=BinaryImage(PNG, media_type="image/png"))
        yield self._parts_manager.handle_part(vendor_part_id="image", part=part)

    @property
    @override
    def model_name(self) -> str:
        return "painter"

    @property
    @override
    def provider_name(self) -> str | None:
        return None

    @property
    @override
    def provider_url(self) -> str | None:
        return None

    @property
    @override
    def timestamp(self) -> datetime:
        return datetime.now(UTC)

    @override
    async def close_stream(self) -> None:
        pass


class Painter(FunctionModel):
    """A model whose answers are images; it keeps the messages that it got."""

    def __init__(self) -> None:
        super().__init__(lambda *_: ModelResponse([]), profile=ModelProfile(supports_image_output=True))
        self.asked: list[list[ModelMessage]] = []

    @override
    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: object = None,
    ) -> AsyncGenerator[StreamedResponse]:
        self.asked.append(messages)
        yield _Drawing(model_request_parameters)


def test_an_answer_may_be_an_image_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once, and is in the history of the next turn."""
    painter = Painter()
    monkeypatch.setattr(models, "infer_model", {"painter:m": painter}.__getitem__)
    with GatewayServer(tmp_path, model="painter:m") as server, server.client() as client:
        chat = Chat(client, "ada")
        heard = chat.streaming("Draw")
        assert heard.kinds == ["message_file", "message_end"]
        assert heard.answer == ""
        [file] = heard.last["files"]
        assert client.get(file["url"], headers={"Authorization": ""}).content == PNG
        assert chat.message(heard.conversation_id)["message_files"] == [file]
        chat.blocking("Again", conversation_id=heard.conversation_id)
    assert len(painter.asked) == 2
    assert [part.content.data for part in painter.asked[1][1].parts if isinstance(part, FilePart)] == [PNG]


def test_an_image_that_a_model_makes_with_a_tool_of_its_provider_is_a_file(
    provider: ModelServer, talk: Talk
) -> None:
    """The tools of the provider are no steps of the turn; what they make is its file."""
    item = {"id": "ig_1", "type": "image_generation_call", "status": "generating", "result": None}
    done = item | {"status": "completed", "result": base64.b64encode(PNG).decode(), "output_format": "webp"}
    frames = [
        {"type": "response.output_item.added", "output_index": 7, "sequence_number": 90, "item": item},
        {"type": "response.output_item.done", "output_index": 7, "sequence_number": 91, "item": done},
    ]
    raw = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)
    provider.script("painting", answer("Here ", "it is.", Raw(raw)))
    heard = talk("openai-responses:painting").streaming("Draw")
    assert heard.answer == "Here it is."
    [file] = heard.last["files"]
    assert (file["filename"], file["mime_type"], file["size"]) == ("image-1.webp", "image/webp", len(PNG))


def draw() -> BinaryContent:
    """Draw a cat."""
    return BinaryContent(PNG, media_type="image/png")


def export(count: int, size: int = 3) -> list[str | BinaryContent]:
    """Write so many files."""
    return [
        "done",
        *(BinaryContent(b"%PDF" + bytes(size), media_type="application/pdf") for _ in range(count)),
    ]


def without_details(observation: str) -> object:
    """The result of a tool as it is shown, with the kind and the type of its files."""
    found = json.loads(observation)
    items = found if isinstance(found, list) else [found]
    kept = [
        {key: one[key] for key in ("media_type", "kind")} if isinstance(one, dict) else one for one in items
    ]
    assert not any("data" in one for one in items if isinstance(one, dict))
    return kept if isinstance(found, list) else kept[0]


@pytest.fixture
def tool_server(
    provider: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[GatewayServer]:
    """A gateway whose agent has the tools `draw` and `export`."""
    monkeypatch.setattr(models, "Agent", partial(Agent, tools=[draw, export]))
    with GatewayServer(tmp_path, model="openai-chat:tools-test") as server:
        yield server


@pytest.fixture
def with_tools(tool_server: GatewayServer) -> Iterator[Chat]:
    """Somebody who talks to that agent."""
    with tool_server.client() as client:
        yield Chat(client, "ada")


def test_files_of_tools_are_files_of_the_answer(provider: ModelServer, with_tools: Chat) -> None:
    provider.script("tools-test", answer(call("draw"), call("export", {"count": 2})), "Here.", "Yes.")
    chat = with_tools
    heard = chat.streaming("Draw", params={"mode": "agent-chat"})
    kinds = [kind for kind in heard.kinds if kind != "agent_thought"]
    assert kinds == ["agent_message", *["message_file"] * 3, "message_end"]
    files = heard.last["files"]
    assert [(file["filename"], file["mime_type"], file["belongs_to"]) for file in files] == [
        ("image-1.png", "image/png", "assistant"),
        ("document-2.pdf", "application/pdf", "assistant"),
        ("document-3.pdf", "application/pdf", "assistant"),
    ]
    assert chat.message(heard.conversation_id)["message_files"] == files
    drawn = chat.client.get(files[0]["url"], headers={"Authorization": ""})
    assert (drawn.content, drawn.headers["content-type"]) == (PNG, "image/png")
    written = chat.client.get(files[1]["url"], headers={"Authorization": ""})
    assert (written.content, written.headers["content-type"]) == (b"%PDF\0\0\0", "application/pdf")
    # The bytes are in the file, not in what is shown of the tool call.
    last = {event["tool"]: event for event in heard.events if event["event"] == "agent_thought"}
    image, pdf = ({"media_type": kind, "kind": "binary"} for kind in ("image/png", "application/pdf"))
    assert without_details(last["draw"]["observation"]) == image
    assert without_details(last["export"]["observation"]) == ["done", pdf, pdf]
    # The next turn may show the model what the tool made.
    chat.blocking("Good?", conversation_id=heard.conversation_id)
    assert data_url("image/png", PNG) in provider.requests[-1].images


def test_files_that_are_too_many_or_too_large_are_left_out_and_told(
    provider: ModelServer, with_tools: Chat
) -> None:
    provider.script(
        "tools-test",
        answer(call("export", {"count": 1, "size": 17 * MIB}), call("export", {"count": 22})),
        "Here.",
    )
    with kept_lines("agent_gateway.ending") as lines:
        heard = with_tools.streaming("Export")
    assert len(heard.last["files"]) == 20
    assert heard.answer == "Here."
    assert [line["message"] for line in lines] == ["3 files were left out"]


def test_what_is_stored_of_the_files_of_tools_is_bounded(
    provider: ModelServer, tool_server: GatewayServer, with_tools: Chat
) -> None:
    """Also of those that are no files of the answer."""
    made = [call("export", {"count": 1, "size": 12 * MIB}) for _ in range(2)]
    provider.script("tools-test", answer(*made), "Here.")
    heard = with_tools.streaming("Export")
    assert len(heard.last["files"]) == 1
    snapshot = rows_of(tool_server.settings.resolved_database_url(), heard.task_id).snapshot
    assert snapshot is not None
    assert 16 * MIB < len(snapshot.data) < 17 * MIB
    assert "A file was here." in snapshot.data
