"""A request and its whole response, as data: sent by `client.py` and by `async_client.py`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO, Final, Generic, TypeVar

from agent_gateway_client.errors import GatewayError, UnexpectedResponse, error_of_response
from agent_gateway_client.openings import Params
from agent_gateway_client.retry import is_passing

T = TypeVar("T")

ANSWER_SECONDS: Final = 30.0
"""How long a response may take."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a request."""

    name: str
    content: bytes | BinaryIO = field(repr=False)
    mime_type: str | None = None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how its response is read."""

    method: str
    url: str = field(repr=False)
    """A path of the gateway, or a whole URL. It may hold a ticket."""
    read: Callable[[bytes], T] = field(repr=False)
    params: Params = field(default_factory=dict[str, str | int], repr=False)
    body: Mapping[str, object] | None = field(default=None, repr=False)
    upload: Upload | None = None
    """Makes the body a multipart body, with the values of `body` beside the file."""
    idempotency_key: str | None = None
    is_repeatable: bool = False
    """Whether it may be sent again when its response was lost."""
    seconds: float = ANSWER_SECONDS
    with_key: bool = True

    def content(self) -> bytes | None:
        """The body as JSON; None when there is none, or a multipart body."""
        return None if self.body is None or self.upload is not None else json.dumps(self.body).encode()

    def result(self, status: int, headers: Mapping[str, str], body: bytes) -> T:
        """What a response says. Raises GatewayError."""
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise error_of_response(status, body, headers.get("retry-after"))
        try:
            return self.read(body)
        except ValueError:
            raise UnexpectedResponse(status) from None

    def may_repeat(self, failure: GatewayError) -> bool:
        """Whether it is sent again after this failure."""
        return self.is_repeatable and is_passing(failure)


def json_of(kind: type[T]) -> Callable[[bytes], T]:
    """Reads a JSON object of this kind. The gateway has checked its fields; nothing is checked again."""

    def read(body: bytes) -> T:
        value: T = json.loads(body)
        return value

    return read


def nothing(body: bytes) -> None:
    """Reads a response that has no body."""


def same(body: bytes) -> bytes:
    """Reads the bytes of a file."""
    return body
