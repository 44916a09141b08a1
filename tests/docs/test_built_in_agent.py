"""The page of the built-in agent says what the code does, and its agent can be built as the page says."""

import base64
import os
import re
import sys
from pathlib import Path

import pytest

from agent_gateway.backend.embedded import layers
from dev.generate_layer_tables import PAGE, written
from tests.support.chat import Chat
from tests.support.fakes.model_server import serving
from tests.support.fakes.model_steps import ModelRequest, answer, call
from tests.support.files import PNG, local, upload
from tests.support.gateway_server import GatewayServer
from tests.support.human_input import form_of, submit, token_of
from tests.support.paths import ROOT

TEXT = PAGE.read_text("utf-8")
RECEIPT = {"shop": "Bakery", "total": 4.2}


def block(language: str) -> str:
    """The first block of code in this language on the page."""
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def test_the_tables_are_those_of_the_models() -> None:
    assert written(TEXT) == TEXT
    shown = set(re.findall(r"<!-- keys: (\w+) -->", TEXT))
    assert shown == {part.__name__ for part in layers.LayerPart.__subclasses__() if part.model_fields}


@pytest.mark.parametrize("action", ["approve", "reject"])
def test_the_agent_of_the_page_reads_asks_books_and_answers_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    (tmp_path / "receipts.yaml").write_text(block("yaml"))
    (tmp_path / "books.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "books", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-page")
    with serving() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        provider.script(
            "gpt-5-mini",
            answer(call("get_current_time", {"timezone": "Europe/Berlin"})),
            answer(call("book_receipt", {**RECEIPT, "day": "2026-12-01"})),
            lambda request: answer(call("final_output", {**RECEIPT, "booked": "booked" in request.results})),
        )
        app_file = tmp_path / "receipts.yaml"
        with GatewayServer(tmp_path / "data", app_file=app_file) as server, server.client() as client:
            chat = Chat(client, "ada")
            asked = chat.streaming("Book this", files=[local(upload(chat)["id"])])
            assert form_of(asked)["form_content"].startswith(
                "The agent wants to call the tool `book_receipt`"
            )
            assert not (tmp_path / "books.csv").exists()
            submitted = submit(chat, token_of(asked), action).json()
            heard = chat.resumed(submitted["task_id"])
    booked = action == "approve"
    assert heard.answer == f'{{"shop":"Bakery","total":4.2,"booked":{str(booked).lower()}}}'
    books = tmp_path / "books.csv"
    assert (books.read_text() if books.exists() else "") == ("2026-12-01,Bakery,4.20\n" if booked else "")
    first: ModelRequest = provider.requests[0]
    assert set(first.tools) == {"get_current_time", "book_receipt", "final_output"}
    assert first.images == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    assert "Europe/Berlin" in provider.requests[1].results[0]


def test_the_pages_of_the_built_in_agent_name_each_other() -> None:
    for name in ("built-in-agent-model.md", "built-in-agent-tools.md", "bring-your-own-agent.md"):
        assert f"]({name})" in TEXT
        assert (ROOT / "docs" / name).exists()
