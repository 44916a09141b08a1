"""An app's input form: what clients may send as `inputs`, and whether they did."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from agent_gateway.errors import InvalidParam

TEXT_KINDS: Final = frozenset({"text-input", "paragraph"})


class FormField(BaseModel):
    """What one item of the input form says; further keys (max_length, default …) are kept as written."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    label: str
    variable: str = Field(min_length=1)
    required: bool = False

    def further(self, key: str) -> Any:
        """What the app file says under another key; None when nothing."""
        return (self.model_extra or {}).get(key)


Form = Sequence[Mapping[str, FormField]]
"""One mapping of kind (`text-input`, `select` …) to field per item, as clients get it."""


def check_inputs(form: Form, inputs: Mapping[str, Any], *, starting: bool) -> None:
    """Raise InvalidParam, naming the field, unless these inputs fit the form.

    Null and empty text count as not filled in: an error for a required field, but only for the
    message that starts a conversation. Inputs that the form does not declare, and kinds of field
    that are not known here, are the client's business.
    """
    for item in form:
        for kind, field in item.items():
            value = inputs.get(field.variable)
            if value is None or value == "":
                problem = "is required" if field.required and starting else None
            else:
                problem = _problem(kind, field, value)
            if problem:
                raise InvalidParam(f"inputs.{field.variable}: {problem}")


def merged(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a message in a conversation that goes on: its own, else those it began with."""
    return {**stored, **{name: value for name, value in sent.items() if value is not None}}


def _problem(kind: str, field: FormField, value: Any) -> str | None:
    """What is wrong with a value that was filled in; never with the value itself."""
    if kind in TEXT_KINDS:
        most = field.further("max_length")
        if not isinstance(value, str):
            return "must be text"
        if isinstance(most, int) and 0 < most < len(value):
            return f"must be at most {most} characters long"
    elif kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return "must be a number"
    elif kind == "select" and not _is_one_of(value, field.further("options")):
        return "must be one of the options"
    return None


def _is_one_of(value: Any, options: Any) -> bool:
    # By type, too: for Python true is 1.
    return any(type(option) is type(value) and option == value for option in options or ())
