"""A turn and its app become the request of a run; snapshots go back as they came."""

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import parse_app
from agent_gateway.backend.compose import (
    compose,
    compose_auxiliary,
    compose_closing,
    files_to_read,
    has_place_for_files,
)
from agent_gateway.backend.fold.translate import FOLD_VERSION
from agent_gateway.backend.shown_files import MAX_ENTRY_BYTES, MAX_TEXT_BYTES
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.human_input import FormAction, FormAnswer, FormDefinition, FormState, HumanInputForm
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, FormId, MessageId, TaskId
from agent_gateway.domain.turns import AnsweredTurn, App, Turn
from agent_gateway.errors import TurnError
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import check_app
from tests.support.paths import RECORDED

SECRET = "sk-very-secret"


def app_of(layers: list[dict[str, Any]], environ: Mapping[str, str] | None = None, **more: Any) -> AppConfig:
    form = [{"text-input": {"label": "X", "variable": "x"}}, {"paragraph": {"label": "Y", "variable": "y"}}]
    data = {"name": "x", "user_input_form": form, "composition": {"layers": layers}, **more}
    return parse_app(data, environ or {}, "app.yaml")


def turn_of(
    config: AppConfig, query: str = "Hello", inputs: dict[str, Any] | None = None, snapshot: str | None = None
) -> Turn:
    return Turn(
        task_id=TaskId("task-1"),
        conversation_id=ConversationId("conv-1"),
        message_id=MessageId("message-1"),
        created_at=1_800_000_000,
        app=App(AppId("app-1"), AppVersionId("version-1"), config),
        user="user-1",
        query=query,
        inputs=inputs or {},
        files=[],
        snapshot=snapshot,
        epoch=1,
        fold_version=FOLD_VERSION,
        seconds_left=60.0,
    )


def url_of(file_id: str) -> str:
    return f"https://gateway/files/{file_id}"


def sent(turn: Turn, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The request as the backend reads it."""
    body = json.loads(msgspec.json.encode(compose(turn, environ or {}, url_of)))
    assert isinstance(body, dict)
    return body


def config_sent(template: Any, turn_inputs: dict[str, Any] | None = None, query: str = "Hello") -> Any:
    turn = turn_of(app_of([{"name": "a", "config": template}]), query, turn_inputs)
    return sent(turn)["composition"]["layers"][0]["config"]


def as_template(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("name", "type", "deps", "metadata", "config")
    return [{key: layer[key] for key in names if key in layer} for layer in layers]


def test_the_default_app_becomes_a_whole_request() -> None:
    assert sent(turn_of(default_app())) == {
        "composition": {
            "schema_version": 1,
            "layers": [
                {
                    "name": "agent_soul_prompt",
                    "type": "plain.prompt",
                    "config": {"prefix": "You are a helpful assistant."},
                },
                {"name": "agent_app_user_prompt", "type": "plain.prompt", "config": {"user": "Hello"}},
                {
                    "name": "execution_context",
                    "type": "execution_context",
                    "config": {
                        "tenant_id": "default",
                        "user_id": "user-1",
                        "app_id": "app-1",
                        "conversation_id": "conv-1",
                        "agent_id": "app-1",
                        "user_from": "end-user",
                        "invoke_from": "service-api",
                        "agent_mode": "agent_app",
                    },
                },
                {"name": "history", "type": "pydantic_ai.history"},
                {"name": "llm", "type": "llm"},
            ],
        },
        "idempotency_key": "task-1",
        "metadata": {"conversation_id": "conv-1", "message_id": "message-1", "app_id": "app-1"},
        "on_exit": {"default": "suspend", "layers": {}},
    }


@pytest.mark.parametrize("path", sorted((RECORDED / "requests").glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_composition_is_sent_as_it_was_recorded(path: Path) -> None:
    composition = json.loads(path.read_text("utf-8"))["composition"]
    config = app_of(as_template(composition["layers"]))
    stored = AppConfig.model_validate_json(config.model_dump_json())
    assert sent(turn_of(stored))["composition"] == composition


def test_every_name_of_a_turn_has_its_value() -> None:
    names = ["query", "tenant_id", "app_id", "user_id", "conversation_id", "message_id", "agent_id"]
    template = {name: f"<${{{name}}}>" for name in names}
    config = app_of([{"name": "a", "config": template}], tenant_id="tenant-9", agent_id="agent-9")
    assert sent(turn_of(config))["composition"]["layers"][0]["config"] == {
        "query": "<Hello>",
        "tenant_id": "<tenant-9>",
        "app_id": "<app-1>",
        "user_id": "<user-1>",
        "conversation_id": "<conv-1>",
        "message_id": "<message-1>",
        "agent_id": "<agent-9>",
    }


def test_a_written_null_is_sent_and_an_absent_key_is_not() -> None:
    layers: list[dict[str, Any]] = [
        {"name": "a", "config": None},
        {"name": "b"},
        {"name": "c", "deps": {}, "metadata": {}},
    ]
    assert sent(turn_of(app_of(layers)))["composition"]["layers"] == layers


@pytest.mark.parametrize("value", ["text", 7, 1.5, True, None, ["a", 1], {"k": [None]}])
def test_an_input_that_is_the_whole_text_keeps_its_type(value: object) -> None:
    assert config_sent({"v": "${inputs.x}"}, {"x": value}) == {"v": value}


def test_an_absent_input_is_empty_and_an_undeclared_one_is_never_read() -> None:
    assert config_sent(["${inputs.x}", "<${inputs.x}>"], {"undeclared": "v"}) == ["", "<>"]
    # An app version of the time before its form lost the variable.
    older = app_of([{"name": "a", "config": "${inputs.x}"}]).model_copy(update={"user_input_form": []})
    assert sent(turn_of(older, inputs={"x": "v"}))["composition"]["layers"][0]["config"] == ""


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["${env:SECRET}", "${inputs.x}", "$${query}", "${", "${nonsense here}"])
)
def test_placeholders_in_user_text_are_never_expanded(typed: str) -> None:
    layers = [
        {"name": "a", "config": ["${query}", "<${query}>", "${inputs.x}", "<${inputs.y}>", "${env:SECRET}"]}
    ]
    environ = {"SECRET": SECRET}
    turn = turn_of(app_of(layers, environ), query=typed, inputs={"x": typed, "y": typed})
    assert sent(turn, environ)["composition"]["layers"][0]["config"] == [
        typed,
        f"<{typed}>",
        typed,
        f"<{typed}>",
        SECRET,
    ]


def test_an_environment_variable_is_read_when_the_turn_is_composed(caplog: pytest.LogCaptureFixture) -> None:
    config = app_of([{"name": "a", "config": {"key": "Bearer ${env:KEY}"}}], {"KEY": "old"})
    assert sent(turn_of(config), {"KEY": SECRET})["composition"]["layers"][0]["config"] == {
        "key": f"Bearer {SECRET}"
    }
    with caplog.at_level(logging.ERROR), pytest.raises(TurnError) as failure:
        compose(turn_of(config), {"OTHER": SECRET}, url_of)
    assert failure.value.code == "internal_server_error"
    assert "the environment variable KEY is not set" in caplog.text
    assert SECRET not in caplog.text


def test_a_turn_without_a_snapshot_sends_none() -> None:
    assert "session_snapshot" not in sent(turn_of(default_app()))


@pytest.mark.parametrize(
    "snapshot", ['{"layers": [ ]}', '{"layers":{"history":{}}}', '{"n":NaN}', "not json"]
)
def test_a_stored_snapshot_is_sent_unchanged(snapshot: str) -> None:
    request = compose(turn_of(default_app(), snapshot=snapshot), {}, url_of)
    assert request.session_snapshot is not None
    assert bytes(request.session_snapshot) == snapshot.encode()


def test_composing_changes_neither_the_app_nor_the_inputs() -> None:
    config = app_of([{"name": "a", "config": {"deep": ["${inputs.x}", {"q": "${query}"}]}}])
    before = config.model_dump_json()
    inputs = {"x": {"k": [1]}}
    compose(turn_of(config, inputs=inputs), {}, url_of)
    assert config.model_dump_json() == before
    assert inputs == {"x": {"k": [1]}}


LAYERS: list[dict[str, Any]] = [
    {"name": "prompt", "type": "plain.prompt", "config": {"user": "${query}"}},
    {"name": "history", "type": "pydantic_ai.history"},
    {"name": "model", "type": "vendor.plugin.llm"},
    {"name": "tools", "type": "vendor.plugin.tools", "deps": {"llm": "model"}},
    {"name": "more", "type": "vendor.more", "deps": {"x": "tools"}},
    {"name": "context", "type": "context", "deps": {"x": "prompt"}},
    {"name": "llm"},
]


def test_a_clean_up_run_has_no_model_and_no_layers_that_depend_on_it() -> None:
    snapshot = json.dumps({"schema_version": 1, "layers": [{"name": one["name"]} for one in LAYERS]})
    closing = compose_closing(turn_of(app_of(LAYERS), snapshot=snapshot), {})
    body = json.loads(msgspec.json.encode(closing))
    left = ["prompt", "history", "context"]
    assert [layer["name"] for layer in body["composition"]["layers"]] == left
    assert body["session_snapshot"] == json.loads(snapshot)
    assert body["composition"]["layers"][0]["config"] == {"user": "Hello"}
    assert body["on_exit"] == {"default": "delete", "layers": {}}
    assert "idempotency_key" not in body


def test_an_auxiliary_run_gets_query_and_answer_but_no_session() -> None:
    small = {"layers": [{"name": "p", "config": {"user": "${query}|${answer}|${inputs.x}|${env:KEY}"}}]}
    config = app_of(LAYERS, {"KEY": "k"}, naming={"composition": small})
    assert config.naming is not None
    turn = turn_of(config, "${env:KEY}", {"x": 1}, snapshot="{}")
    request = compose_auxiliary(config.naming.composition, AnsweredTurn(turn, "${query}"), {"KEY": "k"})
    body = json.loads(msgspec.json.encode(request))
    assert body["composition"]["layers"] == [{"name": "p", "config": {"user": "${env:KEY}|${query}|1|k"}}]
    assert body["on_exit"]["default"] == "delete"
    assert "session_snapshot" not in body
    with pytest.raises(TurnError):
        compose_auxiliary(config.naming.composition, AnsweredTurn(turn, ""), {})


# -- answers of humans ----------------------------------------------------------------------------


def answered(tool_call_id: str) -> Turn:
    answer = FormAnswer("submitted", FormAction("approve", "Approve"), {"comment": "go", "size": "s"})
    form = HumanInputForm(
        id=FormId("form-1"),
        token="token",
        message_id=MessageId("message-0"),
        tool_call_id=tool_call_id,
        definition=FormDefinition("T", "Sure?", (), ()),
        state=FormState.SUBMITTED,
        expires_at=1_800_000_000,
        answer=answer,
    )
    return replace_struct(turn_of(app_of([{"name": "history"}])), form=form)


def test_a_form_answer_is_sent_as_recorded() -> None:
    body = json.loads((RECORDED / "requests/ask_human_resume.json").read_text())
    results = sent(answered("call_ask_1"))["deferred_tool_results"]
    assert results == {**body["deferred_tool_results"], "metadata": {}}


def test_an_answer_without_a_tool_call_sends_no_tool_result() -> None:
    assert "deferred_tool_results" not in sent(answered(""))
    assert "deferred_tool_results" not in sent(turn_of(app_of([{"name": "history"}])))


# -- files ------------------------------------------------------------------------------------------

FILES = [
    InputFile("image", "local_file", "", "id-1", "a.png", "image/png", 7),
    InputFile("document", "remote_url", "https://x.test/b"),
]
TOLD = (
    'Attached image "a.png" (image/png, 7 bytes): https://gateway/files/id-1\n'
    'Attached document "" (unknown type, unknown size): https://x.test/b'
)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"user": "${query}"}, {"user": ["Hello", TOLD]}),
        ({"user": ["Answer:", "${query}"]}, {"user": ["Answer:", "Hello", TOLD]}),
        ({"user": "Q: ${query}", "prefix": "x"}, {"user": ["Q: Hello", TOLD], "prefix": "x"}),
        ({"user": ["${query}", "${files}"]}, {"user": ["Hello", TOLD]}),
        ({"user": "${query}", "prefix": "${files}"}, {"user": "Hello", "prefix": TOLD}),
        ({"text": "Q: ${query}"}, {"text": f"Q: Hello\n\n{TOLD}"}),
        ({"text": "${query}", "prefix": "${files}"}, {"text": "Hello", "prefix": TOLD}),
        ({"text": "Now: ${files}", "files": []}, {"text": f"Now: {TOLD}", "files": []}),
        ({"question": "${query}", "user": "ada"}, {"question": "Hello", "user": "ada"}),
        ({"question": "${query}", "text": "ada"}, {"question": "Hello", "text": "ada"}),
        ("${query}", "Hello"),
    ],
)
def test_files_are_listed_after_the_query_or_at_their_placeholder(config: Any, wanted: Any) -> None:
    """Files are also listed where the app has a place for them, but never within the user's own text."""
    app = app_of([{"name": "a", "config": config}, {"name": "b"}])
    turn = replace_struct(turn_of(app), files=FILES)
    assert sent(turn)["composition"]["layers"][0]["config"] == wanted


def test_files_become_entries_of_a_newer_prompt_layer() -> None:
    """Images that models see are sent as they are when they are stored here, else by their URL."""
    given = [
        *FILES,
        InputFile("image", "local_file", "", "id-2", "b.jpg", "image/jpeg", 9),
        InputFile("image", "local_file", "", "id-3", "c.svg", "image/svg+xml", 9),
        InputFile("image", "remote_url", "https://x.test/d"),
    ]
    app = app_of([{"name": "a", "config": {"text": "${query}", "files": "${files}"}}])
    turn = replace_struct(turn_of(app), files=given)
    assert files_to_read(turn, takes_files=False) == ["id-1", "id-2"]
    request = compose(turn, {}, url_of, {"id-1": b"image-a"})
    [layer] = json.loads(msgspec.json.encode(request))["composition"]["layers"]
    first, second, third, fourth, fifth = layer["config"].pop("files")
    assert layer["config"] == {"text": "Hello"}
    image = {"delivery": "multimodal", "type": "image", "detail": "high"}
    assert first == {
        **image,
        "filename": "a.png",
        "mime_type": "image/png",
        "format": "png",
        "base64_data": base64.b64encode(b"image-a").decode(),
    }
    download = {"delivery": "download", "transfer_method": "remote_url"}
    assert second == {**download, "type": "document", "url": "https://x.test/b"}
    assert third == {
        **image,
        "filename": "b.jpg",
        "mime_type": "image/jpeg",
        "format": "jpeg",
        "url": "https://gateway/files/id-2",
    }
    assert fourth == {**download, "type": "image", "url": "https://gateway/files/id-3"}
    assert (fifth["delivery"], fifth["url"]) == ("multimodal", "https://x.test/d")


def stored(name: str, mime_type: str, size: int, file_id: str = "") -> InputFile:
    kind = "image" if mime_type.startswith("image/") else "document"
    return InputFile(kind, "local_file", "", file_id or name, name, mime_type, size)


def turn_with(files: list[InputFile], *configs: Any) -> Turn:
    app = app_of([{"name": f"layer-{number}", "config": config} for number, config in enumerate(configs)])
    return replace_struct(turn_of(app), files=files)


def test_images_sent_as_bytes_are_bounded_and_only_for_layers_that_take_files() -> None:
    given = [stored(name, "image/png", MAX_ENTRY_BYTES // 2) for name in "abc"]
    wants = turn_with(given, {"text": "${query}", "files": "${files}"})
    told = turn_with(given, {"text": "${query}", "lines": "${files}"})
    assert files_to_read(wants, takes_files=False) == ["a", "b"]
    assert files_to_read(told, takes_files=False) == []


def test_a_backend_that_takes_files_gets_pdfs_and_texts_up_to_their_own_bounds() -> None:
    given = [
        stored("a.png", "image/png", MAX_ENTRY_BYTES - 1),
        stored("b.pdf", "application/pdf", 2),
        stored("c.pdf", "application/pdf", 1),
        stored("d.csv", "text/csv", MAX_TEXT_BYTES - 1),
        stored("e.json", "application/json", 2),
        stored("f.conf", "application/octet-stream", 1),
        stored("g.docx", "application/msword", 1),
        stored("h.mp3", "audio/mpeg", 1),
        InputFile("document", "remote_url", "https://x.test/i.pdf", "", "i.pdf", "application/pdf"),
    ]
    for config in ({"text": "${query}", "files": "${files}"}, {"user": "${query}"}, {"text": "${query}"}):
        turn = turn_with(given, config)
        assert files_to_read(turn, takes_files=True) == ["a.png", "c.pdf", "d.csv", "f.conf"], config
    only_images = turn_with(given, {"text": "${query}", "files": "${files}"})
    assert files_to_read(only_images, takes_files=False) == ["a.png"]


@pytest.mark.parametrize(
    ("configs", "wanted"),
    [
        ([{"user": "${query}"}], [{"user": "Hello", "files": True}]),
        ([{"text": "Q: ${query}"}], [{"text": "Q: Hello", "files": True}]),
        ([{"user": ["A", "${query}"]}, {"text": "${query}"}], [{"files": True}, {"text": "Hello"}]),
        # The app has said where the lines go, or has a list of its own.
        ([{"user": "${query}", "prefix": "${files}"}], [{"user": "Hello", "prefix": "LINES"}]),
        ([{"user": "${query}", "files": []}], [{"user": ["Hello", "LINES"], "files": []}]),
    ],
)
def test_a_backend_that_takes_files_gets_them_once_beside_the_query(
    configs: list[Any], wanted: list[Any]
) -> None:
    given = [stored("a.pdf", "application/pdf", 3), stored("b.zip", "application/zip", 0)]
    turn = turn_with(given, *configs)
    body = msgspec.json.encode(compose(turn, {}, url_of, {"a.pdf": b"PDF"}, takes_files=True))
    lines = (
        'Attached document "a.pdf" (application/pdf, 3 bytes): https://gateway/files/a.pdf',
        'Attached document "b.zip" (application/zip, 0 bytes): https://gateway/files/b.zip',
    )
    listed = [
        {
            "delivery": "multimodal",
            "type": "document",
            "filename": "a.pdf",
            "mime_type": "application/pdf",
            "base64_data": "UERG",
            "line": lines[0],
        },
        {
            "delivery": "download",
            "type": "document",
            "transfer_method": "remote_url",
            "url": "https://gateway/files/b.zip",
            "line": lines[1],
        },
    ]
    for layer, expected in zip(json.loads(body)["composition"]["layers"], wanted, strict=True):
        config = layer["config"]
        for key, value in expected.items():
            if value is True:
                assert config[key] == listed
            else:
                told = "\n".join(lines)
                in_place = (
                    [told if one == "LINES" else one for one in value] if isinstance(value, list) else value
                )
                assert config[key] == (told if value == "LINES" else in_place)
        assert ("files" in config) == ("files" in expected)


def test_an_image_without_its_bytes_is_only_told_of_and_a_remote_one_keeps_its_url() -> None:
    """A signed URL would reach the model again in later turns, when it has expired."""
    remote = InputFile("image", "remote_url", "https://x.test/d.png", "", "d.png", "image/png")
    turn = turn_with([stored("a.png", "image/png", 7), remote], {"text": "${query}", "files": "${files}"})
    body = json.loads(msgspec.json.encode(compose(turn, {}, url_of, {}, takes_files=True)))
    gone, elsewhere = body["composition"]["layers"][0]["config"]["files"]
    assert (gone["delivery"], gone["url"]) == ("download", "https://gateway/files/a.png")
    assert (elsewhere["delivery"], elsewhere["url"]) == ("multimodal", "https://x.test/d.png")
    assert elsewhere["line"] == 'Attached image "d.png" (image/png, unknown size): https://x.test/d.png'


def test_an_empty_file_has_a_size() -> None:
    turn = turn_with([stored("a.txt", "text/plain", 0)], {"user": "${query}"})
    [_, line] = sent(turn)["composition"]["layers"][0]["config"]["user"]
    assert line == 'Attached document "a.txt" (text/plain, 0 bytes): https://gateway/files/a.txt'


@pytest.mark.parametrize(
    ("config", "has_place"),
    [
        ({"user": "${query}"}, True),
        ({"text": "${query}"}, True),
        ({"files": "${files}"}, True),
        ({"prefix": ["${files}"]}, True),
        ({"question": "${query}"}, False),
        ("${query}", False),
        (None, False),
    ],
)
def test_files_dropped_for_want_of_a_place_are_logged(
    config: Any, has_place: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of([{"name": "a", "config": config}])
    assert has_place_for_files(app.composition) is has_place
    sent(turn_of(app))
    assert not caplog.messages
    sent(replace_struct(turn_of(app), files=FILES))
    assert caplog.messages == (
        [] if has_place else ["the composition has no place for the files of the turn"]
    )
    with_backend = Settings(backend_url="http://127.0.0.1:1")
    assert bool(check_app(with_backend, app, "app.yaml")) is not has_place


def test_a_turn_without_files_sends_an_empty_list() -> None:
    config = {"text": "${query}", "files": "${files}"}
    assert config_sent(config) == {"text": "Hello", "files": []}
    small = app_of([{"name": "a"}], naming={"composition": {"layers": [{"name": "p", "config": config}]}})
    assert small.naming is not None
    exchange = AnsweredTurn(replace_struct(turn_of(small), files=FILES), "Hi")
    [layer] = compose_auxiliary(small.naming.composition, exchange, {}).composition.layers
    assert layer.config == {"text": "Hello", "files": []}


def test_files_sent_with_a_form_answer_are_listed_in_its_message() -> None:
    turn = replace_struct(answered("call_ask_1"), files=FILES)
    assert turn.form is not None
    spoken = replace_struct(turn, form=replace(turn.form, answer=FormAnswer("submitted", message="Here.")))
    for answer, message in ((turn, TOLD), (spoken, f"Here.\n\n{TOLD}")):
        [result] = sent(answer)["deferred_tool_results"]["calls"].values()
        assert result["message"] == message


def test_a_turn_without_files_adds_no_lines_to_the_prompt() -> None:
    assert config_sent({"user": "${query}"}) == {"user": "Hello"}
    assert config_sent({"user": ["${query}", "${files}"]}) == {"user": ["Hello", ""]}
