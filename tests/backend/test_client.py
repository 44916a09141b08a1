"""The HTTP client of the run protocol against a scripted backend, over real HTTP."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.generation_detection import Recognition
from agent_gateway.backend.protocol import (
    TERMINAL,
    Backend,
    Composition,
    CreateRunRequest,
    Layer,
    RunEvent,
)
from agent_gateway.domain.ids import Generation, RunId
from agent_gateway.errors import (
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendUnreachable,
    RunGap,
    RunLost,
)
from agent_gateway.limits import BackendLimits
from tests.support.fakes.script import (
    Cut,
    Emit,
    Forget,
    Gate,
    Keepalive,
    Raw,
    Script,
    Trim,
    cancelled,
    delta,
    fail,
    recorded,
    refuse,
    script,
    succeed,
    text,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import history_of
from tests.support.fakes.strict import complaints, openapi
from tests.support.paths import RECORDED
from tests.support.run_reader import Reader, events_of

pytestmark = pytest.mark.anyio

SECRET = "sk-very-secret"


@pytest.fixture
def fake() -> Generator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        yield backend


@pytest.fixture
async def client(fake: ScriptedBackend) -> AsyncGenerator[HTTPBackend]:
    backend = HTTPBackend(fake.url, reconnect_seconds=20)
    yield backend
    await backend.aclose()


@asynccontextmanager
async def hasty(fake: ScriptedBackend, **limits: float) -> AsyncGenerator[HTTPBackend]:
    """A client with other limits."""
    backend = HTTPBackend(fake.url, reconnect_seconds=20, limits=BackendLimits(**limits))
    yield backend
    await backend.aclose()


def request(query: str = "Hello there", snapshot: msgspec.Raw | None = None) -> CreateRunRequest:
    layers = [
        Layer(name="user", type="plain.prompt", config={"user": query}),
        Layer(name="history", type="pydantic_ai.history"),
        Layer(name="llm", type="x.llm", config={"credentials": {"api_key": SECRET}}),
    ]
    return CreateRunRequest(Composition(1, layers), session_snapshot=snapshot)


async def run(backend: Backend, query: str = "Hello there") -> list[RunEvent]:
    return await events_of(backend, await backend.create_run(request(query)))


def said(events: list[RunEvent]) -> str:
    deltas = [event.agent_message_delta for event in events]
    return "".join(delta for delta in deltas if isinstance(delta, str))


def letters(*cuts: int) -> Script:
    """A run that says abcdef, each a delta; the connection is cut behind the given numbers of events."""
    steps = script(text("a")[:1], [delta(letter) for letter in "bcdef"], succeed()).steps
    for place in sorted(cuts, reverse=True):
        steps.insert(place, Cut())
    return Script(steps)


class TestCreate:
    async def test_a_run_is_created_with_the_composition_and_the_snapshot(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        names = ("user", "history", "llm")
        snapshot = b'{"layers": [' + b", ".join(b'{"name":"%s"}' % name.encode() for name in names) + b"]}"
        run_id = await client.create_run(request("Hi", msgspec.Raw(snapshot)))

        assert run_id in fake.runs
        [post] = fake.requests
        assert post.body["composition"]["layers"][0]["config"] == {"user": "Hi"}
        assert snapshot in post.raw
        assert post.headers["content-type"] == "application/json"
        assert "authorization" not in post.headers

    async def test_the_token_is_sent_with_every_call(self) -> None:
        with ScriptedBackend(token="t0ken", prefix="/agents/v1") as fake:
            backend = HTTPBackend(f"{fake.url}/", token="t0ken")
            run_id = await backend.create_run(request())
            assert said(await events_of(backend, run_id)) == "You said: Hello there."
            await backend.cancel(run_id)
            await backend.aclose()

            stranger = HTTPBackend(fake.url, token="wrong")
            for call in (stranger.create_run(request()), stranger.cancel(run_id)):
                with pytest.raises(BackendRefused, match="401"):
                    await call
            with pytest.raises(BackendRefused, match="401"):
                await events_of(stranger, run_id)
            await stranger.aclose()

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 502, 504])
    async def test_a_refusal_is_raised_without_a_retry(
        self, fake: ScriptedBackend, client: HTTPBackend, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fake.script = refuse(status)
        with pytest.raises(BackendRefused) as caught:
            await client.create_run(request())
        assert caught.value.status == status
        assert fake.posts == 1
        assert SECRET not in caplog.text + str(caught.getrepr(chain=True, showlocals=False))

    async def test_503_is_retried(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        fake.queue(refuse(503), refuse(503))
        assert said(await run(client)) == "You said: Hello there."
        assert fake.posts == 3

    async def test_503_beyond_the_budget_is_a_refusal(self, fake: ScriptedBackend) -> None:
        fake.script = refuse(503)
        backend = HTTPBackend(fake.url, reconnect_seconds=2)
        with pytest.raises(BackendRefused, match="503"):
            await backend.create_run(request())
        await backend.aclose()
        assert fake.posts > 1

    async def test_a_refused_connection_is_reported_as_nothing_sent(self, unused_port: int) -> None:
        backend = HTTPBackend(f"http://127.0.0.1:{unused_port}", reconnect_seconds=0.3)
        with pytest.raises(BackendUnreachable) as caught:
            await backend.create_run(request())
        assert caught.value.nothing_sent
        await backend.aclose()

    async def test_an_unknown_host_is_reported_as_nothing_sent(self) -> None:
        backend = HTTPBackend("http://nowhere.invalid", reconnect_seconds=0.1)
        with pytest.raises(BackendUnreachable) as caught:
            await backend.create_run(request())
        assert caught.value.nothing_sent
        await backend.aclose()

    async def test_a_run_is_created_once_when_the_backend_starts_late(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.stop()
        creating = asyncio.create_task(client.create_run(request()))
        await asyncio.wait({creating}, timeout=0.2)
        fake.start()
        assert await creating in fake.runs
        assert fake.posts == 1

    @pytest.mark.parametrize("plan", [script(create="cut"), script(create="garbage")])
    async def test_a_creation_whose_response_was_lost_is_never_repeated(
        self, fake: ScriptedBackend, client: HTTPBackend, plan: Script
    ) -> None:
        fake.script = plan
        with pytest.raises((BackendUnreachable, BackendGarbage)) as caught:
            await client.create_run(request())
        assert fake.posts == 1
        if plan.create == "cut":
            assert isinstance(caught.value, BackendUnreachable)
            assert not caught.value.nothing_sent
        else:
            assert isinstance(caught.value, BackendGarbage)

    async def test_a_run_is_created_though_all_connections_went_stale(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        # One that went stale in between could not be told from an answer that was lost.
        await client.cancel(await client.create_run(request()))
        fake.stop()
        fake.start()
        await client.create_run(request())
        assert fake.posts == 2

    async def test_a_creation_without_a_response_is_never_repeated(self, fake: ScriptedBackend) -> None:
        fake.script = script(create="hang")
        async with hasty(fake, create_seconds=3.0) as client:
            with pytest.raises(BackendUnreachable) as caught:
                await client.create_run(request())
        assert not caught.value.nothing_sent
        assert fake.posts == 1


def real_request(query: str = "Hello there", **more: Any) -> CreateRunRequest:
    """A composition that both generations accept, written in schema 1."""
    body = json.loads((RECORDED / "schema1" / "plain.request.json").read_text("utf-8"))
    layers = [msgspec.convert(layer, type=Layer) for layer in body["composition"]["layers"]]
    layers[1] = Layer("agent_app_user_prompt", "plain.prompt", config={"user": query})
    return CreateRunRequest(Composition(1, layers), **more)


def generations(fake: ScriptedBackend) -> list[int]:
    """In which generation each request came."""
    return [post.body["composition"]["schema_version"] for post in fake.requests]


class TestGenerations:
    @pytest.mark.parametrize("speaks", [1, 2])
    async def test_the_generation_is_read_from_the_document_of_the_backend(
        self, fake: ScriptedBackend, client: HTTPBackend, speaks: Generation
    ) -> None:
        fake.speaks = speaks
        for _ in range(3):
            run_id = await client.create_run(real_request())
            assert said(await events_of(client, run_id)) == "You said: Hello there."
        assert generations(fake) == [speaks] * 3
        assert fake.documents == 1, "none on the way of a turn"

    @pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)], ids=["upgrade", "roll-back"])
    async def test_after_a_change_of_generation_the_request_is_sent_once_more(
        self, fake: ScriptedBackend, client: HTTPBackend, before: Generation, after: Generation
    ) -> None:
        fake.speaks = before
        await client.create_run(real_request())
        fake.speaks = after
        for _ in range(3):
            run_id = await client.create_run(real_request())
            assert said(await events_of(client, run_id)) == "You said: Hello there."
        assert generations(fake) == [before, before, after, after, after]
        assert len(fake.runs) == 4
        assert fake.documents == 2

    @pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)], ids=["upgrade", "roll-back"])
    async def test_a_refusal_reveals_the_generation_of_a_backend_without_a_document(
        self, fake: ScriptedBackend, client: HTTPBackend, before: Generation, after: Generation
    ) -> None:
        fake.documented = False
        for speaks in (before, after, after):
            fake.speaks = speaks
            run_id = await client.create_run(real_request())
            assert said(await events_of(client, run_id)) == "You said: Hello there."
        assert generations(fake)[-3:] == [before, after, after]
        assert len(fake.runs) == 3
        # Once at first, and once after each refusal.
        assert fake.documents == len(fake.requests) - 2

    @pytest.mark.parametrize("fallback", [1, 2])
    async def test_the_setting_decides_for_a_backend_without_a_document(
        self, fake: ScriptedBackend, fallback: Generation
    ) -> None:
        fake.speaks, fake.documented = fallback, False
        backend = HTTPBackend(fake.url, fallback=fallback)
        await backend.create_run(real_request())
        await backend.create_run(real_request())
        assert generations(fake) == [fallback, fallback]
        assert fake.documents == 1
        # The document of the backend takes precedence.
        fake.speaks, fake.documented = (2 if fallback == 1 else 1), True
        other = HTTPBackend(fake.url, fallback=fallback)
        await other.create_run(real_request())
        assert generations(fake)[2:] == [fake.speaks]
        await backend.aclose()
        await other.aclose()

    async def test_without_document_and_setting_the_app_file_decides(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        # This backend takes anything, and says nothing.
        await client.create_run(request())
        wish = request()
        written = Composition(2, wish.composition.layers)
        await client.create_run(msgspec.structs.replace(wish, composition=written))
        assert generations(fake) == [1, 2]

    @pytest.mark.parametrize("speaks", [1, 2])
    async def test_a_request_wrong_in_both_generations_is_refused_at_once(
        self, fake: ScriptedBackend, client: HTTPBackend, speaks: Generation
    ) -> None:
        fake.speaks = speaks
        wish = real_request(metadata={"x": msgspec.Raw(b"1")}, idempotency_key=cast("Any", 7))
        for _ in range(2):
            with pytest.raises(BackendRefused, match="422"):
                await client.create_run(wish)
        assert generations(fake) == [speaks, speaks]
        assert fake.runs == {}
        assert fake.documents == 3

    async def test_a_layer_without_a_type_is_refused_by_schema_1_without_a_retry(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.speaks, fake.documented = 1, False
        wish = real_request()
        wish.composition.layers.append(Layer("of_no_known_kind"))
        with pytest.raises(BackendRefused, match="422"):
            await client.create_run(wish)
        assert generations(fake) == [1]

    async def test_many_turns_at_once_fetch_the_document_once(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.speaks = 1
        await asyncio.gather(*(client.create_run(real_request()) for _ in range(20)))
        assert fake.documents == 1
        fake.speaks = 2
        await asyncio.gather(*(client.create_run(real_request()) for _ in range(20)))
        assert len(fake.runs) == 40
        assert fake.posts == 60
        # Those that were refused while one asked waited for its answer, or knew it already.
        assert fake.documents == 2

    async def test_a_mixture_of_generations_is_tried_until_one_accepts(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        """As in a rolling upgrade: the process that is asked is not the one that gets the request."""
        fake.speaks, fake.flips = 1, True
        await client.create_run(real_request())
        creating = asyncio.create_task(client.create_run(real_request()))
        await fake.until(lambda: fake.posts >= 4)
        fake.flips = False
        await creating
        assert len(fake.runs) == 2

    async def test_a_mixture_that_never_accepts_is_given_up(self, fake: ScriptedBackend) -> None:
        fake.speaks, fake.flips = 1, True
        backend = HTTPBackend(fake.url, reconnect_seconds=2)
        await backend.create_run(real_request())
        with pytest.raises(BackendRefused, match="422"):
            await backend.create_run(real_request())
        assert len(fake.runs) == 1
        assert fake.posts > 3
        await backend.aclose()

    @pytest.mark.parametrize("document", ["hang", "cut", "garbage", 302, 401, 404, 500, 503])
    async def test_an_unavailable_document_does_not_delay_a_turn_for_long(
        self, fake: ScriptedBackend, document: Any
    ) -> None:
        limits = {"call_seconds": 1.0} if document == "hang" else {}
        fake.speaks, fake.document = 2, document
        async with hasty(fake, **limits) as client:
            for _ in range(3):
                run_id = await client.create_run(real_request())
                assert said(await events_of(client, run_id)) == "You said: Hello there."
        assert generations(fake) == [1, 2, 2, 2]
        # At first, and after the refusal.
        assert fake.documents == 2

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"<html>",
            b"[]",
            b'{"components":{"schemas":{}}}',
            b'{"components":{"schemas":{"RunComposition":{"properties":{"schema_version":{"const":3}}}}}}',
            b'{"components":{"schemas":{"RunComposition":{"properties":{"schema_version":{"const":true}}}}}}',
            b'{"components":{"schemas":{"RunComposition":{"properties":{}}}}}',
        ],
        ids=range(7),
    )
    async def test_a_document_without_a_known_generation_is_ignored(self, document: bytes) -> None:
        async def read() -> bytes:
            return document

        recognition = Recognition(read, fallback=2)
        assert await recognition.generation(1) == 2
        await recognition.aclose()

    @pytest.mark.parametrize("name", ["RunComposition", "RunComposition-Input"])
    async def test_a_document_with_separate_schemas_of_input_and_output_is_read(self, name: str) -> None:
        async def read() -> bytes:
            schemas = {name: {"properties": {"schema_version": {"const": 2}}}, "Other": [1]}
            return json.dumps({"components": {"schemas": schemas}}).encode()

        recognition = Recognition(read)
        assert await recognition.generation(1) == 2
        await recognition.aclose()

    async def test_a_cancelled_turn_does_not_cancel_the_fetch_for_the_others(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.speaks = 2
        asked = asyncio.Event()
        go_on = asyncio.Event()

        async def read() -> bytes:
            asked.set()
            await go_on.wait()
            return json.dumps(openapi(2)).encode()

        recognition = Recognition(read)
        first = asyncio.create_task(recognition.generation(1))
        second = asyncio.create_task(recognition.generation(1))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert await second == 2
        await recognition.aclose()

    async def test_a_creation_cancelled_before_its_refusal_is_not_repeated(
        self, fake: ScriptedBackend, client: HTTPBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.speaks = 1
        await client.create_run(real_request())
        fake.speaks = 2
        reached, go_on = threading.Event(), threading.Event()

        def slow_complaints(body: Any, generation: Generation) -> list[Any]:
            reached.set()
            go_on.wait(20)
            return complaints(body, generation)

        monkeypatch.setattr("tests.support.fakes.scripted_backend.complaints", slow_complaints)
        creating = asyncio.create_task(client.create_run(real_request()))
        assert await asyncio.to_thread(reached.wait, 20)
        creating.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert fake.posts == 2


class TestStream:
    @pytest.mark.parametrize("keep_open", [True, False])
    async def test_a_whole_run_is_streamed_over_one_connection(
        self, fake: ScriptedBackend, client: HTTPBackend, keep_open: bool
    ) -> None:
        fake.script = script(text("Hel", "lo"), succeed(), keep_open=keep_open)
        events = await run(client)
        assert [event.type for event in events] == [
            "run_started",
            *["pydantic_ai_event"] * 4,
            "run_succeeded",
        ]
        assert said(events) == "Hello"
        await fake.until(lambda: fake.open_streams == 0)
        assert len(fake.streams) == 1

    async def test_the_conversation_is_remembered(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        snapshot = None
        for turn in range(1, 4):
            run_id = await client.create_run(request(f"turn {turn}", snapshot))
            data = msgspec.json.decode((await events_of(client, run_id))[-1].data)
            snapshot = msgspec.Raw(msgspec.json.encode(data["session_snapshot"]))
            assert len(history_of(data["session_snapshot"])) == 2 * turn
            assert data["output"] == f"You said: turn {turn}."

    @pytest.mark.parametrize(
        "path", sorted(RECORDED.rglob("*.sse")), ids=lambda path: f"{path.parent.name}-{path.stem}"
    )
    async def test_recorded_runs_are_streamed_to_their_end(
        self, fake: ScriptedBackend, client: HTTPBackend, path: Path
    ) -> None:
        # Some recordings are cut before their end.
        fake.script = script(recorded(path), fail("shutdown"), started=False)
        events = await run(client)
        assert events[0].type == "run_started"
        assert [event.type in TERMINAL for event in events] == [False] * (len(events) - 1) + [True]

    @pytest.mark.parametrize("cuts", [(place,) for place in range(8)] + [(1, 2, 3), (2, 2, 2), (3, 5, 7)])
    async def test_a_cut_stream_resumes_without_lost_or_doubled_events(
        self, fake: ScriptedBackend, client: HTTPBackend, cuts: tuple[int, ...]
    ) -> None:
        fake.script = letters(*cuts)
        events = await run(client)
        assert said(events) == "abcdef"
        assert len({event.id for event in events}) == len(events) == 8
        assert len(fake.streams) == len(cuts) + 1

    async def test_a_resumed_stream_asks_from_the_last_but_one_cursor(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = letters(1, 2, 5)
        events = await run(client)
        assert [after for _, after in fake.streams] == [None, None, events[0].id, events[3].id]

    async def test_half_a_frame_at_a_cut_is_dropped(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        half = Raw(b'id: 9-0\nevent: run_failed\ndata: {"id":"9-0","type":"run_failed","da')
        fake.script = script(text("a"), half, Cut(clean=True), text("b"), half, Cut(), succeed())
        assert said(await run(client)) == "ab"

    async def test_a_restart_of_the_backend_ends_the_run_as_failed(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        gate = Gate()
        fake.script = script(text("a"), gate)
        run_id = await client.create_run(request())
        async with Reader(client, run_id) as reader:
            events = await reader.batch()
            fake.stop()
            following = asyncio.ensure_future(reader.batch())
            await asyncio.wait({following}, timeout=0.2)
            fake.runs[run_id].emit(fail("shutdown"))
            fake.start()
            events += await following
            await reader.end()
        assert [event.type for event in events] == ["run_started", *["pydantic_ai_event"] * 3, "run_failed"]

    async def test_a_stream_is_resumed_after_server_errors(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = letters(3)
        run_id = await client.create_run(request())
        fake.broken_streams = 2
        assert said(await events_of(client, run_id)) == "abcdef"
        assert len(fake.streams) == 4

    async def test_the_stream_ends_at_the_first_terminal_event(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = script(
            text("a"), fail("shutdown"), Raw(b"data: garbage\n\n"), cancelled(), succeed(), Cut()
        )
        events = await run(client)
        assert events[-1].type == "run_failed"
        assert sum(event.type in TERMINAL for event in events) == 1
        assert len(fake.streams) == 1

    async def test_keepalives_hand_over_no_events(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        gate = Gate()
        fake.script = script(Keepalive(), text("a"), gate, Keepalive(), Keepalive(), succeed())
        run_id = await client.create_run(request())
        async with Reader(client, run_id) as reader:
            assert said(await reader.batch()) == "a"
            gate.open()
            [event] = await reader.batch()
            assert event.type == "run_succeeded"
            await reader.end()

    async def test_a_large_terminal_frame_is_read(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        answer = "Ünï\u2028" * 40_000
        fake.script = script(text("a"), succeed(output=answer))
        assert msgspec.json.decode((await run(client))[-1].data)["output"] == answer


class TestLostStreams:
    @pytest.mark.parametrize("keep", [0, 1])
    async def test_a_trimmed_log_is_a_gap(
        self, fake: ScriptedBackend, client: HTTPBackend, keep: int
    ) -> None:
        fake.script = script(text("a", "b"), Trim(keep), Cut(), text("c"), succeed())
        run_id = await client.create_run(request())
        events: list[RunEvent] = []
        if keep:
            # The last event delivered is still there: nothing is missing.
            assert said(await events_of(client, run_id)) == "abc"
            return
        with pytest.raises(RunGap):
            await client.stream(run_id, events.extend)
        assert said(events) == "ab"

    async def test_a_log_that_lost_its_start_is_a_gap(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        run_id = await client.create_run(request())
        fake.trim(run_id, keep=2)
        with pytest.raises(RunGap):
            await events_of(client, run_id)

    async def test_another_start_is_a_gap(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        fake.script = script(Trim(0), Cut(), Emit("run_started", {}), succeed())
        with pytest.raises(RunGap):
            await run(client)

    async def test_an_unknown_run_is_lost(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        for run_id in (RunId("unknown"), RunId("x?y#z ü%41")):
            with pytest.raises(RunLost):
                await events_of(client, run_id)
            await client.cancel(run_id)
        assert {run_id for run_id, _ in fake.streams} == {"unknown", "x?y#z ü%41"}

    async def test_a_run_forgotten_by_the_backend_is_lost(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = script(text("a"), Forget(), Cut(), succeed())
        with pytest.raises(RunLost):
            await run(client)

    @pytest.mark.parametrize(
        "garbage",
        [b"data: {nope\n\n", b"data: []\n\n", b'data: {"type":"no id"}\n\n', b"event: x\ndata:\n\n"],
    )
    async def test_a_garbage_event_ends_the_stream_after_the_good_ones(
        self, fake: ScriptedBackend, client: HTTPBackend, garbage: bytes
    ) -> None:
        fake.script = script(text("a"), Raw(garbage), text("b"), succeed())
        run_id = await client.create_run(request())
        events: list[RunEvent] = []
        with pytest.raises(BackendGarbage):
            await client.stream(run_id, events.extend)
        # Events before it are delivered, even from the same read.
        assert said(events) == "a"
        assert len(fake.streams) == 1

    async def test_a_response_that_is_not_an_event_stream_is_garbage(
        self, client: HTTPBackend, fake: ScriptedBackend
    ) -> None:
        run_id = await client.create_run(request())
        fake.broken_streams, fake.broken_status = 1, 200
        with pytest.raises(BackendGarbage):
            await events_of(client, run_id)

    @pytest.mark.parametrize("parts", [[], [Keepalive()]])
    async def test_cuts_without_progress_use_up_the_budget(
        self, fake: ScriptedBackend, parts: list[Keepalive]
    ) -> None:
        fake.script = script(text("a"), [*parts, Cut(clean=True)] * 200, succeed())
        backend = HTTPBackend(fake.url, reconnect_seconds=2)
        with pytest.raises(BackendUnreachable):
            await run(backend)
        await backend.aclose()
        assert 2 < len(fake.streams) < 100

    async def test_progress_renews_the_budget(self, fake: ScriptedBackend) -> None:
        # Each pause takes up to a tenth of a second: all of them more than the budget, none of them near it.
        fake.script = script(*([*text("a"), Cut()] for _ in range(70)), succeed())
        backend = HTTPBackend(fake.url, reconnect_seconds=2)
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert said(await run(backend)) == "a" * 70
        assert loop.time() - start > 2
        await backend.aclose()

    async def test_a_backend_that_stays_away_is_unreachable(self, fake: ScriptedBackend) -> None:
        fake.script = script(text("a"), Gate())
        backend = HTTPBackend(fake.url, reconnect_seconds=0.4)
        run_id = await backend.create_run(request())
        async with Reader(backend, run_id) as reader:
            await reader.batch()
            fake.stop()
            with pytest.raises(BackendUnreachable):
                await reader.end()
        await backend.aclose()


class TestManyStreams:
    async def test_150_streams_can_be_open_at_once(self, fake: ScriptedBackend, client: HTTPBackend) -> None:
        gate = Gate()
        fake.script = script(text("a"), gate, succeed())
        runs = [asyncio.create_task(run(client)) for _ in range(150)]
        await fake.until(lambda: fake.open_streams == 150, 20)
        gate.open()
        assert [said(events) for events in await asyncio.gather(*runs)] == ["a"] * 150
        await fake.until(lambda: fake.open_streams == 0)

    async def test_cancelled_streams_leave_nothing_open(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = script(text("a"), Gate())
        run_id = await client.create_run(request())
        for opened in (0, 5, 60):
            readers = [asyncio.create_task(events_of(client, run_id)) for _ in range(60)]
            await fake.until(lambda opened=opened: fake.open_streams >= opened)
            for reader in readers:
                reader.cancel()
            await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            assert all(reader.cancelled() for reader in readers)
            await fake.until(lambda: fake.open_streams == 0)

    async def test_an_error_of_the_caller_ends_the_stream_and_closes_its_connection(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = script(text("a"), Gate())
        got: list[str] = []

        def refuse_events(events: list[RunEvent]) -> None:
            got.append(said(events))
            raise LookupError(f"{fake.open_streams} open")

        with pytest.raises(LookupError, match="1 open"):
            await client.stream(await client.create_run(request()), refuse_events)
        await fake.until(lambda: fake.open_streams == 0)
        assert got == ["a"]
        assert len(fake.streams) == 1


class TestCancel:
    async def test_a_running_run_is_cancelled_with_the_reason(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.script = script(text("a"), Gate(), succeed())
        run_id = await client.create_run(request())
        await client.cancel(run_id)
        await client.cancel(run_id)
        events = await events_of(client, run_id)
        assert events[-1].type == "run_cancelled"
        assert [cancel.body["reason"] for cancel in fake.cancels] == ["user", "user"]

    async def test_cancelling_an_ended_or_unknown_run_raises_nothing(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.queue(script(succeed()), script(Gate(), cancel=409), script(Gate(), cancel=404))
        for _ in range(3):
            await client.cancel(await client.create_run(request()))
        assert len(fake.cancels) == 3

    async def test_a_failed_cancel_raises_the_error_of_the_backend(
        self, fake: ScriptedBackend, client: HTTPBackend
    ) -> None:
        fake.queue(script(Gate(), cancel=500), script(Gate(), cancel="hang"))
        with pytest.raises(BackendRefused, match="500"):
            await client.cancel(await client.create_run(request()))
        run_id = await client.create_run(request())
        async with hasty(fake, call_seconds=0.2) as other:
            with pytest.raises(BackendUnreachable):
                await other.cancel(run_id)
        fake.stop()
        with pytest.raises(BackendUnreachable):
            await client.cancel(RunId("x"))


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 202 OK\r\nContent-Length: 99\r\n\r\n{"]
)
async def test_an_error_outside_http_is_mapped_too(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    backend = HTTPBackend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", reconnect_seconds=0.2)
    for call in (
        backend.create_run(request()),
        backend.cancel(RunId("x")),
        events_of(backend, RunId("x")),
    ):
        with pytest.raises(BackendError) as caught:
            await call
        assert not getattr(caught.value, "nothing_sent", False)
    await backend.aclose()
    server.close()
