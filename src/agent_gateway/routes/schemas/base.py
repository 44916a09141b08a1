"""What the public JSON of all resources shares. Field names are the published contract's."""

import math
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from agent_gateway.domain import clean_text

MAX_INT: Final = 2**63 - 1

NOT_BLANK: Final[dict[str, JsonValue]] = {"pattern": r"\S"}
"""For the document: how the code finds this out, and says it, is its own."""
User = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    # Bodies are cleaned as a whole; this is for `user` in a query.
    AfterValidator(clean_text),
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
    """A request body: unknown fields are ignored, text is cleaned of what databases reject."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        try:
            return _clean(value)
        except RecursionError:
            raise ValueError("The body is nested too deeply.") from None
        except OverflowError:
            raise ValueError("Numbers must be finite.") from None


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(str(key)): _clean(item) for key, item in value.items()}
        case list():
            return [_clean(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError("Numbers must be finite.")
        case int() if abs(value) > MAX_INT:
            return float(value)  # as most readers of JSON do
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
    retriever_resources: list[dict[str, Any]]


class Health(BaseModel):
    """Answer of the probes."""

    status: Literal["ok"]
