"""The parts that the public JSON of all resources shares. Field names are the published contract's."""

import math
import sys
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from agent_gateway.domain.text import clean_text

MAX_INT: Final = 2**63 - 1
MAX_FLOAT: Final = int(sys.float_info.max)
MAX_LEVELS: Final = 100
"""How deep a body may be nested. Stored values are listed again, and pydantic writes at most 255 levels."""

NOT_BLANK: Final[dict[str, JsonValue]] = {"pattern": r"\S"}
"""For the document. The code checks it in its own way, with its own message."""


def _text(user: object) -> object:
    # Refused, not cleaned: two users would become one.
    if isinstance(user, str) and clean_text(user) != user:
        raise ValueError("must be text without NUL and without halves of characters")
    return user


def _named(user: str) -> str:
    # Nothing is stripped: names that differ for the client are different users.
    if not user.strip():
        raise ValueError("must not be blank")
    return user


User = Annotated[
    str,
    BeforeValidator(_text),
    StringConstraints(max_length=255),
    AfterValidator(_named),
    Field(
        description="The client's own identifier of its end user; scopes everything.",
        json_schema_extra=NOT_BLANK,
    ),
]


UnixTime = Annotated[int, Field(description="Unix time in seconds.")]
StepPosition = Annotated[int, Field(description="1, 2, 3 … in the order the steps were opened.")]
Thought = Annotated[str, Field(description="What the agent thought; empty in a tool step.")]
ToolName = Annotated[str, Field(description="The tool of a tool step; else empty.")]
ToolInput = Annotated[str, Field(description="The arguments of the tool as JSON text.")]
Observation = Annotated[str, Field(description="What the tool returned, as text; empty before it did.")]


class Body(BaseModel):
    """A request body: unknown fields are ignored, text is cleaned of what databases reject.

    Not so `user`: it identifies the end user, and is refused when it is not text.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: object) -> object:
        cleaned = _clean(value, 0)
        if isinstance(value, dict) and isinstance(cleaned, dict) and "user" in value:
            cleaned["user"] = value["user"]
        return cleaned


def _clean(value: object, level: int) -> object:
    if level > MAX_LEVELS:
        raise ValueError("The body is nested too deeply.")
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(str(key)): _clean(item, level + 1) for key, item in value.items()}
        case list():
            return [_clean(item, level + 1) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError("Numbers must be finite.")
        case int() if abs(value) > MAX_INT:
            # As most readers of JSON do. A number that is too large for a float is infinite to them.
            return _clean(float(value) if abs(value) < MAX_FLOAT else math.inf, level)
        case _:
            return value


class Success(BaseModel):
    """The answer of what has nothing else to say."""

    result: Literal["success"]


class ErrorBody(BaseModel):
    """Every non-2xx body."""

    code: str = Field(description="What went wrong, for programs.", examples=["invalid_param"])
    message: str = Field(description="What went wrong, for people.")
    status: int = Field(description="The HTTP status.", examples=[400])


class UsageBody(BaseModel):
    """Tokens, prices (decimal strings) and times (seconds) of a message; zeros when they are not known."""

    prompt_tokens: int
    prompt_unit_price: str
    prompt_price_unit: str
    prompt_price: str
    completion_tokens: int
    completion_unit_price: str
    completion_price_unit: str
    completion_price: str
    total_tokens: int
    total_price: str
    currency: str
    latency: float
    time_to_first_token: float
    time_to_generate: float


class Metadata(BaseModel):
    """What is known of an answer besides its text."""

    usage: UsageBody
    retriever_resources: list[dict[str, object]]
    finish_reason: str | None = Field(
        description="Why the model stopped: `stop`, `length` (its longest answer), `content_filter`, "
        "`tool_call`, `error`; null when the backend does not say."
    )


class Health(BaseModel):
    """Answer of the probes."""

    status: Literal["ok"]
