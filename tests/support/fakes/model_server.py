"""A model provider on this machine: as much of the OpenAI API as agents need.

It serves chat completions and responses, streamed or not, and keeps each request. What it answers, a test
says in one of three ways:

    provider.script("m", answer(call("add", {"a": 1})), "It is 1.")    # the n-th request gets the n-th step
    provider.respond("m", lambda request: ...)                         # a step made from each request
    ...                                                                # neither: the model's name says it

Names: `m` answers "Hi there!", and `m-…`:

    429               refuses with this status, and `code-X-404` with the error code X as well
    after-7-429       refuses, with the header `Retry-After: 7`
    html, html-502    answers with a page of HTML
    cut               breaks off in the middle
    malformed         sends a chunk that is not JSON
    error             sends an error object in the stream
    end               ends early without a finish reason
    length, filter    end with a finish reason that is not `stop`
    empty             says nothing
    slow              says "Hi ", and then nothing until the client or this server leaves
    halves            cuts a character in two between its deltas
    thinks-…          thinks before it answers, as `reasoning_content`, as `reasoning` or in `tags`
    tools             calls two tools that no agent has, in parallel, and answers when it has the results

No failure by name is tried again by the SDK: its header `x-should-retry` says so. A refusal of a script has
only the headers that the test gives it.

In process: `async with ModelServer() as provider`. From tests that are not asynchronous: `with serving() as
provider`. As a process that knows names only: `python -m tests.support.fakes.model_server`.
"""

import asyncio
import contextlib
import inspect
import json
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

from tests.support.fakes.model_steps import (
    NO_RETRY,
    Answer,
    Cut,
    ModelRequest,
    Raw,
    Refusal,
    Step,
    StepSource,
    StreamError,
    ThoughtStyle,
    answer,
    call,
    page,
    refuse,
    think,
)
from tests.support.fakes.model_wire import streamed, whole
from tests.support.fakes.script import Gate

WORDS: Final = ("Hi ", "there!")
BOUND: Final = 10.0
"""Seconds after which this server has not started or ended."""
HALVES: Final = ("half \ud83d", "\ude00 done")
_STATUS: Final = re.compile(r"\d{3}$")
_THOUGHTS: Final[dict[str, ThoughtStyle]] = {
    "reasoning_content": "reasoning_content",
    "reasoning": "reasoning",
    "tags": "tags",
}


class ModelServer:
    """Serves on a free port of 127.0.0.1 while its context is open.

    Leaving it fails when a request had no step: it is refused with the code `no_step` then.
    """

    def __init__(self, repeats: str = "") -> None:
        self.base_url = ""
        """What `OPENAI_BASE_URL` has to be."""
        self.requests: list[ModelRequest] = []
        self._repeats = repeats  # what errors by name hold: some providers repeat the API key
        self._scripts: dict[str, Iterator[StepSource]] = {}
        self._makers: dict[str, StepSource] = {}
        self._faults: list[Exception] = []
        self._working: set[asyncio.Task[None]] = set()

    def script(self, model: str, *steps: StepSource) -> None:
        """Answer the next requests of this model with these steps, each with one, and no more requests."""
        self._scripts[model] = iter(steps)

    def respond(self, model: str, make: Callable[[ModelRequest], Step | Awaitable[Step]]) -> None:
        """Answer each request of this model with the step that is made from it."""
        self._makers[model] = make

    def of(self, model: str) -> list[ModelRequest]:
        """The requests of this model, oldest first."""
        return [one for one in self.requests if one.model == model]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of all requests."""
        return [one.body for one in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._server.wait_closed()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise what went wrong in here: a request too many, or a step that could not be made."""
        if self._faults:
            raise self._faults[0]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the server leaves; the event loop would report this
        finally:
            self._working.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return  # a connection that was opened for later
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = first.split()[1]
        if path.endswith("/models"):
            listed = [{"id": name, "object": "model"} for name in [*self._scripts, *self._makers]]
            _write(writer, _head(200, {"content-type": "application/json"}))
            _write(writer, json.dumps({"object": "list", "data": listed}).encode())
            return
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request = ModelRequest(path, headers, body)
        self.requests.append(request)
        # The client sends no more, so the end of what it sends is its leaving.
        leaving = asyncio.create_task(reader.read(1))
        answering = asyncio.create_task(self._answer(request, writer, len(self.requests)))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            request.abandoned = not answering.done()
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.gather(leaving, answering, return_exceptions=True)

    async def _answer(self, request: ModelRequest, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            step = await self._step(request)
        except Exception as error:  # noqa: BLE001 - `check` raises it where the test sees it
            self._faults.append(error)
            step = refuse(400, "the test has no step for this request", code="no_step")
        if step.held is not None:
            await step.held.wait()
        if isinstance(step, Refusal):
            _write(writer, _head(step.status, step.headers), step.body)
            await writer.drain()
            return
        streams, responses = bool(request.body.get("stream")), request.path.endswith("/responses")
        kind = "text/event-stream" if streams else "application/json"
        # Without an end of the chunks, a closed connection is a cut one.
        _write(writer, _head(200, {"content-type": kind, "transfer-encoding": "chunked"} | NO_RETRY))
        for piece in (streamed if streams else whole)(step, responses=responses, number=number):
            if isinstance(piece, Cut):
                return
            await _send(writer, piece)
        _write(writer, b"0\r\n\r\n")
        await writer.drain()

    async def _step(self, request: ModelRequest) -> Answer | Refusal:
        model = request.model
        if model in self._scripts:
            source = next(self._scripts[model], None)
            assert source is not None, f"a request too many of the model {model}"
        else:
            source = self._makers.get(model) or named(request, self._repeats)
        step = source(request) if callable(source) else source
        found = await step if inspect.isawaitable(step) else step
        return answer(found) if isinstance(found, str) else found


def named(request: ModelRequest, repeats: str) -> Step:
    """What the name of the model says."""
    name = request.model
    ending = name.rpartition("-")[2]
    endings: dict[str, Step] = {
        "html": page(200, repeats),
        "cut": answer(WORDS[0], Cut()),
        "malformed": answer(*WORDS, Raw(b"data: {" + repeats.encode() + b"\n\n")),
        "error": answer(WORDS[0], StreamError(f"bad key {repeats}")),
        "end": answer(*WORDS, finish=None),
        "length": answer(*WORDS, finish="length"),
        "filter": answer(*WORDS, finish="content_filter"),
        "empty": answer(),
        "slow": answer(WORDS[0], Gate()),
        "halves": answer(*HALVES),
        "tools": answer(*WORDS) if request.results else answer(call("one"), call("two", fragments=2)),
    }
    if _STATUS.search(name):
        return _named_refusal(name, repeats)
    if "-thinks-" in name:
        return answer(think("Let me ", "see.", style=_THOUGHTS[ending]), *WORDS)
    return endings.get(ending) or answer(*WORDS)


def _named_refusal(name: str, repeats: str) -> Refusal:
    status = int(name[-3:])
    if "-html-" in name:
        return page(status, repeats, headers=NO_RETRY)
    code = found[1] if (found := re.search(r"-code-([a-z_]+)-", name)) else "x"
    after = {"retry-after": found[1]} if (found := re.search(r"-after-(\d+)-", name)) else {}
    return refuse(status, f"bad key {repeats}", code=code, headers=NO_RETRY | after)


@contextmanager
def serving(repeats: str = "") -> Generator[ModelServer]:
    """Such a provider, which runs in a thread of its own meanwhile."""
    provider, loop = ModelServer(repeats), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="model provider", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(BOUND)

    try:
        run(provider.__aenter__())
        try:
            yield provider
        finally:
            run(provider.__aexit__(*sys.exc_info()))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(BOUND)
        loop.close()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode()


def _write(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    writer.write(b"".join(pieces))


async def _send(writer: asyncio.StreamWriter, piece: bytes | Gate) -> None:
    if isinstance(piece, Gate):
        await writer.drain()
        await piece.wait()
    else:
        _write(writer, f"{len(piece):x}\r\n".encode(), piece, b"\r\n")


async def _main() -> None:
    async with ModelServer() as provider:
        sys.stdout.write(f"{provider.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
