"""What an app file may say to the built-in agent: the config of each kind of layer, as models.

The check of an app, the plan of a run and the tables of docs/built-in-agent.md are made from these models.
Importing this module is cheap: it does not load the agent framework.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from agent_gateway.apps.template import Placeholder, TemplateError, parse
from agent_gateway.backend.embedded.schemas import checked_schema


def _texts(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise ValueError("must be a text or a list of texts")


def _files(value: object) -> object:
    if isinstance(value, list) and all(isinstance(file, dict) for file in value):
        return value
    if isinstance(value, str) and len(parts := parse(value)) == 1 and isinstance(parts[0], Placeholder):
        # A lone placeholder keeps the type of its value, which the run checks.
        return list[object]()
    raise ValueError("must be '${files}' and nothing else")


def _names(value: object) -> object:
    return list[str]() if value is False else value


def _other_model(value: object) -> object:
    if isinstance(value, str):
        return {"model": value}
    if isinstance(value, dict):
        return value
    raise ValueError("must be the name of a model or a mapping")


def _function(value: object) -> object:
    return {"function": value} if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_texts)]
Files = Annotated[list[dict[str, JsonValue]], BeforeValidator(_files)]
Approvals = Annotated[list[str] | Literal[True], BeforeValidator(_names)]
PartT = TypeVar("PartT", bound="LayerPart")
Seconds = Annotated[float, Field(gt=0, le=3600)]


class LayerPart(BaseModel):
    """A mapping in the config of a layer. A key that it does not have is a mistake."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


class PromptConfig(LayerPart):
    """What the model is told: the system prompt, or the user's words."""

    prefix: Texts = []
    """The system prompt: a text, or a list of texts."""
    user: Texts = []
    """The user's words, usually `${query}`: a text, or a list of texts."""
    text: str | None = None
    """The user's words as one text, in layers that also have `files`."""
    files: Files = []
    """`${files}`: the files of the message, for the model to see."""


class OtherModel(LayerPart):
    """A model beside the one that answers: its name alone, or a mapping."""

    model: str = Field(min_length=1)
    """`provider:name`, as in `openai:gpt-5-mini`."""
    api_key: str | None = None
    """The key of this model, usually `${env:…}`. Without it: the variable of its provider."""
    base_url: str | None = None
    """Where the API of this model is, for a server of your own or another one with the same API."""


NamedModel = Annotated[OtherModel, BeforeValidator(_other_model)]


class HistoryConfig(LayerPart):
    """The memory of a conversation. Without this layer the agent forgets each turn."""

    max_messages: int | None = Field(default=None, ge=1)
    """The most messages of earlier turns that are kept. Older turns are forgotten; the newest one stays."""
    max_tokens: int | None = Field(default=None, ge=1)
    """About how many tokens of earlier turns are kept. Older turns are forgotten; the newest one stays."""
    summary_model: NamedModel | None = None
    """A model (such as a small, cheap one) that sums up what is forgotten. It needs one of the two limits."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.summary_model is not None and self.max_messages is None and self.max_tokens is None:
            raise ValueError("'summary_model' needs 'max_messages' or 'max_tokens'")
        return self


class ModelConfig(LayerPart):
    """The model that answers, and its settings."""

    model: str | None = None
    """`provider:name`, as in `openai:gpt-5-mini`. Empty: that of `AGENT_GATEWAY_MODEL`."""
    fallback_models: list[NamedModel] = []
    """Models that are asked in this order when the one before fails before it has said anything."""
    api_key: str | None = None
    """The key of `model` for this app, usually `${env:…}`. Without it: the variable of the provider."""
    base_url: str | None = None
    """Where the API of `model` is, for a server of your own or another one with the same API."""
    temperature: float | None = Field(default=None, ge=0)
    """How random the answer is."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Only the most probable tokens with this probability together are considered."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The most tokens of one response."""
    seed: int | None = None
    """Makes answers more alike from run to run, where the provider supports it."""
    stop_sequences: list[str] | None = None
    """Texts before which the answer ends."""
    presence_penalty: float | None = None
    """Above 0: less repetition of topics."""
    frequency_penalty: float | None = None
    """Above 0: less repetition of words."""
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model thinks before it answers, where it can."""
    request_timeout_seconds: Seconds | None = None
    """How long one response may take as a whole."""
    first_token_timeout_seconds: Seconds | None = None
    """How long the provider may take until the first token."""
    max_retries: int | None = Field(default=None, ge=0, le=10)
    """How often a request is sent again if the provider is busy or away. Without it: 2."""
    max_requests: int = Field(default=50, ge=1, le=1000)
    """The most requests to the model in one turn: each round of tool calls is one."""
    on_process_lost: Literal["fail", "restart"] = "fail"
    """What happens to a run whose process died: it fails and keeps its text (`fail`), or it begins again if
    it had not said anything and not called a tool yet (`restart`)."""


class MCPServer(LayerPart):
    """A server of the Model Context Protocol: a program (`command`) or an address (`url`)."""

    command: list[str] | None = Field(default=None, min_length=1)
    """A program and its arguments. It speaks MCP over stdin and stdout."""
    env: dict[str, str] = {}
    """Environment variables of the program. Of the gateway's it gets only `PATH`, `HOME` and the like."""
    url: str | None = None
    """The address of a server that speaks streamable HTTP."""
    headers: dict[str, str] = {}
    """Headers of each request to the address, such as `Authorization: "Bearer ${env:…}"`."""
    allow: list[str] | None = None
    """The tools that the model may use. Without it: all."""
    prefix: str | None = Field(default=None, pattern="^[a-zA-Z0-9_-]{1,32}$")
    """Put before the names of the tools, with `_` between."""
    needs_approval: Approvals = []
    """The tools that run only after a human approved the call; `true`: all."""
    timeout_seconds: Seconds = 30.0
    """How long a call may take, and the start of the server."""

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("needs either 'command' or 'url'")
        return self


class OpenAPITools(LayerPart):
    """An HTTP API that an OpenAPI document describes; each operation is a tool."""

    document: str | dict[str, JsonValue]
    """The OpenAPI document (3.x): a path of a JSON or YAML file, or the document itself."""
    operations: list[str] = Field(min_length=1)
    """The `operationId`s that the model may call."""
    base_url: str | None = None
    """Where the API is. Without it: the first server of the document."""
    headers: dict[str, str] = {}
    """Headers of each request, such as `Authorization: "Bearer ${env:…}"`."""
    needs_approval: Approvals = []
    """The operations that are called only after a human approved the call; `true`: all."""
    timeout_seconds: Seconds = 30.0
    """How long a call may take."""


class FunctionTool(LayerPart):
    """A Python function: its name, docstring and type hints tell the model what it is for."""

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`. The gateway's process imports it."""
    needs_approval: bool = False
    """Whether it runs only after a human approved the call."""
    timeout_seconds: Seconds = 60.0
    """How long a call may take."""


class ToolsConfig(LayerPart):
    """The tools that the model may call."""

    mcp: dict[str, MCPServer] = {}
    """MCP servers, each with a name of your choice."""
    openapi: dict[str, OpenAPITools] = {}
    """HTTP APIs, each with a name of your choice."""
    functions: list[Annotated[FunctionTool, BeforeValidator(_function)]] = []
    """Python functions: `module:function`, or a mapping with more keys."""

    @property
    def asks_approval(self) -> bool:
        """Whether a call may need the approval of a human."""
        return any(
            one.needs_approval for one in (*self.mcp.values(), *self.openapi.values(), *self.functions)
        )

    @property
    def local(self) -> str | None:
        """The first key that names a program, a function or a file of the machine that runs the agent."""
        for name, server in self.mcp.items():
            if server.command is not None:
                return f"mcp.{name}.command"
        for name, api in self.openapi.items():
            if isinstance(api.document, str):
                return f"openapi.{name}.document"
        return "functions" if self.functions else None


class AskHumanConfig(LayerPart):
    """Gives the model a tool with which it asks the user to decide or to fill in a form."""


class OutputConfig(LayerPart):
    """Structured output: the answer is JSON that fits a schema."""

    json_schema: Annotated[dict[str, JsonValue], AfterValidator(checked_schema)]
    """A JSON Schema (2020-12) of type `object`. References into its own `$defs` are allowed, circles not."""
    name: str | None = None
    """What the model is told the answer is called."""
    description: str | None = None
    """What the model is told the answer is."""
    mode: Literal["tool", "native", "prompted"] = "tool"
    """How the model is made to fit it: by a tool call (`tool`), by the provider's own structured output
    (`native`), or only by being told (`prompted`)."""
    max_retries: int = Field(default=2, ge=0, le=10)
    """How often the model is asked again in a turn when its answer does not fit."""


LAYERS: Final[Mapping[str, type[LayerPart]]] = {
    "prompt": PromptConfig,
    "history": HistoryConfig,
    "llm": ModelConfig,
    "tools": ToolsConfig,
    "ask_human": AskHumanConfig,
    "output": OutputConfig,
}
"""The kinds of layers with a config of their own, in the order in which they are documented."""

KINDS: Final = (*LAYERS, "execution_context")
"""All kinds. The config of an `execution_context` may be anything: the built-in agent does not read it."""


def kind_of(type_id: str) -> str | None:
    """The kind of a layer with this type, or with this name and no type; None when it is unknown.

    A layer is recognised by the end of its type id, because the vendor prefix differs between builds.
    """
    return next((kind for kind in KINDS if type_id.endswith(kind)), None)


def mistakes(kind: str, config: object) -> Iterator[tuple[str, str]]:
    """Path and words of each mistake in the config of a layer of that kind; no words repeat a value of it.

    A text with placeholders may become any value, so it is no mistake.
    """
    if (model := LAYERS.get(kind)) is None:
        return
    try:
        read_config(model, config)
    except ValidationError as invalid:
        for error in invalid.errors():
            # The checks of this module know placeholders themselves.
            if error["type"] == "value_error" or not _has_placeholder(error["input"]):
                yield _path(error["loc"]), _words(model, error)


def read_config(model: type[PartT], config: object) -> PartT:
    """The config of a layer; None is an empty one. Raises ValidationError."""
    return model.model_validate({} if config is None else config)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Words that name the one of the known names that was probably meant; empty when none is so similar."""
    close = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def _has_placeholder(value: object) -> bool:
    try:
        return isinstance(value, str) and any(isinstance(part, Placeholder) for part in parse(value))
    except TemplateError:
        return False  # its own check has found it


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)


def _words(model: type[LayerPart], error: ErrorDetails) -> str:
    kind, key, context = error["type"], str(error["loc"][-1]) if error["loc"] else "", error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"the embedded agent has no such key{nearest(key, _keys(model, error))}"
    if kind == "string_pattern_mismatch":
        return f"must look like {_EXAMPLES[key]}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {context[bound]}"
    said = _TYPES.get(kind) or _NUMBERS.get(kind.partition("_")[0])
    return said or error["msg"].removeprefix("Value error, ")


_BOUNDS: Final = {
    "literal_error": ("must be", "expected"),
    "greater_than_equal": ("must be at least", "ge"),
    "greater_than": ("must be more than", "gt"),
    "less_than_equal": ("must be at most", "le"),
}
_TYPES: Final = {
    "missing": "is missing",
    "string_type": "must be a text",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "too_short": "must not be empty",
}
_NUMBERS: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
}
_EXAMPLES: Final = {
    "function": "'package.module:function'",
    "prefix": "a name of letters, digits, '_' and '-'",
}


def _keys(model: type[LayerPart], error: ErrorDetails) -> list[str]:
    """The keys of the mapping in which an unknown key was found."""
    for step in error["loc"][:-1]:
        field = None if isinstance(step, int) else model.model_fields.get(step)
        if field is not None:
            model = _part_in(field.annotation) or model
    return list(model.model_fields)


def _part_in(annotation: object) -> type[LayerPart] | None:
    if isinstance(annotation, type) and issubclass(annotation, LayerPart):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, list, dict):
        return next((part for inner in get_args(annotation) if (part := _part_in(inner))), None)
    return None
