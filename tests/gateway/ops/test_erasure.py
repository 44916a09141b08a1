"""`agent-gateway user`: everything of one end user is exported and erased, while a gateway serves."""

import json
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_gateway.domain.files import artifact_id
from agent_gateway.domain.ids import ConversationId
from agent_gateway.store.db.database import Database
from agent_gateway.store.removal import remove_some
from agent_gateway.store.turns.stopping import mark_deleted
from tests.support.chat import Chat, refused
from tests.support.command import Operator
from tests.support.fakes.script import Gate, file, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import local, upload
from tests.support.fleet import Fleet, drives
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, GatewayServer, StartGateway, wait_until
from tests.support.human_input import asked, awaiting, submit, token_of
from tests.support.json_type import Json
from tests.support.outbox import all_done
from tests.support.rows import counts, with_database
from tests.support.traces import traces

CANARY = "canary7Zq"
BYTES = f"{CANARY} in a file".encode() * 100
KEPT = "robin4Xk"


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    return Operator(tmp_path, database_url)


@pytest.fixture
def gateway(tmp_path: Path, database_url: str, fake: ScriptedBackend, gate: Gate) -> Iterator[GatewayProcess]:
    with GatewayProcess(
        tmp_path, DATABASE_URL=database_url, BACKEND_URL=fake.url, API_KEY=API_KEY, LEASE_SECONDS=1.5
    ) as process:
        yield process.ready()
        gate.open()


def tell(chat: Chat, fake: ScriptedBackend, word: str) -> Json:
    """Leave this word wherever a user can leave one; the last turn that ended."""
    sent = upload(chat, f"{word}.txt", word.encode() * 100, "text/plain")
    fake.queue(script(said(f"Here is {word}."), file(f"{word} in a file".encode() * 100), succeed()))
    first = chat.blocking(
        f"I am {word}. " + f"{word} " * 3000,
        inputs={"who": word},
        files=[local(sent["id"], "document")],
        headers={"Idempotency-Key": f"{word}-{sent['id']}"},
    )
    answer = chat.blocking(f"Who am I, {word}?", conversation_id=first["conversation_id"])
    chat.client.post(
        f"/conversations/{first['conversation_id']}/name", json={"user": chat.user, "name": f"About {word}"}
    ).raise_for_status()
    rating = {"user": chat.user, "rating": "like", "content": f"Thanks from {word}"}
    chat.client.post(f"/messages/{answer['message_id']}/feedbacks", json=rating).raise_for_status()
    question = asked(chat, fake, f"Ask {word}")
    assert submit(chat, token_of(question), size="s", comment=f"It is {word}").status_code == 200
    # Queued behind the turn that carries the answer: the next script is not for that one.
    chat.blocking("Done", conversation_id=question.conversation_id)
    upload(chat, f"unused-{word}.txt", word.encode(), "text/plain")
    return answer


@pytest.mark.slow
def test_an_erased_user_leaves_no_byte(
    gateway: GatewayProcess,
    operator: Operator,
    fake: ScriptedBackend,
    gate: Gate,
    database_url: str,
    tmp_path: Path,
) -> None:
    """Also of a turn that was running, and of what they had deleted before; the others keep theirs."""
    folder = tmp_path / "data"
    with gateway.client() as client:
        erased, kept = Chat(client, f"{CANARY}@example.com"), Chat(client, KEPT)
        for _ in range(3):
            tell(kept, fake, KEPT)
            answer = tell(erased, fake, CANARY)
        gone = erased.blocking(f"Forget {CANARY}")["conversation_id"]
        client.request("DELETE", f"/conversations/{gone}", json={"user": erased.user}).raise_for_status()
        # The next script is not for the run that closes the session.
        all_done(database_url)
        fake.queue(script(said(f"{CANARY} one ", "two "), gate, succeed()))
        begun = erased.background(f"Go on about {CANARY}")
        with erased.follow(begun["task_id"]) as stream:
            stream.until("two ")
            held = traces(database_url, folder, CANARY)
            assert len(held) >= 5, held
            receipt = operator.try_("user", "erase", "default", erased.user, "--yes")
            assert receipt.returncode == 0, receipt.stderr
            assert stream.rest().kinds[-1] == "message_end"
        assert receipt.stderr == ""
        assert receipt.stdout.startswith("erased:")
        assert f"user:   {erased.user}\n" in receipt.stdout
        assert receipt.stdout.count(CANARY) == 1, "a receipt has no texts"
        assert "KIND" in receipt.stdout
        assert traces(database_url, folder, CANARY) == []
        assert len(traces(database_url, folder, KEPT)) >= 1
        # Nothing is left in the process either, for anybody who asks.
        refused(erased.events(begun["task_id"]), 404, "not_found")
        refused(erased.post("More", conversation_id=answer["conversation_id"]), 404, "not_found")
        assert erased.conversations()["data"] == []
        assert len(kept.conversations()["data"]) == 6
        assert erased.blocking("I am back")["answer"] == "You said: I am back."
    assert "[error" not in gateway.output


@pytest.mark.slow
def test_an_erased_user_leaves_no_byte_of_what_the_embedded_agent_said(
    operator: Operator, database_url: str, tmp_path: Path
) -> None:
    """In the log of its runs: of turns, of one that still runs, and of the run that closes the session."""
    given = {"DATABASE_URL": database_url, "API_KEY": API_KEY, "LEASE_SECONDS": 1.5}
    with GatewayProcess(tmp_path, **given).ready() as process, process.client() as client:
        erased, kept = Chat(client, CANARY), Chat(client, KEPT)
        for chat in (erased, kept):
            first = chat.blocking(f"My name is {chat.user}")["conversation_id"]
            chat.blocking("What is my name?", conversation_id=first)
        gone = erased.blocking(f"Forget {CANARY}")["conversation_id"]
        client.request("DELETE", f"/conversations/{gone}", json={"user": CANARY}).raise_for_status()
        all_done(database_url)
        with erased.open(f"I am {CANARY}, tell me a long story, please") as stream:
            stream.next()
            assert traces(database_url, tmp_path / "data", CANARY)
            receipt = operator.try_("user", "erase", "default", CANARY, "--yes")
            assert receipt.returncode == 0, receipt.stderr
            assert stream.rest().kinds[-1] == "message_end"
        assert traces(database_url, tmp_path / "data", CANARY) == []
        assert traces(database_url, tmp_path / "data", KEPT)
        again = kept.conversations()["data"][0]["id"]
        assert "Your name is" in kept.blocking("What is my name?", conversation_id=again)["answer"]
    assert "[error" not in process.output


@pytest.mark.slow
def test_a_turn_of_another_process_writes_nothing_after_the_erasure(
    fleet: Fleet, operator_of_fleet: Operator, fake: ScriptedBackend, gate: Gate, tmp_path: Path
) -> None:
    """It hears of the stop too late: its end finds no row, its file is deleted again, and it serves on."""
    here, there = fleet.start(lease_seconds=60.0), fleet.start(lease_seconds=60.0)
    owner, follower = fleet.chat(here, CANARY), fleet.chat(there, CANARY)
    fake.queue(script(said("One ", f"{CANARY} "), gate, file(BYTES), said("end"), succeed()))
    with owner.open(f"I am {CANARY}") as stream:
        event = stream.until(f"{CANARY} ")[-1]
        with follower.follow(event["task_id"]) as followed:
            followed.until(f"{CANARY} ")
            receipt = operator_of_fleet.try_("user", "erase", "default", CANARY, "--yes", "--wait", "0")
            assert receipt.returncode == 0, receipt.stderr
            assert "1 turns had not ended" in receipt.stderr
            gate.open()
            for reader in (stream, followed):
                heard = reader.rest()
                assert heard.kinds[-2:] == ["message_replace", "message_end"]
                assert heard.answer == ""
    for server in (here, there):
        wait_until(lambda server=server: not drives(server, event["task_id"]))
        wait_until(lambda server=server: not server.gateway.live.followed())
    wait_until(
        lambda: not traces(fleet.database_url, tmp_path / "files", artifact_id(event["message_id"], 1))
    )
    assert traces(fleet.database_url, tmp_path, CANARY) == []
    assert counts(fleet.database_url)["turns"] == 0
    assert owner.blocking("Hello")["answer"] == "You said: Hello."


@pytest.fixture
def operator_of_fleet(tmp_path: Path, fleet: Fleet) -> Operator:
    (tmp_path / "operator").mkdir()
    (tmp_path / "operator" / "data").symlink_to(tmp_path)
    return Operator(tmp_path / "operator", fleet.database_url)


def test_who_waits_for_the_answer_to_a_removed_question_gets_an_end(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend
) -> None:
    """Its rows go at once, before any process can see that the question was cancelled."""
    question = asked(chat, fake)
    conversation_id = ConversationId(question.conversation_id)

    async def remove(database: Database) -> None:
        async with database.transaction() as connection:
            await mark_deleted(connection, conversation_id, 600.0)
            assert (await remove_some(connection, conversation_id))[1]

    with awaiting(chat, question) as stream:
        stream.block()
        with_database(server.settings.resolved_database_url(), remove)
        assert stream.rest().last["event"] == "error"


def test_readers_of_a_removed_turn_that_waits_in_the_queue_get_an_end(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Its rows go at once, before any process can see that it was stopped."""
    fake.queue(script(said("Half "), gate, succeed()))
    server = fleet.start()
    fleet.app("key-of-queue", on_busy="enqueue")
    chat = fleet.chat(server, user, "key-of-queue")

    async def remove(database: Database) -> None:
        async with database.transaction() as connection:
            await mark_deleted(connection, conversation_id, 600.0)
            assert (await remove_some(connection, conversation_id))[1]

    with chat.open("One") as first:
        conversation_id = ConversationId(first.until("Half ")[0]["conversation_id"])
        waiting = chat.background("Two", conversation_id=conversation_id)
        with chat.follow(waiting["task_id"]) as second:
            second.block()
            with_database(fleet.database_url, remove)
            assert second.rest().last["event"] == "message_end"
            assert first.rest().last["event"] == "message_end"


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_export_has_everything_of_one_user(
    start_gateway: StartGateway, operator: Operator, fake: ScriptedBackend, tmp_path: Path
) -> None:
    with start_gateway().client() as client:
        answer = tell(Chat(client, CANARY), fake, CANARY)
        tell(Chat(client, KEPT), fake, KEPT)
    arguments = ("user", "export", "default", CANARY, "--output", "export.zip")
    told = operator.try_(*arguments, AGENT_GATEWAY_DATA_DIR=str(tmp_path))
    assert (told.returncode, told.stderr) == (0, "")
    assert CANARY not in told.stdout
    path = tmp_path / "export.zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name) for name in archive.namelist()}
    assert KEPT.encode() not in b"".join(texts.values())
    user = json.loads(texts["user.json"])
    assert (user["user"], len(user["files"])) == (CANARY, 3)
    assert sorted(texts[file["path"]] for file in user["files"]) == sorted(
        [CANARY.encode() * 100, BYTES, CANARY.encode()]
    )
    conversation = json.loads(texts[f"conversations/{answer['conversation_id']}.json"])
    assert [message["answer"] for message in conversation["messages"]] == [
        f"Here is {CANARY}.",
        f"You said: Who am I, {CANARY}?.",
    ]
    assert conversation["conversations"][0]["inputs"] == {"who": CANARY}
    assert conversation["feedbacks"][0]["content"] == f"Thanks from {CANARY}"
    assert CANARY in conversation["snapshots"][0]["data"]
    assert sum(name.startswith("conversations/") for name in texts) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_operator_is_asked_and_unknown_users_are_told(
    start_gateway: StartGateway, operator: Operator, database_url: str
) -> None:
    with start_gateway().client() as client:
        Chat(client, CANARY).blocking(CANARY)
    asked_first = operator.try_("user", "erase", "default", CANARY, answer="n\n")
    assert asked_first.returncode == 1
    assert "1 conversations with 1 messages, 0 files" in asked_first.stdout
    assert counts(database_url)["turns"] == 1
    unknown = operator.try_("user", "erase", "default", "nobody", "--yes")
    assert unknown.returncode == 2
    assert unknown.stderr == "error: nothing is stored about this user of the app 'default'\n"
