"""Calls of the operations of an HTTP API.

What a model says can choose neither the host nor another path: its values are quoted, and redirects are not
followed. Cookies are not kept, because the calls are made for many users.
"""

import json
import logging
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2
from pydantic_ai import Tool
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import BinaryContent

from agent_gateway.backend.embedded.tools.calls import MAX_ERROR, MAX_FILE, cut
from agent_gateway.backend.embedded.tools.openapi import BODY, Operation, Parameter

logger = logging.getLogger(__name__)

HttpClient = httpx2.AsyncClient
MAX_TEXT: Final = 1024 * 1024
"""Bytes of an answer with text that are read."""
_TEXTS: Final = ("application/json", "application/xml", "application/x-ndjson", "application/yaml")


def http_client() -> HttpClient:
    """The client for all HTTP tools of a process; close it."""
    return HttpClient(
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,
    )


def operation_tool(
    client: HttpClient, base_url: str, headers: Mapping[str, str], operation: Operation
) -> Tool[object]:
    """The operation as a tool."""

    async def call(**arguments: Any) -> object:
        return await _call(client, base_url, headers, operation, arguments)

    return Tool[object].from_schema(call, operation.tool, operation.description, dict(operation.schema))


async def _call(
    client: HttpClient,
    base_url: str,
    headers: Mapping[str, str],
    operation: Operation,
    arguments: Mapping[str, Any],
) -> object:
    unknown = arguments.keys() - {parameter.key for parameter in operation.parameters} - {BODY}
    if unknown:
        raise ToolFailed(f"There is no argument {min(unknown)!r}.")
    path, query, sent = operation.path, list[tuple[str, str]](), dict[str, str]()
    for parameter in operation.parameters:
        value = arguments.get(parameter.key)
        match parameter.place:
            case "path":
                path = path.replace(f"{{{parameter.name}}}", _path_value(parameter, value))
            case "query" if value is not None:
                several = value if isinstance(value, list) else [value]
                query += [(parameter.name, _text(one)) for one in several]
            case "header" if value is not None:
                sent[parameter.name] = _header_value(parameter, value)
            case _:
                pass
    url = base_url + path + (f"?{urlencode(query)}" if query else "")
    body = {"json": arguments[BODY]} if operation.has_body and BODY in arguments else {}
    try:
        async with client.stream(operation.method, url, headers=sent | dict(headers), **body) as response:
            return await _result(response)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        logger.warning("the HTTP tool %r failed: %s", operation.id, type(error).__name__)
        raise ToolFailed(f"The API cannot be reached ({type(error).__name__}).") from None


def _path_value(parameter: Parameter, value: object) -> str:
    text = "" if value is None else _text(value)
    if not text or any(step in (".", "..") for step in text.replace("\\", "/").split("/")):
        raise ToolFailed(
            f"{parameter.key!r} must be a value that is neither empty nor a way to another path."
        )
    return quote(text, safe="")


def _header_value(parameter: Parameter, value: object) -> str:
    text = _text(value)
    if not text.isprintable() or not text.isascii():
        raise ToolFailed(f"{parameter.key!r} must be one line of plain letters.")
    return text


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def _result(response: httpx2.Response) -> object:
    """What the model gets of an answer. Raises ToolFailed for a failure."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = not kind or kind.startswith("text/") or kind in _TEXTS or kind.endswith(("+json", "+xml"))
    most = MAX_TEXT if is_text else MAX_FILE
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > most:
            break
    if response.is_redirect:
        raise ToolFailed(f"The API answered {response.status_code}, a redirect, which is not followed.")
    text = bytes(data[:most]).decode(response.encoding or "utf-8", "replace") if is_text else ""
    if response.is_error:
        raise ToolFailed(f"The API answered {response.status_code}. {cut(text, MAX_ERROR)}".strip())
    if not data:
        return f"The API answered {response.status_code} without a body."
    if len(data) > most:
        if not is_text:
            raise ToolFailed(f"The API answered with a file of more than {most} bytes, which is too big.")
        return text
    if not is_text:
        return BinaryContent(bytes(data), media_type=kind)
    if kind.endswith("json"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text
