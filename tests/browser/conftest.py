"""One Chromium and one gateway for each module, and for each test a browser profile of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from agent_gateway.apps.config import default_app
from tests.support.browser import BOUND_MS, Tab, chromium, new_tab, sign_in_link
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.rows import installed

NewContext = Callable[..., BrowserContext]
OpenTab = Callable[..., Tab]


# Not for the whole run: while it lives, no other test of the process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def site_server(
    shared_fake: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A gateway on SQLite: nothing here is about rows."""
    folder = tmp_path_factory.mktemp("site")
    with GatewayServer(folder, backend_url=shared_fake.url, ping_seconds=1.0) as server:
        yield installed(server)


@pytest.fixture
def new_context(browser: Browser) -> Iterator[NewContext]:
    """Makes browser profiles, which know nothing of each other. No tab of theirs may log an error."""
    contexts: list[BrowserContext] = []

    def make(**given: Any) -> BrowserContext:
        options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, **given}
        context = browser.new_context(**options)
        context.set_default_timeout(BOUND_MS)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def tabs() -> Iterator[list[Tab]]:
    tabs: list[Tab] = []
    yield tabs
    assert [problem for tab in tabs for problem in tab.problems] == []


@pytest.fixture
def open_tab(new_context: NewContext, tabs: list[Tab]) -> OpenTab:
    """Opens a signed-in tab at a gateway, in a profile of its own."""

    def open_at(server: Any, **given: Any) -> Tab:
        tab = new_tab(new_context(**given))
        tabs.append(tab)
        tab.open(sign_in_link(server.url))
        return tab

    return open_at


@pytest.fixture
def tab(site_server: GatewayServer, fake: ScriptedBackend, open_tab: OpenTab) -> Tab:
    """A signed-in tab at the shared gateway, on `fake`."""
    return open_tab(site_server)


@pytest.fixture
def second_tab(tab: Tab, tabs: list[Tab]) -> Tab:
    """Another tab of the same browser, at the same address."""
    second = new_tab(tab.page.context)
    tabs.append(second)
    return second


@pytest.fixture
def app_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of the default app, changed in these keys."""

    def write(**changed: Any) -> Path:
        path = tmp_path / "app.yaml"
        path.write_text(yaml.safe_dump({**default_app().model_dump(mode="json"), **changed}))
        return path

    return write
