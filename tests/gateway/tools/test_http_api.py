"""Operations of an OpenAPI document as tools."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agents, steps_of
from tests.support.chat import Chat
from tests.support.fakes.http_api import SECRET, HttpApi, http_api
from tests.support.fakes.model_steps import ToolCall, answer, call
from tests.support.json_type import Json
from tests.support.rows import rows_of

TOKEN = "token-of-the-api-0815"


@pytest.fixture(scope="module")
def shared_api() -> Iterator[HttpApi]:
    with http_api() as api:
        yield api


@pytest.fixture
def api(shared_api: HttpApi) -> HttpApi:
    shared_api.asked.clear()
    return shared_api


def using(agents: Agents, api: HttpApi, *calls: ToolCall, **more: Any) -> Chat:
    """An app whose model makes these calls at once."""
    operations = [
        item["operationId"]
        for path in api.document["paths"].values()
        for method, item in path.items()
        if method != "parameters"
    ]
    config: Json = {"document": api.document, "operations": operations, **more}
    return agents.app(answer(*calls), "Done.", tools={"openapi": {"cities": config}})


def used(agents: Agents, api: HttpApi, *calls: ToolCall, **more: Any) -> list[str]:
    """The results of these calls, as the model got them."""
    chat = using(agents, api, *calls, **more)
    assert chat.streaming("Do it").answer == "Done."
    return agents.requests(chat)[-1].results


def test_an_operation_is_called_with_what_the_model_and_the_operator_say(
    agents: Agents,
    api: HttpApi,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TOOL_TOKEN", TOKEN)
    arguments = {"id": "new york/us", "tag": ["big", "a&b"], "X-Unit": "km"}
    chat = using(agents, api, call("getCity", arguments), headers={"X-Token": "${env:TOOL_TOKEN}"})
    heard = chat.streaming("Do it")
    [asked] = api.asked
    assert (asked.method, asked.target) == ("GET", "/v1/cities/new%20york%2Fus?tag=big&tag=a%26b")
    assert asked.headers["x-unit"] == "km"
    assert asked.headers["x-token"] == TOKEN
    first, second = agents.requests(chat)
    [tool] = [one["function"] for one in first.body["tools"] if one["function"]["name"] == "getCity"]
    assert tool["description"] == "Do getCity."
    assert tool["parameters"]["properties"] == {
        "id": {"description": "Which city.", "type": "string"},
        "tag": {"type": "array", "items": {"type": "string"}},
        "X-Unit": {"type": "string"},
    }
    assert tool["parameters"]["required"] == ["id"]
    assert json.loads(second.results[0]) == {"name": "new york/us", "tags": ["big", "a&b"]}
    assert [tool for tool, _, _ in steps_of(heard)] == ["getCity"]
    rows = rows_of(agents.server.settings.resolved_database_url(), heard.task_id)
    for place in (heard.raw.decode(), str(rows), caplog.text, str(second.body)):
        assert TOKEN not in place


def test_a_body_is_sent_as_json_and_its_schema_is_told(agents: Agents, api: HttpApi) -> None:
    city = {"name": "Rome", "mayor": None, "twins": [{"name": "Paris"}]}
    chat = using(agents, api, call("cities_create", {"body": city}))
    chat.streaming("Do it")
    [asked] = api.asked
    assert (asked.method, asked.target) == ("POST", "/v1/cities")
    assert json.loads(asked.body) == city
    first, second = agents.requests(chat)
    [tool] = [one["function"] for one in first.body["tools"] if one["function"]["name"] == "cities_create"]
    assert tool["parameters"]["properties"]["body"] == {"$ref": "#/$defs/City"}
    assert tool["parameters"]["$defs"]["City"]["properties"] == {
        "name": {"type": "string"},
        "mayor": {"type": ["string", "null"]},
        "enum": {"$ref": "#/$defs/City"},
        "x-nullable": {"type": "string"},
        "twins": {"type": "array", "items": {"$ref": "#/$defs/City"}},
    }
    assert json.loads(second.results[0]) == {"id": 7, **city}


def test_an_error_of_the_api_goes_to_the_model_and_into_no_log(
    agents: Agents, api: HttpApi, caplog: pytest.LogCaptureFixture
) -> None:
    [result] = used(agents, api, call("getCity", {"id": "atlantis"}), headers={"X-Token": TOKEN})
    assert "The API answered 404." in result
    assert f"{SECRET}: no such city" in result
    assert SECRET not in caplog.text


@pytest.mark.parametrize("value", ["..", ".", "", "../../admin", "a/../b", "..\\x", None])
def test_a_value_cannot_lead_to_another_path(agents: Agents, api: HttpApi, value: str | None) -> None:
    [result] = used(agents, api, call("getCity", {"id": value}), headers={"X-Token": TOKEN})
    assert "must be a value that is neither empty nor a way to another path" in result
    assert api.asked == []


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("@evil.example", "%40evil.example"),
        ("//evil.example", "%2F%2Fevil.example"),
        ("x?y#z", "x%3Fy%23z"),
        ("%2e%2e", "%252e%252e"),
        ("a&b=ü", "a%26b%3D%C3%BC"),
    ],
)
def test_a_value_stays_one_step_of_the_path(agents: Agents, api: HttpApi, value: str, sent: str) -> None:
    used(agents, api, call("getCity", {"id": value}), headers={"X-Token": TOKEN})
    assert [asked.target for asked in api.asked] == [f"/v1/cities/{sent}"]


def test_a_value_makes_no_second_header(agents: Agents, api: HttpApi) -> None:
    arguments = {"id": "rome", "X-Unit": "km\r\nX-Admin: yes"}
    [result] = used(agents, api, call("getCity", arguments), headers={"X-Token": TOKEN})
    assert "must be one line of plain letters" in result
    assert api.asked == []


def test_a_user_makes_no_second_header(agents: Agents, api: HttpApi) -> None:
    config: Json = {
        "document": api.document,
        "operations": ["getPicture"],
        "headers": {"X": "${inputs.name}"},
    }
    chat = agents.app(
        answer(call("getPicture")),
        "Done.",
        answer(call("getPicture")),
        "Done.",
        tools={"openapi": {"cities": config}},
        user_input_form=[{"text-input": {"label": "Name", "variable": "name"}}],
    )
    chat.streaming("Do it", inputs={"name": "ada\r\nX-Admin: yes"})
    assert "The API cannot be reached" in agents.requests(chat)[-1].results[0]
    assert api.asked == []
    chat.streaming("Do it", inputs={"name": "ada"})
    assert [asked.headers["x"] for asked in api.asked] == ["ada"]


def test_redirects_are_not_followed_and_cookies_are_not_kept(agents: Agents, api: HttpApi) -> None:
    [away] = used(agents, api, call("goAway"))
    assert "The API answered 307, a redirect, which is not followed." in away
    assert len(api.asked) == 1
    assert used(agents, api, call("getCookie")) == used(agents, api, call("getCookie")) == ["{}"]


def test_a_picture_is_a_file_and_a_long_text_is_cut(agents: Agents, api: HttpApi) -> None:
    picture, much = used(agents, api, call("getPicture"), call("getMuch"))
    assert "file" in picture
    assert much.startswith("xxx")
    assert len(much) < 100_100


def test_an_api_that_is_away_or_slow_does_not_end_the_turn(agents: Agents, api: HttpApi) -> None:
    [slow] = used(agents, api, call("hang"), timeout_seconds=0.3)
    assert "The call was given up after 0.3 seconds." in slow
    [away] = used(agents, api, call("getPicture"), base_url="http://127.0.0.1:1")
    assert "The API cannot be reached (ConnectError)." in away


def test_the_document_may_be_a_file(agents: Agents, api: HttpApi, tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    path.write_text(json.dumps(api.document))
    [result] = used(
        agents, api, call("getCity", {"id": "rome"}), document=str(path), headers={"X-Token": TOKEN}
    )
    assert json.loads(result)["name"] == "rome"
