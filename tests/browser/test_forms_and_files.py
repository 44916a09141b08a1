"""Questions to humans, inputs of an app, suggestions, ratings, and files in both directions."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.support.browser import BOUND_MS, Tab, new_tab, sign_in_link
from tests.support.chat import Chat
from tests.support.fakes.script import file, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway
from tests.support.human_input import asking
from tests.support.outbox import SUGGEST, small

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_question_is_a_form_and_its_answer_goes_on(
    tab: Tab, second_tab: Tab, fake: ScriptedBackend
) -> None:
    fake.queue(asking(), script(said("Then I go."), succeed()))
    tab.ask("Do it")
    form = tab.page.get_by_role("form", name="Approval needed")
    expect(form).to_be_visible(timeout=BOUND_MS)
    expect(form).to_contain_text("May I go on?")
    # What is required is asked for by the browser itself.
    form.get_by_role("button", name="Approve").click()
    assert form.get_by_label("Size (required)").evaluate("one => one.validity.valueMissing")
    second_tab.open(tab.page.url)
    other = second_tab.page.get_by_role("form", name="Approval needed")
    expect(other).to_be_visible(timeout=BOUND_MS)
    expect(form.get_by_label("Comment")).to_have_value("none")
    form.get_by_label("Comment").fill("<b>careful</b>")
    form.get_by_label("Size (required)").select_option("Large")
    form.get_by_role("button", name="Approve").click()
    for one in (tab, second_tab):
        one.shows("Then I go.")
        expect(one.page.locator(".question.closed")).to_have_text("Answered: Approve")
        expect(one.queries.last).to_contain_text("<b>careful</b>")
    tab.page.reload()
    expect(tab.page.locator(".question.closed")).to_have_text("Answered: Approve", timeout=BOUND_MS)
    expect(tab.queries.last).to_contain_text("careful")


def test_a_question_that_was_answered_elsewhere_says_so(
    tab: Tab, new_context: Callable[..., BrowserContext], site_server: GatewayServer, fake: ScriptedBackend
) -> None:
    fake.queue(asking(fields=[]), script(said("Then I go."), succeed()))
    tab.ask("Do it")
    # Another browser of the same user: it hears nothing of this one.
    other = new_tab(new_context())
    user = tab.page.evaluate("localStorage.getItem('agent-gateway-user')")
    other.page.add_init_script(f"localStorage.setItem('agent-gateway-user', '{user}')")
    other.open(sign_in_link(site_server.url))
    other.conversations.first.click()
    form = other.page.get_by_role("form", name="Approval needed")
    expect(form).to_be_visible(timeout=BOUND_MS)
    tab.page.get_by_role("button", name="Approve").click()
    tab.shows("Then I go.")
    form.get_by_role("button", name="Reject").click()
    expect(other.page.locator(".question.closed")).to_have_text("Answered: Approve", timeout=BOUND_MS)
    other.shows("Then I go.")


@one_database
def test_the_inputs_of_an_app_come_first(
    start_gateway: StartGateway,
    app_file: Callable[..., Path],
    open_tab: Callable[..., Tab],
    fake: ScriptedBackend,
) -> None:
    form = [
        {"text-input": {"label": "Town", "variable": "town", "required": True}},
        {"select": {"label": "Tone", "variable": "tone", "options": ["kind", "short"], "default": "kind"}},
        {"number": {"label": "Days", "variable": "days"}},
    ]
    path = app_file(user_input_form=form, opening_statement="Where to?", suggested_questions=["To the sea?"])
    tab = open_tab(start_gateway(app_file=path))
    expect(tab.page.locator(".opening")).to_contain_text("Where to?")
    inputs = tab.page.get_by_role("form", name="Inputs of this conversation")
    before = len(fake.requests)
    tab.page.get_by_role("button", name="To the sea?").click()
    assert inputs.get_by_label("Town (required)").evaluate("one => one.validity.valueMissing")
    assert len(fake.requests) == before
    inputs.get_by_label("Town (required)").fill("Oslo")
    inputs.get_by_label("Days").fill("3")
    tab.composer.press("Enter")
    tab.shows("You said: To the sea?.")
    expect(inputs).to_be_hidden()
    tab.page.reload()
    tab.shows("You said: To the sea?.")
    expect(inputs).to_be_hidden()
    tab.page.get_by_role("button", name="New conversation").click()
    expect(inputs.get_by_label("Tone")).to_have_value("kind")


@one_database
def test_questions_that_may_follow_are_buttons(
    start_gateway: StartGateway,
    app_file: Callable[..., Path],
    open_tab: Callable[..., Tab],
    fake: ScriptedBackend,
) -> None:
    suggestions = {"enabled": True, "composition": small(SUGGEST)}
    tab = open_tab(start_gateway(app_file=app_file(suggested_questions_after_answer=suggestions)))
    fake.queue(script(said("Well."), succeed()), script(said('["What else?"', ', "Why?"]'), succeed()))
    tab.ask("Hello")
    tab.page.get_by_role("button", name="What else?").click()
    tab.shows("You said: What else?.")


def test_a_rating_is_kept(tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    good, bad = (tab.last.get_by_role("button", name=name) for name in ("Good answer", "Bad answer"))
    with tab.page.expect_response("**/feedbacks"):
        good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    tab.page.reload()
    expect(good).to_have_attribute("aria-pressed", "true")
    with tab.page.expect_response("**/feedbacks"):
        bad.click()
    expect(good).to_have_attribute("aria-pressed", "false")
    with tab.page.expect_response("**/feedbacks"):
        bad.click()
    tab.page.reload()
    expect(bad).to_have_attribute("aria-pressed", "false")


def test_a_file_goes_up_with_a_message(tab: Tab, fake: ScriptedBackend, site_server: GatewayServer) -> None:
    tab.attach("list.txt", b"Milk, eggs")
    chips = tab.page.get_by_role("list", name="Files of the message")
    expect(chips).to_contain_text("list.txt (10 B)")
    tab.ask("What do I need?")
    tab.wait_for_end()
    expect(chips.locator("li")).to_have_count(0)
    assert "list.txt" in str(fake.requests[-1].body)
    for _ in range(2):
        link = tab.page.locator(".question-box").get_by_role("link", name="list.txt (10 B)")
        response = tab.page.request.get(str(link.evaluate("link => link.href")))
        assert response.body() == b"Milk, eggs"
        tab.page.reload()


def test_a_file_is_removed_before_it_is_sent(tab: Tab, fake: ScriptedBackend) -> None:
    tab.attach("list.txt", b"Milk, eggs")
    tab.page.get_by_role("button", name="Remove list.txt").click()
    tab.ask("Hello")
    tab.wait_for_end()
    assert "list.txt" not in str(fake.requests[-1].body)


def test_a_file_that_is_refused_says_why(tab: Tab) -> None:
    tab.attach("tool.exe", b"MZ", "application/octet-stream")
    expect(tab.page.locator("#composer-problem")).to_contain_text("tool.exe: ")


@one_database
def test_the_picker_offers_the_files_that_the_app_takes(
    start_gateway: StartGateway, open_tab: Callable[[GatewayServer], Tab], app_file: Callable[..., Path]
) -> None:
    upload = {"allowed_file_types": ["image", "custom"], "allowed_file_extensions": ["log"]}
    tab = open_tab(start_gateway(app_file=app_file(file_upload=upload)))
    expect(tab.page.locator("#file-picker")).to_have_attribute(
        "accept", ".jpg,.jpeg,.png,.webp,.gif,.svg,.log"
    )


def test_an_image_that_the_agent_makes_is_shown(tab: Tab, fake: ScriptedBackend) -> None:
    fake.queue(script(said("Here."), file(PNG), succeed()))
    tab.ask("Draw")
    tab.wait_for_end()
    for _ in range(2):
        image = tab.last.locator(".files img")
        expect(image).to_be_visible()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
        tab.page.reload()


def test_files_of_elsewhere_are_links_and_are_sent_again(
    tab: Tab, fake: ScriptedBackend, site_server: GatewayServer
) -> None:
    """Also one whose URL no browser can read: its name is shown, and the rest of the page."""
    files = [
        {"type": "image", "transfer_method": "remote_url", "url": url}
        for url in ("http://files.example/a.png", "http://a%zz/x.png")
    ]
    user = tab.page.evaluate("localStorage.getItem('agent-gateway-user')")
    with site_server.client() as client:
        told = Chat(client, user).blocking("Look", files=files)
    tab.page.goto(f"{site_server.url}/#{told['conversation_id']}")
    expect(tab.text).to_contain_text("You said: Look")
    listed = tab.page.locator(".question-box .files li")
    expect(listed).to_have_count(2)
    expect(listed.first.get_by_role("link")).to_have_attribute("href", "http://files.example/a.png")
    expect(listed.last.get_by_role("link")).to_have_count(0)
    assert tab.hosts == {site_server.url.removeprefix("http://")}
    tab.last.get_by_role("button", name="Ask again").click()
    expect(tab.queries).to_have_text(["Look", "Look"], timeout=BOUND_MS)
    tab.wait_for_end()
    assert "http://files.example/a.png" in str(fake.requests[-1].body)
