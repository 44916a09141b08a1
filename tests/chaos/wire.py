"""Requests of clients: one at a time, to one process, with everything that may go wrong as a value."""

import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from agent_gateway.errors import FAILURES
from tests.chaos.replica import Replica
from tests.chaos.view import TERMINAL, Answered, Connection, Seen, Sent, View
from tests.chaos.world import API_KEY, World, now
from tests.support.sse import Frame, FrameReader

SILENCE_SECONDS: Final = 5.0
"""Existing SDKs give up after this long without a byte."""
BLOCKING_SECONDS: Final = 20.0
"""How long a blocking caller waits for its answer."""
USER: Final = "somebody"

Cut = (aiohttp.ClientError, TimeoutError, OSError)
"""The errors that a client gets from a broken connection."""


class Refused(Exception):
    """A status that is not the answer; the same request may work later or elsewhere."""


class Unexpected(Exception):
    """A status that no client should ever get here."""


class Wire:
    """The HTTP side of all clients of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=SILENCE_SECONDS)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=timeout, trust_env=False
        )

    async def close(self) -> None:
        await self._http.close()

    async def post(self, sent: Sent, dice: random.Random, mode: str) -> dict[str, Any] | None:
        """A post that is answered with JSON, `background` or `blocking`.

        None: the turn has failed, which is noted. Raises Cut, Refused, Unexpected.
        """
        replica = self.world.somewhere(dice)
        read = BLOCKING_SECONDS if mode == "blocking" else SILENCE_SECONDS
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=read)
        async with self._http.post(
            f"{replica.url}/chat-messages", json=_body(sent, mode), headers=_headers(sent), timeout=timeout
        ) as response:
            body = await response.read()
            if response.status in (200, 202):
                told: dict[str, Any] = json.loads(body)
                sent.answered.append(Answered(now(), replica.number, "POST", response.status))
                sent.accept(now(), told["task_id"], told["conversation_id"])
                return told
            code = _judge(sent, replica, "POST", response, body)
            sent.failures.append(code)
            return None

    async def post_stream(self, sent: Sent, dice: random.Random, view: View) -> str | None:
        """A streaming post, read until its end or a cut.

        The events URL of its turn; "" when the turn failed at once, which is noted; None when the
        connection broke before there was an answer. Raises Refused, Unexpected.
        """
        replica = self.world.somewhere(dice)
        ids = "&ids=1" if view.ids else ""
        request = self._http.post(
            f"{replica.url}/chat-messages?mode={view.mode}{ids}",
            json=_body(sent, "streaming"),
            headers=_headers(sent),
        )
        url: str | None = None
        with suppress(*Cut):
            async with request as response, _noted(view, replica):
                if response.status != 200:
                    sent.failures.append(_judge(sent, replica, "POST", response, await response.read()))
                    return ""
                sent.answered.append(Answered(now(), replica.number, "POST", 200))
                url = response.headers["X-Turn-Events-URL"]
                sent.accept(now(), response.headers["X-Task-Id"])
                await _read(response, view, sent)
        return url

    async def get_events(self, sent: Sent, dice: random.Random, view: View, url: str) -> None:
        """One connection of an EventSource. Raises Cut, Refused, Unexpected."""
        replica = self.world.somewhere(dice)
        # A ticket is all that a browser has.
        headers = {} if "ticket=" in url else _headers(None)
        if view.last_position:
            headers["Last-Event-ID"] = str(view.last_position)
        joiner = "&" if "?" in url else "?"
        request = self._http.get(f"{replica.url}{url}{joiner}mode={view.mode}", headers=headers)
        async with request as response, _noted(view, replica):
            if response.status not in (200, 204):
                _judge(sent, replica, "GET", response, await response.read(), final=False)
            sent.answered.append(Answered(now(), replica.number, "GET", response.status))
            if response.status == 204:
                view.gone = True
                return
            await _read(response, view, sent)

    async def stop(self, sent: Sent, dice: random.Random) -> None:
        """Ask to stop. Raises Cut, Refused, Unexpected."""
        replica = self.world.somewhere(dice)
        request = self._http.post(
            f"{replica.url}/chat-messages/{sent.task_id}/stop", json={"user": USER}, headers=_headers(None)
        )
        async with request as response:
            body = await response.read()
            if response.status != 200:
                _judge(sent, replica, "stop", response, body, final=False)

    async def history(self, replica: Replica, conversation_id: str) -> list[dict[str, Any]]:
        """The newest page of a conversation's messages."""
        url = f"{replica.url}/messages?conversation_id={conversation_id}&user={quote(USER)}&limit=100"
        async with self._http.get(url, headers=_headers(None)) as response:
            told: dict[str, Any] = await response.json()
            data: list[dict[str, Any]] = told["data"]
            return data


def events_path(sent: Sent) -> str:
    """The events route of a turn for callers with a key; they have to name the user."""
    return f"/chat-messages/{sent.task_id}/events?user={quote(USER)}"


def _body(sent: Sent, mode: str) -> dict[str, Any]:
    body: dict[str, Any] = {"query": sent.query, "inputs": {}, "user": USER, "response_mode": mode}
    if sent.conversation_id:
        body["conversation_id"] = sent.conversation_id
    return body


def _headers(sent: Sent | None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    return {**headers, "Idempotency-Key": sent.key} if sent else headers


def _judge(
    sent: Sent,
    replica: Replica,
    request: str,
    response: aiohttp.ClientResponse,
    body: bytes,
    *,
    final: bool = True,
) -> str:
    """The code with which the turn has failed; raises when the status says something else."""
    try:
        told = json.loads(body)
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        code, message = body[:100].decode(errors="replace"), ""
    sent.answered.append(Answered(now(), replica.number, request, response.status, code))
    if final and message == FAILURES.get(code):
        # The turn itself has failed. Its 503 also has a Retry-After, but with the same key it is final.
        return code
    if response.status == 503 and "Retry-After" in response.headers:
        raise Refused(code)
    raise Unexpected(f"{request}: {response.status} {code}")


@asynccontextmanager
async def _noted(view: View, replica: Replica) -> AsyncGenerator[None]:
    """Write down the connection and how it ended."""
    connection = Connection(replica.number, now())
    view.connections.append(connection)
    try:
        yield
        connection.how = "ended"
    except BaseException as error:
        connection.how = type(error).__name__
        raise
    finally:
        connection.closed = now()


async def _read(response: aiohttp.ClientResponse, view: View, sent: Sent) -> None:
    """Events into the view until the stream ends; raises Cut."""
    reader = FrameReader()
    async for chunk in response.content.iter_any():
        for frame in reader.feed(chunk):
            if frame.data:
                _see(frame, view, sent)


def _see(frame: Frame, view: View, sent: Sent) -> None:
    payload = frame.json
    position = payload["event_id"]
    if view.ids and frame.id != str(position):
        raise Unexpected(f"the id {frame.id} of event {position}")
    view.events.append(Seen(now(), position, payload["event"], payload))
    sent.accept(now(), payload["task_id"], payload["conversation_id"])


def has_ended(view: View) -> bool:
    """Whether a client would stop reading."""
    return view.gone or any(event.kind in TERMINAL for event in view.events)
