"""Who can read what a gateway writes: its owner, and nobody else on the machine."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.command import Operator
from tests.support.files import upload
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, GatewayServer

MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """New files are readable by everybody, unless a program says otherwise: the umask of most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable_by_others(folder: Path) -> list[str]:
    """All files and folders that users can use who are neither the owner nor in the group."""
    found = [folder, *folder.rglob("*")]
    return [f"{path} {path.stat().st_mode:o}" for path in found if path.stat().st_mode & stat.S_IRWXO]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_no_other_user_can_read_the_data(tmp_path: Path, user: str) -> None:
    """The database with what lies beside it, the secret key, and files that were sent whole and in parts."""
    data = tmp_path / "data"
    with GatewayProcess(tmp_path, API_KEY=API_KEY, SECRET_KEY="") as process, process.client() as client:
        chat = Chat(client, user)
        chat.blocking()
        small = upload(chat, "small.txt", b"small", "text/plain")["id"]
        large = upload(chat, "large.txt", bytes(6 * MEGABYTE), "text/plain")["id"]
        beside = {"agent-gateway.db", "agent-gateway.db-wal", "agent-gateway.db-shm", "agent-gateway.db-lock"}
        assert names(data) == {*beside, "secret-key", "files"}
        assert {small, large} <= {path.name for path in data.rglob("*")}
        assert readable_by_others(data) == []
    assert readable_by_others(data) == []


def test_a_folder_of_files_that_was_open_to_everybody_is_closed(tmp_path: Path) -> None:
    """As versions before this one made it. What is in it cannot be reached any more."""
    folder = tmp_path / "files/2026"
    folder.mkdir(parents=True)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o755
    with GatewayServer(tmp_path):
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o750


def test_a_database_made_by_migrate_is_private(tmp_path: Path) -> None:
    Operator(tmp_path, "").run("migrate")
    assert names(tmp_path / "data") == {"agent-gateway.db"}
    assert readable_by_others(tmp_path / "data") == []
