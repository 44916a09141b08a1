"""A turn on the page: its tokens, steps and numbers, stop, reload, and other tabs."""

from playwright.sync_api import expect

from tests.support.browser import BOUND_MS, Held, Tab, count_of
from tests.support.chat import Chat
from tests.support.fakes.script import Gate, fail, script, succeed, thinking, tool_call, tool_result
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, wait_until

FIRST = [f"first{number} " for number in range(30)]
LATER = [f"later{number} " for number in range(30)]
WHOLE = "".join(FIRST + LATER).strip()


def test_tokens_are_shown_as_they_come(tab: Tab, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("".join(FIRST).strip())
    expect(tab.last).to_have_attribute("aria-busy", "true")
    gate.open()
    tab.shows(WHOLE)
    tab.wait_for_end()
    expect(tab.last.locator(".usage")).to_contain_text("first token")
    expect(tab.stop).to_be_hidden()
    assert tab.page.title().startswith("Tell me")


def test_steps_are_rows_that_open(tab: Tab, fake: ScriptedBackend) -> None:
    clock = [*tool_call("call_1", "clock", {"zone": "UTC"}), *tool_result("call_1", "clock", "12:00")]
    fake.queue(script(thinking("Hm, ", "the time."), clock, said("It is ", "noon."), succeed()))
    tab.ask("What time is it?")
    tab.wait_for_end()
    thought, tool = tab.last.locator("details.step").all()
    expect(thought.locator("summary")).to_have_text("Thinking")
    expect(tool.locator("summary")).to_have_text("Used clock")
    expect(tool.locator(".output")).to_be_hidden()
    tool.locator("summary").click()
    expect(tool.locator(".input")).to_have_text('{"zone": "UTC"}')
    expect(tool.locator(".output")).to_have_text("12:00")
    thought.locator("summary").click()
    expect(thought.locator(".input")).to_have_text("Hm, the time.")


def test_a_stopped_answer_stays(tab: Tab, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("".join(FIRST).strip())
    tab.stop.click()
    tab.wait_for_end()
    tab.shows("".join(FIRST).strip())
    expect(tab.stop).to_be_hidden()
    assert len(fake.cancels) == 1


def test_a_reload_in_the_middle_of_an_answer_goes_on_where_it_was(
    tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("".join(FIRST).strip())
    before = len(fake.requests)
    tab.page.reload()
    tab.shows("".join(FIRST).strip())
    expect(tab.queries).to_have_text(["Tell me"])
    expect(tab.stop).to_be_visible()
    gate.open()
    tab.shows(WHOLE)
    tab.wait_for_end()
    assert count_of(tab.text, "first7") == count_of(tab.text, "later7") == 1
    assert len(fake.requests) == before
    # From now on it comes from the rows.
    tab.page.reload()
    tab.shows(WHOLE)
    expect(tab.answers).to_have_count(1)


def test_every_tab_shows_the_answer_while_it_comes(
    tab: Tab, second_tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    second_tab.open(tab.page.url)
    fake.queue(script(said(*FIRST), gate, said(*LATER, index=1), succeed()))
    tab.ask("Tell me")
    for one in (tab, second_tab):
        one.shows("".join(FIRST).strip())
        expect(one.queries).to_have_text(["Hello", "Tell me"])
    # The other one may stop it as well, and both know.
    second_tab.stop.click()
    for one in (tab, second_tab):
        one.wait_for_end()
        one.shows("".join(FIRST).strip())


def test_a_message_that_comes_while_another_is_answered_waits_for_it(
    tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(said("One"), gate, succeed()), script(said("Two"), succeed()))
    tab.ask("First")
    tab.shows("One")
    tab.ask("Second")
    expect(tab.answers).to_have_count(2)
    expect(tab.text).to_have_text("")
    gate.open()
    tab.shows("Two")
    tab.wait_for_end()
    expect(tab.page.locator(".answer .markdown")).to_have_text(["One", "Two"])


def test_many_messages_wait_and_are_stopped(
    tab: Tab, second_tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    """A browser has six connections to a host: those that wait need none."""
    fake.queue(script(said("One "), gate, said("two", index=1), succeed()))
    tab.ask("Number 0")
    tab.shows("One")
    for number in range(1, 8):
        tab.ask(f"Number {number}")
    expect(tab.page.locator(".message.waiting")).to_have_count(7)
    second_tab.open(tab.page.url)
    expect(second_tab.page.locator(".message.waiting")).to_have_count(7, timeout=BOUND_MS)
    expect(second_tab.page.locator(".answer .markdown").first).to_have_text("One")
    before = len(fake.requests)
    tab.stop.click()
    for one in (tab, second_tab):
        expect(one.stop).to_be_hidden(timeout=BOUND_MS)
        expect(one.queries).to_have_text([f"Number {number}" for number in range(8)])
        expect(one.page.locator(".answer .markdown").first).to_have_text("One")
    assert len(fake.requests) == before, "those that waited were stopped before the one that ran"


def test_a_tab_that_opens_while_another_one_sends_shows_each_turn_once(
    tab: Tab, second_tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    held = Held(second_tab, "**/messages?*")
    second_tab.page.goto(tab.page.url)
    wait_until(lambda: second_tab.page.wait_for_timeout(20) or held.routes)
    fake.queue(script(said("One "), gate, said("two", index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("One")
    held.release()
    for one in (tab, second_tab):
        expect(one.queries).to_have_text(["Hello", "Tell me"], timeout=BOUND_MS)
    gate.open()
    for one in (tab, second_tab):
        one.wait_for_end()
        one.shows("One two")
        expect(one.queries).to_have_text(["Hello", "Tell me"])


def test_a_turn_of_another_browser_is_shown_while_it_runs(
    tab: Tab, site_server: GatewayServer, fake: ScriptedBackend, gate: Gate
) -> None:
    """Of the same user; it is noticed when somebody looks at the page again."""
    tab.ask("Hello")
    tab.wait_for_end()
    user, conversation = tab.page.evaluate(
        "[localStorage.getItem('agent-gateway-user'), location.hash.slice(1)]"
    )
    fake.queue(script(said("One "), gate, said("two", index=1), succeed()))
    with site_server.client() as client:
        Chat(client, user).background("From elsewhere", conversation_id=conversation)
        tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        tab.shows("One")
        expect(tab.queries).to_have_text(["Hello", "From elsewhere"])
        gate.open()
        tab.shows("One two")
        # What ended elsewhere meanwhile comes as it is stored.
        Chat(client, user).blocking("Once more", conversation_id=conversation)
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.shows("You said: Once more.")


def test_an_answer_that_can_no_longer_be_followed_is_shown_as_it_is_stored(
    tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(said("One "), gate, said("two", index=1), succeed()))
    tab.ask("Tell me")
    tab.shows("One")
    tab.page.route("**/events?*", lambda route: route.fulfill(status=401, body="{}"))
    with tab.page.expect_request("**/events?*"):
        tab.page.reload()
    gate.open()
    tab.shows("One two")
    expect(tab.last.get_by_role("button", name="Ask again")).to_be_visible()


def test_what_is_written_while_a_message_is_sent_stays(tab: Tab) -> None:
    held = Held(tab, "**/chat-messages")
    tab.composer.fill("Hello")
    tab.composer.press("Enter")
    expect(tab.composer).to_have_value("")
    tab.composer.fill("my next thought")
    held.release()
    tab.shows("You said: Hello.")
    expect(tab.composer).to_have_value("my next thought")


def test_a_message_that_is_refused_comes_back(tab: Tab) -> None:
    refusal = '{"code": "invalid_param", "message": "query: must not be blank", "status": 400}'
    tab.page.route("**/chat-messages", lambda route: route.fulfill(status=400, body=refusal))
    tab.composer.fill("Hello")
    tab.composer.press("Enter")
    expect(tab.page.locator("#composer-problem")).to_have_text("query: must not be blank")
    expect(tab.composer).to_have_value("Hello")


def test_a_conversation_that_is_left_while_a_message_is_sent_has_it(tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    held = Held(tab, "**/chat-messages")
    tab.composer.fill("Second")
    tab.composer.press("Enter")
    tab.page.get_by_role("button", name="New conversation").click()
    tab.conversations.first.click()
    expect(tab.queries).to_have_text(["Hello"])
    held.release()
    expect(tab.queries).to_have_text(["Hello", "Second"], timeout=BOUND_MS)
    tab.shows("You said: Second.")


def test_the_page_stays_at_the_end_until_its_reader_leaves_it(
    tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    scroller = tab.page.locator("#scroller")

    def px_to_the_end() -> float:
        return float(scroller.evaluate("one => one.scrollHeight - one.scrollTop - one.clientHeight"))

    fake.queue(script(said(*(f"word{number} " for number in range(2000))), succeed()))
    tab.ask("Tell me much")
    tab.wait_for_end()
    for number in range(4):
        tab.ask(f"Message {number}")
        tab.wait_for_end()
        wait_until(lambda: tab.page.wait_for_timeout(20) or px_to_the_end() < 2)
    tab.page.reload()
    tab.shows("You said: Message 3.")
    wait_until(lambda: tab.page.wait_for_timeout(20) or px_to_the_end() < 2)
    fake.queue(
        script(said(*FIRST), gate, said(*(f"later{number}\n\n" for number in range(100)), index=1), succeed())
    )
    tab.ask("And more")
    tab.shows("".join(FIRST).strip())
    scroller.hover()
    tab.page.mouse.wheel(0, -1500)
    wait_until(lambda: tab.page.wait_for_timeout(20) or px_to_the_end() > 1000)
    gate.open()
    tab.wait_for_end()
    assert px_to_the_end() > 1000
    expect(tab.queries.last).not_to_be_in_viewport()


def test_a_turn_that_fails_says_why_and_keeps_its_text(tab: Tab, fake: ScriptedBackend) -> None:
    fake.queue(script(said("Half an "), fail("InvokeServerUnavailableError", "a provider's secret")))
    tab.ask("Break")
    problem = tab.last.get_by_role("alert")
    expect(problem).to_be_visible(timeout=BOUND_MS)
    tab.shows("Half an")
    assert "secret" not in problem.inner_text()
    told = problem.inner_text()
    tab.page.reload()
    expect(tab.last.locator(".problem")).to_have_text(told, timeout=BOUND_MS)


def test_an_answer_is_asked_for_again(tab: Tab, fake: ScriptedBackend) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    # A double click is one wish.
    tab.last.get_by_role("button", name="Ask again").dblclick()
    expect(tab.queries).to_have_text(["Hello", "Hello"], timeout=BOUND_MS)
    tab.wait_for_end()
    expect(tab.answers).to_have_count(2)
    assert fake.requests[-1].body != fake.requests[-2].body, "the second one knows the first"
