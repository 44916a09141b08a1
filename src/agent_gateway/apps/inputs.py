"""An app's input form: what clients may send as `inputs`, and whether they did."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agent_gateway.errors import InvalidParam
from agent_gateway.json_types import JsonObject

TEXT_KINDS: Final = frozenset({"text-input", "paragraph"})
MAX_INT: Final = 2**63 - 1
"""What JSON keeps as a whole number."""

_NUMBER = re.compile(r"[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64})")


class InputField(BaseModel):
    """What one item of the input form says; further keys (max_length, default …) are kept as written."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    label: str
    variable: str = Field(min_length=1)
    required: bool = False

    def further(self, key: str) -> object:
        """What the app file says under another key; None when nothing."""
        return (self.model_extra or {}).get(key)


Form = Sequence[Mapping[str, InputField]]
"""One mapping of kind (`text-input`, `select` …) to field per item, as clients get it."""


def read_inputs(form: Form, inputs: Mapping[str, JsonValue], *, starting: bool) -> JsonObject:
    """These inputs as the form takes them. Raises InvalidParam, naming each field that does not fit.

    Null and blank text count as not filled in: for a required field that is an error in the message that
    starts a conversation, and in later ones it is left out, so that the conversation's own stays. Inputs that
    the form does not declare, and kinds of field that are not known here, are the client's business.
    """
    read, problems = dict(inputs), list[str]()
    for item in form:
        for kind, field in item.items():
            value = inputs.get(field.variable)
            if not _is_blank(value):
                read[field.variable] = value = _number(value) if kind == "number" else value
                problem = _problem(kind, field, value)
            elif field.required:
                read.pop(field.variable, None)
                problem = "is required" if starting else None
            else:
                problem = None
            if problem:
                problems.append(f"inputs.{field.variable}: {problem}")
    if problems:
        raise InvalidParam("; ".join(problems))
    return read


def merged(stored: Mapping[str, JsonValue], sent: Mapping[str, JsonValue]) -> JsonObject:
    """The inputs of a message in a conversation that goes on: its own, else those it began with."""
    return {**stored, **{name: value for name, value in sent.items() if value is not None}}


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: JsonValue) -> JsonValue:
    """The number that a text field of a page sends as text; anything else as it is."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    text = value.strip()
    whole = int(text) if text.lstrip("+-").isdecimal() else None
    return whole if whole is not None and abs(whole) <= MAX_INT else float(text)


def _problem(kind: str, field: InputField, value: object) -> str | None:
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


def _is_one_of(value: object, options: object) -> bool:
    # By type, too: for Python true is 1.
    return isinstance(options, list) and any(
        type(option) is type(value) and option == value for option in options
    )
