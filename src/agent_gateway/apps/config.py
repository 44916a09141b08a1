"""The configuration of an app, as its app file says it.

An `AppConfig` is plain data that fits into JSON; the store keeps it as a version of the app. Its placeholders
stay placeholders: the value of an environment variable never becomes part of it.
"""

import json
from functools import lru_cache
from typing import ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from agent_gateway.apps.inputs import InputField
from agent_gateway.filetypes import FileType

AppMode = Literal["chat", "agent-chat", "agent"]
"""How an app shows its answers and steps to clients."""
SLUG: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""A slug has the form of a label of a host name."""

UploadMethod = Literal["local_file", "remote_url"]
"""How a file comes with a query: as an earlier upload, or as the URL of a remote file."""


class LayerTemplate(BaseModel):
    """One layer of the composition. A key that the file does not have is absent in JSON and on the wire."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    type: str | None = None
    deps: dict[str, str] | None = None
    metadata: dict[str, JsonValue] | None = None
    config: JsonValue = None

    @property
    def has_config(self) -> bool:
        """Whether the layer has a `config`; a null counts."""
        return "config" in self.model_fields_set

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


class CompositionTemplate(BaseModel):
    """The agent as an ordered list of layers, with placeholders where a turn's values go."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    """The generation in which it is written; the backend decides which one is sent."""
    layers: list[LayerTemplate] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        earlier: set[str] = set()
        for layer in self.layers:
            if layer.name in earlier:
                raise ValueError(f"two layers are named {layer.name!r}")
            for dependency in (layer.deps or {}).values():
                if dependency not in earlier:
                    raise ValueError(
                        f"layer {layer.name!r} depends on {dependency!r}, but no earlier layer has that name"
                    )
            earlier.add(layer.name)
        return self


class Naming(BaseModel):
    """How conversations get their names: by an auxiliary run after the first completed turn."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    composition: CompositionTemplate


class SuggestedQuestions(BaseModel):
    """Whether and how the gateway suggests next questions: by an auxiliary run, on request."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    composition: CompositionTemplate | None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.enabled and self.composition is None:
            raise ValueError("needs a composition when it is enabled")
        return self


class AppLimits(BaseModel):
    """The limits of an app; None means no limit."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    concurrent_turns: int | None = Field(default=None, ge=1)
    """Active turns of the whole app, in all processes; queued turns are not active."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests with any one of its API keys."""
    query_characters: int | None = Field(default=None, ge=1)


class SiteConfig(BaseModel):
    """The look of a chat page for this app; passed on to clients unchanged."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    """Empty means the app's name."""
    description: str = ""
    """Empty means the app's description."""
    chat_color_theme: str = ""
    chat_color_theme_inverted: bool = False
    icon_type: Literal["emoji", "image", "link"] = "emoji"
    icon: str = "🤖"
    icon_background: str = "#FFEAD5"
    icon_url: str | None = None
    copyright: str = ""
    privacy_policy: str = ""
    custom_disclaimer: str = ""
    input_placeholder: str = ""
    default_language: str = "en-US"
    show_workflow_steps: bool = True
    use_icon_as_answer_icon: bool = False


class FileUploadConfig(BaseModel):
    """Which files may come with a query. Clients get the same keys in the app's parameters."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    allowed_file_types: list[FileType] = ["image", "document", "audio", "video"]
    allowed_file_extensions: list[str] = []
    """The extensions of the kind `custom`, if that is allowed; without the dot."""
    allowed_file_upload_methods: list[UploadMethod] = ["local_file", "remote_url"]
    number_limits: int = Field(default=10, ge=1, le=50)

    def allows(self, kind: FileType, extension: str) -> bool:
        """Whether a file of this kind and extension may be uploaded."""
        if kind != "custom":
            return self.enabled and kind in self.allowed_file_types
        extensions = [allowed.lower().lstrip(".") for allowed in self.allowed_file_extensions]
        return self.enabled and "custom" in self.allowed_file_types and extension in extensions


def _default_composition() -> CompositionTemplate:
    execution_context = {
        "tenant_id": "${tenant_id}",
        "user_id": "${user_id}",
        "app_id": "${app_id}",
        "conversation_id": "${conversation_id}",
        "agent_id": "${agent_id}",
        "user_from": "end-user",
        "invoke_from": "service-api",
        "agent_mode": "agent_app",
    }
    layers = [
        {
            "name": "agent_soul_prompt",
            "type": "plain.prompt",
            "config": {"prefix": "You are a helpful assistant."},
        },
        {"name": "agent_app_user_prompt", "type": "plain.prompt", "config": {"user": "${query}"}},
        {"name": "execution_context", "type": "execution_context", "config": execution_context},
        {"name": "history", "type": "pydantic_ai.history"},
        {"name": "llm", "type": "llm"},
    ]
    return CompositionTemplate.model_validate({"layers": layers})


class AppConfig(BaseModel):
    """The whole configuration of an app. Immutable, and the same after a round trip through JSON.

    Only `slug` is left out: it names the app of the file, and is no part of a version.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    slug: str = Field(default="", pattern=f"^({SLUG})?$", exclude=True)
    """The name of the app for operators; empty: the name of its file."""
    name: str = Field(min_length=1)
    description: str = ""
    tags: list[str] = []
    author_name: str = ""
    mode: AppMode = "chat"
    tenant_id: str = Field(default="default", min_length=1)
    agent_id: str = ""
    """Empty means the app's own id."""
    opening_statement: str = ""
    suggested_questions: list[str] = []
    site: SiteConfig = SiteConfig()
    user_input_form: list[dict[str, InputField]] = []
    """One mapping of kind (`text-input`, `select` …) to field per item, as clients get it."""
    on_busy: Literal["enqueue", "reject", "interrupt"] = "enqueue"
    """What happens to a message while a turn of its conversation runs: it waits, is refused, or stops it."""
    on_change: Literal["pin", "follow"] = "pin"
    """Whether conversations that started on an earlier version stay on it or move to the new one."""
    limits: AppLimits = AppLimits()
    retention_days: int | None = Field(default=None, ge=0, le=36_500)
    """How long a conversation that nobody touches is kept, in days: 0 for ever, None as the settings say."""
    on_question: Literal["answer", "reject"] = "answer"
    """What happens to a message while a question to a human is open: it is the answer, or it is refused."""
    question_expires_seconds: float = Field(default=3 * 86_400.0, gt=0, le=10 * 365 * 86_400.0)
    """How long a question waits for its answer."""
    on_question_expired: Literal["continue", "drop"] = "continue"
    """After that time: the run learns that nobody answered, or continues from before the question."""
    file_upload: FileUploadConfig = FileUploadConfig()
    files_prompt: str = 'Attached ${type} "${name}" (${mime_type}, ${size}): ${url}'
    """The text about each file for the agent, one line each."""
    composition: CompositionTemplate = Field(default_factory=_default_composition)
    naming: Naming | None = None
    """Absent: the name of a conversation is the start of its first query."""
    suggested_questions_after_answer: SuggestedQuestions = SuggestedQuestions()

    @property
    def input_names(self) -> frozenset[str]:
        """The variables the input form declares."""
        return frozenset(field.variable for item in self.user_input_form for field in item.values())

    @model_validator(mode="after")
    def _form_fits(self) -> Self:
        seen: set[str] = set()
        for index, item in enumerate(self.user_input_form):
            if len(item) != 1:
                raise ValueError(f"user_input_form[{index}] must have exactly one key, the kind of the field")
            for kind, field in item.items():
                if field.variable in seen:
                    raise ValueError(f"two fields of user_input_form have the variable {field.variable!r}")
                seen.add(field.variable)
                options = field.further("options")
                if kind == "select" and not (options and isinstance(options, list)):
                    raise ValueError(f"user_input_form[{index}].select needs a list of options")
        return self


def default_app(mode: AppMode = "chat") -> AppConfig:
    """The app of a gateway without an app file: a plain agent for the embedded backend."""
    return AppConfig(
        name="Demo agent",
        description="A plain conversational agent.",
        mode=mode,
        opening_statement="Hello! What can I do for you?",
    )


@lru_cache(maxsize=256)
def read_config(stored: str) -> AppConfig:
    """A stored app version. Keys of a newer release are left out, so that older processes can read it."""
    known = {key: value for key, value in json.loads(stored).items() if key in AppConfig.model_fields}
    return AppConfig.model_validate(known)


def read_config_or_none(stored: str) -> AppConfig | None:
    """The same, or None when another release wrote it and this one cannot read it."""
    try:
        return read_config(stored)
    except ValidationError:
        return None
