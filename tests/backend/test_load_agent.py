"""`agent-gateway backend --agent`: what can be named, and how a wrong name or a broken module is refused."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_gateway.backend.embedded.agent.own import OwnAgents
from agent_gateway.backend.embedded.function.agent import PlainAgents
from agent_gateway.backend.embedded.load_agent import load_agent
from agent_gateway.errors import ConfigError
from tests.support.gateway_process import START_SECONDS, OwnAgentProcess, environment
from tests.support.gateway_server import BOUND

SECRET = "sk-very-secret-0123456789"
PLAIN = "async def agent(turn):\n    yield 'Hello'\n"
HEAVY = ("pydantic_ai", "openai", "anthropic", "httpx", "aiohttp", "mcp")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    # Those of the folder only: a library that is loaded twice has two of each of its exceptions.
    top = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in top]:
        del sys.modules[name]


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_agent(name)
    said = str(refused.value)
    assert "\n" not in said
    assert SECRET not in said
    return said


def test_both_kinds_are_found_in_the_current_folder(folder: Path) -> None:
    (folder / "plain_one.py").write_text(PLAIN)
    (folder / "inner").mkdir()
    (folder / "inner" / "pydantic_one.py").write_text(
        "from pydantic_ai import Agent\nagent = Agent('test')\n"
    )
    assert isinstance(load_agent("plain_one:agent"), PlainAgents)
    assert isinstance(load_agent("inner.pydantic_one:agent"), OwnAgents)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_agent", "--agent 'my_agent' must name a module and an agent in it, as in my_agent:agent"),
        (":agent", "--agent ':agent' must name a module and an agent in it, as in my_agent:agent"),
        ("shop.py:agent", "--agent 'shop.py:agent' must name a module, not a file, as in shop:agent"),
        ("./a/shop:agent", "--agent './a/shop:agent' must name a module, not a file, as in shop:agent"),
    ],
)
def test_a_name_of_another_form_is_refused(name: str, said: str) -> None:
    assert refusal(name) == said


def test_a_module_that_does_not_exist_is_named(folder: Path) -> None:
    missing = f"there is no module %r in {folder} or among what is installed"
    assert refusal("nowhere:agent") == "--agent nowhere:agent: " + missing % "nowhere"
    assert refusal("nowhere.inner:agent") == "--agent nowhere.inner:agent: " + missing % "nowhere"
    (folder / "shop").mkdir()
    assert refusal("shop.inner:agent") == "--agent shop.inner:agent: " + missing % "shop.inner"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("\nimport nowhere\n", "its import of 'nowhere' failed: no such module (at broken.py:2)"),
        ("from json import nothing\n", "an import from 'json' failed (at broken.py:1)"),
        (f"raise ImportError('{SECRET}')\n", "ImportError (at broken.py:1)"),
        (f"def f():\n    raise ValueError('{SECRET}')\nf()\n", "ValueError (at broken.py:2)"),
        (f"import json\njson.loads('{SECRET}')\n", "JSONDecodeError (at broken.py:2)"),
        ("import sys\nsys.exit(3)\n", "the module ends the process (SystemExit) (at broken.py:2)"),
    ],
)
def test_a_module_that_cannot_be_loaded_is_told_with_its_place(folder: Path, source: str, said: str) -> None:
    (folder / "broken.py").write_text(source)
    assert refusal("broken:agent") == f"--agent broken:agent: the module cannot be loaded: {said}"


def test_a_mistake_in_the_syntax_is_told_with_its_place(folder: Path) -> None:
    (folder / "broken.py").write_text(f"key = '{SECRET}'\nasync def agent(turn)\n    pass\n")
    assert refusal("broken:agent") == "--agent broken:agent: expected ':' at broken.py:2"


def test_what_the_framework_says_about_a_missing_key_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (folder / "keyless.py").write_text(
        "from pydantic_ai import Agent\n\nagent = Agent('openai:gpt-5-mini')\n"
    )
    said = refusal("keyless:agent")
    assert "Set the `OPENAI_API_KEY` environment variable" in said
    assert said.endswith("(at keyless.py:3)")


def test_what_the_framework_says_about_a_missing_library_is_told(folder: Path) -> None:
    source = "from pydantic_ai import Agent\n\nagent = Agent('mistral:mistral-large-latest')\n"
    (folder / "bare.py").write_text(source)
    said = refusal("bare:agent")
    assert "the module cannot be loaded: Please install the `mistral` package" in said
    assert said.endswith("(at bare.py:3)")


def test_an_unknown_name_is_told_with_the_nearest(folder: Path) -> None:
    (folder / "shop.py").write_text(PLAIN)
    start = "--agent shop:agnet: the module 'shop' has no 'agnet'"
    assert refusal("shop:agnet") == f"{start}; did you mean shop:agent?"
    assert refusal("shop:zzz") == "--agent shop:zzz: the module 'shop' has no 'zzz'"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("async def agent(turn): return 'x'", "is an async function without `yield`"),
        ("def agent(turn): yield 'x'", "is a generator function without `async`"),
        ("def agent(turn): return 'x'", "is a function"),
        ("class agent: pass", "is the class agent"),
        ("agent = 5", "is of the type int"),
    ],
)
def test_what_is_no_agent_is_refused(folder: Path, source: str, said: str) -> None:
    (folder / "kinds.py").write_text(source)
    assert refusal("kinds:agent") == (
        f"--agent kinds:agent {said}; it must be a pydantic-ai Agent or an async generator function: "
        "`async def` with `yield`"
    )


@pytest.mark.parametrize("parameters", ["", "turn, more", "*, turn"])
def test_an_agent_function_takes_the_turn_and_nothing_else(folder: Path, parameters: str) -> None:
    (folder / "shop.py").write_text(f"async def agent({parameters}):\n    yield 'x'\n")
    assert refusal("shop:agent") == "--agent shop:agent must be a function that takes one argument, the turn"


def test_the_command_refuses_in_one_line(folder: Path) -> None:
    (folder / "broken.py").write_text(f"raise ValueError('{SECRET}')\n")
    done = subprocess.run(
        [sys.executable, "-m", "agent_gateway", "backend", "--port", "0", "--agent", "broken:agent"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --agent broken:agent: the module cannot be loaded: ValueError (at broken.py:1)\n"
    )


def test_a_plain_agent_runs_without_the_agent_framework(folder: Path) -> None:
    (folder / "lean.py").write_text(
        "import sys\n\n"
        "async def agent(turn):\n"
        f"    yield ' '.join(['loaded:', *(name for name in {HEAVY!r} if name in sys.modules)])\n"
    )
    layers = [
        {"name": "p", "type": "plain.prompt", "config": {"user": "Hello"}},
        {"name": "llm", "type": "llm"},
    ]
    with (
        OwnAgentProcess("lean:agent", folder, folder) as backend,
        httpx.Client(base_url=backend.url, timeout=BOUND, trust_env=False) as client,
    ):
        run = client.post("/runs", json={"composition": {"schema_version": 1, "layers": layers}}).json()
        log = client.get(f"/runs/{run['run_id']}/events/sse").text
    assert '"output":"loaded:"' in log
