"""An app's input form: it says which `inputs` clients may send, and these are checked here."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agent_gateway.errors import InvalidParam
from agent_gateway.json_types import JsonObject

TEXT_KINDS: Final = frozenset({"text-input", "paragraph"})
MAX_INT: Final = 2**63 - 1
"""The largest number that JSON readers keep as a whole number."""

_NUMBER = re.compile(r"[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64})")


class InputField(BaseModel):
    """One item of the input form. Further keys (max_length, default …) are kept as written."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    label: str
    variable: str = Field(min_length=1)
    required: bool = False

    def further(self, key: str) -> object:
        """The value of another key of the app file; None when it is absent."""
        return (self.model_extra or {}).get(key)


InputForm = Sequence[Mapping[str, InputField]]
"""One mapping of kind (`text-input`, `select` …) to field per item, as clients get it."""


def read_inputs(form: InputForm, inputs: Mapping[str, JsonValue], *, starting: bool) -> JsonObject:
    """The inputs in the form's types. Raises InvalidParam, which names each field that does not fit.

    Null and blank text count as not filled in. In the message that starts a conversation, an empty required
    field is an error; in later messages it is left out, so that the conversation's own value stays. Inputs
    that the form does not declare, and unknown kinds of fields, are not checked.
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


def merge_inputs(stored: Mapping[str, JsonValue], sent: Mapping[str, JsonValue]) -> JsonObject:
    """The inputs of a later message of a conversation: its own, or else those of the first message."""
    return {**stored, **{name: value for name, value in sent.items() if value is not None}}


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(value: JsonValue) -> JsonValue:
    """The number in a text, as text fields of web pages send it; any other value is unchanged."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    text = value.strip()
    whole = int(text) if text.lstrip("+-").isdecimal() else None
    return whole if whole is not None and abs(whole) <= MAX_INT else float(text)


def _problem(kind: str, field: InputField, value: object) -> str | None:
    """What is wrong with a value that was filled in. The text never holds the value itself."""
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
    # Types must match, too: for Python, true equals 1.
    return isinstance(options, list) and any(
        type(option) is type(value) and option == value for option in options
    )
