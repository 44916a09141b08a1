"""A real pgbouncer before the tests' Postgres, in any of its pool modes."""

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Literal, Self

from sqlalchemy import make_url

from tests.support.fakes.tcp_proxy import postgres_proxy
from tests.support.gateway_server import wait_until
from tests.support.ports import hold_port

Mode = Literal["transaction", "session"]

SERVERS: Final[dict[Mode, int]] = {"transaction": 3, "session": 40}
"""Connections to Postgres; with few of them, transactions of one client really change between them."""
ANYBODY: Final = "nobody"
"""It refuses to be root."""


class PgBouncer:
    """Runs while its context lasts; `url` is the way to a database through it."""

    def __init__(
        self,
        postgres_url: str,
        mode: Mode,
        *,
        ignores: str = "",
        certificates: Path | None = None,
        of_clients: bool = False,
    ) -> None:
        """`certificates` is a folder with `tests.support.certificates`; clients may have to show theirs."""
        self._postgres_url = postgres_url
        self._mode = mode
        self._ignores = ignores
        self._certificates = certificates
        self._of_clients = of_clients
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, (
            "pgbouncer is not installed: dev/setup does that as root, else `apt-get install pgbouncer`"
        )
        folder = Path(tempfile.mkdtemp())
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = self._stack.enter_context(postgres_proxy(self._postgres_url))
        held = self._stack.enter_context(hold_port())
        self._port = held.getsockname()[1]
        user = make_url(self._postgres_url).username or "postgres"
        config = folder / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={postgres.port} user={user}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {self._mode}\ndefault_pool_size = {SERVERS[self._mode]}\n"
            f"ignore_startup_parameters = {self._ignores}\n"
            f"{self._tls(folder)}"
            f"logfile = {folder / 'log'}\n"
        )
        folder.chmod(0o777)
        config.chmod(0o644)
        self._command = [program, *(["-u", ANYBODY] if os.getuid() == 0 else []), str(config)]
        self._log = folder / "log"
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def _tls(self, folder: Path) -> str:
        if self._certificates is None:
            return ""
        for name in ("root.crt", "server.crt", "server.key"):
            shutil.copy(self._certificates / name, folder)
            (folder / name).chmod(0o644)
        return (
            f"client_tls_sslmode = {'verify-ca' if self._of_clients else 'require'}\n"
            f"client_tls_ca_file = {folder / 'root.crt'}\n"
            f"client_tls_cert_file = {folder / 'server.crt'}\n"
            f"client_tls_key_file = {folder / 'server.key'}\n"
        )

    def start(self) -> None:
        """Begin to listen."""
        self._log.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: "process up" in self.log or self._process.poll() is not None)
        assert self._process.poll() is None, self.log

    def stop(self) -> None:
        """End at once, with all connections of clients."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(10)

    @property
    def log(self) -> str:
        """Its log since its last start."""
        return self._log.read_text() if self._log.exists() else ""

    def url(self, **query: str) -> str:
        """The way to the same database, with these parameters."""
        parsed = make_url(self._postgres_url).set(host="127.0.0.1", port=self._port)
        return (
            parsed.difference_update_query(["host"])
            .update_query_dict(query)
            .render_as_string(hide_password=False)
        )
