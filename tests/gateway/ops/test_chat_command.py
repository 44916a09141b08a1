"""`agent-gateway chat` as a real process: in a terminal with somebody who types, and in a pipe."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.client_story import Story
from tests.support.command import Command, Operator, refusal
from tests.support.fakes.script import (
    Gate,
    ask_human,
    echo,
    fail,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_process import environment
from tests.support.gateway_server import API_KEY, GatewayServer, StartGateway
from tests.support.rows import apply_app
from tests.support.terminal import BOUND, TerminalProgram

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1mfine\r\x08\x00"
"""A title for the window, a cleared screen, bold letters, and text that overwrites: in both forms."""
FORM = {
    "fields": [
        {"name": "size", "label": "Size", "required": True, "type": "select", "options": [
            {"value": "s", "label": "Small"}, {"value": "l", "label": "Large"}]},
        {"name": "reason", "label": "Reason", "required": True, "type": "paragraph"},
        {"name": "comment", "label": "Comment", "type": "paragraph", "default": "none"},
    ]
}  # fmt: skip

Type = Callable[..., AbstractContextManager[TerminalProgram]]
Pipe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def gateway(
    shared_fake: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path_factory.mktemp("data"), backend_url=shared_fake.url) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def story(fake: ScriptedBackend) -> Story:
    """What the agent does, by the query."""
    fake.script = story = Story()
    return story


def arguments(url: str, user: str, *more: str) -> list[str]:
    return ["-W", "error", "-m", "agent_gateway", "chat", "--url", url, "--user", user, *more]


@pytest.fixture
def typed(gateway: GatewayServer, user: str, tmp_path: Path) -> Type:
    """Starts it in a terminal, by default without a question."""

    def start(*more: str, url: str = gateway.url, **environ: str) -> TerminalProgram:
        given = {**environment(API_KEY=API_KEY), **environ}
        return TerminalProgram(arguments(url, user, *more), tmp_path, given)

    return start


@pytest.fixture
def piped(gateway: GatewayServer, user: str, tmp_path: Path) -> Pipe:
    """Runs it with these lines as its input, to its end."""

    def run(
        *more: str, lines: str = "", url: str = gateway.url, key: str = API_KEY
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments(url, user, *more)],
            cwd=tmp_path,
            env=environment(**({"API_KEY": key} if key else {})),
            input=lines,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    return run


def test_one_question_prints_its_answer_alone(piped: Pipe) -> None:
    done = piped("Think")
    assert (done.returncode, done.stdout, done.stderr) == (0, "It is noon.\n", "")


def test_each_line_of_a_pipe_is_a_message_of_one_conversation(piped: Pipe) -> None:
    done = piped(lines="My name is Ada\n\n  \nWhat did I say?")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "You said: My name is Ada.\nYou said: My name is Ada\n"


def test_a_conversation_is_gone_on_with(piped: Pipe, gateway: GatewayServer, user: str) -> None:
    piped("My name is Ada")
    with gateway.client() as http:
        [conversation] = http.get("/conversations", params={"user": user}).json()["data"]
    assert (
        piped("What did I say?", "--conversation", conversation["id"]).stdout == "You said: My name is Ada\n"
    )


def test_a_failed_answer_is_one_line_and_an_exit_code(piped: Pipe) -> None:
    done = piped(lines="Break\nHello\n")
    assert (done.returncode, done.stdout) == (1, "Half an \nYou said: Hello.\n")
    assert (
        done.stderr
        == "error: The model provider is not available. Please try again. (provider_unavailable)\n"
    )


def test_what_is_wrong_with_a_url_or_a_key_is_one_line(piped: Pipe, unused_port: int) -> None:
    for code, said, done in [
        (1, "Access token is invalid. (unauthorized)", piped("Hello", key="wrong")),
        (1, f"no gateway answers at http://127.0.0.1:{unused_port}: ", piped(url=f"http://127.0.0.1:{unused_port}")),
        (2, "the URL of a gateway is like https://example.com", piped("Hello", url="nonsense")),
        (2, "no key: give --key, or, ", piped("Hello", key="")),
        (2, "--app makes a key of its own", piped("Hello", "--app", "default", "--key", "x")),
    ]:  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
        assert done.stderr.startswith(f"error: {said}")


def test_an_answer_is_shown_while_it_comes_with_its_steps_dimmed(typed: Type, fake: ScriptedBackend) -> None:
    gate = Gate()
    call = tool_call("call_1", "clock", {"zone": "UTC"})
    fake.queue(
        script(
            thinking("Hm, ", "the time."),
            *(call, tool_result("call_1", "clock", "12:00\nsharp")),
            text("It is "),
            gate,
            text("noon.", index=1),
            succeed(),
        )
    )
    with typed() as program:
        program.expect("Ctrl-C stops an answer, Ctrl-D leaves.")
        program.expect("> ")
        program.press("When?\n")
        program.expect("It is ")
        gate.open()
        assert program.expect("> ") == "noon.\n> "
        program.press("What did I say?\n")
        program.expect("You said: When?\n> ")
        program.press("\x04")
        assert program.exited() == 0
    assert 'Hm, the time.\nclock {"zone": "UTC"} → 12:00 sharp\nIt is noon.\n' in program.text
    assert f"{DIM}the time.{PLAIN}" in program.raw
    assert f"{DIM}clock " in program.raw
    assert "It is noon." in program.raw


def test_without_colors_nothing_is_dimmed(typed: Type) -> None:
    with typed("Think", NO_COLOR="1") as program:
        assert program.exited() == 0
    assert "Hm, the time.\n" in program.text
    assert "\x1b" not in program.raw


def test_ctrl_c_stops_the_answer_and_keeps_what_came(typed: Type, fake: ScriptedBackend) -> None:
    with typed() as program:
        program.expect("> ")
        program.press("Stop me\n")
        program.expect("One two ")
        program.press("\x03")
        program.expect("(stopped)\n> ")
        assert len(fake.cancels) == 1
        program.press("Hello\n")
        program.expect("You said: Hello.\n> ")
        program.press("\x03")
        assert program.exited() == 0
    assert "Traceback" not in program.text


def test_a_second_ctrl_c_leaves_an_agent_that_does_not_stop(typed: Type, fake: ScriptedBackend) -> None:
    gate = Gate()
    fake.queue(script(text("One "), gate, text("two", index=1), succeed(), cancel="hang"))
    with typed("Begin") as program:
        program.expect("One ")
        program.press("\x03")
        fake.wait_until(lambda: len(fake.cancels) == 1)
        program.press("\x03")
        assert program.exited() == 130
    gate.open()
    assert "Traceback" not in program.text


@pytest.mark.parametrize("lines", [None, "Stop me\nHello\n"], ids=["argument", "pipe"])
def test_ctrl_c_stops_one_question_and_its_exit_code_says_so(
    gateway: GatewayServer, user: str, tmp_path: Path, lines: str | None
) -> None:
    """The signal comes from somebody else than a terminal. The lines behind it are not asked."""
    process = subprocess.Popen(
        [sys.executable, *arguments(gateway.url, user, *(["Stop me"] if lines is None else []))],
        cwd=tmp_path,
        env=environment(API_KEY=API_KEY),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines or "")
        process.stdin.flush()
        assert process.stdout.read(8) == "One two "
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\n"
        assert process.wait(BOUND) == 130


def test_an_answer_goes_on_after_cuts(typed: Type, piped: Pipe, gateway: GatewayServer) -> None:
    query = " ".join(map(str, range(40)))
    # The first connection also has the answer to a question for the app's name.
    cuts = [1800, 200, 1500]
    with http_proxy(gateway.url, cuts) as proxy:
        done = piped(query, url=proxy.url)
    assert (done.returncode, done.stdout) == (0, f"You said: {query}.\n")
    assert done.stderr.count("Trying again.)\n") >= 1
    with http_proxy(gateway.url, cuts) as proxy, typed(query, url=proxy.url) as program:
        assert program.exited() == 0
    assert f"{DIM}(The connection was cut" in program.raw
    shown = re.sub(r"\n(\(The connection.*\)\n)+", "", program.text)
    assert shown.endswith(f"You said: {query}.\n")


def test_what_an_agent_says_is_not_obeyed_by_the_terminal(
    typed: Type, piped: Pipe, fake: ScriptedBackend
) -> None:
    def evil() -> None:
        fake.queue(
            script(
                thinking(f"think {EVIL}"),
                *(tool_call("call_1", "clock", {"zone": EVIL}), tool_result("call_1", "clock", EVIL)),
                text(f"a\tb {EVIL} end", index=3),
                succeed(),
            )
        )

    evil()
    done = piped("Hello")
    # The gateway itself has replaced the NUL.
    assert done.stdout == "a\tb ]0;owned[2J1mfine\ufffd end\n"
    evil()
    with typed("Hello", NO_COLOR="1") as program:
        assert program.exited() == 0
    assert "1mfine\ufffd end" in program.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", program.raw)
    assert "\r" not in program.text


def test_a_question_is_answered_in_the_terminal(typed: Type, fake: ScriptedBackend) -> None:
    fake.queue(script(text("Well."), ask_human("May I go on?", **FORM)), echo)
    with typed() as program:
        program.expect("> ")
        program.press("Do it\n")
        program.expect("Approval needed\n1) Approve\n2) Reject\n1-2: ")
        program.press("3\n")
        program.expect("1-2: ")
        program.press("reject\n")
        program.expect("Size\n1) Small\n2) Large\n1-2: ")
        program.press("2\n")
        program.expect("Reason: ")
        program.press("\n")
        program.expect("Reason: ")
        program.press("too late\n")
        program.expect("Comment [none]: ")
        program.press("\n")
        said = program.expect("> ")
        program.press("\x04")
        assert program.exited() == 0
    for part in ('"action": {"id": "reject"', '"size": "l"', '"reason": "too late"', '"comment": "none"'):
        assert part in said, said


def test_a_question_that_is_left_open_is_answered_by_the_next_message(
    typed: Type, fake: ScriptedBackend
) -> None:
    fake.queue(script(text("Well."), ask_human("May I go on?")), echo)
    with typed() as program:
        program.expect("> ")
        program.press("Do it\n")
        program.expect("1-2: ")
        program.press("\x03")
        program.expect("your next message is its answer.\n> ")
        program.press("Better not\n")
        assert "Better not" in program.expect("> ")
        program.press("\x04")
        assert program.exited() == 0


def test_a_question_in_a_pipe_is_answered_by_the_next_line(piped: Pipe, fake: ScriptedBackend) -> None:
    fake.queue(script(text("Well."), ask_human("May I go on?")), echo)
    done = piped(lines="Do it\nBetter not\n")
    assert done.returncode == 0
    assert "May I go on?" in done.stdout
    assert "Better not" in done.stdout
    assert done.stderr == "The agent asks this: the next message of the conversation is the answer.\n"


def test_a_reader_that_leaves_ends_it_without_a_word(
    gateway: GatewayServer, user: str, tmp_path: Path, fake: ScriptedBackend
) -> None:
    gate = Gate()
    fake.queue(script(text("One "), gate, text("two", index=1), succeed()))
    process = subprocess.Popen(
        [sys.executable, *arguments(gateway.url, user, "Begin")],
        cwd=tmp_path,
        env=environment(API_KEY=API_KEY),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == "One "
        process.stdout.close()
        gate.open()
        assert (process.wait(BOUND), process.stderr.read()) == (1, "")


def test_a_key_for_one_chat_is_made_for_an_app_and_revoked(
    command: Command, start_gateway: StartGateway, database_url: str, fake: ScriptedBackend
) -> None:
    server = start_gateway()
    apply_app(database_url, "guide")
    # The key of the environment opens the default app: it is not used here.
    given = {"HOST": "127.0.0.1", "PORT": server.url.rpartition(":")[2], "API_KEY": "app-other"}
    done = command("chat", "--app", "guide", "Hello", **given)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "You said: Hello.\n", "")
    fake.queue(script(fail("InvokeServerUnavailableError")))
    assert command("chat", "--app", "guide", "Hello", **given).exit_code == 1
    _, *listed = command("key", "list", "guide").output.splitlines()
    assert len(listed) == 2
    assert all(re.search(r"agent-gateway chat +revoked", line) for line in listed)
    assert "there is no app 'nothing'" in refusal(command("chat", "--app", "nothing", "Hello", **given))


def test_the_settings_say_which_gateway_and_key(gateway: GatewayServer, tmp_path: Path) -> None:
    operator = Operator(tmp_path, "")
    operator.write(
        ".env", f"AGENT_GATEWAY_PORT={gateway.url.rpartition(':')[2]}\nAGENT_GATEWAY_API_KEY={API_KEY}\n"
    )
    done = operator.try_("chat", "Hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said: Hello.\n", "")
    # That key is not sent elsewhere.
    assert "no key" in operator.try_("chat", "--url", gateway.url, "Hello").stderr
