"""A model provider on this machine: as much of the OpenAI API as a streamed answer needs.

The name of the model says what happens: `m` answers "Hi there!", `m-429` (or any status) refuses, `m-cut`
breaks off in the middle, `m-end` ends early without a finish reason, `m-length` and `m-filter` end with one
that is not `stop`, `m-code-X-404` refuses with the error code X, `m-halves` cuts characters in two between
its deltas, `m-hold` says its words and then nothing until the client leaves. `m-call` calls the tool that the
last message of the user names, as in `book_seat {"seat": "A1"}`, and repeats what it returns; without such a
message it answers as `m` does. Serves chat completions and responses; `m-call` the first only.
"""

import asyncio
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

WORDS = ("Hi ", "there!")
HALVES = ("half \ud83d", "\ude00 done")


def _chunks(words: tuple[str, ...], finish: str | None) -> list[dict[str, Any]]:
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": word} for word in words]
    choices: list[list[Any]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    if finish is not None:
        choices.append([{"index": 0, "delta": {}, "finish_reason": finish}])
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    return [base | {"choices": choice} for choice in choices] + [base | {"choices": [], "usage": usage}]


def _called(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chunks of `m-call` after these messages."""
    last = messages[-1]
    name, _, args = str(last["content"]).partition(" ")
    if last["role"] == "tool":
        return _chunks(("It says: ", str(last["content"])), "stop")
    if not args.startswith("{"):
        return _chunks(WORDS, "stop")
    chunks = _chunks(("",), "tool_calls")
    call = {
        "index": 0,
        "id": f"call_{len(messages)}",
        "type": "function",
        "function": {"name": name, "arguments": args},
    }
    chunks[0]["choices"][0]["delta"] = {"role": "assistant", "tool_calls": [call]}
    return chunks


def _response_events(words: tuple[str, ...], finish: str | None) -> list[dict[str, Any]]:
    response: dict[str, Any] = {
        "id": "r1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": [],
        "status": "in_progress", "parallel_tool_calls": True, "tool_choice": "auto",
    }  # fmt: skip
    usage = {
        "input_tokens": 11, "output_tokens": 3, "total_tokens": 14,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    item: dict[str, Any] = {
        "id": "i1",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
    done: dict[str, Any] = {"type": "output_text", "text": "".join(words), "annotations": []}
    place = {"item_id": "i1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", "part": part} | place,
        *({"type": "response.output_text.delta", "delta": w, "logprobs": []} | place for w in words),
        {"type": "response.output_text.done", "text": "".join(words), "logprobs": []} | place,
        {"type": "response.content_part.done", "part": done} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": item | {"content": [done]}},
    ]
    if finish == "stop":
        end = response | {"status": "completed", "usage": usage}
        events.append({"type": "response.completed", "response": end})
    elif finish is not None:
        why = {"length": "max_output_tokens"}.get(finish, finish)
        end = response | {"status": "incomplete", "incomplete_details": {"reason": why}, "usage": usage}
        events.append({"type": "response.incomplete", "response": end})
    return [{"sequence_number": number} | event for number, event in enumerate(events)]


class ModelServer:
    """Serves on a free port of 127.0.0.1 while its context is open; keeps the bodies it was sent."""

    def __init__(self, repeats: str) -> None:
        self.base_url = ""
        self.bodies: list[dict[str, Any]] = []
        self.left = 0
        """How many clients left while their answer was held."""
        self._repeats = repeats  # what error bodies hold: some providers repeat the API key

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        body = json.loads(await reader.readexactly(int(length[1])))
        self.bodies.append(body)
        status = int(match[0]) if (match := re.search(r"\d{3}$", body["model"])) else 200
        if status != 200:
            self._head(writer, status, "application/json")
            code = named[1] if (named := re.search(r"-code-([a-z_]+)-", body["model"])) else "x"
            error = {"error": {"message": f"bad key {self._repeats}", "code": code}}
            writer.write(json.dumps(error).encode())
        else:
            self._head(writer, 200, "text/event-stream")
            await self._answer(writer, head, body)
            if body["model"].endswith("hold"):
                await reader.read()
                self.left += 1
        writer.close()

    def _head(self, writer: asyncio.StreamWriter, status: int, kind: str) -> None:
        head = (
            f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nx-should-retry: false\r\nconnection: close\r\n"
        )
        # Without an end of the chunks, a closed connection is a cut one.
        head += "transfer-encoding: chunked\r\n\r\n" if status == 200 else "\r\n"
        writer.write(head.encode())

    async def _answer(self, writer: asyncio.StreamWriter, head: bytes, body: dict[str, Any]) -> None:
        model = body["model"]
        words = HALVES if model.endswith("halves") else WORDS
        # How many frames come; of a cut answer without its end.
        most = next((count for name, count in (("cut", 3), ("hold", 2)) if model.endswith(name)), None)
        endings = {"-end": None, "-length": "length", "-filter": "content_filter"}
        finish = next((reason for name, reason in endings.items() if model.endswith(name)), "stop")
        events = _response_events(words, finish) if b"/responses" in head else _chunks(words, finish)
        if model.endswith("call"):
            events = _called(body["messages"])
        frames = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
        for frame in [*frames, b"data: [DONE]\n\n"] if most is None else frames[:most]:
            writer.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")
        writer.write(b"0\r\n\r\n" if most is None else b"")
        await writer.drain()


@contextmanager
def served(repeats: str) -> Generator[ModelServer]:
    """Such a provider, which runs in a thread of its own meanwhile."""
    ready, found = threading.Event(), list[ModelServer]()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with ModelServer(repeats) as server:
            found.append(server)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


@contextmanager
def serving(repeats: str) -> Generator[str]:
    """The base URL of such a provider."""
    with served(repeats) as server:
        yield server.base_url
