"""Reads the outputs of auxiliary runs leniently: a name, or a list of questions, as JSON or as plain lines.

Models say more than they were asked for. Their thoughts, fences and introductions are dropped.
"""

import json
import re
from typing import Final

from agent_gateway.domain.text import clean_text, short_name

MAX_QUESTIONS: Final = 5
QUESTION_LENGTH: Final = 200

MAX_READ: Final = 20_000
"""Characters that are looked at after the thoughts of the model."""

_THOUGHT: Final = re.compile(r"(?is).*</(?:think|thinking|thought|reasoning)>")
"""Up to the last end of a thought; some models leave its beginning out."""
_THOUGHT_BEGINS: Final = re.compile(r"(?i)<(?:think|thinking|thought|reasoning)>")
_FENCED: Final = re.compile(r"(?ms)^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)")
_FENCE: Final = re.compile(r"```[a-zA-Z]*")
_BULLET: Final = re.compile(r"\s*(?:[-*•]|\(?[0-9]{1,2}[.)])\s+")
_JSON: Final = re.compile(r"(?m)^[ \t]*(?=[\[{])")
_LABEL: Final = re.compile(
    r"(?i)\W*(?:(?:conversation|chat)\s+)?(?:title|name|标题|题目|名称)\W{0,3}[:：]\W{0,3}(?=\w)"
)
_QUOTES: Final = "\"'`“”„«»*# "
_BEFORE: Final = (":", "：")
"""The end of a line that only announces the next ones."""


def name_in(output: str) -> str:
    """A name: a JSON string, the first string of a JSON object, or the first line; empty for none."""
    name = next(iter(_texts(output)), "")
    label = _LABEL.match(name)
    return short_name(name[label.end() if label else 0 :].strip(_QUOTES))


def questions_in(output: str) -> list[str]:
    """A few questions, each one once: from a JSON list of strings, an object with such a list, or lines."""
    texts = (" ".join(text.split())[:QUESTION_LENGTH].rstrip() for text in _texts(output))
    return list(dict.fromkeys(filter(None, texts)))[:MAX_QUESTIONS]


def _texts(output: str) -> list[str]:
    if thought := _THOUGHT.match(output):
        output = output[thought.end() :]
    text = _THOUGHT_BEGINS.split(output, maxsplit=1)[0][:MAX_READ]
    if (fenced := _FENCED.search(text)) and fenced[2].strip():
        text = fenced[2]
    text = _FENCE.sub("", text).strip()
    found = _in_json(text)
    return [clean_text(item) for item in (_in_lines(text) if found is None else found) if item.strip()]


def _in_json(text: str) -> list[str] | None:
    """The strings of a text that is JSON, or of JSON at the start of a line; None when there is no JSON."""
    try:
        return _strings(json.loads(text))
    except (ValueError, RecursionError):
        pass
    for start in list(_JSON.finditer(text))[:MAX_QUESTIONS]:
        try:
            found = _strings(json.JSONDecoder().raw_decode(text, start.end())[0])
        except (ValueError, RecursionError):
            continue
        if found:
            return found
    return None


def _in_lines(text: str) -> list[str]:
    """The lines of a text. Of a text with a list, only its items; an announcing first line is dropped."""
    lines = [line for line in text.splitlines() if line.strip(_QUOTES)]
    if any(_BULLET.match(line) for line in lines):
        return [_BULLET.sub("", line, count=1) for line in lines if _BULLET.match(line)]
    if len(lines) > 1 and lines[0].rstrip(_QUOTES).endswith(_BEFORE):
        lines = lines[1:]
    return lines


def _strings(value: object) -> list[str]:
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
