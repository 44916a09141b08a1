"""The compose file: two processes behind nginx on a migrated database, hardened, with time to drain."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from agent_gateway.settings import PREFIX, Settings
from tests.support.certificates import make_certificates
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT
from tests.support.proxies import DEPLOY, program, replaced

FOLDER: Final = DEPLOY / "compose"
PROCESSES: Final = ("gateway-1", "gateway-2")
OF_THE_IMAGE: Final = {"HOST", "PORT", "DATA_DIR"}
"""What the Dockerfile decides: nginx and the volume count on it."""
REQUIRED: Final = {
    "POSTGRES_PASSWORD": "p" * 32,
    "AGENT_GATEWAY_SECRET_KEY": "s" * 32,
    "AGENT_GATEWAY_API_KEY": "app-key",
}
PLACEHOLDER: Final = re.compile(r"\$\{(\w+)(?::([-?])((?:[^${}]|\$\{\w+\})*))?\}")
"""`${NAME}`, `${NAME:-default}` and `${NAME:?message}`, with placeholders of the first kind in a default."""


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return loaded


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """The text as Docker Compose makes it with these variables. Raises KeyError for one that is required."""

    def value(found: re.Match[str]) -> str:
        name, kind, more = found.groups()
        if kind == "?" and not given.get(name):
            raise KeyError(name)
        return given.get(name) or (interpolated(more, given) if kind == "-" else "")

    return PLACEHOLDER.sub(value, text)


def environment(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container of this service, with these variables in the shell."""
    named = compose()["services"][service]["environment"].items()
    values = {name: given.get(name) if value is None else interpolated(value, given) for name, value in named}
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("name", ["compose.yaml", "development.yaml"])
def test_the_file_has_the_schema_of_compose_files(name: str) -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_service_waits_for_what_it_needs() -> None:
    services = compose()["services"]
    assert services.keys() == {*PROCESSES, "migrate", "nginx", "postgres"}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["command"] == ["migrate"]
    assert services["migrate"]["restart"] == "no"
    for name in PROCESSES:
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["nginx"]["depends_on"] == {name: {"condition": "service_healthy"} for name in PROCESSES}
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]


def test_every_setting_is_set_from_outside() -> None:
    """A setting that is missing here would be one that an operator must edit the file for."""
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    expected = names - {f"{PREFIX}{name}" for name in OF_THE_IMAGE}
    for service in (*PROCESSES, "migrate"):
        given = {name for name in environment(service, names_as_values(names)) if name.startswith(PREFIX)}
        missing = "\n".join(f"    {name}:" for name in sorted(expected - given))
        assert given == expected, f"add to the environment in deploy/compose/compose.yaml:\n{missing}"
        values = environment(service, names_as_values(names))
        assert {name for name in expected if values[name] != name} == set(), "each has its own value"


def test_every_variable_of_traces_is_set_from_outside() -> None:
    names = set(re.findall(r"\bOTEL_[A-Z_]+", (ROOT / "docs/tracing.md").read_text()))
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in names
    for service in PROCESSES:
        given = environment(service, names_as_values(names) | REQUIRED)
        assert {name for name in names if given.get(name) != name} == set()


def names_as_values(names: set[str]) -> dict[str, str]:
    return {name: name for name in names} | {"POSTGRES_PASSWORD": "p"}


def test_what_is_required_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment("gateway-1", REQUIRED).items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    url = f"postgresql://agent_gateway:{REQUIRED['POSTGRES_PASSWORD']}@postgres:5432/agent_gateway"
    assert (settings.database_url, settings.drain_seconds) == (url, 30.0)
    for name in ("AGENT_GATEWAY_SECRET_KEY", "AGENT_GATEWAY_API_KEY"):
        with pytest.raises(KeyError, match=name):
            environment("gateway-1", {**REQUIRED, name: ""})
    password = compose()["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        interpolated(password, {})


def test_only_nginx_is_reachable_and_only_from_this_machine_unless_asked_for() -> None:
    file = compose()
    ports = {name: service["ports"] for name, service in file["services"].items() if "ports" in service}
    assert ports.keys() == {"nginx"}
    assert [interpolated(port, {}) for port in ports["nginx"]] == ["127.0.0.1:8000:8080"]
    asked = {"GATEWAY_ADDRESS": "0.0.0.0", "GATEWAY_PORT": "443"}
    assert [interpolated(port, asked) for port in ports["nginx"]] == ["0.0.0.0:443:8080"]
    assert file["networks"]["database"] == {"internal": True}
    assert file["services"]["postgres"]["networks"] == ["database"]
    for port in compose("development.yaml")["services"]["postgres"]["ports"]:
        assert port.startswith("127.0.0.1:")


def test_processes_are_hardened_and_may_drain() -> None:
    services = compose()["services"]
    for name in (*PROCESSES, "migrate", "nginx"):
        service = services[name]
        assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    drain = Settings.model_fields["drain_seconds"].default
    for name in (*PROCESSES, "nginx"):
        grace = interpolated(services[name]["stop_grace_period"], {})
        assert int(grace.removesuffix("s")) >= drain + 10
    assert services["nginx"]["user"] != "0"
    assert all("data:/data" in services[name]["volumes"] for name in PROCESSES)


def test_the_page_names_every_variable_that_is_no_setting() -> None:
    named = {found[1] for found in PLACEHOLDER.finditer((FOLDER / "compose.yaml").read_text())}
    own = {name for name in named if not name.startswith(PREFIX)}
    assert {"GATEWAY_PORT", "POSTGRES_PASSWORD"} <= own
    page = (DEPLOY / "README.md").read_text()
    assert {name for name in own if f"`{name}`" not in page and f"\n{name}=" not in page} == set()


def test_images_have_a_version() -> None:
    services = compose()["services"].values()
    assert all(":" in service["image"] for service in services if "build" not in service)


def test_the_health_check_follows_the_readiness(server: GatewayServer, unused_port: int) -> None:
    kind, *command = compose()["services"]["gateway-1"]["healthcheck"]["test"]
    assert (kind, command[0]) == ("CMD", "python")
    assert ask(command, server.url.rpartition(":")[2]) == 0
    assert ask(command, str(unused_port)) != 0, "nothing answers"
    server.gateway.live.draining.set()
    try:
        assert ask(command, server.url.rpartition(":")[2]) == 1
    finally:
        server.gateway.live.draining.clear()


def ask(command: list[str], port: str) -> int:
    """The exit status of this command, which asks the port of the image, when it asks another port."""
    changed = [replaced(word, {"8000": port}) if "8000" in word else word for word in command]
    return subprocess.run([sys.executable, *changed[1:]], capture_output=True, check=False).returncode


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nginx_takes_its_files(scheme: str, tmp_path: Path) -> None:
    """As the container mounts them, without `resolve` and `http2 on`: they are newer than some nginx here."""
    make_certificates(tmp_path)
    changes = {
        "/etc/nginx/tls/tls": f"{tmp_path}/server",
        "/etc/nginx": f"{tmp_path}/etc/nginx",
        "/dev/std": f"{tmp_path}/",
        "/tmp/": f"{tmp_path}/",
        "gateway-1:": "127.0.0.1:",
        "gateway-2:": "127.0.0.1:",
        " resolve;": ";",
        "http2 on;": "",
    }
    for mount in compose()["services"]["nginx"]["volumes"]:
        source, target, mode = interpolated(mount, {"GATEWAY_SCHEME": scheme}).split(":")
        assert mode == "ro"
        if target == "/etc/nginx/tls":
            continue
        text = (FOLDER / source).read_text()
        found = re.compile("|".join(map(re.escape, changes)))
        (place := tmp_path / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        place.write_text(found.sub(lambda match: changes[match[0]], text))
    command = [program("nginx"), "-t", "-e", f"{tmp_path}/log", "-c", f"{tmp_path}/etc/nginx/nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "successful" in done.stderr) == (0, True), done.stderr
    assert "[warn]" not in done.stderr


def test_nginx_passes_requests_to_all_processes() -> None:
    named = re.findall(r"server ([\w-]+):8000 resolve;", (FOLDER / "nginx.conf").read_text())
    assert tuple(named) == PROCESSES


def test_the_script_for_developers_starts_the_same_postgres() -> None:
    script = (ROOT / "dev/start-docker-compose").read_text()
    for name in ("compose.yaml", "development.yaml"):
        assert f"deploy/compose/{name}" in script
