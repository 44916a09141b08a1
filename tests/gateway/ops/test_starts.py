"""What an operator gets wrong at a start is told in one line, and nothing is changed or half made.

In this process, which is faster, where the start fails before it serves.
"""

import os
import pickle
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from agent_gateway import logs
from agent_gateway.app import app_of_worker
from agent_gateway.apps.config import default_app
from agent_gateway.cli.commands import app as commands
from agent_gateway.cli.listen import bind, listening_on
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from agent_gateway.store.apps import AppStore
from agent_gateway.store.db import sqlite_file
from agent_gateway.store.db.sqlite_file import served_alone
from tests.support.chat import Chat
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import local, told, upload
from tests.support.fleet import Fleet
from tests.support.gateway_process import START_SECONDS, GatewayProcess, environment
from tests.support.gateway_server import API_KEY, SECRET_KEY, wait_until
from tests.support.ports import hold_port
from tests.support.rows import with_database

Command = Callable[..., Result]


def quiet(style: str, level: str) -> None:
    """In place of the process's own logging."""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in an empty folder, with these settings alone."""
    monkeypatch.setattr(logs, "configure", quiet)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AGENT_GATEWAY_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **settings: str) -> Result:
        environ = {f"AGENT_GATEWAY_{name}": value for name, value in settings.items()}
        return CliRunner().invoke(commands, list(arguments), env=environ)

    return run


def refusal(result: Result) -> str:
    assert isinstance(result.exception, ConfigError), (result.output, result.exception)
    told = str(result.exception)
    assert "\n" not in told
    return told


def left_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# -- one process for one SQLite file ---------------------------------------------------------------


@pytest.mark.slow
def test_a_second_process_on_one_sqlite_file_is_refused(tmp_path: Path, user: str) -> None:
    """On the same port and on another: neither ends the turn that runs, nor takes the printed key away."""
    with GatewayProcess(tmp_path) as process:
        key = process.printed_key
        assert key
        with process.client(key) as client, Chat(client, user).open("count to 150") as stream:
            stream.until("2 ")
            port = process.url.rpartition(":")[2]
            for arguments, said in ((("--port", port), "in use"), ((), "served by another process")):
                second = subprocess.run(
                    [sys.executable, "-m", "agent_gateway", "serve", "--port", "0", *arguments],
                    cwd=tmp_path,
                    env=environment(DATA_DIR=tmp_path / "data", SECRET_KEY=SECRET_KEY),
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )
                assert (second.returncode, second.stdout) == (2, "")
                assert said in second.stderr
                assert (second.stderr[:7], second.stderr.count("\n")) == ("error: ", 1)
            heard = stream.rest()
    assert heard.kinds[-1] == "message_end"
    assert heard.answer.endswith("149 150. Done.")


def test_a_start_on_a_taken_port_creates_nothing(command: Command, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        refusals = [refusal(command(name, "--port", port)) for name in ("serve", "backend")]
    for said in refusals:
        assert said.startswith(f"http://127.0.0.1:{port} is in use by another process")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a b", "x" * 300])
def test_a_foreign_host_address_is_refused_in_one_line(command: Command, tmp_path: Path, host: str) -> None:
    told = refusal(command("serve", "--port", "0", "--host", host))
    assert "is no address of this machine" in told or "cannot listen on" in told
    assert list(tmp_path.iterdir()) == []


def test_a_host_name_with_one_foreign_address_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `localhost` in a container without IPv6."""
    addresses = [("192.0.2.1", 0), ("127.0.0.1", 0)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    def getaddrinfo(*_: object, **__: object) -> object:
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with hold_port() as held:
        for port in (0, held.getsockname()[1]):
            sockets = bind("localhost", port)
            try:
                assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1"]
            finally:
                for one in sockets:
                    one.close()


def test_a_database_file_is_locked_under_all_its_names(command: Command, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").symlink_to("one")
    with served_alone(tmp_path / "one" / "x.db"):
        for url in ("sqlite:///other/x.db", f"sqlite:///{tmp_path}/one/../one/x.db"):
            assert f"process {os.getpid()}" in refusal(command("serve", "--port", "0", DATABASE_URL=url))
    assert left_in(tmp_path) == {"one/x.db-lock"}


def test_the_lock_is_released_when_its_process_dies(command: Command, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from agent_gateway.store.db.sqlite_file import served_alone\n"
        "with served_alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    path = tmp_path / "x.db"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = refusal(command("serve", "--port", "0", DATABASE_URL=f"sqlite:///{path}"))
        holder.kill()
    assert f"process {holder.pid}" in refused
    with served_alone(path):
        pass


# -- databases that cannot be used -----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("app", "list"),
        ("app", "export", "default"),
        ("app", "delete", "x", "--yes"),
        ("key", "create", "default"),
        ("key", "list", "default"),
        ("key", "revoke", "01a204ae-18e5-737d-918a-52188975f73a"),
    ],
)
def test_only_serve_and_migrate_create_a_database(
    command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert f"there is no database {tmp_path}/.data/agent-gateway.db" in refusal(command(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["50% off", "why?", "a b", "Städte", "a#b", "100%41"])
def test_a_data_folder_with_an_unusual_name_works(command: Command, tmp_path: Path, name: str) -> None:
    assert command("migrate", DATA_DIR=name).exit_code == 0
    assert left_in(tmp_path) == {f"{name}/agent-gateway.db"}
    assert "APP" in command("app", "list", DATA_DIR=name).output


def test_database_files_are_readable_by_their_owner_only(command: Command, tmp_path: Path) -> None:
    command("migrate")
    path = tmp_path / ".data" / "agent-gateway.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM apps")
        assert left_in(path.parent) == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
        assert command("migrate").exit_code == 0
        for file in path.parent.iterdir():
            assert (file.name, stat.S_IMODE(file.stat().st_mode)) == (file.name, 0o600)


def make_corrupt(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def make_torn(path: Path) -> None:
    """The first page is whole, the others are not."""
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096 * 40)


def make_read_only(path: Path) -> None:
    """Of a format that this SQLite can only read."""
    data = bytearray(path.read_bytes())
    data[18] = 9
    path.write_bytes(data)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("migrate",)], ids=["serve", "migrate"])
@pytest.mark.parametrize("damage", [make_corrupt, make_torn, make_read_only, make_folder])
def test_a_damaged_database_is_reported_in_one_line(
    command: Command, tmp_path: Path, damage: Callable[[Path], None], arguments: tuple[str, ...]
) -> None:
    command("migrate")
    path = tmp_path / ".data" / "agent-gateway.db"
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    told = refusal(command(*arguments))
    assert str(path) in told
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_start_on_a_full_disk_says_that_it_is_full(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever SQLite calls it."""
    command("migrate")
    make_torn(tmp_path / ".data" / "agent-gateway.db")
    assert "its disk is full" not in refusal(command("migrate"))
    monkeypatch.setattr(sqlite_file, "ROOM_BYTES", 2**62)
    assert "its disk is full" in refusal(command("migrate"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DATA_DIR": "file/data"}, "AGENT_GATEWAY_DATA_DIR"),
        ({"DATABASE_URL": "sqlite:///nowhere/x.db"}, "nowhere"),
        ({"DATABASE_URL": "sqlite:///file/x.db"}, "cannot be used"),
        ({"DATABASE_URL": "sqlite://"}, "names no file"),
        ({"DATABASE_URL": "sqlite:///:memory:"}, "names no file"),
        ({"DATABASE_URL": "sqlite:///file:x.db?uri=true"}, "names no file"),
        ({"DATABASE_URL": "sqlite:///x.db?mode=ro"}, "nothing follows a ?"),
    ],
)
def test_an_unusable_data_folder_is_reported_in_one_line(
    command: Command, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    (tmp_path / "file").touch()
    for arguments in (("serve", "--port", "0"), ("migrate",), ("app", "list")):
        told = refusal(command(*arguments, **settings))
        assert said in told or (arguments == ("app", "list") and "there is no database" in told)
    assert left_in(tmp_path) == {"file"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "room"),
    [(("serve", "--port", "0"), 0), (("serve", "--port", "0"), 32768), (("migrate",), 4096)],
    ids=["no room", "too little", "hardly any"],
)
def test_a_first_start_on_a_full_disk_is_reported(
    tmp_path: Path, arguments: tuple[str, ...], room: int
) -> None:
    """One line, and no half of a database, whose next start would fail in another way."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    environ = {**environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    # Unmeasured: there would be no room for what coverage writes, and it would say so.
    environ.pop("COVERAGE_PROCESS_CONFIG", None)
    done = subprocess.run(
        [sys.executable, "-m", "agent_gateway", *arguments],
        cwd=tmp_path,
        env=environ,
        preexec_fn=fill,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (done.stderr[:7], done.stderr.count("\n")) == ("error: ", 1), done.stderr
    assert left_in(tmp_path) <= {".data/agent-gateway.db-lock"}
    assert API_KEY not in done.stderr


def test_a_database_without_space_is_reported_before_serving(command: Command, tmp_path: Path) -> None:
    command("migrate")
    path = tmp_path / ".data" / "agent-gateway.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        told = refusal(command("migrate"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in told
    assert command("migrate").exit_code == 0


# -- where it listens ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::0", "[::1]"),
        ("::1", "[::1]"),
    ],
)
def test_file_urls_for_agents_name_the_real_port(host: str, local: str) -> None:
    """With a port that only the system knows before."""
    sockets = bind(host, 0)
    try:
        address, port = listening_on(sockets)
        settings = Settings(_env_file=None, host=address, port=port)
        assert settings.agent_url == f"http://{local}:{port}"
        for one in sockets:
            one.listen()
        with socket.create_connection((local.strip("[]"), port), timeout=10):
            pass
    finally:
        for one in sockets:
            one.close()


def test_listening_everywhere_covers_ipv4_and_ipv6() -> None:
    (one,) = bind("::", 0)
    with one:
        one.listen()
        for local in ("127.0.0.1", "::1"):
            with socket.create_connection((local, one.getsockname()[1]), timeout=10):
                pass


def test_workers_have_the_settings_of_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is started when the environment and the files have changed."""
    settings = Settings(_env_file=None, host="::1", port=4711, secret_key=SECRET_KEY)
    app = pickle.dumps(partial(app_of_worker, settings, default_app()))
    monkeypatch.setenv("AGENT_GATEWAY_PORT", "1")
    made = pickle.loads(app)
    assert made.func is app_of_worker
    assert (made.args[0].model_dump(), made.args[1]) == (settings.model_dump(), default_app())


@pytest.mark.slow
def test_an_agent_can_fetch_files_on_any_port(fake: ScriptedBackend, tmp_path: Path, user: str) -> None:
    """`serve --host :: --port 0`: the URL that the agent is told leads to the file."""
    with (
        GatewayProcess(tmp_path, "--host", "::", BACKEND_URL=fake.url, API_KEY=API_KEY) as process,
        process.client() as client,
    ):
        chat = Chat(client, user)
        kept = upload(chat, "notes.txt", b"Seen by the agent", "text/plain")
        chat.blocking("Read this", files=[local(kept["id"], "document")])
        (url,) = re.findall(r"http://\S+", told(fake)[1])
        assert url.startswith(process.url.replace("[::]", "[::1]"))
        assert httpx.get(url, trust_env=False).content == b"Seen by the agent"


@pytest.mark.slow
def test_a_replaced_worker_has_the_settings_of_the_first(fleet: Fleet, tmp_path: Path) -> None:
    """The files may have changed since then; two workers are ready again."""
    file = tmp_path / "app.yaml"
    file.write_text("name: Before")
    process = fleet.process("--workers", "2", APP_FILE=file)

    def ready(count: int) -> bool:
        return process.output.count("Application startup complete") >= count

    wait_until(lambda: ready(2), START_SECONDS)
    file.write_text("name: After")
    (process.folder / ".env").write_text("AGENT_GATEWAY_DRAIN_SECONDS=soon")
    workers = [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    wait_until(lambda: ready(3), START_SECONDS)
    assert process.output.count(f"worker {workers[0].pid} has died") == 1
    app = with_database(fleet.database_url, lambda database: AppStore(database).find_by_slug("default"))
    assert app is not None
    assert (app.config.name, app.number) == ("Before", 1)
    process.send(signal.SIGTERM)
    assert process.exited(60) == 0
    assert "Traceback" not in process.output
