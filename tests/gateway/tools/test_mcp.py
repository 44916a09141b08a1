"""Tools of MCP servers, which are real processes: one from PyPI, and one that is odd on request."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from tests.support.agents import Agents, agents_of, steps_of
from tests.support.chat import Chat, refused
from tests.support.fakes.http_api import http_api
from tests.support.fakes.mcp_server import COMMAND as ODD
from tests.support.fakes.mcp_server import SECRET
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import ToolCall, answer, call
from tests.support.gateway_server import wait_until
from tests.support.json_type import Json
from tests.support.log_lines import TURNS, kept_lines
from tests.support.rows import rows_of

TOKEN = "token-of-the-tools-0815"


def odd(*arguments: str, **more: Any) -> Json:
    """Tools of the odd server."""
    return {"mcp": {"odd": {"command": [*ODD, *arguments], **more}}}


def results(agents: Agents, chat: Chat) -> list[str]:
    """The results that the model got with its newest request."""
    return agents.requests(chat)[-1].results


def used(agents: Agents, tools: Json, *calls: ToolCall) -> list[str]:
    """What an app with these tools gets for these calls, made at once."""
    chat = agents.app(answer(*calls), "Done.", tools=tools)
    assert chat.streaming("Do it").answer == "Done."
    return results(agents, chat)


def programs(*command: str) -> list[int]:
    """The processes with this command line below this one."""
    found: list[int] = []
    for child in psutil.Process().children(recursive=True):
        # Not one that has ended meanwhile.
        with suppress(psutil.NoSuchProcess):
            if child.cmdline() == list(command):
                found.append(child.pid)
    return found


@contextmanager
def http_server(token: str = TOKEN) -> Generator[str]:
    """The odd server over HTTP: its address."""
    with subprocess.Popen([*ODD, "--http", token], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


def why_it_failed(agents: Agents, chat: Chat, status: int, code: str) -> str:
    """What the operator is told about a turn that fails before it says anything."""
    with kept_lines(TURNS) as lines:
        refused(chat.post("Do it", response_mode="blocking"), status, code)
        wait_until(lambda: lines)
    assert agents.requests(chat) == []
    return str(lines[0]["cause"])


def test_a_server_from_pypi_is_used_over_stdio_and_only_its_allowed_tools(agents: Agents) -> None:
    tools = {"mcp": {"time": {"command": ["mcp-server-time"], "allow": ["convert_time"]}}}
    arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    chat = agents.app(answer(call("convert_time", arguments)), "It is nine.", tools=tools)
    heard = chat.streaming("When it is noon in London, what time is it in Tokyo?")
    assert heard.answer == "It is nine."
    [(tool, given, observed)] = steps_of(heard)
    assert tool == "convert_time"
    assert "Asia/Tokyo" in given
    assert "+9.0h" in observed
    first, second = agents.requests(chat)
    assert first.tools == ["convert_time"]
    assert "+9.0h" in second.results[0]


def test_a_tool_that_is_not_allowed_is_not_called(agents: Agents) -> None:
    [result] = used(agents, odd(allow=["echo"]), call("pid"))
    assert "pid" in result
    assert "echo" in result, "the model is told what there is"


def test_an_error_of_a_tool_goes_to_the_model_and_into_no_log(
    agents: Agents, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    failed, echoed, garbage = used(agents, odd(), call("fail"), call("echo", {"text": "a"}), call("garbage"))
    assert f"{SECRET}: no such city" in failed
    assert echoed == "echo a"
    assert garbage == "after garbage"
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


def test_a_call_that_takes_too_long_is_given_up_and_the_turn_goes_on(agents: Agents) -> None:
    environment = {"FOR": "hangs"}
    [started] = used(agents, odd(env=environment), call("pid"))
    tools = odd(env=environment, timeout_seconds=1.0)
    chat = agents.app(answer(call("hang"), call("echo", {"text": "a"})), "Done.", tools=tools)
    first = chat.streaming("Do it")
    assert first.answer == "Done."
    given_up, echoed = results(agents, chat)
    assert "The call was given up after 1 seconds." in given_up
    assert echoed == "echo a"
    [now] = used(agents, odd(env=environment), call("pid"))
    assert now != started, "a program that may be stuck is replaced"


def test_a_server_that_dies_fails_its_call_and_is_started_again(agents: Agents) -> None:
    tools = odd(env={"FOR": "deaths"})
    chat = agents.app(
        answer(call("pid")), answer(call("die")), "Done.", answer(call("pid")), "Again.", tools=tools
    )
    first = chat.streaming("Do it")
    assert first.answer == "Done."
    before, died = results(agents, chat)
    assert "Connection closed" in died
    assert chat.streaming("And again", conversation_id=first.conversation_id).answer == "Again."
    after = results(agents, chat)[-1]
    assert after.startswith("pid ")
    assert after != before


def test_a_long_result_is_cut_and_a_picture_is_a_file(agents: Agents) -> None:
    long, picture = used(
        agents, odd(timeout_seconds=20.0), call("much", {"size": 10_000_000}), call("picture")
    )
    assert long.startswith("xxx")
    assert long.endswith("… (9900000 more characters are left out)")
    assert len(long) < 100_100
    assert "file" in picture


@pytest.mark.parametrize(
    ("tools", "status", "code", "cause"),
    [
        (odd("--mute", timeout_seconds=1.0), 503, "service_unavailable", "was not ready within 1 seconds"),
        (odd("--unlisted", timeout_seconds=4.0), 503, "service_unavailable", "not ready within 4 seconds"),
        (odd("--talk", timeout_seconds=1.0), 503, "service_unavailable", "was not ready within 1 seconds"),
        ({"mcp": {"odd": {"command": ["no-such-program"]}}}, 503, "service_unavailable", "FileNotFoundError"),
        ({"mcp": {"odd": {"command": ["true"]}}}, 503, "service_unavailable", "cannot be used"),
        ({"mcp": {"odd": {"url": "http://127.0.0.1:1/mcp"}}}, 503, "service_unavailable", "ConnectError"),
        (odd(allow=["ecko"]), 500, "internal_server_error", "no tool 'ecko' (allow); did you mean 'echo'?"),
        (odd(needs_approval=["Fail"]), 500, "internal_server_error", "has no tool 'Fail' (needs_approval)"),
        (
            {"mcp": {"one": {"command": ODD}, "two": {"command": ODD}}},
            500,
            "internal_server_error",
            "two tools have the name 'echo': give one of their servers a 'prefix'",
        ),
    ],
    ids=["mute", "unlisted", "talk", "no program", "ends", "nobody listens", "allow", "approval", "twice"],
)  # fmt: skip
def test_a_server_that_cannot_be_used_fails_the_turn_with_its_reason(
    agents: Agents, caplog: pytest.LogCaptureFixture, tools: Json, status: int, code: str, cause: str
) -> None:
    before = {command: programs(*ODD, command) for command in ("--mute", "--talk")}
    assert cause in why_it_failed(agents, agents.app(tools=tools), status, code)
    assert SECRET not in caplog.text
    for command, there in before.items():
        wait_until(lambda c=command, t=there: programs(*ODD, c) == t)


def test_tools_of_the_same_name_are_told_apart_by_a_prefix(agents: Agents) -> None:
    tools = {"mcp": {"one": {"command": ODD}, "two": {"command": ODD, "prefix": "other", "allow": ["echo"]}}}
    assert used(agents, tools, call("echo", {"text": "a"}), call("other_echo", {"text": "b"})) == [
        "echo a",
        "echo b",
    ]


def test_a_program_gets_its_own_variables_and_few_of_the_gateway(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", TOKEN)
    [names] = used(agents, odd(env={"SHOWN": "${env:TOOL_TOKEN}"}), call("environment"))
    assert names.endswith(f"SHOWN={TOKEN}")
    assert set(names.split()[:-1]) <= {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        "SHOWN",
    }


def test_runs_share_a_program_only_if_all_is_the_same(agents: Agents) -> None:
    def pid(user: str) -> str:
        [found] = used(agents, odd(env={"USER_ID": user}), call("pid"))
        return found

    assert pid("ada") == pid("ada")
    assert pid("ada") != pid("bob")


def test_a_server_over_http_gets_its_header_which_nobody_else_sees(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", TOKEN)
    with http_server() as url:
        tools = {"mcp": {"odd": {"url": url, "headers": {"X-Token": "${env:TOOL_TOKEN}"}}}}
        chat = agents.app(answer(call("echo", {"text": "a"}), call("fail")), "Done.", tools=tools)
        heard = chat.streaming("Do it")
        assert heard.answer == "Done."
        assert results(agents, chat)[0] == "echo a"
        assert f"{SECRET}: no such city" in results(agents, chat)[1]
        monkeypatch.setenv("TOOL_TOKEN", "wrong")
        assert "it answered 401" in why_it_failed(agents, agents.app(tools=tools), 503, "service_unavailable")
    rows = rows_of(agents.server.settings.resolved_database_url(), heard.task_id)
    for place in (heard.raw.decode(), str(rows), caplog.text):
        assert TOKEN not in place
    assert SECRET not in caplog.text


def test_headers_do_not_follow_a_redirect(agents: Agents) -> None:
    with http_api() as api, http_server() as url:
        tools = {"mcp": {"odd": {"url": f"{api.url}/v1/away?{url}", "headers": {"X-Token": TOKEN}}}}
        cause = why_it_failed(agents, agents.app(tools=tools), 503, "service_unavailable")
    assert "it answered 307" in cause


def test_no_program_is_left_when_a_turn_is_stopped_and_when_the_gateway_ends(
    tmp_path: Path, provider: ModelServer
) -> None:
    with agents_of(tmp_path, provider) as agents:
        chat = agents.app(answer(call("hang")), tools=odd(env={"FOR": "leaks"}))
        before = set(programs(*ODD))
        with chat.open("Do it") as stream:
            event = stream.next()
            while event["event"] != "agent_thought" or not event["tool"]:
                event = stream.next()
            [program] = set(programs(*ODD)) - before
            chat.stop(stream.task_id)
            assert stream.rest().kinds[-1] == "message_end"
        assert psutil.pid_exists(program), "it waits for the next run"
    assert not psutil.pid_exists(program)
