"""`agent-gateway backup` and `restore`: an SQLite gateway is copied while it serves, and starts elsewhere."""

import json
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.cli.backup import backup, restore
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from tests.support.chat import Chat
from tests.support.command import Operator
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import PNG, local, preview, upload
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import wait_until
from tests.support.rows import rows_of

NO_SECRET = ""
"""The secret key is then made in the data folder, and comes with the backup."""


@pytest.fixture
def there(tmp_path: Path) -> Operator:
    """Who restores, in another folder."""
    (tmp_path / "there").mkdir()
    return Here(tmp_path / "there")


class Here(Operator):
    """Types commands for the gateway of a folder, which keeps everything there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")

    def try_(self, *arguments: str, **environ: str) -> Any:
        return super().try_(*arguments, **{"AGENT_GATEWAY_SECRET_KEY": NO_SECRET, **environ})


@pytest.fixture
def here(tmp_path: Path) -> Operator:
    (tmp_path / "here").mkdir()
    return Here(tmp_path / "here")


@pytest.fixture
def gateway(here: Operator, fake: ScriptedBackend, gate: Gate) -> Iterator[GatewayProcess]:
    with started(here.folder, fake) as process:
        yield process
        gate.open()


def started(folder: Path, fake: ScriptedBackend) -> GatewayProcess:
    return GatewayProcess(folder, BACKEND_URL=fake.url, SECRET_KEY=NO_SECRET)


def database_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'data' / 'agent-gateway.db'}"


def changed(archive: Path, folder: Path, **entries: bytes | None) -> Path:
    """The archive with other entries under these names; without those that are None."""
    path = folder / "changed.tar"
    with tarfile.open(archive) as old, tarfile.open(path, "w") as new:
        for entry in old:
            content = old.extractfile(entry)
            assert content is not None
            data = entries.get(entry.name.replace(".", "_"), content.read())
            if data is not None:
                entry.size = len(data)
                new.addfile(entry, BytesIO(data))
    return path


@pytest.mark.slow
def test_a_gateway_is_restored_from_a_backup_that_was_taken_while_it_served(
    gateway: GatewayProcess, here: Operator, there: Operator, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    key = gateway.printed_key
    assert key is not None
    with gateway.client(key) as client:
        chat = Chat(client, user)
        sent = upload(chat)
        conversation = chat.blocking("Look", files=[local(sent["id"])])["conversation_id"]
        fake.queue(script(said("One ", "two "), gate, succeed()))
        with chat.open("Count") as stream:
            stream.until("two ")
            told = here.run("backup", "../backup.tar")
            assert told == "../backup.tar: the database, 1 files and the secret key\n"
            chat.blocking("After the backup", conversation_id=conversation)
            gate.open()
            assert stream.rest().answer == "One two "
        running = stream.task_id
    archive = here.folder.parent / "backup.tar"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert sorted(path.name for path in here.folder.parent.iterdir()) == ["backup.tar", "here", "there"]

    assert there.run("restore", "../backup.tar").startswith(
        "../backup.tar: restored, the database and 1 files"
    )
    data = there.folder / "data"
    for path in (data / "agent-gateway.db", data / "secret-key", *(data / "files").rglob("*-*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with started(there.folder, fake) as restored, restored.client(key) as client:
        chat = Chat(client, user)
        assert restored.printed_key is None
        assert [message["query"] for message in chat.messages(conversation)] == ["Look"]
        assert preview(chat, sent["id"]).content == PNG
        # It was running when the backup was taken: the gateway continues it as after a crash.
        wait_until(lambda: rows_of(database_in(there.folder), running).turn.state == "ended")
        assert chat.resumed(running).answer == "One two "
        assert chat.blocking("More", conversation_id=conversation)["answer"] == "You said: More."
    assert fake.posts == 4, "no run was made twice"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Of a gateway that was started once, where there is a backup.tar of it."""
    home = Here(tmp_path_factory.mktemp("home"))
    with GatewayProcess(home.folder, SECRET_KEY=NO_SECRET) as process:
        assert process.printed_key is not None
        with process.client(process.printed_key) as client:
            upload(Chat(client, "ada"))
    home.run("backup", "backup.tar")
    return home


def test_a_backup_that_cannot_be_restored_leaves_nothing(
    home: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_file = home.folder / "backup.tar"
    data = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENT_GATEWAY_DATA_DIR", str(data))
    with tarfile.open(archive_file) as archive:
        about = json.load(archive.extractfile("about.json") or BytesIO())
        database = (archive.extractfile("database") or BytesIO()).read()
    newer = json.dumps({**about, "schema": "9999"}).encode()
    other = json.dumps({**about, "format": 2}).encode()
    damaged = database[:5000] + b"x" * 5000 + database[10000:]
    faults: list[tuple[dict[str, bytes | None], str]] = [
        ({"about_json": newer}, "the backup is of a newer release: its schema is 9999, which this one"),
        ({"about_json": other}, "the backup is of a newer release: its format is 2"),
        ({"about_json": None}, "is no complete backup"),
        ({"end_json": None}, "is no complete backup"),
        ({"database": None}, "the copy of the database is damaged"),
        ({"database": damaged}, "the copy of the database is damaged"),
    ]
    for entries, told in faults:
        with pytest.raises(ConfigError, match=told):
            restore(changed(archive_file, tmp_path, **entries))
        assert list(data.iterdir()) == []
    (tmp_path / "half.tar").write_bytes(archive_file.read_bytes()[: archive_file.stat().st_size // 2])
    with pytest.raises(ConfigError, match="is no complete backup"):
        restore(tmp_path / "half.tar")
    with pytest.raises(ConfigError, match="cannot be restored: No such file"):
        restore(tmp_path / "nothing.tar")
    assert list(data.iterdir()) == []


@pytest.fixture(autouse=True)
def quiet_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are called here leave the logs of the tests as they are."""
    monkeypatch.setattr("agent_gateway.cli.backup.read_settings", Settings.read)


@pytest.fixture
def at_home(home: Operator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that are called here are those of that gateway."""
    monkeypatch.chdir(home.folder)
    monkeypatch.setenv("AGENT_GATEWAY_DATA_DIR", str(home.folder / "data"))
    return home.folder


def test_nothing_is_overwritten(at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in at_home.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"^backup\.tar exists: name another file$"):
        backup(Path("backup.tar"))
    with pytest.raises(ConfigError, match="data is not empty: a backup is restored into an empty"):
        restore(Path("backup.tar"))
    assert {path: path.read_bytes() for path in at_home.rglob("*") if path.is_file()} == before
    # The root of a new file system is empty.
    (tmp_path / "data" / "lost+found").mkdir(parents=True)
    monkeypatch.setenv("AGENT_GATEWAY_DATA_DIR", str(tmp_path / "data"))
    restore(Path("backup.tar"))
    assert (tmp_path / "data" / "agent-gateway.db").exists()


def test_deleted_rows_are_not_in_a_backup(at_home: Path, tmp_path: Path) -> None:
    """The copy has no free pages, where they would still be."""
    with closing(sqlite3.connect(at_home / "data" / "agent-gateway.db", isolation_level=None)) as file:
        # Some builds of SQLite overwrite what is deleted.
        file.execute("PRAGMA secure_delete = OFF")
        file.execute("CREATE TABLE secrets AS SELECT 'canary7Zq' || hex(zeroblob(9000)) AS text")
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.execute("DROP TABLE secrets")
    assert b"canary7Zq" in (at_home / "data" / "agent-gateway.db").read_bytes()
    backup(tmp_path / "backup.tar")
    assert b"canary7Zq" not in (tmp_path / "backup.tar").read_bytes()


def test_postgres_has_tools_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is asked."""
    monkeypatch.setenv("AGENT_GATEWAY_DATABASE_URL", "postgresql://nobody@nowhere/none")
    for command in (backup, restore):
        with pytest.raises(ConfigError, match=r"the database is Postgres: use pg_dump .* docs/operations.md"):
            command(Path("backup.tar"))


def test_a_bucket_is_not_part_of_a_backup(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_home
    monkeypatch.setenv("AGENT_GATEWAY_FILES_URL", "s3://bucket/x?region=none")
    monkeypatch.setenv("AGENT_GATEWAY_SECRET_KEY", "k" * 40)
    backup(tmp_path / "backup.tar")
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'backup.tar'}: the database, 0 files\n"
    assert "note: files are in a bucket" in told.err
    assert "note: keep AGENT_GATEWAY_SECRET_KEY" in told.err
