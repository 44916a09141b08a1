"""The list of conversations, older messages, and the drawer with events."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.support.browser import BOUND_MS, Tab
from tests.support.chat import Chat
from tests.support.gateway_server import GatewayServer


@pytest.fixture
def chat(tab: Tab, site_server: GatewayServer) -> Iterator[Chat]:
    """The user of the tab, over HTTP."""
    with site_server.client() as client:
        yield Chat(client, tab.page.evaluate("localStorage.getItem('agent-gateway-user')"))


def test_conversations_are_paged_and_searched(tab: Tab, chat: Chat) -> None:
    for number in range(65):
        chat.blocking(f"Topic {number}")
    tab.page.reload()
    expect(tab.conversations).to_have_count(30, timeout=BOUND_MS)
    expect(tab.conversations.first).to_have_text("Topic 64")
    tab.page.get_by_role("button", name="Show more").click()
    expect(tab.conversations).to_have_count(60)
    # The search finds what was not loaded yet.
    tab.page.get_by_role("searchbox", name="Search conversations").fill("topic 3")
    expect(tab.conversations).to_have_count(11)
    assert tab.conversations.last.inner_text() == "Topic 3"
    tab.conversations.last.click()
    tab.shows("You said: Topic 3.")
    tab.page.get_by_role("searchbox", name="Search conversations").fill("nothing has this")
    expect(tab.page.get_by_text("No conversation has this in its name.")).to_be_visible()


def test_the_title_is_that_of_the_conversation_on_the_page(tab: Tab, chat: Chat) -> None:
    for number in range(35):
        chat.blocking(f"Topic {number}")
    tab.page.reload()
    title = tab.page.locator("#conversation-name")
    for name in ("Topic 33", "Topic 30", "Topic 34"):
        tab.conversations.get_by_text(name).click()
        expect(title).to_have_text(name)
    tab.page.get_by_role("button", name="New conversation").click()
    expect(title).to_have_text("New conversation")
    # One that the list has not loaded is not called new.
    oldest = chat.conversations(limit=1, sort_by="created_at")["data"][0]["id"]
    tab.page.goto(f"{tab.page.url.split('#')[0]}#{oldest}")
    tab.shows("You said: Topic 0.")
    expect(title).to_have_text("Conversation")


def test_the_list_is_that_of_one_user_and_forgets_what_is_deleted(
    tab: Tab, second_tab: Tab, chat: Chat
) -> None:
    for number in range(33):
        chat.blocking(f"Topic {number}")
    tab.page.reload()
    tab.page.get_by_role("button", name="Show more").click()
    expect(tab.conversations).to_have_count(33)
    second_tab.open(tab.page.url)
    second_tab.conversations.get_by_text("Topic 20").hover()
    second_tab.page.get_by_role("button", name="Delete Topic 20").click()
    second_tab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    for one in (tab, second_tab):
        expect(one.conversations.get_by_text("Topic 20")).to_have_count(0)
    other = Chat(chat.client, f"{chat.user}-other")
    for number in range(33):
        other.blocking(f"Matter {number}")
    tab.page.get_by_role("button", name="Settings").click()
    tab.page.get_by_label("User", exact=True).fill(other.user)
    tab.page.get_by_role("button", name="Done").click()
    expect(tab.conversations.get_by_text("Matter")).to_have_count(30)
    expect(tab.conversations.get_by_text("Topic")).to_have_count(0)


def test_the_focus_in_the_list_survives_that_it_changes(tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    tab.page.locator(".conversation").first.focus()
    tab.page.keyboard.press("Tab")
    expect(tab.page.get_by_role("button", name="Rename Hello")).to_be_focused()
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    tab.page.wait_for_load_state("networkidle")
    expect(tab.page.get_by_role("button", name="Rename Hello")).to_be_focused()


def test_a_conversation_is_renamed_in_every_tab(tab: Tab, second_tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    second_tab.open(tab.page.url)
    tab.conversations.first.hover()
    tab.page.get_by_role("button", name="Rename Hello").click()
    dialog = tab.page.get_by_role("dialog", name="Rename the conversation")
    dialog.get_by_label("Name").fill("Greetings")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog).to_be_hidden()
    for one in (tab, second_tab):
        expect(one.conversations).to_have_text(["Greetings"])
    assert tab.page.title().startswith("Greetings")


def test_a_conversation_is_deleted_only_when_that_is_confirmed(tab: Tab) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    for answer, left in (("Cancel", 1), ("Delete", 0)):
        tab.conversations.first.hover()
        tab.page.get_by_role("button", name="Delete Hello").click()
        dialog = tab.page.get_by_role("dialog", name="Delete the conversation?")
        expect(dialog).to_contain_text("Hello")
        dialog.get_by_role("button", name=answer).click()
        expect(dialog).to_be_hidden()
        expect(tab.conversations).to_have_count(left)
    expect(tab.queries).to_have_count(0)
    expect(tab.page.locator("#conversation-name")).to_have_text("New conversation")


def test_older_messages_are_loaded_above(tab: Tab, chat: Chat) -> None:
    first = chat.blocking("Message 0")
    for number in range(1, 45):
        chat.blocking(f"Message {number}", conversation_id=first["conversation_id"])
    tab.page.goto(f"{tab.page.url.split('#')[0]}#{first['conversation_id']}")
    expect(tab.queries).to_have_count(20, timeout=BOUND_MS)
    for count in (40, 45):
        tab.page.get_by_role("button", name="Show older messages").click()
        expect(tab.queries).to_have_count(count)
    assert tab.queries.all_text_contents() == [f"Message {number}" for number in range(45)]
    expect(tab.page.get_by_role("button", name="Show older messages")).to_be_hidden()


@pytest.mark.parametrize("address", ["#nonsense", "#00000000-0000-0000-0000-000000000000", "#%00"])
def test_an_address_that_names_no_conversation_begins_a_new_one(tab: Tab, address: str) -> None:
    tab.page.goto(tab.page.url + address)
    tab.page.reload()
    expect(tab.page.locator("#conversation-name")).to_have_text("New conversation", timeout=BOUND_MS)
    tab.ask("Hello")
    tab.shows("You said: Hello.")


def test_the_drawer_has_each_event_as_it_came(tab: Tab, site_server: GatewayServer) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    tab.page.get_by_role("button", name="Events", exact=True).click()
    frames = tab.page.locator("#frames li").all_inner_texts()
    read = [frame.split("\n", 1) for frame in frames]
    events = [json.loads(data.removeprefix("data: ")) for _, data in read]
    assert [name for name, _ in read] == [f"id: {event['event_id']}" for event in events]
    assert events[-1]["event"] == "message_end"
    with site_server.client() as client:
        task = events[0]["task_id"]
        user = tab.page.evaluate("localStorage.getItem('agent-gateway-user')")
        told = client.get(f"/chat-messages/{task}/events", params={"user": user, "mode": "agent-chat"}).text
    assert [line.removeprefix("data: ") for line in told.splitlines() if line.startswith("data: ")] == [
        data.removeprefix("data: ") for _, data in read
    ]
    tab.page.get_by_role("button", name="Close events").click()
    expect(tab.page.get_by_role("button", name="Events", exact=True)).to_be_focused()
