"""The examples for nginx, Caddy and Traefik, run with the real programs before two real gateways."""

import asyncio
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx
import pytest

from agent_gateway.settings import Settings
from tests.support.chat import PING, Chat, refused
from tests.support.databases import postgres_database
from tests.support.event_source import EventSource
from tests.support.fakes.script import Gate, Step, delta, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import preview, upload
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, BOUND, wait_until
from tests.support.proxies import DEPLOY, SCALE, Kind, RunningProxy, replaced, running_proxy, scaled

KINDS: tuple[Kind, ...] = ("nginx", "caddy", "traefik")
PING_SECONDS = Settings.model_fields["ping_seconds"].default
IDLE_SECONDS = 120
MEGABYTE = 1024 * 1024


def address(gateway: GatewayProcess) -> str:
    return gateway.url.removeprefix("http://")


@pytest.fixture(scope="module")
def gateways(
    postgres_template: str, shared_fake: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[GatewayProcess]]:
    """Two processes on one Postgres; all tests but that of a drain share them."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres_database(postgres_template))
        files = tmp_path_factory.mktemp("files")
        yield [
            stack.enter_context(
                GatewayProcess(
                    tmp_path_factory.mktemp("gateway"),
                    DATABASE_URL=url,
                    BACKEND_URL=shared_fake.url,
                    API_KEY=API_KEY,
                    FILES_URL=f"file://{files}",
                    PING_SECONDS=PING_SECONDS / SCALE,
                )
            ).ready()
            for _ in range(2)
        ]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def proxy(
    kind: Kind, gateways: list[GatewayProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    folder = tmp_path_factory.mktemp(kind)
    with running_proxy(kind, folder, [address(gateway) for gateway in gateways]) as running:
        yield running


@pytest.fixture
def chat(proxy: RunningProxy, user: str, fake: ScriptedBackend) -> Iterator[Chat]:
    with proxy.client() as client:
        yield Chat(client, user)


def test_each_token_arrives_before_the_agent_says_the_next(chat: Chat, fake: ScriptedBackend) -> None:
    tokens = [f"{number} " for number in range(20)]
    gates = [Gate() for _ in tokens]
    said: list[Step] = []
    for token, gate in zip(tokens, gates, strict=True):
        said += [delta(token), gate]
    fake.script = script(text(""), said, succeed())
    with chat.open() as stream:
        for token, gate in zip(tokens, gates, strict=True):
            stream.until(token)
            gate.open()
        assert stream.rest().answer == "".join(tokens)


def test_a_stream_is_resumed_on_a_second_connection(
    proxy: RunningProxy, chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = script(text("So ", "far"), gate, delta(", so good"), succeed())
    with chat.open(params={"ids": 1}) as stream:
        seen = stream.until("far")
    with proxy.client() as second:
        gate.open()
        again = Chat(second, chat.user)
        rest = again.resumed(stream.task_id, last_event_id=seen[-1]["event_id"])
        whole = again.resumed(stream.task_id)
    assert [*seen, *rest.events] == whole.events
    assert (whole.answer, whole.kinds[-1], fake.posts) == ("So far, so good", "message_end", 1)


def test_a_file_of_several_megabytes_goes_up_and_comes_back(chat: Chat) -> None:
    data = bytes(range(256)) * (9 * MEGABYTE // 256)
    file = upload(chat, "large.txt", data, "text/plain")
    assert file["size"] == len(data)
    assert preview(chat, file["id"]).content == data


def test_the_gateway_itself_refuses_what_is_too_large_or_has_no_key(proxy: RunningProxy, chat: Chat) -> None:
    """Clients get the gateway's error, not the proxy's, also while their bodies are on the way."""
    files = {"file": ("large.txt", bytes(16 * MEGABYTE), "text/plain")}
    data = {"user": chat.user}
    refused(chat.client.post("/files/upload", files=files, data=data), 413, "file_too_large")
    wrong = {"Authorization": "Bearer app-wrong"}
    refused(chat.client.post("/files/upload", files=files, data=data, headers=wrong), 401, "unauthorized")
    refused(chat.post("x" * (9 * MEGABYTE)), 413, "request_too_large")


def test_a_client_that_expects_100_continue_gets_it(proxy: RunningProxy, chat: Chat) -> None:
    body = b'{"query": "Hello", "user": "expecting", "response_mode": "blocking"}'
    head = (
        f"POST /chat-messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", proxy.port), BOUND) as plain,
        proxy.context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        connection.makefile("rwb") as file,
    ):
        file.write(head.encode())
        file.flush()
        assert file.readline().startswith(b"HTTP/1.1 100 ")
        while file.readline() != b"\r\n":
            pass
        file.write(body)
        file.flush()
        answer = file.read()
    # Caddy says it twice: for itself and for the gateway. Clients accept any number.
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"You said: Hello." in answer


def test_a_stream_that_is_idle_for_two_minutes_continues(
    kind: Kind,
    gateways: list[GatewayProcess],
    fake: ScriptedBackend,
    gate: Gate,
    user: str,
    tmp_path: Path,
) -> None:
    """In a sixtieth of the time: all times of the example and PING_SECONDS are divided by SCALE.

    So the agent is silent for two seconds, in which as many pings arrive as in two minutes. This shows that
    none of the example's bounds cuts a stream that pings. It does not show what a proxy does that has a bound
    which the example does not set and which is longer than two seconds.
    """
    fake.script = script(text("So ", "far"), gate, delta(", so good"), succeed())
    pings = int(IDLE_SECONDS / PING_SECONDS)
    addresses = [address(gateway) for gateway in gateways]
    with (
        running_proxy(kind, tmp_path, addresses, scaled) as proxy,
        proxy.client() as client,
        Chat(client, user).open() as stream,
    ):
        stream.until("far")
        heard = [stream.block() for _ in range(pings)]
        assert heard == [PING] * pings
        gate.open()
        rest = stream.rest()
    assert (rest.answer, rest.kinds[-1]) == ("So far, so good", "message_end")


def test_a_proxy_with_less_patience_than_the_pings_cuts(
    gateways: list[GatewayProcess], fake: ScriptedBackend, gate: Gate, user: str, tmp_path: Path
) -> None:
    """The test above can fail: this nginx waits for less than a ping."""
    fake.script = script(text("So ", "far"), gate, succeed())
    impatient = f"proxy_read_timeout {int(PING_SECONDS / SCALE * 1000 * 0.8)}ms;"
    changes = {"proxy_read_timeout 3660s;": impatient}

    def change(text: str) -> str:
        return replaced(text, changes) if "proxy_read_timeout" in text else text

    with gateways[0].client() as client:
        task_id = Chat(client, user).background()["task_id"]
    addresses = [address(gateway) for gateway in gateways]
    with running_proxy("nginx", tmp_path, addresses, change) as proxy, proxy.client() as client:
        try:
            heard = str(Chat(client, user).events(task_id).status_code)
        except httpx.RemoteProtocolError:
            heard = "cut"
    assert heard in ("cut", "504"), "the latter when the machine is too busy for the head of the answer"


def test_nginx_waits_for_the_longest_turn() -> None:
    """A blocking call says nothing before its end. Pings come many times in each other bound."""
    text = (DEPLOY / "nginx/agent-gateway-proxy.conf").read_text()
    bounds = {name: int(seconds) for name, seconds in re.findall(r"(\w+) (\d+)s;", text)}
    assert bounds.pop("proxy_read_timeout") > Settings.model_fields["turn_timeout_seconds"].default
    assert bounds.pop("proxy_connect_timeout") < PING_SECONDS
    assert bounds.keys() == {"proxy_send_timeout", "send_timeout"}
    assert min(bounds.values()) >= 20 * PING_SECONDS


def test_a_ticket_is_in_no_log_of_the_proxy(proxy: RunningProxy, chat: Chat) -> None:
    """It is in the query of an `events_url`, which opens the turn for everybody who has it."""
    path = chat.background()["events_url"]
    ticket = parse_qs(urlsplit(path).query)["ticket"][0]
    before = proxy.log.count("GET")
    with httpx.Client(base_url=proxy.url, verify=proxy.context, timeout=BOUND, trust_env=False) as client:
        heard = client.get(path)
    assert "message_end" in heard.text
    wait_until(lambda: proxy.log.count("GET") > before)
    assert ticket not in proxy.log


def test_metrics_stay_inside_and_plain_http_is_sent_to_tls(proxy: RunningProxy) -> None:
    with proxy.client() as client:
        assert client.get("/healthz").status_code == 200
        metrics = client.get("/metrics")
        assert (metrics.status_code, "code" in metrics.text) == (404, False), "not from the gateway"
        sent_on = client.get(f"http://127.0.0.1:{proxy.plain_port}/readyz?a=1")
    assert sent_on.status_code in (301, 308)
    assert sent_on.headers["Location"].startswith("https://127.0.0.1")
    assert sent_on.headers["Location"].endswith("/readyz?a=1")


def test_browsers_may_speak_http_2(proxy: RunningProxy) -> None:
    """With HTTP/1.1 a browser opens six connections at most: six streams."""
    context = ssl.create_default_context(cafile=str(proxy.folder / "root.crt"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), BOUND) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_drain_of_one_process_cuts_no_stream(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, tmp_path: Path
) -> None:
    """Readers with ids are sent away and get exactly the rest at the other process; plain ones stay.

    Through all three proxies at once, because processes take long to start.
    """
    one, two = (fleet.process(PING_SECONDS=PING_SECONDS, DRAIN_SECONDS=BOUND).ready() for _ in range(2))
    fake.script = script(text("So ", "far"), gate, delta(", so good"), succeed())
    with ExitStack() as stack:
        proxies: dict[Kind, RunningProxy] = {}
        for kind in KINDS:
            (folder := tmp_path / kind).mkdir()
            running = running_proxy(kind, folder, [address(one), address(two)])
            proxies[kind] = stack.enter_context(running)
        chats = {kind: Chat(stack.enter_context(proxies[kind].client()), user) for kind in KINDS}
        plain = [stack.enter_context(chat.open()) for chat in chats.values() for _ in range(2)]
        for stream in plain:
            stream.until("far")
        sources: dict[Kind, list[EventSource]] = {}
        async with AsyncExitStack() as sessions, asyncio.timeout(BOUND), asyncio.TaskGroup() as followers:
            for kind, proxy in proxies.items():
                connector = aiohttp.TCPConnector(ssl=proxy.context, force_close=True)
                session = await sessions.enter_async_context(aiohttp.ClientSession(connector=connector))
                each = [EventSource(session, partial(str, proxy.url), user) for _ in range(4)]
                sources[kind] = each
                # All turns first: a proxy that gives requests to the processes strictly in turn would else
                # bring all posts to one process and all readers to the other one.
                tasks = [await source.begin() for source in each]
                before = readers(one)
                for source, task_id in zip(each, tasks, strict=True):
                    followers.create_task(source.follow(task_id))
                    await until(lambda source=source: source.text == "So far")
                assert before < readers(one) < before + len(each), kind
            everybody = [source for each in sources.values() for source in each]
            one.send(signal.SIGTERM)
            for each in sources.values():
                await until(lambda each=each: any(source.connections > 1 for source in each))
            gate.open()
        for stream in plain:
            heard = stream.rest()
            assert (heard.answer, heard.kinds[-1]) == ("So far, so good", "message_end")
        for kind, each in sources.items():
            for source in each:
                told = (source.text, source.end, source.refusals)
                assert told == ("So far, so good", "message_end", []), kind
                assert source.ids == sorted(set(source.ids)), kind
        assert fake.posts == len(everybody) + len(plain)
        assert one.exited() in (0, -signal.SIGTERM)
        for kind, chat in chats.items():
            answers = {chat.blocking()["answer"] for _ in range(4)}
            assert answers == {"So far, so good"}, kind


def readers(gateway: GatewayProcess) -> float:
    """How many readers of live turns a process has, as it says itself."""
    with gateway.client() as client:
        text = client.get("/metrics").text
    found = re.search(r"^agent_gateway_readers_open (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks do; the caller bounds it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
