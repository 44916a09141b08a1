"""A real Chromium, and the playground as its user sees it."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, BrowserContext, FilePayload, Locator, Page, Playwright, Route, expect

from agent_gateway.routes.http.sessions import SignInLinks
from tests.support.gateway_server import SECRET_KEY

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""As root in a container; and no connections of the browser's own."""
BOUND_MS: Final = 30_000
"""Milliseconds after which any wait in a browser has failed."""


@contextmanager
def chromium(playwright: Playwright) -> Generator[Browser]:
    """The Chromium of the machine (dev/setup installs that of Debian), or a Chrome."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path, "the browser tests need chromium: apt-get install chromium"
    browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
    try:
        yield browser
    finally:
        browser.close()


class Tab:
    """One tab at the playground. `problems` are errors that it has logged, but for refusals of requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        """All that it has sent requests to."""
        page.set_default_timeout(BOUND_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _note(self, kind: str, text: str) -> None:
        # A refused or broken request is an error to a browser, and the daily bread of this page.
        if kind == "error" and not text.startswith(("Failed to load resource", "EventSource's response")):
            self.problems.append(text)

    # -- what is on the page -----------------------------------------------------------------------

    @property
    def answers(self) -> Locator:
        return self.page.locator(".answer")

    @property
    def last(self) -> Locator:
        """The newest answer."""
        return self.answers.last

    @property
    def text(self) -> Locator:
        """The text of the newest answer, without steps and numbers."""
        return self.last.locator(".markdown")

    @property
    def queries(self) -> Locator:
        return self.page.locator(".query")

    @property
    def composer(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def stop(self) -> Locator:
        return self.page.get_by_role("button", name="Stop")

    @property
    def connection(self) -> Locator:
        return self.page.locator("#connection")

    @property
    def conversations(self) -> Locator:
        return self.page.locator("#conversations .name")

    # -- what is done with it ----------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Go to this URL, and wait for the page to be ready."""
        self.page.goto(url)
        expect(self.composer).to_be_visible(timeout=BOUND_MS)

    def ask(self, query: str) -> None:
        """Write a message and send it."""
        self.composer.fill(query)
        self.composer.press("Enter")
        expect(self.queries.last).to_have_text(query, timeout=BOUND_MS)

    def attach(self, name: str, data: bytes, mime_type: str = "text/plain") -> None:
        """Add a file to the message."""
        upload = FilePayload(name=name, mimeType=mime_type, buffer=data)
        self.page.locator("#file-picker").set_input_files(upload)

    def wait_for_end(self) -> None:
        """Until the newest answer is complete."""
        expect(self.last).to_have_attribute("aria-busy", "false", timeout=BOUND_MS)

    def shows(self, text: str) -> None:
        """Wait until the newest answer is exactly this text."""
        expect(self.text).to_have_text(text, timeout=BOUND_MS)


class Held:
    """Requests of a tab that are held back until they are released."""

    def __init__(self, tab: Tab, pattern: str) -> None:
        self.routes: list[Route] = []
        self._open = False
        tab.page.route(pattern, self._hold)

    def _hold(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self.routes.append(route)

    def release(self) -> None:
        """Let them go, and those that come later."""
        self._open = True
        for route in self.routes:
            route.continue_()


def sign_in_link(url: str) -> str:
    """A link as `serve` prints it."""
    return SignInLinks(SECRET_KEY.encode()).make(url)


def new_tab(context: BrowserContext) -> Tab:
    return Tab(context.new_page())


def count_of(locator: Locator, word: str) -> int:
    """How often a word is in the text of an element."""
    return locator.inner_text().split().count(word)
