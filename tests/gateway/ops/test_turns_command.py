"""`agent-gateway turns`: what an operator is told about turns, and the stop of one."""

import json
import re

import pytest

from tests.support.chat import Chat
from tests.support.command import Command, refusal
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import StartGateway, wait_until
from tests.support.rows import rows_of

CANARY = "swordfish"
NOBODY = "01a204ae-18e5-737d-918a-52188975f73a"


def rows(output: str) -> list[list[str]]:
    """The cells of each line below the head of a table."""
    return [re.split(" {2,}", line) for line in output.splitlines()[1:]]


def values(output: str) -> dict[str, str]:
    found = (line.partition(":") for line in output.splitlines())
    return {name: value.strip() for name, _, value in found if not name.startswith(" ")}


def test_an_operator_finds_a_running_turn_and_stops_it(
    command: Command, start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """The partial answer stays. Only the operator's own output tells what happened before."""
    server = start_gateway(lease_seconds=1.0)
    fake.queue(script(said(f"{CANARY} first"), gate, succeed()))
    with server.client() as client, Chat(client, user).open(CANARY) as stream:
        task_id = stream.next()["task_id"]
        wait_until(lambda: rows(command("turns", "list", "--state", "live").output))
        [line] = rows(command("turns", "list", "--user", user).output)
        assert line[:3] == [task_id, "running", "default"]
        assert line[5] == list(fake.runs)[-1]
        shown = values(command("turns", "show", task_id).output)
        assert (shown["state"], shown["user"], shown["run"]) == ("running", user, list(fake.runs)[-1])
        assert "within 8 seconds\n" in command("turns", "stop", task_id.upper()).output
        assert stream.rest().kinds[-1] == "message_end"
    done = command("turns", "stop", task_id).output
    assert done == f"{task_id}: had ended before (stopped): nothing was changed\n"
    shown = command("turns", "show", task_id).output
    assert re.search(r"Z asked to stop by an operator\n  .{20} ended, stopped\n", shown)
    assert rows_of(server.settings.resolved_database_url(), task_id).message.answer == f"{CANARY} first"
    assert CANARY not in shown + command("turns", "list", "--json").output


def test_an_operator_sees_why_a_turn_failed_and_which_request_began_it(
    command: Command, start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    server = start_gateway()
    fake.queue(script(create=401))
    with server.client() as client:
        body = {"query": CANARY, "user": user, "response_mode": "background"}
        begun = client.post("/chat-messages", json=body, headers={"X-Request-Id": "request-7"}).json()
    wait_until(lambda: rows(command("turns", "list", "--state", "failed").output))
    listed = json.loads(command("turns", "list", "--request-id", "request-7", "--json").output)
    assert listed["task_id"] == begun["task_id"]
    assert (listed["outcome"], listed["code"], listed["cause"]["status"]) == (
        "failed",
        "backend_refused",
        401,
    )
    [line] = rows(command("turns", "list", "--state", "failed").output)
    shown = values(command("turns", "show", begun["task_id"]).output)
    assert line[1] == shown["state"] == "failed"
    assert line[6] == shown["code"] == "backend_refused"
    assert line[7] == shown["cause"]
    assert "401" in shown["cause"]
    assert shown["request"] == "request-7"
    told = json.loads(command("turns", "show", begun["task_id"], "--json").output)
    assert (told["total_tokens"], told["query_bytes"], told["adoptions"]) == (None, len(CANARY), 0)
    assert CANARY not in json.dumps([listed, told])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_list_without_turns_says_how_far_back_it_looked(command: Command) -> None:
    empty = command("turns", "list", "--since", "2h")
    assert rows(empty.stdout) == []
    assert "the last 2h" in empty.stderr
    assert command("turns", "list", "--state", "stuck").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said_"),
    [
        (("list", "--app", "nothing"), "no app 'nothing'"),
        (("list", "--since", "2w"), "--since '2w' is no span of time"),
        (("list", "--since", "0s"), "--since '0s' is no span of time"),
        (("show", "nothing"), "no turn 'nothing'"),
        (("show", NOBODY), f"no turn '{NOBODY}'"),
        (("stop", "nothing"), "no turn 'nothing'"),
        (("stop", NOBODY), f"no turn '{NOBODY}'"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_wrong_command_is_refused_in_one_line(
    command: Command, arguments: tuple[str, ...], said_: str
) -> None:
    assert said_ in refusal(command("turns", *arguments))
