"""docs/examples/own_page.py: a page that somebody wrote themselves, as the README starts it."""

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, expect

from tests.support.browser import BOUND_MS
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_process import environment
from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.paths import ROOT
from tests.support.ports import hold_port

FIRST = [f"first{number} " for number in range(30)]
LATER = [f"later{number} " for number in range(30)]


@contextmanager
def own_page(port: int, gateway: str) -> Generator[str]:
    """The example, running; its address."""
    program = [sys.executable, str(ROOT / "docs/examples/own_page.py"), "--port", str(port)]
    command = [*program, "--gateway", gateway, "--key", API_KEY]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_an_answer_goes_on_after_a_reload_and_a_cut(
    fake: ScriptedBackend,
    gate: Gate,
    new_context: Callable[..., BrowserContext],
    tmp_path: Path,
) -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
    settings = {"backend_url": fake.url, "cors_origins": f"http://127.0.0.1:{port}"}
    with (
        GatewayServer(tmp_path, **settings) as gateway,
        http_proxy(gateway.url, []) as proxy,
        own_page(port, proxy.url) as url,
    ):
        fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
        page = new_context().new_page()
        page.goto(url)
        page.get_by_placeholder("count to 300").fill("Tell me")
        page.keyboard.press("Enter")
        answer = page.locator("#answer")
        expect(answer).to_have_text("".join(FIRST).strip(), timeout=BOUND_MS)
        page.reload()
        expect(answer).to_have_text("".join(FIRST).strip(), timeout=BOUND_MS)
        proxy.cut()
        gate.open()
        proxy.open()
        expect(answer).to_have_text("".join(FIRST + LATER).strip(), timeout=BOUND_MS)
        assert len(fake.requests) == 1
        # What is refused is told.
        page.get_by_placeholder("count to 300").fill(" ")
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("must not be blank")


def test_a_gateway_that_does_not_know_the_page_is_told(
    site_server: GatewayServer, new_context: Callable[..., BrowserContext]
) -> None:
    with hold_port() as held:
        port = held.getsockname()[1]
    with own_page(port, site_server.url) as url:
        page = new_context().new_page()
        page.goto(url)
        page.get_by_placeholder("count to 300").fill("Hello")
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("AGENT_GATEWAY_CORS_ORIGINS", timeout=BOUND_MS)
