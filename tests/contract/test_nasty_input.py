"""No input to any route causes a 5xx, and every refusal has the envelope.

Generated from OPERATIONS and the OpenAPI document: each parameter, header and field of a body in turn is
replaced by each piece of nonsense.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx
import pytest

from tests.support.operations import EXAMPLES, OPERATIONS, Request, World, ids_of, request_for, routes

TEXTS = (
    "",
    "%20",
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF%FE",
    "null",
    "true",
    "-1",
    "0",
    "1e9",
    "9" * 400,
    "9" * 5000,
    "NaN",
    "%5B%5D",
    "..%2f..%2fetc",
    "%27%3B--",
    "%F0%9F%98%80" * 200,
    "x" * 8000,
)
"""Percent-encoded, for paths and queries."""
DEEP = 10_000
VALUES = (
    "null",
    "true",
    "-1",
    "9" * 30,
    "9" * 5000,
    "1e999",
    "NaN",
    '""',
    '" \\t"',
    '"\\u0000"',
    '"a\\ud800b"',
    '"\\udc00\\ud800"',
    '"' + "x" * 1_000_000 + '"',
    "[]",
    "{}",
    '["\\u0000", {"\\ud800": 9223372036854775808}]',
    '{"\\u0000": "\\ud800", "": -9223372036854775808}',
    "[" * 200 + "]" * 200,
    "[" * 400 + "]" * 400,
    "[" * DEEP + "]" * DEEP,
    '{"a":' * 400 + "1" + "}" * 400,
    '{"a":' * DEEP + "1" + "}" * DEEP,
)
"""JSON text, for the fields of a body."""
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"1",
    b'"text"',
    b"\xff\xfe{}",
    b"\x00",
    b" " * 1_000_000,
    b'{"a":1}{"b":2}',
    b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b'{"' + b"x" * 1_000_000 + b'": 1}',
)
CONTENT_TYPES = (
    b"text/plain",
    b"application/x-www-form-urlencoded",
    b"application/json; charset=utf-16",
    b"multipart/form-data",
    b"multipart/form-data; boundary=x",
    b"multipart/form-data; boundary=" + b"x" * 5000,
    b"\xff",
)
HEADERS = (b"", b"-1", b"9" * 400, b"x" * 5000, b"\xff\xfe", b'"', b"null")


def check(response: httpx.Response, what: str) -> None:
    """No 5xx; a refusal is the envelope, and does not send the nonsense back."""
    told = f"{what}: {response.status_code} {response.text[:300]}"
    assert response.status_code < 500, told
    if response.status_code >= 400:
        body = response.json()
        assert body.keys() == {"code", "message", "status"}, told
        assert body["status"] == response.status_code, told
        assert 0 < len(body["message"]) < 1000, told


def example(world: World, name: str) -> Request:
    owner = world.owner()
    return request_for(name, {key: EXAMPLES[key](owner) for key in ids_of(name)}, owner.chat.user)


def short(text: str | bytes) -> str:
    return f"{text[:40]!r} ({len(text)})"


@pytest.mark.parametrize("name", OPERATIONS)
def test_nonsense_in_a_path_is_no_server_error(world: World, name: str) -> None:
    for parameter in routes()[name].parameters("path"):
        for text in filter(None, TEXTS):
            ids = {key: str(uuid4()) for key in ids_of(name)}
            response = request_for(name, {**ids, parameter: text}, "ada").send(world.client)
            check(response, f"{parameter}={short(text)}")


@pytest.mark.parametrize("name", OPERATIONS)
def test_nonsense_in_a_query_is_no_server_error(world: World, name: str) -> None:
    request = example(world, name)
    for parameter in routes()[name].parameters("query"):
        for text in TEXTS:
            others = urlencode({key: value for key, value in request.query.items() if key != parameter})
            for query in (f"{others}&{parameter}={text}", f"{others}&{parameter}={text}&{parameter}={text}"):
                response = send(world, request, query=query)
                check(response, f"{parameter}={short(text)}")
    check(send(world, request, query="%00=%00&&=&%ED%A0%80"), "nonsense as names")


@pytest.mark.parametrize("name", OPERATIONS)
def test_nonsense_in_a_header_is_no_server_error(world: World, name: str) -> None:
    request = example(world, name)
    for header in (*routes()[name].parameters("header"), "Accept", "Content-Encoding", "X-Forwarded-For"):
        for value in HEADERS:
            response = send(world, request, headers={header.encode(): value})
            check(response, f"{header}: {short(value)}")
    for value in (b"\xff", b"Bearer \xff\xfe", b"Bearer " + b"x" * 5000, b"Bearer a b", b"Bearer"):
        response = send(world, request, headers={b"Authorization": value})
        check(response, f"Authorization: {short(value)}")


# The library that sends a conversation of more than a MiB to the backend suggests another way of doing so.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
@pytest.mark.parametrize("name", [name for name, route in routes().items() if route.fields])
def test_nonsense_in_a_body_is_no_server_error(world: World, name: str) -> None:
    request = example(world, name)
    for content in (*BODIES, *bodies(request, routes()[name].fields)):
        check(send(world, request, content=content), short(content))
    whole = json.dumps(request.body).encode()
    for content_type in CONTENT_TYPES:
        for content in (
            whole,
            b"",
            b"--x\r\n",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n\x00\r\n--x--",
        ):
            response = send(world, request, content=content, headers={b"Content-Type": content_type})
            check(response, f"{short(content_type)} {short(content)}")


@pytest.mark.parametrize("field", ["inputs", "query", "files", "auto_generate_name"])
def test_accepted_turns_can_be_listed(world: World, field: str) -> None:
    """Lists work with every turn that was started with accepted nonsense."""
    user = f"user-{uuid4()}"
    request = Request("POST", "/chat-messages", {}, {"query": "Hello", "inputs": {}, "user": user}, None)
    accepted = [
        response.json()["conversation_id"]
        for content in bodies(request, [field])
        if (response := send(world, request, content=content)).status_code == 200
    ]
    assert accepted
    listed = world.client.get("/conversations", params={"user": user, "limit": 100})
    assert listed.status_code == 200, listed.text
    assert {item["id"] for item in listed.json()["data"]} == set(accepted)
    for conversation_id in accepted:
        shown = world.client.get("/messages", params={"user": user, "conversation_id": conversation_id})
        assert shown.status_code == 200, shown.text
        assert len(shown.json()["data"]) == 1


def bodies(request: Request, fields: list[str]) -> Iterator[bytes]:
    """The request's body with each field in turn as each of VALUES; written by hand, as no library would."""
    given = request.body or {}
    for field in fields:
        others = [f"{json.dumps(key)}:{json.dumps(it)}" for key, it in given.items() if key != field]
        for value in VALUES:
            yield ("{" + ",".join([*others, f"{json.dumps(field)}:{value}"]) + "}").encode()


def send(
    world: World,
    request: Request,
    *,
    query: str | None = None,
    content: bytes | None = None,
    headers: dict[bytes, bytes] | None = None,
) -> httpx.Response:
    """The request with its query, body or some headers as they are given here, byte by byte."""
    if content is None and request.body is not None:
        content = json.dumps(request.body).encode()
    query = urlencode(request.query) if query is None else query
    url: Any = httpx.URL(world.server.url).copy_with(raw_path=f"{quote(request.path)}?{query}".encode())
    return world.client.request(request.method, url, content=content, headers=headers)
