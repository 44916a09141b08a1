"""Cleans text and JSON so that every database can store them. Pure."""

from typing import Any, Final

NAME_LENGTH: Final = 64
"""Characters of a conversation's name that its user did not choose."""


def clean_text(text: str) -> str:
    """Replace NUL and lone surrogates, which JSONB and TEXT columns reject, by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Halves that belong together become their character; lone ones become U+FFFD.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def short_name(text: str, most: int = NAME_LENGTH) -> str:
    """A name for a conversation: the words of a text in one line, of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def clean_json(value: Any) -> Any:
    """`clean_text` on every string and key of a JSON value."""
    match value:
        case str():
            return clean_text(value)
        case list():
            return [clean_json(item) for item in value]
        case dict():
            return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
        case _:
            return value
