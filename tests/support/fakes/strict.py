"""Refusals of real backends: of the request (422), and in the run made from it (`run_failed`).

Both generations of the run protocol, as they were recorded: `tests/backend/test_strict_backend.py` holds this
against `tests/recorded/schema1`, `schema2` and `cross`.
"""

from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, create_model, model_validator

from tests.support.fakes.session import history_of
from tests.support.json_type import Json

Generation = Literal[1, 2]

BLANK: Final = "run.user_prompts must not be empty"
PENDING: Final = "Cannot provide a new user prompt when the message history contains unprocessed tool calls."


class _Exact(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


# -- the request in schema 1 --------------------------------------------------------------------------


class _TypedLayer(_Exact):
    name: str
    type: str
    deps: dict[str, str] = {}
    metadata: dict[str, JsonValue] = {}
    config: Any = None


class _TypedComposition(_Exact):
    schema_version: int = 1
    layers: list[_TypedLayer]


class _ListedLayer(_Exact):
    name: str
    lifecycle_state: Literal["new", "suspended", "closed"]
    runtime_state: dict[str, JsonValue]


class _ListSnapshot(_Exact):
    schema_version: int = 1
    layers: list[_ListedLayer]


class _Deferred(_Exact):
    calls: dict[str, JsonValue] = {}
    metadata: dict[str, dict[str, JsonValue]] = {}


class _Exit(_Exact):
    default: Literal["suspend", "delete"] = "suspend"
    layers: dict[str, Literal["suspend", "delete"]] = {}


class _Request1(_Exact):
    composition: _TypedComposition
    idempotency_key: str | None = None
    metadata: dict[str, JsonValue] = {}
    session_snapshot: _ListSnapshot | None = None
    deferred_tool_results: _Deferred | None = None
    on_exit: _Exit = _Exit()


# -- the request in schema 2 --------------------------------------------------------------------------


class _NamedLayer(_Exact):
    name: str
    config: dict[str, JsonValue] = {}


class _NamedComposition(_Exact):
    schema_version: Literal[2] = 2
    layers: list[_NamedLayer]


class _ObjectSnapshot(_Exact):
    schema_version: Literal[2] = 2
    layers: dict[str, dict[str, JsonValue]] = {}

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, value: Any) -> Any:
        layers = value.get("layers") if isinstance(value, dict) else None
        if not isinstance(layers, list) or value.get("schema_version", 1) != 1:
            return value
        for layer in layers:
            if layer["name"] not in {*MODULES, "ask_human"}:
                raise ValueError(f"Unknown legacy snapshot module: {layer['name']}")
        return {"layers": {one["name"]: one["runtime_state"] for one in layers if one["name"] in MODULES}}


class _Request2(_Exact):
    composition: _NamedComposition
    idempotency_key: str | None = None
    metadata: dict[str, JsonValue] = {}
    session_snapshot: _ObjectSnapshot | None = None


_REQUEST: Final[dict[int, type[BaseModel]]] = {1: _Request1, 2: _Request2}


def openapi(generation: Generation) -> Json:
    """As much of the backend's OpenAPI document as says what it speaks."""
    composition = _TypedComposition if generation == 1 else _NamedComposition
    schema = composition.model_json_schema(ref_template="#/components/schemas/{model}")
    nested = schema.pop("$defs")
    return {"openapi": "3.1.0", "components": {"schemas": {"RunComposition": schema, **nested}}}


def complaints(body: Any, generation: Generation) -> list[Any]:
    """The `detail` of the 422 that this request gets; empty when a run is made of it."""
    try:
        _REQUEST[generation].model_validate(body)
    except ValidationError as error:
        return [
            {
                **{key: value for key, value in problem.items() if key != "ctx"},
                "loc": ["body", *problem["loc"]],
                **({"ctx": {"error": {}}} if problem["type"] == "value_error" else {}),
                **({"ctx": problem["ctx"]} if problem["type"] == "literal_error" else {}),
            }
            for problem in error.errors(include_url=False)
        ]
    return []


# -- the layers -----------------------------------------------------------------------------------------


class _Prompt(_Exact):
    prefix: list[str] | str = []
    user: list[str] | str = []
    suffix: list[str] | str = []


class _UserPrompt(BaseModel):
    text: str
    files: list[JsonValue] = []


class _Context(_Exact):
    tenant_id: str
    user_id: str | None = None
    user_from: Literal["account", "end-user"] | None = None
    app_id: str | None = None
    workflow_id: str | None = None
    workflow_run_id: str | None = None
    node_id: str | None = None
    node_execution_id: str | None = None
    conversation_id: str | None = None
    agent_id: str | None = None
    agent_config_version_id: str | None = None
    agent_config_version_kind: str | None = None
    agent_mode: Literal["workflow_run", "single_step", "agent_app", "babysit", "fasten"]
    invoke_from: Literal[
        "service-api", "openapi", "web-app", "trigger", "explore", "debugger", "published", "validation"
    ]
    trace_id: str | None = None


class DifyPluginLLMLayerConfig(_Exact):
    plugin_id: str
    model_provider: str
    model: str
    model_settings: dict[str, JsonValue] | None = None
    context_window_tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _forget_credentials(cls, value: Any) -> Any:
        """Older gateways send them; backends do not read them."""
        return {key: item for key, item in value.items() if key != "credentials"}


class _Tool(_Exact):
    plugin_id: str
    provider: str
    tool_name: str
    credential_type: Literal["api-key", "oauth2", "unauthorized"]
    name: str | None = None
    description: str | None = None
    credentials: dict[str, JsonValue] = {}
    runtime_parameters: dict[str, JsonValue] = {}
    parameters: list[JsonValue] = []
    parameters_json_schema: dict[str, JsonValue] = {}


class _Tools(_Exact):
    tools: list[_Tool] = []


class _CoreTools(_Exact):
    tools: list[dict[str, JsonValue]] = []


class _Knowledge(_Exact):
    sets: list[dict[str, JsonValue]]


class _Output(_Exact):
    json_schema: dict[str, JsonValue]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _Nothing(_Exact):
    pass


class _Anything(BaseModel):
    """Layers that no test has a closer look at."""


CONTEXT: Final = {"execution_context": "execution_context"}
TYPES: Final[dict[str, tuple[type[BaseModel], tuple[str, ...]]]] = {
    "plain.prompt": (_Prompt, ()),
    "pydantic_ai.history": (_Nothing, ()),
    "*user_prompt": (_UserPrompt, ()),
    "*execution_context": (_Context, ()),
    "*plugin.llm": (DifyPluginLLMLayerConfig, ("execution_context",)),
    "*plugin.tools": (_Tools, ("execution_context",)),
    "*core.tools": (_CoreTools, ("execution_context",)),
    "*knowledge_base": (_Knowledge, ("execution_context",)),
    "*output": (_Output, ()),
    "*ask_human": (_Anything, ()),
    "*shell": (_Anything, ("execution_context",)),
    "*runtime": (_Anything, ()),
    "*config": (_Anything, ()),
}
"""Types of schema 1 (`*` is the vendor's prefix): their configs, and the layers they depend on."""


def _with_references(config: type[BaseModel], **defaults: str | None) -> type[BaseModel]:
    fields: dict[str, Any] = {name: (str | None, default) for name, default in defaults.items()}
    return create_model("Config", __base__=config, **fields)


MODULES: Final[dict[str, type[BaseModel]]] = {
    "agent_soul_prompt": _with_references(_Prompt),
    "workflow_node_job_prompt": _with_references(_Prompt),
    "workflow_user_prompt": _with_references(_Prompt),
    "prompt": _with_references(_Prompt),
    "agent_app_user_prompt": _with_references(_UserPrompt),
    "user_prompt": _with_references(_UserPrompt),
    "execution_context": _with_references(_Context),
    "runtime": _with_references(_Anything),
    "shell": _with_references(_Anything, **CONTEXT),
    "config": _with_references(_Anything),
    "history": _with_references(_Nothing),
    "llm": _with_references(DifyPluginLLMLayerConfig, **CONTEXT),
    "tools": _with_references(_Tools, **CONTEXT, shell=None),
    "core_tools": _with_references(_CoreTools, **CONTEXT),
    "knowledge": _with_references(_Knowledge, **CONTEXT),
    "output": _with_references(_Output),
}
"""The registered names of schema 2, and their configs."""


def failure(body: Json, generation: Generation, vendor: str) -> str | None:
    """The `error` of the run that is made of this request; None when it can begin."""
    try:
        configs = _typed(body, vendor) if generation == 1 else _named(body)
        _check_prompt(body, configs)
        _check_history(body)
        _check_context(configs)
    except (ValueError, KeyError) as error:
        return str(error)
    return None


def _typed(body: Json, vendor: str) -> list[BaseModel]:
    layers = body["composition"]["layers"]
    names = [layer["name"] for layer in layers]
    kinds = [layer["type"].replace(vendor, "*", 1) for layer in layers]
    for kind, layer in zip(kinds, layers, strict=True):
        if kind not in TYPES:
            raise KeyError(f"Layer type id '{layer['type']}' is not registered.")
        if kind == "pydantic_ai.history" and layer["name"] != "history":
            raise ValueError("The history layer must be named 'history'.")
    if "llm" not in names:
        raise ValueError("Missing required 'llm' layer.")
    for kind, layer in zip(kinds, layers, strict=True):
        deps = layer.get("deps") or {}
        if missing := [name for name in TYPES[kind][1] if name not in deps]:
            raise ValueError(f"Layer '{layer['name']}' lacks dependencies: {', '.join(missing)}")
        for target in deps.values():
            if target not in names[: names.index(layer["name"])]:
                raise ValueError(f"Layer '{layer['name']}' depends on '{target}', which is not before it.")
    snapshot = body.get("session_snapshot")
    if snapshot is not None:
        found = [layer["name"] for layer in snapshot["layers"]]
        if found != names:
            raise ValueError(
                "CompositorSessionSnapshot layer names must match compositor layers in order. "
                f"Expected [{', '.join(names)}], got [{', '.join(found)}]."
            )
        if closed := [one["name"] for one in snapshot["layers"] if one["lifecycle_state"] == "closed"]:
            raise ValueError(f"Layers {closed} are closed and can not be entered.")
    return [
        TYPES[kind][0].model_validate({} if layer.get("config") is None else layer["config"])
        for kind, layer in zip(kinds, layers, strict=True)
    ]


def _named(body: Json) -> list[BaseModel]:
    layers = body["composition"]["layers"]
    names = [layer["name"] for layer in layers]
    if len(set(names)) != len(names):
        raise ValueError("Module names must be unique")
    if "llm" not in names:
        raise ValueError("Missing required 'llm' module")
    held = (body.get("session_snapshot") or {}).get("layers", {})
    if unknown := [name for name in held if isinstance(held, dict) and name not in MODULES]:
        raise ValueError(f"Unknown snapshot modules: {', '.join(sorted(unknown))}")
    configs: list[BaseModel] = []
    for layer in layers:
        if layer["name"] not in MODULES:
            raise ValueError(f"Unknown registered module: {layer['name']}")
        configs.append(MODULES[layer["name"]].model_validate(layer.get("config", {})))
    for name, config in zip(names, configs, strict=True):
        target = getattr(config, "execution_context", None)
        if target is not None and (
            target not in names or MODULES[target] is not MODULES["execution_context"]
        ):
            raise ValueError(f"Module {name} reference execution_context must name a configured module")
    return configs


def _check_prompt(body: Json, configs: list[BaseModel]) -> None:
    said: list[str] = []
    for config in configs:
        match config:
            case _UserPrompt(text=text) | _Prompt(user=str(text)):
                said.append(text)
            case _Prompt(user=list(texts)):
                said += texts
            case _:
                pass
    if not body.get("deferred_tool_results") and not any(text.strip() for text in said):
        raise ValueError(BLANK)


def _check_history(body: Json) -> None:
    messages = history_of(body.get("session_snapshot"))
    open_calls = open_calls_of(messages)
    if body.get("deferred_tool_results"):
        if not set(body["deferred_tool_results"]["calls"]) <= open_calls:
            raise ValueError(
                "Tool call results were provided, but the message history does not contain them."
            )
    elif open_calls and messages[-1].get("state", "complete") == "complete" and not _is_migrated(body):
        raise ValueError(PENDING)


def _is_migrated(body: Json) -> bool:
    """Schema 2 closes the questions of a list that it migrates by itself."""
    return body["composition"].get("schema_version") == 2 and isinstance(
        body["session_snapshot"]["layers"], list
    )


def open_calls_of(messages: list[Json]) -> set[str]:
    """The calls of the last response that have no result."""
    results: set[str] = set()
    for message in reversed(messages):
        parts = message["parts"]
        if message["kind"] == "response":
            return {one["tool_call_id"] for one in parts if one["part_kind"] == "tool-call"} - results
        results |= {part["tool_call_id"] for part in parts if "tool_call_id" in part}
    return set()


def _check_context(configs: list[BaseModel]) -> None:
    for config in configs:
        if isinstance(config, _Context):
            wanted = ("user_id", "user_from", "app_id")
            if missing := [name for name in wanted if not getattr(config, name)]:
                fields = ", ".join(missing)
                raise ValueError(f"Agent LLM Gateway requires execution context fields: {fields}")
