"""The TypeScript client of clients/typescript: its own tests (vitest) against real gateways.

Its tests are in clients/typescript/tests. This module starts what they need, and fails with their output.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
import yaml
from typing_extensions import override

from agent_gateway.apps.config import default_app
from tests.support.fakes.script import (
    Cut,
    Forget,
    Gate,
    Script,
    ask_human,
    delta,
    echo,
    fail,
    file,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.json_type import Json
from tests.support.paths import ROOT
from tests.support.rows import end_behind_its_back

pytestmark = pytest.mark.slow

CLIENT: Final = ROOT / "clients/typescript"
LONG: Final = 80_000
"""Characters of an answer whose events are split."""


class Story:
    """The first word of a query decides what the backend does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: dict[str, Gate] = {}
        clock = [*tool_call("call_1", "clock", {"zone": "UTC"}), *tool_result("call_1", "clock", "12:00")]
        broken = fail("InvokeServerUnavailableError", "a provider's secret")
        self._scripts: dict[str, Script] = {
            "hold": script(text("One ", "two "), Gate(), text("three", index=1), succeed()),
            "think": script(thinking("Hm, ", "the time."), clock, text("It is ", "noon."), succeed()),
            "draw": script(text("Here"), file(b"not really a picture"), succeed()),
            "ask": script(ask_human("Shall I deploy?")),
            "fail": script(text("Half an "), broken),
            "refuse": script(broken),
            "long": script(delta("x" * LONG), succeed()),
            "lose": script(delta("x" * LONG), Forget(), Cut()),
        }

    def gate(self, name: str) -> Gate:
        with self._lock:
            return self._gates.setdefault(name, Gate())

    def __call__(self, body: Json) -> Script:
        word, *rest = query_of(body).split(" ")
        match word:
            case "live":
                return self._live(*rest)
            case "late":
                return script(self.gate(rest[0]), text(" ".join(rest[1:])), succeed())
            case _:
                return self._scripts.get(word) or echo(body)

    def _live(self, gate: str, *words: str) -> Script:
        """Says these words, and waits at the gate after half of them."""
        pieces = [f"{word} " for word in words]
        half = len(pieces) // 2
        first, second = text(*pieces[:half]), text(*pieces[half:], index=1)
        return script(first, self.gate(gate), second, succeed())


@dataclass
class Control:
    """What the tests of the client may see and do behind the gateway."""

    backend: ScriptedBackend
    story: Story
    database: str = ""

    def runs_with(self, word: str) -> str:
        return str(sum(word in query_of(request.body) for request in list(self.backend.requests)))

    def do(self, what: str, name: str) -> None:
        if what == "gates":
            self.story.gate(name).open()
        else:
            end_behind_its_back(self.database, name)


class Pages(SimpleHTTPRequestHandler):
    """Serves the pages of the browser tests, and the control: /runs/WORD, /gates/NAME, /ends/TASK."""

    def __init__(self, control: Control, *args: Any, **kwargs: Any) -> None:
        self._control = control
        super().__init__(*args, **kwargs)

    @override
    def do_GET(self) -> None:
        what, name = self._asked()
        if what == "runs":
            self._say(self._control.runs_with(name))
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self._control.do(*self._asked())
        self._say("done")

    def _asked(self) -> tuple[str, str]:
        what, _, name = self.path[1:].partition("/")
        return what, unquote(name)

    def _say(self, told: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the tests of the client read from their environment, with all that is behind it running."""
    folder = tmp_path_factory.mktemp("typescript")
    pages, data, demo_data, strict_data = (folder / name for name in ("pages", "data", "demo", "strict"))
    for made in (pages, data, demo_data, strict_data):
        made.mkdir()
    with ScriptedBackend() as backend:
        control = Control(backend, Story())
        backend.script = control.story
        handler = partial(Pages, control, directory=str(pages))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            with (
                GatewayServer(data, backend_url=backend.url, cors_origins=url) as gateway,
                GatewayServer(demo_data, cors_origins=url) as demo,
                strict_gateway(backend, strict_data) as strict,
            ):
                control.database = gateway.settings.resolved_database_url()
                yield {
                    "GATEWAY_URL": gateway.url,
                    "DEMO_GATEWAY_URL": demo.url,
                    "STRICT_GATEWAY_URL": strict.url,
                    "GATEWAY_KEY": API_KEY,
                    "PAGES_URL": url,
                    "PAGES_FOLDER": str(pages),
                }
            server.shutdown()


def strict_gateway(backend: ScriptedBackend, folder: Path) -> GatewayServer:
    limits = {"requests_per_minute": 2}
    config = {**default_app("chat").model_dump(mode="json"), "on_busy": "reject", "limits": limits}
    (folder / "app.yaml").write_text(yaml.safe_dump(config))
    return GatewayServer(folder, backend_url=backend.url, app_file=folder / "app.yaml")


def run(environment: dict[str, str], *command: str) -> None:
    """Run a program of the client; it must end well."""
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env={**os.environ, **environment, "NO_COLOR": "1", "CI": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    print(done.stdout)  # noqa: T201 - what was counted
    assert done.returncode == 0, done.stderr


def test_its_code_is_formatted_and_compiles_strictly() -> None:
    run({}, "npm", "run", "--silent", "check")


@pytest.mark.parametrize("name", sorted(path.name for path in (CLIENT / "tests").glob("*.test.ts")))
def test_it_works_with_a_real_gateway(environment: dict[str, str], name: str) -> None:
    run(environment, "npx", "--no-install", "vitest", "run", f"tests/{name}")
