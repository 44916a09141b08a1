"""Whole responses, byte by byte, for recorded runs of a real backend in the three app modes.

`UPDATE_GOLDENS=1 pytest tests/contract/test_transcripts.py` writes the transcripts anew; read the
difference before it is committed. Ids, times and pauses of a turn are replaced by names in angle brackets.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.fakes.script import Gate, Script, recorded, script
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import EARLY_FAILURES_HAVE_A_STATUS, GatewayServer
from tests.support.paths import RECORDED

TRANSCRIPTS = Path(__file__).parent / "transcripts"
MODES = ("chat", "agent-chat", "agent")
BODY = {"query": "Go", "user": "ada"}
NAMES = (
    "ask_human",
    "cancel_full",
    "empty_answer",
    "error_mid",
    "error_rate",
    "error_rate_late",
    "image",
    "nousage",
    "plain",
    "stopped",
    "structured",
    "think",
    "tool",
    "tool_parallel",
    "unicode",
)
"""Recordings, and two that `play` makes of them."""
UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Section(NamedTuple):
    """One response in a transcript."""

    title: str
    told: str


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The transcript of every recording, by its name."""
    sections: dict[str, list[Section]] = {name: [] for name in NAMES}
    turns: list[tuple[str, str, str]] = []
    data = tmp_path_factory.mktemp("data")
    with ScriptedBackend() as backend:
        # No ping but the first one of a stream that has nothing to say yet.
        first = GatewayServer(data, backend_url=backend.url, ping_seconds=60)
        with first, first.client() as http:
            for name, mode in product(NAMES, MODES):
                key = f"{name} {mode}"
                sections[name].append(play(first, backend, http, name, mode, key))
                url = events_url(http, key)
                sections[name].append(follow(http, url, mode, "the live turn's log"))
                turns.append((name, mode, url))
            for name in NAMES:
                sections[name].append(block(backend, http, name))
        # Another process knows these turns from their rows alone.
        second = GatewayServer(data, backend_url=backend.url)
        with second, second.client() as http:
            for name, mode, url in turns:
                sections[name].append(follow(http, url, mode, "the rows"))
    return {name: "\n".join(once(parts)) for name, parts in sections.items()}


def play(
    server: GatewayServer, backend: ScriptedBackend, http: httpx.Client, name: str, mode: str, key: str
) -> Section:
    """One streamed turn.

    `error_rate_late` fails only when its stream has begun; `stopped` is `cancel_full` without its end,
    which comes when the reader asks for it.
    """
    gate = Gate()
    backend.queue(plan(name, gate))
    body = {**BODY, "response_mode": "streaming"}
    heard, stopped = b"", False
    with ExitStack() as stack:
        if name != "error_rate_late":
            # Even on a busy machine, the stream begins with the run's first event and not with a ping.
            stack.enter_context(server.request_limits(EARLY_FAILURES_HAVE_A_STATUS))
        response = stack.enter_context(
            http.stream(
                "POST", "/chat-messages", params={"mode": mode}, headers={"Idempotency-Key": key}, json=body
            )
        )
        for chunk in response.iter_raw():
            heard += chunk
            gate.open()
            if name == "stopped" and not stopped and b"word6 " in heard:
                stopped = True
                http.post(f"/chat-messages/{response.headers['x-task-id']}/stop", json=BODY)
    return section(f"POST /chat-messages?mode={mode} streaming", response, heard)


def plan(name: str, gate: Gate) -> Script:
    if name == "error_rate_late":
        return script(gate, recorded(RECORDED / "error_rate.sse"), started=False)
    if name == "stopped":
        return script(recorded(RECORDED / "cancel_full.sse")[:-1], Gate(), started=False)
    return script(recorded(RECORDED / f"{name}.sse"), started=False)


def block(backend: ScriptedBackend, http: httpx.Client, name: str) -> Section:
    """The same run, for a caller that waits for all of it."""
    source = {"error_rate_late": "error_rate", "stopped": "cancel_full"}.get(name, name)
    backend.queue(script(recorded(RECORDED / f"{source}.sse"), started=False))
    response = http.post("/chat-messages", json={**BODY, "response_mode": "blocking"})
    return section("POST /chat-messages blocking", response, response.content + b"\n")


def events_url(http: httpx.Client, key: str) -> str:
    """Where a turn can be followed, also one that was refused: the key finds it again."""
    body = {**BODY, "response_mode": "background"}
    response = http.post("/chat-messages", headers={"Idempotency-Key": key}, json=body)
    assert response.status_code == 202
    return str(response.json()["events_url"])


def follow(http: httpx.Client, url: str, mode: str, source: str) -> Section:
    response = http.get(f"{url}&mode={mode}")
    title = f"GET /chat-messages/<task_id>/events?mode={mode} from {source}"
    return section(title, response, response.content)


def section(title: str, response: httpx.Response, body: bytes) -> Section:
    told = f"{response.status_code} {response.headers['content-type']}\n{without_ids(body.decode())}"
    return Section(title, told)


def once(sections: list[Section]) -> Iterator[str]:
    """A section with bytes that were shown before is not shown again."""
    titles: dict[str, str] = {}
    for title, told in sections:
        first = titles.setdefault(told, title)
        yield f"=== {title}\n" + (told if first == title else f"(every byte as in: {first})\n")


def without_ids(text: str) -> str:
    """Ids by the name of their key, those of steps and files by their numbers; times by name."""
    for name in ("conversation_id", "message_id", "task_id"):
        if found := re.search(f'"{name}":"({UUID})"', text):
            text = text.replace(found[1], f"<{name}>")
    text = re.sub(
        f'"form_id":"{UUID}","form_token":"[^"]+"', '"form_id":"<form_id>","form_token":"<token>"', text
    )
    text = re.sub(r'"expiration_time":\d{10}\b', '"expiration_time":<expiration_time>', text)
    text = re.sub(f'"id":"{UUID}","position":(\\d+)', r'"id":"<step \1>","position":\1', text)
    text = re.sub(r"\?ticket=[\w.-]+", "?ticket=<ticket>", text)
    for number, found in enumerate(dict.fromkeys(re.findall(f"/files/({UUID})/download", text)), start=1):
        text = text.replace(found, f"<file {number}>")
    assert not re.search(UUID, text), "an id of nothing that is known"
    text = re.sub(r"^retry: \d+$", "retry: <milliseconds>", text, flags=re.MULTILINE)
    return re.sub(r'"created_at":\d{10}\b', '"created_at":<created_at>', text)


@pytest.mark.parametrize("name", NAMES)
def test_responses_equal_their_transcripts(transcripts: dict[str, str], name: str) -> None:
    path = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(transcripts[name], encoding="utf-8")
    assert transcripts[name] == path.read_text(encoding="utf-8")


def test_every_transcript_is_used() -> None:
    assert {path.stem for path in TRANSCRIPTS.iterdir()} == set(NAMES)
