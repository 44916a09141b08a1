"""Programs that use existing clients run as their users run them: in processes of their own.

They are in tests/clients/programs (Python, each with its own environment) and in tests/js (Node).
Each prints what its client gave it as JSON.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.json_type import Json
from tests.support.paths import ROOT


@dataclass(frozen=True)
class Program:
    """A program that uses one client; `client` is its name at its registry."""

    client: str
    path: Path

    @property
    def command(self) -> list[str]:
        if self.path.suffix == ".mjs":
            return ["node", str(self.path)]
        return [str(ROOT / ".venv/clients" / self.client / "bin/python"), "-I", str(self.path)]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it; `read` gets what it says."""
        # No proxy, no key and no address of the developer's environment.
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.Popen(
            [*self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
        )

    def run(self, *arguments: str) -> Json:
        """The output of the program."""
        return read(self.start(*arguments))


def python_program(client: str) -> Program:
    return Program(client, ROOT / "tests/clients/programs" / f"use_{client.replace('-', '_')}.py")


def node_program(name: str) -> Program:
    return Program(name, ROOT / "tests/js" / f"{name}.mjs")


def read(process: subprocess.Popen[str], seconds: float = 60) -> Json:
    """Wait for a program's end; what it printed."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"not done within {seconds} s; it said: {out}\n{err}")
    assert process.returncode == 0, err
    told: Json = json.loads(out)
    return told


def arguments(gateway: GatewayServer, user: str) -> list[str]:
    return [gateway.url, API_KEY, user]
