"""For everybody: axe finds nothing, the keyboard is enough, phones, dark colours, text from right to left."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.support.browser import BOUND_MS, Tab
from tests.support.fakes.script import Gate, script, succeed, thinking, tool_call, tool_result
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.human_input import asking
from tests.support.node import NODE_MODULES

AXE = NODE_MODULES / "axe-core/axe.min.js"
PHONE = {"width": 390, "height": 844}
MARKDOWN = """## Rivers of Europe

The **Danube** is *long*: [read more](https://example.com), or call `length("Danube")`.

1. Volga
2. Danube
   - flows through ten countries

| river | km |
|---|---:|
| Volga | 3,531 |
| Danube | 2,850 |

```python
def longest(rivers: dict[str, int]) -> str:
    return max(rivers, key=rivers.get)  # the key of the largest value
```

> Rivers know this: there is no hurry.

- [x] measured
- [ ] swum
"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True},
    "phone-dark": {"viewport": PHONE, "color_scheme": "dark"},
}


def faults(tab: Tab) -> list[str]:
    """What axe finds, in all its rules."""
    tab.page.evaluate(AXE.read_text("utf-8"))
    found = tab.page.evaluate("axe.run().then((result) => result.violations)")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def talked(tab: Tab, fake: ScriptedBackend) -> None:
    """A tab with an answer of every kind on it, and a question."""
    found = '[{"river": "Volga", "km": 3531}, {"river": "Danube", "km": 2850}]'
    used = [
        *tool_call("call_1", "find_rivers", {"in": "Europe"}),
        *tool_result("call_1", "find_rivers", found),
    ]
    fake.queue(
        script(
            thinking("I look up their lengths."), used, said(*MARKDOWN.splitlines(keepends=True)), succeed()
        ),
        asking(),
    )
    tab.ask("What do you know about rivers?")
    tab.wait_for_end()
    tab.ask("Shall we swim?")
    expect(tab.page.locator("form.question")).to_be_visible(timeout=BOUND_MS)
    tab.wait_for_end()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_is_too_wide(
    site_server: GatewayServer, fake: ScriptedBackend, open_tab: Callable[..., Tab], tmp_path: Path, look: str
) -> None:
    tab = open_tab(site_server, **LOOKS[look])
    assert faults(tab) == []
    talked(tab, fake)
    # The pictures of the README: what the page looks like at first sight.
    folder = Path(os.environ.get("TEST_SCREENSHOTS") or tmp_path)
    tab.page.locator("#scroller").evaluate("one => (one.scrollTop = 0)")
    tab.page.screenshot(path=folder / f"{look}.png")
    tab.page.locator("details").evaluate_all("all => all.forEach((one) => (one.open = true))")
    assert faults(tab) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.page.locator("#scroller").evaluate("one => one.scrollWidth <= one.clientWidth")
    tab.page.get_by_role("button", name="Events", exact=True).click()
    assert faults(tab) == []
    tab.page.get_by_role("button", name="Close events").click()
    if tab.page.get_by_role("button", name="Conversations", exact=True).is_visible():
        tab.page.get_by_role("button", name="Conversations", exact=True).click()
        expect(tab.page.get_by_role("navigation")).to_be_visible()
        assert faults(tab) == []
        tab.page.get_by_role("button", name="New conversation").click()
        expect(tab.page.get_by_role("navigation")).to_be_hidden()


@pytest.mark.parametrize("dialog", ["Settings", "Rename Hello", "Delete Hello"])
def test_axe_finds_nothing_in_a_dialog(tab: Tab, dialog: str) -> None:
    tab.ask("Hello")
    tab.wait_for_end()
    tab.conversations.first.focus()
    tab.page.get_by_role("button", name=dialog).press("Enter")
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    assert faults(tab) == []
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_be_hidden()


def test_the_keyboard_is_enough(tab: Tab, fake: ScriptedBackend, gate: Gate) -> None:
    """From a message to its stop, a step that opens, a new name of the conversation, a second message."""
    keys = tab.page.keyboard
    expect(tab.composer).to_be_focused()
    fake.queue(script(thinking("Hm."), said("One "), gate, said("two", index=1), succeed()))
    keys.type("First line")
    keys.press("Shift+Enter")
    keys.type("second line")
    keys.press("Enter")
    expect(tab.queries).to_have_text("First line\nsecond line", timeout=BOUND_MS)
    tab.shows("One")
    keys.press("Escape")
    tab.wait_for_end()
    expect(tab.composer).to_be_focused()
    step = tab.last.locator("summary")
    press_until_focused(tab, "Shift+Tab", "summary")
    keys.press("Enter")
    expect(step.locator("xpath=..").locator(".input")).to_be_visible()
    press_until_focused(tab, "Shift+Tab", "[aria-label^=Rename]")
    keys.press("Enter")
    keys.type("Renamed")
    keys.press("Enter")
    expect(tab.conversations).to_have_text(["Renamed"])
    press_until_focused(tab, "Tab", "#query")
    keys.type("Again")
    keys.press("Enter")
    expect(tab.queries.last).to_have_text("Again", timeout=BOUND_MS)


def press_until_focused(tab: Tab, key: str, selector: str) -> None:
    """Move the focus by a key; each place on the way shows that it has the focus."""
    for _ in range(40):
        tab.page.keyboard.press(key)
        if tab.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    raise AssertionError(f"{selector} cannot be reached")


def test_the_list_of_a_phone_closes_in_every_way(
    site_server: GatewayServer, fake: ScriptedBackend, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(site_server, viewport=PHONE)
    button = tab.page.get_by_role("button", name="Conversations", exact=True)
    sidebar = tab.page.get_by_role("navigation")
    for close in (
        lambda: tab.page.keyboard.press("Escape"),
        lambda: tab.page.get_by_role("button", name="Close conversations").click(),
        lambda: tab.page.mouse.click(380, 400),
    ):
        button.click()
        expect(sidebar).to_be_visible()
        assert tab.page.locator("#chat").evaluate("one => one.inert")
        close()
        expect(sidebar).to_be_hidden()
        expect(button).to_be_focused()
        expect(button).to_have_attribute("aria-expanded", "false")


def test_a_screen_reader_hears_that_an_answer_begins_and_is_complete(
    tab: Tab, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(said("One "), gate, said("two", index=1), succeed()))
    tab.ask("Tell me")
    status = tab.page.locator("#status")
    assert status.get_attribute("role") == "status"
    expect(status).to_have_text("The answer begins.")
    gate.open()
    expect(status).to_have_text("The answer is complete.")


@pytest.mark.parametrize(("text", "direction"), [("مرحبا بالعالم", "rtl"), ("שלום", "rtl"), ("Hello", "ltr")])
def test_text_runs_in_its_own_direction(tab: Tab, fake: ScriptedBackend, text: str, direction: str) -> None:
    fake.queue(script(said(text), succeed()))
    tab.ask(text)
    tab.wait_for_end()
    for place in (tab.queries.last, tab.text, tab.conversations.first.locator("xpath=..")):
        assert place.evaluate("one => getComputedStyle(one).direction") == direction


def test_the_chosen_colours_stay(tab: Tab) -> None:
    def ground() -> str:
        return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    tab.page.get_by_role("button", name="Settings").click()
    tab.page.get_by_label("Colours").select_option("Dark")
    assert ground() != light
    tab.page.reload()
    expect(tab.composer).to_be_visible(timeout=BOUND_MS)
    assert ground() != light
