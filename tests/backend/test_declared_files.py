"""Whether a backend takes files with their bytes: it declares that in its OpenAPI document."""

import json

import pytest

from agent_gateway.backend.generation_detection import Recognition, declares_files
from agent_gateway.errors import BackendUnreachable

pytestmark = pytest.mark.anyio

DECLARED = json.dumps({"openapi": "3.1.0", "x-agent-gateway-files": True}).encode()
OTHER = json.dumps({"openapi": "3.1.0", "components": {"schemas": {"RunComposition": {}}}}).encode()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("document", "takes"),
    [
        (DECLARED, True),
        (OTHER, False),
        (b'{"x-agent-gateway-files": false}', False),
        (b'{"x-agent-gateway-files": "yes"}', False),
        (b"[]", False),
        (b"no JSON", False),
        (b"\xff", False),
    ],
)
def test_only_a_document_that_says_so_declares_it(document: bytes, takes: bool) -> None:
    assert declares_files(document) is takes


async def test_it_is_asked_each_time_and_its_last_word_counts_while_it_is_away() -> None:
    """The backend may be replaced at any time by one that takes no files."""
    answers: list[bytes | None] = [None, DECLARED, None, OTHER, None]
    asked = iter(answers)

    async def read() -> bytes:
        answer = next(asked)
        if answer is None:
            raise BackendUnreachable("away", nothing_sent=True)
        return answer

    recognition = Recognition(read)
    assert [await recognition.takes_files() for _ in answers] == [False, True, True, False, False]
    await recognition.aclose()
