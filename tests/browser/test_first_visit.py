"""Signing in by link or key, and what a visitor without either sees."""

import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext, expect

from tests.support.browser import BOUND_MS, Tab, new_tab, sign_in_link
from tests.support.gateway_server import API_KEY, GatewayServer


def test_the_link_opens_the_page_and_leaves_no_trace_in_the_address(
    tab: Tab, site_server: GatewayServer
) -> None:
    assert tab.page.url == f"{site_server.url}/"
    expect(tab.page.locator("#app-name")).to_have_text("Demo agent")
    expect(tab.page.locator(".opening")).to_have_text("Hello! What can I do for you?")
    assert tab.page.evaluate("document.cookie") == "", "no script can read it"
    assert tab.hosts == {site_server.url.removeprefix("http://")}


def test_a_used_link_asks_for_a_key_and_says_why(
    tab: Tab, new_context: Callable[..., BrowserContext], tabs: list[Tab]
) -> None:
    server = tab.page.url
    link = sign_in_link(server.rstrip("/"))
    tab.open(link)
    other = new_tab(new_context())
    tabs.append(other)
    other.page.goto(link)
    dialog = other.page.get_by_role("dialog")
    expect(dialog).to_contain_text("This link was used before")
    expect(other.composer).to_be_hidden()
    field = other.page.get_by_role("dialog").locator("#key")
    field.fill("app-wrong")
    field.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("This key opens no app.")
    field.fill(API_KEY)
    field.press("Enter")
    expect(other.composer).to_be_visible(timeout=BOUND_MS)
    other.ask("Hello")
    other.shows("You said: Hello.")


def test_a_typed_key_is_gone_after_a_reload(
    site_server: GatewayServer, new_context: Callable[..., BrowserContext]
) -> None:
    tab = new_tab(new_context())
    tab.page.goto(f"{site_server.url}/")
    tab.page.get_by_role("dialog").locator("#key").fill(API_KEY)
    tab.page.keyboard.press("Enter")
    expect(tab.composer).to_be_visible(timeout=BOUND_MS)
    stored = tab.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
    assert API_KEY not in stored
    tab.page.reload()
    expect(tab.page.get_by_role("dialog")).to_contain_text("API key", timeout=BOUND_MS)


def test_signing_out_asks_for_a_key(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Settings").click()
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)
    tab.page.reload()
    expect(tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)


def test_a_session_that_ends_meanwhile_asks_for_a_key(tab: Tab, second_tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    second_tab.open(tab.page.url)
    second_tab.page.get_by_role("button", name="Settings").click()
    second_tab.page.get_by_role("button", name="Sign out").click()
    expect(second_tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)
    tab.composer.fill("Still there?")
    tab.composer.press("Enter")
    expect(tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)
    expect(tab.page.locator("#key-problem")).to_have_text("The session has ended.")
    tab.page.locator("#key").fill("kein Schlüssel")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#key-problem")).to_contain_text("letters, digits and signs")
    tab.page.locator("#key").fill(API_KEY)
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#key")).to_be_hidden(timeout=BOUND_MS)
    expect(tab.composer).to_have_value("Still there?")
    tab.composer.press("Enter")
    tab.shows("You said: Still there?.")


def test_the_question_for_a_key_stays_until_there_is_one(
    site_server: GatewayServer, new_context: Callable[..., BrowserContext]
) -> None:
    tab = new_tab(new_context())
    tab.page.goto(f"{site_server.url}/")
    for _ in range(4):
        expect(tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)
        tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#key")).to_be_visible(timeout=BOUND_MS)


def test_another_key_can_be_declined(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Settings").click()
    tab.page.get_by_role("button", name="Other API key…").click()
    tab.page.locator("#key").fill("app-wrong")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#key-problem")).to_have_text("This key opens no app.")
    tab.page.get_by_role("button", name="Cancel").click()
    tab.ask("Hello")
    tab.shows("You said: Hello.")


def test_a_browser_that_keeps_nothing_can_chat(
    site_server: GatewayServer, new_context: Callable[..., BrowserContext], tabs: list[Tab]
) -> None:
    tab = new_tab(new_context())
    tabs.append(tab)
    tab.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no') }})"
    )
    tab.open(sign_in_link(site_server.url))
    tab.ask("Hello")
    tab.shows("You said: Hello.")


def test_another_user_has_conversations_of_its_own(tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    expect(tab.conversations).to_have_text(["Hello"])
    tab.page.get_by_role("button", name="Settings").click()
    name = tab.page.get_by_label("User", exact=True)
    mine = name.input_value()
    assert re.fullmatch(r"playground-[0-9a-f]{8}", mine)
    name.fill(f"{mine}-other")
    tab.page.get_by_role("button", name="Done").click()
    expect(tab.conversations).to_have_count(0)
    expect(tab.queries).to_have_count(0)


def test_the_api_description_works_without_a_network(tab: Tab, site_server: GatewayServer) -> None:
    tab.page.goto(f"{site_server.url}/docs")
    expect(tab.page.get_by_text("Send a message").first).to_be_visible(timeout=BOUND_MS)
    assert tab.hosts == {site_server.url.removeprefix("http://")}
