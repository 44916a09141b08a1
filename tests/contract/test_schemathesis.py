"""schemathesis calls every operation of the OpenAPI document in many ways and finds nothing.

It needs to be told of no route: what is in the document is called. Half of it is a valid call, about things
that exist; the other half is not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.operations import EXAMPLES, Owner, routes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(660)]

FOLDER = Path(__file__).parent
USER = "ada"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with ScriptedBackend() as backend, GatewayServer(tmp_path / "data", backend_url=backend.url) as gateway:
        with gateway.client() as client:
            owner = Owner(Chat(client, USER), backend)
            known = {name: [example(owner)] for name, example in EXAMPLES.items()}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(FOLDER / "schemathesis.toml")),
                *("run", f"{gateway.url}/openapi.json"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "GATEWAY_URL": gateway.url,
                "GATEWAY_KEY": API_KEY,
                "KNOWN_IDS": json.dumps(known),
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                "PYTHONPATH": str(FOLDER),
                "NO_COLOR": "1",
                "NO_PROXY": "*",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(routes())}\n" in done.stdout
