"""Every operation of the API and how it is called, for tests that go over all of them.

A new route needs a line in OPERATIONS, and a new kind of id in its path one in EXAMPLES; without them
`test_access.py` fails. Everything else is read from the OpenAPI document: paths, parameters, bodies.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import uuid4

import httpx

from agent_gateway.app import create_app
from agent_gateway.settings import Settings
from tests.support.chat import Chat, Heard
from tests.support.fakes.script import Script, ask_human, echo, script, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import GatewayServer
from tests.support.human_input import token_of
from tests.support.json_type import Json

ASK = "Ask me"
"""The query of a run that asks a question."""


class Scope(Enum):
    """For whom a thing exists."""

    OPEN = "everybody, without a key"
    APP = "every caller with the app's key, for any user"
    USER = "one user of one app"
    TICKET = "every caller with its ticket, without a key"


@dataclass(frozen=True)
class Operation:
    """How its owner calls an operation. `{name}` in a value stands for an id of EXAMPLES."""

    scope: Scope
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: bytes | None = None
    """Sent as `file` of a multipart body, with the fields of `body`."""
    status: int = 200
    """The owner's status code."""
    unknown: int = 404
    """The status code for ids that do not exist."""
    off: bool = False
    """A feature that no app has: every caller with a key gets that answer."""


OPERATIONS: dict[str, Operation] = {
    "getHealth": Operation(Scope.OPEN),
    "getReadiness": Operation(Scope.OPEN),
    "sendChatMessage": Operation(
        Scope.USER,
        body={"query": "Go on", "inputs": {}, "conversation_id": "{conversation_id}", "trace_id": "t-1"},
    ),
    # A stop has the same response whether or not there was a turn to stop.
    "stopChatMessage": Operation(Scope.USER, body={}, unknown=200),
    "followTurn": Operation(Scope.USER),
    "listConversations": Operation(Scope.USER, query={"last_id": ""}),
    "listMessages": Operation(
        Scope.USER, query={"conversation_id": "{conversation_id}", "first_id": "{message_id}"}
    ),
    "renameConversation": Operation(Scope.USER, body={"name": "Another name"}),
    "deleteConversation": Operation(Scope.USER, body={}, status=204),
    # The app has none: this is checked first, before the message.
    "getSuggestedQuestions": Operation(Scope.USER, status=400, unknown=400),
    "rateMessage": Operation(Scope.USER, body={"rating": "like", "content": "Thanks"}),
    "listConversationVariables": Operation(Scope.USER, query={"last_id": ""}),
    # No conversation has a variable.
    "updateConversationVariable": Operation(Scope.USER, body={"value": 1}, status=404),
    # Every caller that knows the token of a form may answer.
    "getHumanInputForm": Operation(Scope.APP),
    "submitHumanInputForm": Operation(Scope.APP, body={"inputs": {}, "action": "approve"}),
    "followAnswer": Operation(Scope.USER),
    "uploadFile": Operation(Scope.USER, body={}, file=b"A note.", status=201),
    "previewFile": Operation(Scope.USER),
    "downloadFile": Operation(Scope.TICKET, query={"ticket": "{ticket}"}),
    "getAppInfo": Operation(Scope.APP),
    "getAppParameters": Operation(Scope.APP),
    "getAppMeta": Operation(Scope.APP),
    "getAppSite": Operation(Scope.APP),
    "listFeedbacks": Operation(Scope.APP),
    "getEndUser": Operation(Scope.APP),
    "audioToText": Operation(Scope.APP, body={}, file=b"\xff\xfb", status=400, off=True),
    "textToAudio": Operation(
        Scope.APP, body={"message_id": "{message_id}", "text": "Hello"}, status=400, off=True
    ),
}


class Owner:
    """An end user with something of everything, made when it is asked for."""

    def __init__(self, chat: Chat, backend: ScriptedBackend) -> None:
        self.chat = chat
        self.backend = backend
        """`backend.queue(script)` says what the user's next run does; else it echoes."""

    @functools.cached_property
    def turn(self) -> Json:
        """The second turn of a conversation; it has ended."""
        first = self.chat.blocking(f"words of {self.chat.user}")
        return self.chat.blocking("and more", conversation_id=first["conversation_id"])

    @functools.cached_property
    def feedback(self) -> Json:
        """A rating of that turn's answer."""
        path = f"/messages/{self.turn['message_id']}/feedbacks"
        done = self.chat.client.post(path, json={"user": self.chat.user, "rating": "like", "content": "Good"})
        assert done.status_code == 200, done.text
        found = self.chat.client.get("/app/feedbacks", params={"limit": 1}).json()["data"]
        [item] = [item for item in found if item["message_id"] == self.turn["message_id"]]
        return dict(item)

    @functools.cached_property
    def question(self) -> Heard:
        """A turn that ended with a question to a human, in a conversation of its own."""
        # Not queued: the turn after an answer takes its script at any time.
        self.backend.script = asks_when_told
        return self.chat.streaming(ASK)

    @functools.cached_property
    def file(self) -> Json:
        """An uploaded file."""
        note = {"file": ("note.txt", b"A note.", "text/plain")}
        done = self.chat.client.post("/files/upload", data={"user": self.chat.user}, files=note)
        assert done.status_code == 201, done.text
        return dict(done.json())


def asks_when_told(body: Json) -> Script:
    """Ask a question when the query is ASK, else repeat the query."""
    return script(text("Well."), ask_human("May I?")) if query_of(body) == ASK else echo(body)


EXAMPLES: dict[str, Callable[[Owner], str]] = {
    "task_id": lambda owner: str(owner.turn["task_id"]),
    "conversation_id": lambda owner: str(owner.turn["conversation_id"]),
    "message_id": lambda owner: str(owner.turn["message_id"]),
    "end_user_id": lambda owner: str(owner.feedback["from_end_user_id"]),
    "file_id": lambda owner: str(owner.file["id"]),
    "ticket": lambda owner: str(owner.file["source_url"]).partition("ticket=")[2],
    "form_token": lambda owner: token_of(owner.question),
    # One that asks nothing: the events of a question's answer end when there is one.
    "workflow_run_id": lambda owner: str(owner.turn["message_id"]),
    "variable_id": lambda owner: str(uuid4()),
}
"""By the name of a path parameter: an id of something that exists for the owner."""


@functools.cache
def document() -> Json:
    """The OpenAPI document."""
    return create_app(Settings.model_construct()).openapi()


@dataclass(frozen=True)
class Route:
    """The description of an operation in the document."""

    method: str
    path: str
    spec: Json

    def parameters(self, where: str) -> list[str]:
        """The names of its parameters in a path, query or header."""
        return [item["name"] for item in self.spec.get("parameters", []) if item["in"] == where]

    @property
    def fields(self) -> list[str]:
        """The names of its body's fields."""
        content = self.spec.get("requestBody", {}).get("content", {})
        for media in content.values():
            return list(_resolved(media["schema"])["properties"])
        return []

    @property
    def takes_json(self) -> bool:
        return "application/json" in self.spec.get("requestBody", {}).get("content", {})


@functools.cache
def routes() -> dict[str, Route]:
    """The operations of the document, by operation id."""
    return {
        spec["operationId"]: Route(method.upper(), path, spec)
        for path, methods in document()["paths"].items()
        for method, spec in methods.items()
    }


def _resolved(schema: Json) -> Json:
    # A body that may be missing is one of two.
    schema = next(iter(schema.get("anyOf", ())), schema)
    if reference := schema.get("$ref"):
        found: Json = document()["components"]["schemas"][reference.rpartition("/")[2]]
        return found
    return schema


@dataclass(frozen=True)
class Request:
    """One request for an operation, before it is sent."""

    method: str
    path: str
    """Percent-encoded, without the prefix."""
    query: Json
    body: Json | None
    file: bytes | None

    def send(
        self, client: httpx.Client, prefix: str = "", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        given: Json = {"headers": headers}
        if self.file is not None:
            given |= {"data": self.body, "files": {"file": ("note.txt", self.file, "text/plain")}}
        elif self.body is not None:
            given["json"] = self.body
        return client.request(self.method, prefix + self.path, params=self.query, **given)


def ids_of(name: str) -> list[str]:
    """The ids in an operation's path, and those that its query and body name."""
    operation = OPERATIONS[name]
    given = [*operation.query.values(), *(operation.body or {}).values()]
    named = [value[1:-1] for value in given if isinstance(value, str) and value.startswith("{")]
    return [*routes()[name].parameters("path"), *named]


def request_for(name: str, ids: Mapping[str, str], user: str) -> Request:
    """A call of the operation for these ids by this user, with its name where the operation wants it."""
    operation, route = OPERATIONS[name], routes()[name]
    query = _filled(operation.query, ids)
    body = None if operation.body is None else _filled(operation.body, ids)
    if "user" in route.parameters("query"):
        query["user"] = user
    if "user" in route.fields:
        body = {**(body or {}), "user": user}
    return Request(route.method, route.path.format_map(ids), query, body, operation.file)


def _filled(values: Mapping[str, Any], ids: Mapping[str, str]) -> Json:
    return {key: value.format_map(ids) if isinstance(value, str) else value for key, value in values.items()}


@dataclass(frozen=True)
class World:
    """A gateway with two apps."""

    server: GatewayServer
    client: httpx.Client
    """With the key of the first app."""
    other: httpx.Client
    """With the key of the second one."""
    nobody: httpx.Client
    """Without a key."""
    backend: ScriptedBackend

    def owner(self) -> Owner:
        """A new user of the first app."""
        return Owner(Chat(self.client, f"user-{uuid4()}"), self.backend)
