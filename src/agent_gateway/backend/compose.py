"""App configuration + turn → CreateRunRequest.

The composition belongs to the app: only its placeholders are filled in. When it has no placeholder for the
files of a message, they follow the user prompt, or go with the answer to a question: as lines, or as a list
for a backend that declares that it takes files. The session snapshot belongs to the backend. Both stay as
they were written and stored; `generations` puts them into the form that a backend takes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import JsonValue

from agent_gateway.apps.config import CompositionTemplate, LayerTemplate
from agent_gateway.apps.template import ANSWER, Placeholder, TemplateError, fill, parse, uses
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer, OnExit
from agent_gateway.backend.shown_files import (
    FILES,
    Entry,
    entry,
    entry_with_line,
    has_list,
    shown_with_bytes,
    takes_list,
    url_of,
)
from agent_gateway.causes import Cause
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.turns import AnsweredTurn, Turn
from agent_gateway.errors import TurnError

_USER: Final = "user"
"""Key of a prompt layer's config that holds the user's words: a text or a list of texts."""
_TEXT: Final = "text"
"""The same key in newer prompt layers, which take one text."""
_QUERY: Final = Placeholder("turn", "query")
_FILES: Final = Placeholder("turn", "files")

logger = logging.getLogger(__name__)


def compose(
    turn: Turn,
    environ: Mapping[str, str],
    file_url: Callable[[str], str],
    contents: Mapping[str, bytes] | None = None,
    *,
    takes_files: bool = False,
) -> CreateRunRequest:
    """The request that runs this turn; environment variables are read here and kept nowhere else.

    `file_url` makes the URL under which an agent gets the stored file with that id. `contents` are the bytes
    of the files that a model is to see (`files_to_read`), by their ids. `takes_files` is what the backend
    declares (`Backend.takes_files`). An input is empty when the client did not send it, or when the app's
    form does not declare it.
    Raises TurnError (`internal_server_error`) when an environment variable has disappeared since the app was
    loaded.
    """
    template = turn.app.config.composition
    try:
        lines = _file_lines(turn, file_url)
    except TemplateError as error:
        raise _not_composable(turn, error) from None
    files = "\n".join(lines)
    if files and not turn.form and not has_place_for_files(template):
        logger.warning("the composition has no place for the files of the turn")
    shown = _shown(turn, file_url, contents or {}, lines if takes_files else None)
    follow = "" if not files or _has_placeholder(template) else files
    if follow and takes_files and (listed := _with_list(template)) is not None:
        template, follow = listed, ""
    composition = _filled(template, turn, _Values(turn, environ, files=files), follow, shown)
    return CreateRunRequest(
        composition=composition,
        session_snapshot=_snapshot(turn),
        deferred_tool_results=_answer(turn.form, files),
        idempotency_key=turn.task_id,
        metadata=_metadata(turn),
        # Explicit, although it is the default: after any other exit the snapshot cannot be resumed.
        on_exit=OnExit(default="suspend"),
    )


def files_to_read(turn: Turn, *, takes_files: bool) -> list[str]:
    """The ids of the uploaded files of a turn whose bytes `compose` wants."""
    template = turn.app.config.composition
    follow = takes_files and not turn.form and not _has_placeholder(template)
    wanted = has_list(template) or (follow and _with_list(template) is not None)
    return shown_with_bytes(turn.files, only_images=not takes_files) if wanted else []


def _shown(
    turn: Turn, file_url: Callable[[str], str], contents: Mapping[str, bytes], lines: Sequence[str] | None
) -> list[Entry]:
    """The files of a turn as a list, with these lines if its backend takes files."""
    located = [(file, url_of(file, file_url)) for file in turn.files]
    if lines is None:
        return [entry(file, url, contents) for file, url in located]
    described = zip(located, lines, strict=True)
    return [entry_with_line(file, url, contents, line) for (file, url), line in described]


def _has_placeholder(template: CompositionTemplate) -> bool:
    return any(uses(layer.config, _FILES) for layer in template.layers)


def _with_list(template: CompositionTemplate) -> CompositionTemplate | None:
    """The composition with the list of files beside the user's words; None when it has no place for one."""
    for index, layer in enumerate(template.layers):
        if isinstance(layer.config, dict) and _holds_query(layer.config) and FILES not in layer.config:
            config = {**layer.config, FILES: "${files}"}
            layers = list(template.layers)
            layers[index] = layer.model_copy(update={"config": config})
            return template.model_copy(update={"layers": layers})
    return None


def has_place_for_files(template: CompositionTemplate) -> bool:
    """Whether the files of a message reach the agent: by a placeholder, or after the user's words."""
    return any(uses(layer.config, _FILES) or _holds_query(layer.config) for layer in template.layers)


def _holds_query(config: object) -> bool:
    if not isinstance(config, dict):
        return False
    text = config.get(_TEXT)
    return uses(config.get(_USER), _QUERY) or (isinstance(text, str) and uses(text, _QUERY))


def compose_auxiliary(
    template: CompositionTemplate, answered: AnsweredTurn, environ: Mapping[str, str]
) -> CreateRunRequest:
    """The request of an auxiliary run about an answered turn. Raises TurnError as `compose` does.

    The run gets texts only, not the session: its output must not become part of the conversation.
    """
    turn = answered.turn
    values = _Values(turn, environ, answer=answered.answer)
    return CreateRunRequest(
        composition=_filled(template, turn, values),
        metadata=_metadata(turn),
        on_exit=OnExit(default="delete"),
    )


def compose_closing(turn: Turn, environ: Mapping[str, str]) -> CreateRunRequest:
    """The clean-up run that closes a turn's session: its snapshot, and no model. Raises TurnError."""
    template = turn.app.config.composition
    without_model = template.model_copy(update={"layers": _without_model(template)})
    composition = _filled(without_model, turn, _Values(turn, environ))
    return CreateRunRequest(
        composition=composition,
        session_snapshot=_snapshot(turn),
        metadata=_metadata(turn),
        on_exit=OnExit(default="delete"),
    )


def _without_model(template: CompositionTemplate) -> list[LayerTemplate]:
    """All layers except those of type `…llm` (without a type: of that name), and except their dependents."""
    gone: set[str] = set()
    for layer in template.layers:
        if (layer.type or layer.name).endswith("llm") or gone & {*(layer.deps or {}).values()}:
            gone.add(layer.name)
    return [layer for layer in template.layers if layer.name not in gone]


def _filled(
    template: CompositionTemplate,
    turn: Turn,
    values: "_Values",
    files: str = "",
    shown: Sequence[Entry] = (),
) -> Composition:
    """`files` is the text about files that the query still lacks; `shown` is the list of all files."""
    try:
        layers = [_layer(layer, values, files, shown) for layer in template.layers]
    except TemplateError as error:
        raise _not_composable(turn, error) from None
    return Composition(schema_version=template.schema_version, layers=layers)


def _not_composable(turn: Turn, error: TemplateError) -> TurnError:
    logger.error("app %s cannot be composed: %s", turn.app.id, error)
    return TurnError("internal_server_error", Cause("AppNotComposable", said=str(error)))


def _metadata(turn: Turn) -> Mapping[str, object]:
    return {
        "conversation_id": turn.conversation_id,
        "message_id": turn.message_id,
        "app_id": turn.app.id,
    }


def _answer(form: HumanInputForm | None, files: str) -> Mapping[str, object] | None:
    """A human's answer, as the result of the tool call that asked.

    It holds the text about the files that came with the answer: such a run does not read the prompt.
    """
    if form is None or form.answer is None or not form.tool_call_id:
        return None
    answer, action = form.answer, form.answer.action
    result = {
        "status": answer.status,
        "action": {"id": action.id, "label": action.label} if action else None,
        "values": answer.values,
        "message": "\n\n".join(filter(None, (answer.message, files))) or None,
        "rendered_content": None,
    }
    return {"calls": {form.tool_call_id: result}, "metadata": {}}


class _Values:
    """The value of each placeholder in one turn."""

    def __init__(self, turn: Turn, environ: Mapping[str, str], *, files: str = "", answer: str = "") -> None:
        config = turn.app.config
        self._turn = {
            "query": turn.query,
            "files": files,
            ANSWER: answer,
            "tenant_id": config.tenant_id,
            "app_id": turn.app.id,
            "user_id": turn.user,
            "conversation_id": turn.conversation_id,
            "message_id": turn.message_id,
            "agent_id": config.agent_id or turn.app.id,
            "trace_id": turn.trace.id,
            "trace_session_id": turn.trace.session_id,
        }
        self._inputs = {name: turn.inputs[name] for name in config.input_names if name in turn.inputs}
        self._environ = environ

    def __call__(self, placeholder: Placeholder) -> Any:
        match placeholder.source:
            case "turn":
                return self._turn[placeholder.name]
            case "inputs":
                return self._inputs.get(placeholder.name, "")
            case "env":
                if placeholder.name not in self._environ:
                    raise TemplateError(f"the environment variable {placeholder.name} is not set")
                return self._environ[placeholder.name]


def _file_lines(turn: Turn, file_url: Callable[[str], str]) -> list[str]:
    """The lines about the files of a message for the agent, one for each."""
    if not turn.files:
        return []
    parts = parse(turn.app.config.files_prompt, of_file=True)
    return [_file_line(parts, file, file_url) for file in turn.files]


def _file_line(parts: Sequence[str | Placeholder], file: InputFile, file_url: Callable[[str], str]) -> str:
    known = {
        "type": file.type,
        "name": file.name,
        "mime_type": file.mime_type or "unknown type",
        "size": f"{file.size} bytes" if file.transfer_method == "local_file" else "unknown size",
        "url": url_of(file, file_url),
    }
    return "".join(part if isinstance(part, str) else known[part.name] for part in parts)


def _layer(template: LayerTemplate, values: _Values, files: str, shown: Sequence[Entry]) -> Layer:
    """The layer filled in. `files` follows the user's words, `shown` goes to a layer that takes a list."""
    config: Any = fill(template.config, values) if template.has_config else msgspec.UNSET
    if takes_list(template.config):
        config = {**config, FILES: list(shown)}
    if files and isinstance(template.config, dict):
        config = _with_files(template.config, config, files)
    return Layer(
        name=template.name,
        type=msgspec.UNSET if template.type is None else template.type,
        deps=msgspec.UNSET if template.deps is None else dict(template.deps),
        metadata=msgspec.UNSET if template.metadata is None else dict(template.metadata),
        config=config,
    )


def _with_files(
    template: Mapping[str, JsonValue], config: Mapping[str, JsonValue], files: str
) -> Mapping[str, object]:
    """The config with `files` after the user's words, as a text of its own where a list is allowed."""
    if uses(template.get(_USER), _QUERY):
        said = config[_USER]
        return {**config, _USER: [*(said if isinstance(said, list) else [said]), files]}
    if isinstance(said := config.get(_TEXT), str) and uses(template[_TEXT], _QUERY):
        return {**config, _TEXT: f"{said}\n\n{files}"}
    return config


def _snapshot(turn: Turn) -> msgspec.Raw | None:
    """The turn's snapshot as it is stored. A broken text is refused where the snapshot is read."""
    return None if turn.snapshot is None else msgspec.Raw(turn.snapshot.encode(errors="replace"))
