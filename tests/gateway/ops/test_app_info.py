"""What an app says of itself, and the file that says it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chat import Chat
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import StartGateway
from tests.support.rows import apply_app

APP = """
name: Weather
description: Knows the weather.
tags: [weather, travel]
author_name: Ada
site:
  title: Rain or shine
  icon: "🌦"
  chat_color_theme: "#336699"
  copyright: Ada 2026
mode: agent-chat
opening_statement: Where are you?
suggested_questions: ["Will it rain?", "How warm is it?"]
user_input_form:
  - text-input: {label: Tone, variable: tone, required: false, max_length: 20}
composition:
  layers:
    - {name: prompt, type: plain.prompt, config: {prefix: "Be ${inputs.tone}.", user: "${query}"}}
    - {name: history, type: pydantic_ai.history}
"""


SITE = {
    "title": "",
    "chat_color_theme": "",
    "chat_color_theme_inverted": False,
    "icon_type": "emoji",
    "icon": "🤖",
    "icon_background": "#FFEAD5",
    "icon_url": None,
    "description": "",
    "copyright": "",
    "privacy_policy": "",
    "custom_disclaimer": "",
    "input_placeholder": "",
    "default_language": "en-US",
    "show_workflow_steps": True,
    "use_icon_as_answer_icon": False,
}


def test_the_built_in_app_describes_itself(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert info.keys() == {"name", "description", "tags", "mode", "author_name"}
    assert (info["mode"], info["tags"], info["author_name"]) == ("chat", [], "")
    assert info["name"]
    assert client.get("/meta").json() == {"tool_icons": {}}
    site = {**SITE, "title": info["name"], "description": info["description"]}
    assert client.get("/site").json() == site


def test_parameters_of_the_built_in_app(client: httpx.Client) -> None:
    off: dict[str, Any] = {"enabled": False}
    parameters = client.get("/parameters").json()
    assert isinstance(parameters.pop("opening_statement"), str)
    assert isinstance(parameters.pop("suggested_questions"), list)
    upload = parameters.pop("file_upload")
    assert (upload["enabled"], upload["number_limits"]) == (True, 10)
    assert upload["allowed_file_types"] == ["image", "document", "audio", "video"]
    assert {"png", "pdf", "mp3", "mp4"} <= set(upload["allowed_file_extensions"])
    assert upload["allowed_file_upload_methods"] == ["local_file", "remote_url"]
    assert upload["image"] == {
        "enabled": True,
        "number_limits": 10,
        "transfer_methods": ["local_file", "remote_url"],
    }
    assert parameters.pop("system_parameters") == {
        "file_size_limit": 15,
        "image_file_size_limit": 10,
        "audio_file_size_limit": 50,
        "video_file_size_limit": 100,
        "workflow_file_upload_limit": 10,
    }
    assert parameters == {
        "suggested_questions_after_answer": off,
        "speech_to_text": off,
        "text_to_speech": {"enabled": False, "voice": "", "language": "", "autoPlay": "disabled"},
        "retriever_resource": off,
        "annotation_reply": off,
        "more_like_this": off,
        "sensitive_word_avoidance": off,
        "user_input_form": [],
    }


@pytest.mark.parametrize("on_change", ["pin", "follow"])
def test_an_app_file_is_read_at_each_start(
    on_change: str, start_gateway: StartGateway, fake: ScriptedBackend, user: str, tmp_path: Path
) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(APP)
    server = start_gateway(app_file=path, app_mode="agent")
    with server.client() as client:
        chat = Chat(client, user)
        assert client.get("/info").json() == {
            "name": "Weather",
            "description": "Knows the weather.",
            "tags": ["weather", "travel"],
            "mode": "agent-chat",
            "author_name": "Ada",
        }
        assert client.get("/site").json() == {
            **SITE,
            "title": "Rain or shine",
            "description": "Knows the weather.",
            "icon": "🌦",
            "chat_color_theme": "#336699",
            "copyright": "Ada 2026",
        }
        parameters = client.get("/parameters").json()
        assert parameters["opening_statement"] == "Where are you?"
        assert parameters["suggested_questions"] == ["Will it rain?", "How warm is it?"]
        assert parameters["user_input_form"] == [
            {"text-input": {"label": "Tone", "variable": "tone", "required": False, "max_length": 20}}
        ]
        answered = chat.blocking("Rain? ${inputs.tone}", inputs={"tone": "brief"})
        assert chat.conversations()["data"][0]["introduction"] == "Where are you?"
    [prompt, _] = fake.requests[0].body["composition"]["layers"]
    assert prompt["config"] == {"prefix": "Be brief.", "user": "Rain? ${inputs.tone}"}
    server.stop()

    changed = APP.replace("Weather", "Climate").replace("Be ", "Stay ")
    path.write_text(f"{changed}\non_change: {on_change}")
    with start_gateway(app_file=path).client() as client:
        assert client.get("/info").json()["name"] == "Climate"
        chat = Chat(client, user)
        chat.blocking("And now?", conversation_id=answered["conversation_id"])
    again = fake.requests[1].body
    assert (
        again["composition"]["layers"][0]["config"]["prefix"]
        == {
            "pin": "Be brief.",
            "follow": "Stay brief.",
        }[on_change]
    )
    assert again["session_snapshot"] is not None, "a new version of an app keeps its conversations"


def test_an_applied_app_survives_a_start_without_an_app_file(
    start_gateway: StartGateway, database_url: str
) -> None:
    """The built-in app is only what is there when nobody said anything else."""
    start_gateway(app_mode="agent").stop()
    server = start_gateway(app_mode="agent-chat")
    with server.client() as client:
        assert client.get("/info").json()["mode"] == "agent-chat"
    server.stop()
    apply_app(database_url, "default", name="Mine")
    with start_gateway(app_mode="agent").client() as client:
        info = client.get("/info").json()
    assert (info["name"], info["mode"]) == ("Mine", "chat")


@pytest.mark.parametrize("app_mode", ["chat", "agent-chat", "agent"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_app_mode_is_reported(start_gateway: StartGateway, app_mode: str) -> None:
    with start_gateway(app_mode=app_mode).client() as client:
        assert client.get("/info").json()["mode"] == app_mode
