"""What small runs say, read leniently: a name, or a list of questions, as JSON or as plain lines."""

import json
import re
from typing import Any, Final

from agent_gateway.domain import clean_text, short_name

MOST_QUESTIONS: Final = 5
QUESTION_LENGTH: Final = 200

_FENCE: Final = re.compile(r"```[a-zA-Z]*")
_BULLET: Final = re.compile(r"\s*(?:[-*•]|[0-9]{1,2}[.)])\s+")
_QUOTES: Final = "\"'`“”„«»*# "


def name_in(output: str) -> str:
    """A name: a JSON string, the first string of a JSON object, or the first line; empty for none."""
    return short_name(next(iter(_texts(output)), "").strip(_QUOTES))


def questions_in(output: str) -> list[str]:
    """Questions: a JSON list of strings, an object that holds one, or lines; cut, each one once, a few."""
    texts = (" ".join(text.split())[:QUESTION_LENGTH].rstrip() for text in _texts(output))
    return list(dict.fromkeys(filter(None, texts)))[:MOST_QUESTIONS]


def _texts(output: str) -> list[str]:
    text = _FENCE.sub("", output).strip()
    try:
        found = _strings(json.loads(text))
    except (ValueError, RecursionError):
        found = [_BULLET.sub("", line, count=1) for line in text.splitlines()]
    return [clean_text(text) for text in found if text.strip()]


def _strings(value: Any) -> list[str]:
    """The strings of a list, of an object's first list that has any, or an object's own."""
    match value:
        case str():
            return [value]
        case list():
            return [item for item in value if isinstance(item, str)]
        case dict():
            lists = [_strings(item) for item in value.values() if isinstance(item, list)]
            own = [item for item in value.values() if isinstance(item, str)]
            return next(filter(None, lists), own)
        case _:
            return []
