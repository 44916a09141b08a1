"""What `agent-gateway chat` shows of events that come seldom: a replaced answer, a step told again."""

import io
import sys
from typing import Any

import pytest
from typing_extensions import override

from agent_gateway.cli.chat.steps import LONGEST, Steps
from agent_gateway.cli.chat.talk import Shown
from agent_gateway.cli.chat.terminal import Terminal
from agent_gateway_client.types import AgentThoughtEvent, ChatStreamEvent


class Screen(io.StringIO):
    """Says that it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("NO_COLOR", "1")
    return Screen()


def made(event: str, **fields: object) -> Any:
    """An event with the fields that all have."""
    common = {"conversation_id": "c", "message_id": "m", "created_at": 1, "task_id": "t", "event_id": 1}
    return {"event": event, **common, **fields}


def replaced(text: str) -> ChatStreamEvent:
    event: ChatStreamEvent = made("message_replace", answer=text, reason="past_lost")
    return event


def step(step_id: str, **fields: str) -> AgentThoughtEvent:
    texts = {"thought": "", "tool": "", "tool_input": "", "observation": "", **fields}
    event: AgentThoughtEvent = made(
        "agent_thought", id=step_id, position=1, tool_labels={}, message_files=[], **texts
    )
    return event


def piece(text: str) -> ChatStreamEvent:
    event: ChatStreamEvent = made("agent_message", id="m", answer=text)
    return event


def test_a_replaced_answer_that_goes_on_is_gone_on_with(screen: Screen) -> None:
    shown = Shown(Terminal(screen, screen))
    for event in (piece("One "), replaced("One two "), piece("three")):
        shown.add(event)
    shown.close()
    assert screen.getvalue() == "One two three\n"


def test_another_answer_is_shown_below_the_one_that_it_replaces(screen: Screen) -> None:
    shown = Shown(Terminal(screen, screen))
    for event in (piece("One two "), replaced("One"), replaced("One and only")):
        shown.add(event)
    shown.close()
    assert screen.getvalue() == "One two \n(The answer was replaced by this one.)\nOne and only\n"


def test_a_thought_that_grows_is_shown_once(screen: Screen) -> None:
    steps = Steps(Terminal(screen, screen))
    for thought in ("I ", "I think", "I think", "I"):
        steps.add(step("a", thought=thought))
    steps.add(step("b", thought="More."))
    steps.close()
    assert screen.getvalue() == "I think\nMore."


def test_a_tool_is_shown_with_its_result_or_at_the_end_without(screen: Screen) -> None:
    steps = Steps(Terminal(screen, screen))
    steps.add(step("a", tool="clock", tool_input='{"z'))
    steps.add(step("b", tool="search", tool_input="x" * 1000))
    steps.add(step("a", tool="clock", tool_input='{"zone":1}', observation="12:00"))
    steps.add(step("a", tool="clock", tool_input='{"zone":1}', observation="12:00"))
    steps.close()
    steps.close()
    first, second, rest = screen.getvalue().split("\n")
    assert (first, rest) == ('clock {"zone":1} → 12:00', "")
    assert second == f"search {'x' * (LONGEST - 1)}…"


def test_a_file_and_the_end_of_a_line_that_is_open(screen: Screen) -> None:
    shown = Shown(Terminal(screen, screen))
    shown.add(piece("See: "))
    shown.add(made("message_file", id="f", type="image", url="/files/f\n?ticket=t"))
    shown.close()
    assert screen.getvalue() == "See: \nFile: /files/f ?ticket=t\n"


def test_where_nobody_watches_steps_are_left_out() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    Steps(terminal).add(step("a", thought="I think"))
    terminal.answer("One")
    terminal.aside("By the way")
    terminal.end_line()
    assert (out.getvalue(), err.getvalue()) == ("One\n", "By the way\n")


def test_somebody_who_types_without_a_screen_is_prompted_on_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    terminal = Terminal(out, err)
    terminal.answer("One")
    assert terminal.read("> ") == "Hello"
    with pytest.raises(EOFError):
        terminal.read("> ")
    assert (out.getvalue(), err.getvalue()) == ("One\n", "> > ")
