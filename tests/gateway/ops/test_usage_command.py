"""`agent-gateway conversations` and `usage`: counts of all apps and users, without what was said."""

import json
import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import update
from sqlmodel import col

from agent_gateway.domain.ids import new_id
from agent_gateway.store.db.tables import TurnRow
from tests.support.chat import Chat
from tests.support.command import Command, refusal
from tests.support.fakes.script import fail, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import StartGateway
from tests.support.rows import add_app, look

CANARY = "swordfish"
USED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "total_price": "0.00000125"}


def lines(output: str) -> list[list[str]]:
    return [re.split(" {2,}", line) for line in output.splitlines()[1:]]


def test_turns_and_tokens_are_counted_by_app_user_and_day(
    command: Command, start_gateway: StartGateway, fake: ScriptedBackend
) -> None:
    server = start_gateway()
    url = server.settings.resolved_database_url()
    add_app(url, key := f"app-{new_id()}")
    with server.client() as client, server.client(key) as other:
        fake.script = script(said(CANARY), succeed(usage=USED))
        ann = Chat(client, "ann").blocking(CANARY)
        Chat(client, "ann").blocking(CANARY, conversation_id=ann["conversation_id"])
        Chat(other, "ann").blocking(CANARY)
        fake.script = script(fail())
        Chat(client, "ben").post(CANARY)
    by_user = command("usage", "--by", "user", "--app", "default").output
    assert lines(by_user) == [
        ["ann", "2", "2", "0", "0", "0", "6", "8", "14", "0.000003"],
        ["ben", "1", "0", "0", "1", "0", "0", "0", "0", "0.000000"],
    ]
    by_app = [json.loads(line) for line in command("usage", "--json", "--user", "ann").output.splitlines()]
    assert sorted((one["turns"], one["total_tokens"]) for one in by_app) == [(1, 7), (2, 14)]
    assert sorted(one["total_price"] for one in by_app) == pytest.approx([0.00000125, 0.0000025])
    yesterday = datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC)
    moved = update(TurnRow).where(col(TurnRow.id) == ann["task_id"]).values(created_at=yesterday)
    look(url, lambda session: session.execute(moved))
    assert [line[:2] for line in lines(command("usage", "--by", "day", "--app", "default").output)] == [
        [f"{datetime.now(UTC):%Y-%m-%d}", "2"]
    ]
    days = command("usage", "--by", "day,user", "--since", "36500d", "--user", "ann").output
    assert lines(days)[0][:3] == ["2020-02-29", "ann", "1"]


def test_conversations_are_listed_without_names_unless_they_are_asked_for(
    command: Command, start_gateway: StartGateway, fake: ScriptedBackend
) -> None:
    server = start_gateway()
    with server.client() as client:
        first = Chat(client, "ann").blocking(CANARY)["conversation_id"]
        Chat(client, "ann").blocking(CANARY, conversation_id=first)
        second = Chat(client, "ben").blocking(CANARY)["conversation_id"]
        client.post(f"/conversations/{first}/name", json={"user": "ann", "name": "Plans"})
        client.request("DELETE", f"/conversations/{second}", json={"user": "ben"})
    listed = command("conversations", "list").output
    minute = r"\d{4}-\d\d-\d\d \d\d:\d\dZ"
    newest, oldest = listed.splitlines()[1:]
    assert re.fullmatch(rf"{second}  default  ben   1      {minute}  {minute}  {minute}", newest)
    assert re.fullmatch(rf"{first}  default  ann   2      {minute}  {minute}  -", oldest)
    assert CANARY not in listed
    [mine] = command("conversations", "list", "--user", "ann", "--json").output.splitlines()
    assert {**json.loads(mine), "created_at": "", "updated_at": ""} == {
        "conversation_id": first,
        "app": "default",
        "user": "ann",
        "turns": 2,
        "created_at": "",
        "updated_at": "",
        "deleted_at": None,
    }
    assert lines(command("conversations", "list", "--names", "--app", "default").output)[1][-1] == "Plans"
    assert lines(command("conversations", "list", "--limit", "1").output)[0][0] == second


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_wrong_groups_and_apps_are_refused_in_one_line(command: Command) -> None:
    assert "--by 'app,week': write app, user or day" in refusal(command("usage", "--by", "app,week"))
    assert "--since 'long' is no span" in refusal(command("usage", "--since", "long"))
    for arguments in (("usage",), ("conversations", "list")):
        assert "no app 'nothing'" in refusal(command(*arguments, "--app", "nothing"))
    assert "no turn began in the last 30d" in command("usage").stderr
