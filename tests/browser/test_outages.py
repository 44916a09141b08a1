"""Cut wires, killed and restarted servers, lost responses: the page says so, goes on, and doubles nothing."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import APIResponse, Route, expect

from tests.support.browser import BOUND_MS, Tab, count_of, sign_in_link
from tests.support.chat import Chat
from tests.support.fakes.script import Cut, Forget, Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import TcpProxy, http_proxy
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, GatewayServer, StartGateway, wait_until
from tests.support.ports import hold_port

FIRST = [f"first{number} " for number in range(30)]
LATER = [f"later{number} " for number in range(30)]
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
WHOLE = "".join(FIRST + LATER).strip()


def asked(tab: Tab, fake: ScriptedBackend, gate: Gate) -> None:
    """A tab in the middle of an answer."""
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("".join(FIRST).strip())


def whole(tab: Tab) -> None:
    """The answer is there, each word once."""
    tab.shows(WHOLE)
    tab.wait_for_end()
    expect(tab.connection).to_be_hidden()
    assert [count_of(tab.text, word) for word in ("first0", "first29", "later0", "later29")] == [1] * 4
    expect(tab.answers).to_have_count(1)
    expect(tab.last.get_by_role("alert")).to_have_count(0)


def test_a_cut_wire_is_told_and_mended(
    site_server: GatewayServer, fake: ScriptedBackend, gate: Gate, open_tab: Callable[..., Tab]
) -> None:
    with http_proxy(site_server.url, []) as proxy:
        tab = open_tab(proxy)
        asked(tab, fake, gate)
        proxy.cut()
        expect(tab.connection).to_have_text("Connection lost. Reconnecting…", timeout=BOUND_MS)
        gate.open()
        proxy.open()
        whole(tab)


def test_a_connection_that_is_dead_and_does_not_say_so_is_noticed(
    site_server: GatewayServer, fake: ScriptedBackend, gate: Gate, open_tab: Callable[..., Tab]
) -> None:
    with http_proxy(site_server.url, []) as proxy:
        tab = open_tab(proxy)
        tab.page.clock.install()
        asked(tab, fake, gate)
        proxy.freeze()
        tab.page.clock.run_for(31_000)
        expect(tab.connection).to_have_text("Connection lost. Reconnecting…", timeout=BOUND_MS)
        gate.open()
        proxy.cut()
        proxy.open()
        tab.page.clock.run_for(20_000)
        tab.page.clock.resume()
        whole(tab)


def test_a_stream_that_a_proxy_refuses_for_a_while_goes_on(
    site_server: GatewayServer, fake: ScriptedBackend, gate: Gate, open_tab: Callable[..., Tab]
) -> None:
    """EventSource gives up for good when it is answered 502; the page does not."""
    tab = open_tab(site_server)
    refused = list[str]()

    def refuse(route: Route) -> None:
        refused.append(route.request.url)
        route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")

    tab.page.route("**/events?*", refuse)
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    expect(tab.connection).to_be_visible(timeout=BOUND_MS)
    wait_until(lambda: tab.page.wait_for_timeout(50) or len(refused) >= 3)
    tab.page.unroute("**/events?*")
    gate.open()
    whole(tab)


def test_a_lost_response_to_a_message_makes_no_second_turn(
    site_server: GatewayServer, fake: ScriptedBackend, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(site_server)
    lost = list[APIResponse]()

    def lose(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            # The gateway gets it, and the page hears nothing of that.
            lost.append(route.fetch())
            route.abort("connectionreset")

    tab.page.route("**/chat-messages", lose)
    before = len(fake.requests)
    tab.ask("Hello")
    tab.shows("You said: Hello.")
    tab.wait_for_end()
    assert len(lost) == 1
    assert len(fake.requests) == before + 1
    tab.page.reload()
    expect(tab.queries).to_have_text(["Hello"], timeout=BOUND_MS)


FOLLOW = """([url, last]) => new Promise(async (done) => {
    const {TurnEvents} = await import("/playground/turn_events.js");
    const heard = [];
    const onEvent = ({event, event_id, answer}) => {
        heard.push([event, event_id, answer ?? ""]);
        if (event === last) done(heard);
    };
    new TurnEvents(url, {onEvent, onState: () => {}, onGone: (reason) => done([reason])});
})"""


def test_ten_cuts_lose_and_double_no_event(
    site_server: GatewayServer, fake: ScriptedBackend, open_tab: Callable[..., Tab]
) -> None:
    words = [f"word{number} " for number in range(200)]
    fake.queue(script(said(*words), succeed()))
    with site_server.client() as client:
        chat = Chat(client, "cut")
        url = chat.background("Tell me")["events_url"]
        with http_proxy(site_server.url, []) as proxy:
            tab = open_tab(proxy)
            before = len(proxy.heads)
            # Bytes of a response, headers included: the first one ends within them.
            proxy.cut_next([40, *range(900, 3600, 300)])
            heard = tab.page.evaluate(FOLLOW, [url, "message_end"])
            connections = len(proxy.heads) - before
    assert "".join(text for _, _, text in heard) == "".join(words)
    positions = [position for _, position, _ in heard]
    assert positions == sorted(set(positions))
    assert connections > 10


@one_database
def test_a_long_text_that_replaces_comes_whole(
    start_gateway: StartGateway, fake: ScriptedBackend, open_tab: Callable[..., Tab]
) -> None:
    """In pieces, of which the first ones have the same number."""
    fake.queue(script(delta("x" * 80_000), Forget(), Cut()))
    server = start_gateway()
    with server.client() as client:
        url = Chat(client, "replaced").background("Tell me")["events_url"]
    heard = open_tab(server).page.evaluate(FOLLOW, [f"{url}&after=1000", "error"])
    assert [kind for kind, _, _ in heard] == ["message_replace", "agent_message", "agent_message", "error"]
    assert sum(len(text) for _, _, text in heard) == 80_000


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again(
    fake: ScriptedBackend, gate: Gate, tmp_path: Path, open_tab: Callable[..., Tab]
) -> None:
    """In the middle of an answer, with SQLite and a backend that outlives it."""
    with hold_port() as held:
        port = held.getsockname()[1]
    settings = {"BACKEND_URL": fake.url, "API_KEY": API_KEY, "PORT": port, "LEASE_SECONDS": 1.2}
    arguments = ("--port", str(port))
    with GatewayProcess(tmp_path, *arguments, **settings) as process:
        tab = open_tab(process)
        asked(tab, fake, gate)
    # Leaving has killed it.
    expect(tab.connection).to_be_visible(timeout=BOUND_MS)
    with GatewayProcess(tmp_path, *arguments, **settings):
        gate.open()
        whole(tab)
        tab.page.reload()
        tab.shows(WHOLE)


@pytest.mark.slow
def test_of_two_replicas_the_one_that_streams_is_killed(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, open_tab: Callable[..., Tab]
) -> None:
    first, second = fleet.process(PLAYGROUND="true"), fleet.start(playground=True)
    with TcpProxy(target_of(first.url)) as proxy:
        tab = open_tab(proxy)
        asked(tab, fake, gate)
        proxy.point_at(target_of(second.url))
        first.__exit__()
        expect(tab.connection).to_be_visible(timeout=BOUND_MS)
        gate.open()
        whole(tab)
        # The cookie is as good there.
        tab.ask("Hello")
        tab.wait_for_end()


def target_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_a_gateway_that_does_not_answer_at_the_start_is_told(
    site_server: GatewayServer, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(site_server)
    tab.page.route("**/info*", lambda route: route.abort("connectionrefused"))
    tab.page.goto(sign_in_link(site_server.url))
    expect(tab.page.get_by_role("alert").first).to_have_text(
        "The gateway does not answer. Reload the page to try again.", timeout=BOUND_MS
    )
