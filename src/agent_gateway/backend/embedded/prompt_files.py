"""Reads the files of a message from the list in a user prompt layer."""

import base64
from collections.abc import Mapping

import msgspec

from agent_gateway.backend.embedded.runs import RunFailed


class PromptFile(msgspec.Struct, frozen=True):
    """A file of the user prompt."""

    line: str
    """What describes it to a model that does not get its content."""
    name: str = ""
    mime_type: str = ""
    data: bytes | None = None
    url: str = ""
    """Where a remote image is. A file with neither bytes nor this is only told of."""


def prompt_file(entry: Mapping[str, object]) -> PromptFile:
    """The file of one entry. Raises RunFailed when its bytes cannot be read."""
    # Gateways before the line was sent give only the type and the address.
    plain = f"Attached {entry.get('type') or 'file'}: {entry.get('url') or 'not available'}"
    line = entry.get("line")
    told = PromptFile(line if isinstance(line, str) else plain, str(entry.get("filename") or ""))
    match entry:
        case {"delivery": "multimodal", "mime_type": str(kind), "base64_data": str(encoded)}:
            try:
                data = base64.b64decode(encoded, validate=True)
            except ValueError:
                raise RunFailed("a file of the prompt is not base64") from None
            return msgspec.structs.replace(told, mime_type=kind, data=data)
        case {"delivery": "multimodal", "mime_type": str(kind), "url": str(url)}:
            return msgspec.structs.replace(told, mime_type=kind, url=url)
        case _:
            return told
