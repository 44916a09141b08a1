"""Python functions as tools, and calls of all kinds at once."""

import threading

import pytest

from tests.support import tool_functions as functions
from tests.support.agents import Agents, steps_of
from tests.support.chat import refused
from tests.support.fakes.http_api import http_api
from tests.support.fakes.model_steps import ToolCall, answer, call
from tests.support.gateway_server import wait_until
from tests.support.json_type import Json
from tests.support.log_lines import TURNS, kept_lines

HERE = "tests.support.tool_functions"


def used(agents: Agents, names: list[str | Json], *calls: ToolCall) -> list[str]:
    """The results of calls of these functions, as the model got them."""
    given = [f"{HERE}:{name}" if isinstance(name, str) else name for name in names]
    chat = agents.app(answer(*calls), "Done.", tools={"functions": given})
    assert chat.streaming("Do it").answer == "Done."
    return agents.requests(chat)[-1].results


def test_functions_are_described_by_their_docstrings_and_hints(agents: Agents) -> None:
    chat = agents.app(
        answer(call("send", {"to": "bob", "text": "Hi"})), "Done.", tools={"functions": [f"{HERE}:send"]}
    )
    chat.streaming("Do it")
    [tool] = [one["function"] for one in agents.requests(chat)[0].body["tools"]]
    assert tool["name"] == "send"
    assert tool["description"] == "Send a mail."
    assert tool["parameters"]["properties"]["to"]["description"] == "The address."
    assert tool["parameters"]["required"] == ["to", "text"]


def test_functions_run_in_threads_or_in_the_loop(agents: Agents) -> None:
    functions.THREADS.clear()
    done, counted = used(agents, ["thread", "count"], call("thread"), call("count", {"to": 3}))
    assert (done, counted) == ("done", "1 2 3")
    [thread] = functions.THREADS
    assert thread not in ("gateway", threading.main_thread().name)


def test_a_function_that_fails_does_not_end_the_turn(
    agents: Agents, caplog: pytest.LogCaptureFixture
) -> None:
    names: list[str | Json] = [
        "broken",
        "picky",
        {"function": f"{HERE}:endless", "timeout_seconds": 0.2},
        {"function": f"{HERE}:slow", "timeout_seconds": 0.2},
    ]
    broken, picky, endless, slow, leaving = used(
        agents,
        [*names, "leaving"],
        call("broken"),
        call("picky", {"number": 1}),
        call("endless"),
        call("slow"),
        call("leaving"),
    )
    assert "The tool failed (RuntimeError)." in leaving
    assert "The tool failed (ValueError)." in broken
    assert "1 is too small" in picky
    assert "0.2 seconds" in endless
    assert "0.2 seconds" in slow
    assert f"the function '{HERE}:broken' failed: ValueError at {functions.__file__}:" in caplog.text
    for place in (broken, caplog.text):
        assert functions.WORDS not in place


def test_arguments_that_do_not_fit_are_told_to_the_model(agents: Agents) -> None:
    wrong = answer(call("count", {"to": "many"}))
    right = answer(call("count", {"to": 2}))
    chat = agents.app(wrong, wrong, right, "Done.", tools={"functions": [f"{HERE}:count"]})
    assert chat.streaming("Do it").answer == "Done."
    assert "valid integer" in agents.requests(chat)[1].results[0]
    assert agents.requests(chat)[-1].results[-1] == "1 2"


def test_a_picture_of_a_function_is_a_file(agents: Agents) -> None:
    [picture] = used(agents, ["picture"], call("picture"))
    assert "file" in picture


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("no_such_module_here:f", "there is no module 'no_such_module_here'"),
        (f"{HERE}:sendd", "the module has no 'sendd'; did you mean 'send'?"),
        (f"{HERE}:NOT_A_FUNCTION", "'NOT_A_FUNCTION' is no function"),
    ],
)
def test_a_function_that_is_not_there_fails_the_turn(agents: Agents, place: str, why: str) -> None:
    chat = agents.app(tools={"functions": [place]})
    with kept_lines(TURNS) as lines:
        refused(chat.post("Do it", response_mode="blocking"), 500, "internal_server_error")
        wait_until(lambda: lines)
    assert why in lines[0]["cause"]


def test_tools_of_three_kinds_are_called_at_once(agents: Agents, odd_server: Json) -> None:
    with http_api() as api:
        tools = {
            "mcp": {"odd": odd_server},
            "openapi": {"cities": {"document": api.document, "operations": ["getPicture", "cities/create"]}},
            "functions": [f"{HERE}:count"],
        }
        chat = agents.app(
            answer(
                call("echo", {"text": "a"}),
                call("cities_create", {"body": {"name": "Rome"}}),
                call("count", {"to": 2}),
                call("fail"),
            ),
            "Done.",
            tools=tools,
        )
        heard = chat.streaming("Do it")
    assert heard.answer == "Done."
    assert [(tool, observed[:9]) for tool, _, observed in steps_of(heard)] == [
        ("echo", "echo a"),
        ("cities_create", '{"id":7,"'),
        ("count", "1 2"),
        ("fail", "Error exe"),
    ]
    assert len(agents.requests(chat)[1].results) == 4
