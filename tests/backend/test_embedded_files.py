"""What the built-in agent makes of files: which content a model gets, and what a history keeps."""

import base64
import os
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import (
    BinaryContent,
    BinaryImage,
    FilePart,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

from agent_gateway.backend.embedded.agent.content import TakenFiles, answers_with_images, prompt_content
from agent_gateway.backend.embedded.agent.kept_files import MAX_KEPT_BYTES, with_bounded_files
from agent_gateway.backend.embedded.prompt_files import PromptFile, prompt_file

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG"
LINE = 'Attached image "a.png" (image/png, 4 bytes): https://gateway/a'
IMAGE = PromptFile(LINE, "a.png", "image/png", PNG)
REMOTE = PromptFile("line of b", "b.png", "image/png", url="https://x.test/b.png")
REPORT = PromptFile("line of c", "c.pdf", "application/pdf", b"%PDF")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Listener:
    """A model with this profile that keeps the last prompt it got."""

    def __init__(self, **profile: Any) -> None:
        async def stream(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str]:
            self.got = messages
            yield "Hi."

        self.got: list[ModelMessage] = []
        self.model = FunctionModel(stream_function=stream, profile=ModelProfile(**profile))

    async def asked(self, prompt: Any, history: list[ModelMessage]) -> list[ModelMessage]:
        """The history after a turn."""
        agent = Agent(self.model)

        async def ignore(_: object, events: AsyncIterable[object]) -> None:
            async for _event in events:
                pass

        result = await agent.run(
            prompt, message_history=history, event_stream_handler=ignore, capabilities=[TakenFiles()]
        )
        return result.all_messages()

    def prompt(self, number: int = 0) -> list[object]:
        """The contents of a message of the user: texts as strings."""
        prompts = [part for message in self.got for part in message.parts if isinstance(part, UserPromptPart)]
        return plain(prompts[number].content)


def plain(content: str | Any) -> list[object]:
    return [content] if isinstance(content, str) else [getattr(one, "content", one) for one in content]


LABELS = [
    'The file "a.png" (image/png):',
    'The file "b.png" (image/png):',
    'The file "c.pdf" (application/pdf):',
]


async def test_each_model_gets_what_it_takes_and_the_history_keeps_all() -> None:
    """So another model can be chosen in the middle of a conversation."""
    blind = Listener(supports_image_input=False, supports_document_input=False)
    seeing, no_pdf = Listener(), Listener(supported_document_media_types=frozenset({"text/plain"}))
    prompt = prompt_content(["Look"], [IMAGE, REMOTE, REPORT])
    history = await blind.asked(prompt, [])
    assert blind.prompt() == ["Look", LINE, "line of b", "line of c"]
    stored = ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(history))
    history = await seeing.asked("Now?", stored)
    assert [one for one in seeing.prompt() if isinstance(one, str)] == ["Look", *LABELS]
    image, remote, report = [one for one in seeing.prompt() if not isinstance(one, str)]
    assert isinstance(image, BinaryContent)
    assert isinstance(report, BinaryContent)
    assert (image.data, report.data, report.media_type) == (PNG, b"%PDF", "application/pdf")
    assert isinstance(remote, ImageUrl)
    await no_pdf.asked("And now?", history)
    assert no_pdf.prompt()[-1] == "line of c"
    assert image in no_pdf.prompt()
    both = Listener()
    both.model = FallbackModel(both.model, blind.model)  # type: ignore[assignment]
    await both.asked("And both?", history)
    assert both.prompt() == ["Look", LINE, "line of b", "line of c"], "any of its models may answer"


async def test_a_model_that_would_fetch_the_url_of_an_image_gets_its_line() -> None:
    listener = Listener()
    await listener.asked(prompt_content(["Look"], [REMOTE]), [])
    assert any(isinstance(one, ImageUrl) for one in listener.prompt())
    # Only classes of models that are known to pass an URL on get one.
    model = listener.model
    unknown = type("UnknownModel", (Model,), {**vars(FunctionModel)})
    listener.model = object.__new__(unknown)
    listener.model.__dict__.update(vars(model))
    await listener.asked(prompt_content(["Look"], [REMOTE]), [])
    assert listener.prompt() == ["Look", "line of b"]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"a`b", "```\na`b\n```"),
        (b"```\n````", "`````\n```\n````\n`````"),
        (b"\xef\xbb\xbfbom", "```\nbom\n```"),
        ("é".encode("utf-16"), "```\né\n```"),
        (b"", "```\n\n```"),
        (b"a\0b", None),
        ("é".encode("latin-1"), None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_texts_are_fenced_and_what_is_no_text_is_told_of(data: bytes, shown: str | None) -> None:
    content = prompt_content([], [PromptFile("its line", "a.yaml", "application/octet-stream", data)])
    [text] = plain(content)
    assert text == (
        "its line" if shown is None else f'The file "a.yaml" (application/octet-stream):\n{shown}'
    )


def test_a_message_of_files_alone_has_no_blank_text() -> None:
    assert plain(prompt_content([""], [REMOTE]))[0] == 'The file "b.png" (image/png):'
    assert prompt_content([""], []) == ""


def test_entries_of_gateways_before_lines_were_sent_are_read() -> None:
    image = {
        "delivery": "multimodal",
        "mime_type": "image/png",
        "base64_data": base64.b64encode(PNG).decode(),
    }
    assert prompt_file(image) == PromptFile("Attached file: not available", "", "image/png", PNG)
    other = {"delivery": "download", "type": "document", "url": "https://x.test/a"}
    assert prompt_file(other) == PromptFile("Attached document: https://x.test/a")


def user(*content: UserContent) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(content=list(content))])


def test_the_oldest_files_of_all_kinds_leave_a_history_first() -> None:
    text = PromptFile("its line", "a.txt", "text/plain", b"x" * 100)
    made = BinaryImage(b"y" * 10, media_type="image/png")
    messages: list[ModelMessage] = [
        user("One", *prompt_content([], [IMAGE])),
        ModelResponse(parts=[FilePart(content=made), TextPart("Drawn.")]),
        ModelRequest(parts=[ToolReturnPart("draw", ["ok", made, {"deep": made}], "1")]),
        user(made, *prompt_content([], [text])),
        ModelResponse(parts=[TextPart("Read.")]),
    ]
    gone = "[A file was here. It is no longer part of the conversation.]"
    read = plain(prompt_content([], [text]))[0]
    size = len(str(read))

    def kept(room: int) -> list[Any]:
        """The contents of each message, with the bytes of files."""
        found: list[Any] = []
        for message in with_bounded_files(messages, room):
            for part in message.parts:
                content: Any = getattr(part, "content", None)
                items = content if isinstance(content, list) else [content]
                shown = [getattr(one, "data", getattr(one, "content", one)) for one in items]
                found.append(
                    [
                        {"deep": one["deep"].data if one["deep"] is made else one["deep"]}
                        if isinstance(one, dict)
                        else one
                        for one in shown
                    ]
                )
        return found

    label, data = 'The file "a.png" (image/png):', made.data
    everything = [
        ["One", label, PNG],
        [data],
        ["Drawn."],
        ["ok", data, {"deep": data}],
        [data, read],
        ["Read."],
    ]
    assert kept(size + 44) == everything
    assert with_bounded_files(messages)[0] is messages[0], "what does not change is not copied"
    without_image = [["One", LINE], *everything[1:]]
    assert kept(size + 43) == without_image
    without_drawing = [["One", LINE], [gone], *everything[2:]]
    assert kept(size + 39) == without_drawing
    assert kept(size + 20) == [*without_drawing[:3], ["ok", gone, {"deep": data}], *everything[4:]]
    assert kept(size) == [*without_drawing[:3], ["ok", gone, {"deep": gone}], [gone, read], ["Read."]]
    last = [*without_drawing[:3], ["ok", gone, {"deep": gone}], [gone, "its line"], ["Read."]]
    assert kept(size - 1) == kept(0) == kept(-1) == last


def test_a_history_is_bounded_by_its_bytes_on_the_wire() -> None:
    images = [
        PromptFile(f"line {n}", f"{n}.png", "image/png", os.urandom(MAX_KEPT_BYTES // 4)) for n in range(6)
    ]
    messages = with_bounded_files([user(*prompt_content(["Look"], [one])) for one in images])
    assert len(ModelMessagesTypeAdapter.dump_json(messages)) < MAX_KEPT_BYTES * 4 / 3 + 10_000


def test_an_image_alone_is_an_answer_only_where_the_model_itself_makes_it() -> None:
    assert answers_with_images(Listener(supports_image_output=True).model)
    assert not answers_with_images(Listener().model)
    responses = OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(api_key="sk-x"))
    assert responses.profile.get("supports_image_output")
    assert not answers_with_images(responses), "it would get a tool that makes images, unasked"
