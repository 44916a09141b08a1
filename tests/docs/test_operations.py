"""The runbooks work: their commands are typed beside real gateways, also where something is broken."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from agent_gateway import metrics
from agent_gateway.apps.config import LayerTemplate, default_app
from agent_gateway.settings import Settings
from agent_gateway.store.keys import KeyStore
from tests.support.chat import Chat, refused
from tests.support.console import PRINTED, check_steps, commands
from tests.support.fakes.model_server import serving
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_process import GatewayProcess, environment
from tests.support.gateway_server import API_KEY, SECRET_KEY, wait_until
from tests.support.limited_role import limited_role
from tests.support.paths import ROOT
from tests.support.ports import hold_port
from tests.support.rows import apply_app, with_database

PAGE: Final = ROOT / "docs" / "operations.md"
ALERTS: Final = ROOT / "deploy" / "monitoring" / "alerts.yaml"
PUBLIC: Final = "https://chat.example.com"
ELSEWHERE: Final = {"docker", "kubectl", "pg_dump", "pg_restore", "psql", "pip", "python3"}
"""Programs that need what a test does not have: machines, a registry, a client of Postgres."""
OTHERS: Final = {"SIGTERM", "SIGKILL", "OPENAI_API_KEY", "FILE", "TASK", "WRONG", "ERROR", "WARNING", "STATE"}
"""Words in capitals that are no settings."""
NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log crit;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url};
    proxy_ignore_headers X-Accel-Buffering; }} }}
}}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of commands."""

    section: str
    kind: str
    """`console`: with what they print. `sh`: without."""
    text: str

    @property
    def programs(self) -> list[str]:
        """What its lines of `sh` start."""
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|\|", line)]
        return [Path(words[0]).name for words in parts if words]

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Its commands, and what each prints; one of `sh` only succeeds."""
        if self.kind == "console":
            return commands(f"```console\n{self.text}```")
        return [(f'(set -e\n{self.text}) > /dev/null; echo "exit status $?"', "…exit status 0")]


def blocks() -> Iterator[Block]:
    section, parts = "", re.compile(r"^#+ ([^\n]*)$|^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for heading, kind, text in parts.findall(PAGE.read_text("utf-8")):
        section = heading or section
        if kind:
            yield Block(section, kind, text)


def runs(block: Block) -> bool:
    """Whether it can be run here; not only half of it."""
    here = block.kind == "console" or not set(block.programs) & ELSEWHERE
    assert here or set(block.programs) <= ELSEWHERE, block.text
    return here


def test_each_command_of_the_console_shows_what_it_prints() -> None:
    """Otherwise the test could not tell when it fails; one that only sets a variable prints nothing."""
    steps = [step for block in blocks() if block.kind == "console" for step in block.steps]
    assert [command for command, shown in steps if shown.strip() in ("", "…") and "=" not in command] == []


# -- worlds: gateways as a section finds them --------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A gateway, and the variables of an operator who looks at it; `folder` has its log."""

    gateway: GatewayProcess
    settings: dict[str, Any]
    addresses: dict[str, str]

    def check(self, sections: set[str], at_least: int) -> None:
        """Type what these sections say."""
        chosen = [block for block in blocks() if block.section in sections and runs(block)]
        steps = [step for block in chosen for step in block.steps]
        assert len(steps) >= at_least
        environ = environment(SECRET_KEY=SECRET_KEY, **self.settings)
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        environ |= {"URL": self.gateway.url, "KEY": API_KEY, "NO_PROXY": "*"}
        log = self.gateway.folder / "gateway.log"
        log.symlink_to(next(self.gateway.folder.glob("output-*")))
        # An operator sees both.
        check_steps(steps, self.gateway.folder, self.addresses, "exec 2>&1\n", environ)


@contextmanager
def world(folder: Path, **settings: Any) -> Generator[World]:
    """A gateway with these settings; commands get them, too."""
    settings = {"DATA_DIR": folder / "data", "API_KEY": API_KEY, **settings}
    with GatewayProcess(folder, **settings) as gateway:
        yield World(gateway, settings, {PRINTED: gateway.url})


@contextmanager
def slow_proxy(folder: Path, url: str) -> Generator[str]:
    """The URL of an nginx that keeps answers back."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "the tests need nginx: dev/setup installs it where it can"
    with hold_port() as held:
        port = held.getsockname()[1]
    (folder / "conf").write_text(NGINX.format(folder=folder, port=port, url=url))
    with subprocess.Popen([program, "-p", folder, "-e", folder / "log", "-c", folder / "conf"]) as process:
        try:
            wait_until(lambda: process.poll() is not None or (folder / "pid").exists())
            assert process.poll() is None, (folder / "log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A disk with room for four megabytes, mounted by root, or by sudo if that asks for no password."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    size = f"size=4m,uid={os.geteuid()}"
    try:
        subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run([*as_root, "umount", "--lazy", folder], check=True)


def an_app_with_a_wrong_model(database: Path) -> str:
    """A key of the app `guide`, whose model the provider does not know."""
    app = default_app()
    model = LayerTemplate(name="llm", type="llm", config={"model": "openai-chat:m-404"})
    layers = [layer for layer in app.composition.layers if layer.name != "llm"]
    composition = app.composition.model_copy(update={"layers": [*layers, model]})
    url, key = f"sqlite:///{database}", "app-guide"
    app_id = apply_app(url, "guide", composition=composition.model_dump()).app_id
    with_database(url, lambda store: KeyStore(store, SECRET_KEY.encode()).put(app_id, key, "web site"))
    return key


# -- the sections ----------------------------------------------------------------------------------

LOOKING: Final = {
    "First look",
    "Turns wait in a queue",
    "The model name is wrong",
    "Answers come late or in one piece",
}
BROKEN: Final = {"The backend answers 401", "Postgres is out of connections", "The disk is full"}


@pytest.mark.slow
@pytest.mark.parametrize(("looks", "at_least"), [(True, 9), (False, 9)], ids=["looking", "doing"])
def test_the_commands_of_the_page_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, looks: bool, at_least: int
) -> None:
    """Beside a gateway that has an app with a wrong model, behind a proxy that keeps answers back."""
    (tmp_path / "proxy").mkdir()
    with ExitStack() as stack:
        monkeypatch.setenv("OPENAI_BASE_URL", stack.enter_context(serving("x")).base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        one = stack.enter_context(world(tmp_path))
        key = an_app_with_a_wrong_model(tmp_path / "data" / "agent-gateway.db")
        with one.gateway.client(key) as client:
            refused(Chat(client, "ada").post(), 400, "model_currently_not_support")
        one.addresses[PUBLIC] = stack.enter_context(slow_proxy(tmp_path / "proxy", one.gateway.url))
        sections = {block.section for block in blocks()} - BROKEN
        one.check({section for section in sections if (section in LOOKING) == looks}, at_least)


@pytest.mark.slow
def test_a_backend_that_answers_401_is_found_as_the_page_says(tmp_path: Path) -> None:
    with (
        ScriptedBackend(token="another") as backend,
        world(tmp_path, BACKEND_URL=backend.url, BACKEND_TOKEN="wrong") as one,
    ):
        with one.gateway.client() as client:
            refused(Chat(client, "ada").post(), 502, "backend_refused")
        one.check({"The backend answers 401"}, 3)


@pytest.mark.slow
def test_a_postgres_without_connections_is_found_as_the_page_says(tmp_path: Path, postgres_url: str) -> None:
    with limited_role(postgres_url, 0) as role, world(tmp_path, DATABASE_URL=role.url) as one:
        one.check({"Postgres is out of connections"}, 4)


@pytest.mark.slow
def test_a_full_disk_is_found_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with small_disk(tmp_path / "data") as disk, world(tmp_path) as one, one.gateway.client() as client:
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        refused(Chat(client, "ada").post(), 503, "service_unavailable")
        files = {"file": ("a.txt", b"x" * 100_000)}
        refused(client.post("/files/upload", data={"user": "ada"}, files=files), 503, "service_unavailable")
        one.check({"The disk is full"}, 4)


# -- what the page names ---------------------------------------------------------------------------


def test_what_is_not_run_names_files_and_services_that_exist() -> None:
    left = [block for block in blocks() if not runs(block)]
    assert left
    services = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]
    for block in left:
        paths = re.findall(r"(?<![\w/])deploy/[\w./-]+", block.text)
        assert [path for path in paths if not (ROOT / path).exists()] == []
        assert set(re.findall(r"gateway-\d+|(?<=--rm )\w+", block.text)) <= services.keys()


def test_the_settings_of_the_page_exist() -> None:
    text = PAGE.read_text("utf-8")
    named = set(re.findall(r"AGENT_GATEWAY_([A-Z_]+[A-Z])", text))
    words = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", text)) - OTHERS
    named |= {word.removeprefix("AGENT_GATEWAY_") for word in words}
    assert len(named) > 15
    assert {name for name in named if name.lower() not in Settings.model_fields} == set()


def test_the_metrics_of_the_page_exist() -> None:
    named = set(re.findall(r"\bagent_gateway_\w+", PAGE.read_text("utf-8")))
    exist = {name for value in vars(metrics).values() for name in names_of(value)}
    assert len(named) > 5
    assert named - exist == set()


def names_of(value: object) -> set[str]:
    """The names under which a scrape has this metric; none if it is something else."""
    metric = value._metric if isinstance(value, metrics.Labelled) else value
    name = getattr(metric, "_name", None)
    return {f"{name}", f"{name}_total"} if isinstance(name, str) else set()


def test_each_alert_has_a_runbook_and_names_it() -> None:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    runbooks = {rule["alert"]: rule["annotations"]["runbook"] for rule in group["rules"]}
    headings = re.findall(r"^### (AgentGateway\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(runbooks)
    assert runbooks == {alert: f"docs/operations.md#{alert.lower()}" for alert in runbooks}


def test_the_measured_numbers_are_those_of_the_page_of_performance() -> None:
    size = PAGE.read_text("utf-8").split("\n## Size\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in size.splitlines() if line.startswith("| ")][1:]
    figures = [cell.removesuffix(" KiB") for row in rows for cell in row[1:]]
    performance = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert len(figures) == 6
    assert [figure for figure in figures if f"| {figure} |" not in performance] == []
