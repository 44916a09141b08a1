"""What is not kept is removed by a gateway that runs, and by `agent-gateway prune`."""

from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.limits import Limits, MaintenanceIntervals
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import ConversationRow, TurnRow
from agent_gateway.store.removal import QUIET_SECONDS
from tests.support.chat import Chat, refused
from tests.support.command import Operator
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import local, upload
from tests.support.gateway_server import StartGateway, wait_until
from tests.support.outbox import all_done
from tests.support.rows import counts, look, stored_files

OFTEN = Limits(maintenance=MaintenanceIntervals(tidy_seconds=0.1))
DAY = 24 * 3600


def age(url: str, seconds: float, of: str | None = None) -> None:
    """All that has happened was so long ago, in this conversation or in every one."""
    then = now_plus(-seconds)
    deleted, ended = col(ConversationRow.deleted_at).is_not(None), col(TurnRow.ended_at).is_not(None)
    changes = [
        update(ConversationRow).values(updated_at=then),
        update(ConversationRow).where(deleted).values(deleted_at=then),
    ]
    turns = update(TurnRow).where(ended).values(ended_at=then)
    if of is not None:
        changes = [change.where(col(ConversationRow.id) == of) for change in changes]
        turns = turns.where(col(TurnRow.conversation_id) == of)

    async def work(session: AsyncSession) -> None:
        for change in (*changes, turns):
            await session.execute(change)

    look(url, work)


def test_a_running_gateway_removes_old_conversations_and_keeps_what_runs(
    start_gateway: StartGateway,
    fake: ScriptedBackend,
    gate: Gate,
    database_url: str,
    user: str,
    tmp_path: Path,
) -> None:
    server = start_gateway(limits=OFTEN, retention_days=1)
    with server.client() as client:
        chat = Chat(client, user)
        sent = upload(chat)
        old = chat.blocking("Old", files=[local(sent["id"])])
        fake.queue(script(said("One "), gate, said("two"), succeed()))
        with chat.open("Running") as stream:
            stream.until("One ")
            age(database_url, DAY + 60)
            # Its session is closed first, as for every deleted conversation.
            wait_until(lambda: len(chat.conversations()["data"]) == 1)
            all_done(database_url)
            refused(chat.events(old["task_id"]), 404, "not_found")
            age(database_url, QUIET_SECONDS + 60)
            wait_until(lambda: counts(database_url)["turns"] == 1)
            gate.open()
            assert stream.rest().answer == "One two"
        wait_until(lambda: not stored_files(database_url))
        assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []
        refused(chat.events(old["task_id"]), 404, "not_found")
        assert chat.blocking("More", conversation_id=stream.rest().conversation_id)["answer"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_operator_sees_what_would_go_and_removes_it(
    start_gateway: StartGateway, database_url: str, user: str, tmp_path: Path
) -> None:
    operator = Operator(tmp_path, database_url)
    with start_gateway().client() as client:
        chat = Chat(client, user)
        gone, old = (chat.blocking(query)["conversation_id"] for query in ("Gone", "Old"))
        age(database_url, 2 * DAY)
        client.request("DELETE", f"/conversations/{gone}", json={"user": user}).raise_for_status()
        all_done(database_url)
        age(database_url, QUIET_SECONDS + 60, of=gone)
        before = counts(database_url)
        days = {"AGENT_GATEWAY_RETENTION_DAYS": "1"}
        would = operator.try_("prune", "--dry-run", **days)
        assert would.stderr == ""
        assert dict(line.rsplit(maxsplit=1) for line in would.stdout.splitlines()) == {
            "KIND": "COUNT",
            "conversations past their time": "1",
            **dict.fromkeys(("turns", "messages", "conversations"), "2"),
            "snapshots": "1",
        }
        assert counts(database_url) == before
        done = operator.try_("prune", **days)
        assert dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()) == {
            "KIND": "COUNT",
            "conversations past their time": "1",
            **dict.fromkeys(("turns", "messages", "conversations"), "1"),
        }
        assert done.stderr.startswith("note: 1 deleted conversations wait until ten minutes have passed")
        assert chat.conversations()["data"] == []
        assert counts(database_url)["turns"] == 1
        refused(chat.post("More", conversation_id=old), 404, "not_found")
