"""What the gateway is measured with and beside: two C programs, nginx, and the straightforward gateway."""

import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cores
from bench.servers import Server, free_port

SOURCES = Path(__file__).parent / "c"
FLAGS = ("-O2", "-Wall", "-Werror")


@dataclass(frozen=True)
class Programs:
    """The compiled programs: the backend stub and the load client."""

    upstub: Path
    sseload: Path


def compiled() -> Programs:
    """Compile the C programs, once for each state of their sources. Raises RuntimeError without gcc."""
    if not shutil.which("gcc"):
        raise RuntimeError("the bench needs gcc for its load client: apt-get install gcc libc6-dev")
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-gateway-bench" / state
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("upstub", "sseload"):
        if not (cache / name).exists():
            # Another run may do the same at this moment: each renames a file of its own.
            made = cache / f"{name}-{os.getpid()}"
            subprocess.run(["gcc", *FLAGS, "-o", str(made), str(SOURCES / f"{name}.c")], check=True)
            made.rename(cache / name)
    return Programs(cache / "upstub", cache / "sseload")


class Stub(Server):
    """The backend: it never is the bottleneck, and counts what it was asked."""

    def __init__(self, programs: Programs, cores: Cores, folder: Path) -> None:
        port = free_port()
        command = [str(programs.upstub), "-p", str(port)]
        super().__init__("stub", command, port, cores=cores.backend, folder=folder, ready="/health")

    def stats(self) -> dict[str, int]:
        """What it has counted so far."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=5) as response:
            counted: dict[str, int] = json.load(response)
        return counted


_NGINX = """\
daemon off;
worker_processes 1;
user {user};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream stub {{ server 127.0.0.1:{stub}; keepalive 4096; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://stub;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def nginx_program() -> str | None:
    """Where nginx is; None without one."""
    return shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


def nginx(stub: Stub, cores: Cores, folder: Path) -> Server:
    """nginx before the stub: it copies bytes and knows nothing of turns. Raises RuntimeError without one."""
    program, port = nginx_program(), free_port()
    if program is None:
        raise RuntimeError("nginx is not installed")
    # The workers give up being root, and then must still write here.
    own = Path(tempfile.mkdtemp(prefix="nginx-", dir=folder))
    configuration = own / "nginx.conf"
    configuration.write_text(_NGINX.format(user=getpass.getuser(), folder=own, stub=stub.port, port=port))
    command = [program, "-e", "stderr", "-c", str(configuration)]
    return Server("nginx", command, port, cores=cores.server, folder=folder, ready="/health")


def natural(stub: Stub, cores: Cores, folder: Path) -> Server:
    """The gateway that an average good engineer writes, without a database (bench/natural.py)."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.natural:app", "--port", str(port)]
    environ = {"UPSTREAM": stub.url, "PYTHONPATH": str(Path(__file__).parents[1])}
    return Server("natural", command, port, cores=cores.server, folder=folder, ready="/docs", environ=environ)
