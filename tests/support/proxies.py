"""The proxy examples of deploy/, started as they are: only addresses and paths are replaced."""

import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx

from tests.support.certificates import make_certificates
from tests.support.gateway_server import API_KEY, BOUND, wait_until
from tests.support.paths import ROOT
from tests.support.ports import hold_port

Kind = Literal["nginx", "caddy", "traefik"]

DEPLOY: Final = ROOT / "deploy"
NAME: Final = "gateway.example.com"
"""The name of the server in all examples; here it is 127.0.0.1."""
SCALE: Final = 60
"""By how much `scaled` shortens what an example says about time: a minute becomes a second."""
NGINX_MAIN: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  include {folder}/conf.d/*.conf;
}}
"""
"""What a distribution's nginx.conf says, as far as it matters."""


@dataclass(frozen=True)
class RunningProxy:
    """An example that runs; `url` is the gateway through it."""

    url: str
    port: int
    plain_port: int
    """Where it listens without TLS, to send clients to the other port."""
    folder: Path
    context: ssl.SSLContext
    """Trusts its certificate."""

    def client(self) -> httpx.Client:
        """An HTTP client with the key of the test's app; each has a connection of its own."""
        headers = {"Authorization": f"Bearer {API_KEY}"}
        return httpx.Client(
            base_url=self.url, headers=headers, verify=self.context, timeout=BOUND, trust_env=False
        )

    @property
    def log(self) -> str:
        """All that it has written to its logs."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@contextmanager
def running_proxy(
    kind: Kind, folder: Path, gateways: list[str], change: Callable[[str], str] = str
) -> Generator[RunningProxy]:
    """Start this example before two gateways (host:port each); `change` is made to its text first."""
    with ExitStack() as stack:
        port, plain_port = (stack.enter_context(hold_port()).getsockname()[1] for _ in range(2))
        make_certificates(folder)
        context = ssl.create_default_context(cafile=str(folder / "root.crt"))
        proxy = RunningProxy(f"https://127.0.0.1:{port}", port, plain_port, folder, context)
        command = {"nginx": _nginx, "caddy": _caddy, "traefik": _traefik}[kind](proxy, gateways, change)
        # Its settings and certificates stay in its folder.
        environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
        with (folder / "output.log").open("wb") as output:
            process = stack.enter_context(
                subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
            )
        stack.callback(process.wait, BOUND)
        stack.callback(process.send_signal, signal.SIGKILL)
        with proxy.client() as client:
            wait_until(lambda: process.poll() is not None or _answers(client))
        assert process.poll() is None, proxy.log
        yield proxy


def scaled(text: str) -> str:
    """The text with each of its times divided by SCALE, except how often the health is asked for."""
    lines = (
        line if "health" in line.lower() else re.sub(r"\b(\d+)s\b", _shorter, line)
        for line in text.splitlines()
    )
    return "\n".join(lines) + "\n"


def _shorter(found: re.Match[str]) -> str:
    return f"{int(found[1]) * 1000 // SCALE}ms"


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with these parts replaced. Fails when one is not there: then it is not what runs."""
    for old, new in changes.items():
        assert old in text, f"the example has no {old!r}"
        text = text.replace(old, new)
    return text


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def program(name: str) -> str:
    """Where a program is, also one of those that only root needs."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"the tests need {name}: dev/setup installs it where it can"
    return found


def _nginx(proxy: RunningProxy, gateways: list[str], change: Callable[[str], str]) -> list[str]:
    folder = proxy.folder
    for name in ("conf.d", "snippets"):
        (folder / name).mkdir()
    for name in ("agent-gateway-http.conf", "agent-gateway-proxy.conf"):
        place = folder / ("snippets" if "proxy" in name else "conf.d") / name
        place.write_text(change((DEPLOY / "nginx" / name).read_text()))
    changes = {
        "listen [::]:80;": "",
        "listen [::]:443 ssl http2;": "",
        "listen 80;": f"listen 127.0.0.1:{proxy.plain_port};",
        "listen 443 ": f"listen 127.0.0.1:{proxy.port} ",
        NAME: "127.0.0.1",
        "127.0.0.1:8000": gateways[0],
        "127.0.0.1:8001": gateways[1],
        "/etc/nginx/tls/tls.crt": f"{folder}/server.crt",
        "/etc/nginx/tls/tls.key": f"{folder}/server.key",
        "/etc/nginx/snippets/": f"{folder}/snippets/",
        "/var/log/nginx/agent-gateway.log": f"{folder}/access.log",
    }
    text = replaced((DEPLOY / "nginx/agent-gateway.conf").read_text(), changes)
    (folder / "conf.d/agent-gateway.conf").write_text(change(text))
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder))
    return [program("nginx"), "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def _caddy(proxy: RunningProxy, gateways: list[str], change: Callable[[str], str]) -> list[str]:
    folder = proxy.folder
    ports = f"http_port {proxy.plain_port}\n\thttps_port {proxy.port}\n"
    here = "\tdefault_bind 127.0.0.1\n\tadmin off\n"
    changes = {
        "{\n\tservers {": f"{{\n\t{ports}{here}\tservers {{",
        f"\n{NAME} {{": f"\n127.0.0.1 {{\n\ttls {folder}/server.crt {folder}/server.key",
        "127.0.0.1:8000": gateways[0],
        "127.0.0.1:8001": gateways[1],
    }
    (folder / "Caddyfile").write_text(change(replaced((DEPLOY / "caddy/Caddyfile").read_text(), changes)))
    return [program("caddy"), "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


def _traefik(proxy: RunningProxy, gateways: list[str], change: Callable[[str], str]) -> list[str]:
    folder = proxy.folder
    static = {
        '":80"': f'"127.0.0.1:{proxy.plain_port}"',
        '":443"': f'"127.0.0.1:{proxy.port}"',
        "/etc/traefik/gateway.yaml": f"{folder}/gateway.yaml",
        "/var/lib/traefik/acme.json": f"{folder}/acme.json",
    }
    (folder / "traefik.yaml").write_text(
        change(replaced((DEPLOY / "traefik/traefik.yaml").read_text(), static))
    )
    # The certificate of the test in place of one of a certificate authority in the Internet.
    certificate = f"{{ certFile: {folder}/server.crt, keyFile: {folder}/server.key }}"
    dynamic = {
        f"Host(`{NAME}`)": "Host(`127.0.0.1`)",
        "tls: { certResolver: letsencrypt }": "tls: {}",
        "http://127.0.0.1:8000": f"http://{gateways[0]}",
        "http://127.0.0.1:8001": f"http://{gateways[1]}",
    }
    text = replaced((DEPLOY / "traefik/gateway.yaml").read_text(), dynamic)
    tls = f"tls: {{ stores: {{ default: {{ defaultCertificate: {certificate} }} }} }}\n"
    (folder / "gateway.yaml").write_text(change(text) + tls)
    return [program("traefik"), f"--configFile={folder}/traefik.yaml"]
