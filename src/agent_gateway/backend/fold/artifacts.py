"""Artifacts: files that a run makes. They are read from its events and become stored files."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from agent_gateway.backend.lenient import as_dict, as_list, as_str
from agent_gateway.domain.files import StoredFile, artifact_id
from agent_gateway.domain.text import clean_text
from agent_gateway.filetypes import describe_artifact

MAX_FILES: Final = 20
MAX_FILES_BYTES: Final = 16 * 1024 * 1024
"""Of all the files of one run together: they are held in memory until the turn ends."""

MAX_URL: Final = 4096
"""Characters of a linked file's URL."""

_WEB_URL: Final = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff]{1,4088}", re.IGNORECASE)
_PLAIN_BASE64: Final = str.maketrans("-_", "+/")


class Artifact(msgspec.Struct, frozen=True):
    """A file as the run describes it."""

    number: int
    """1, 2, 3 … in the order in which the files were made."""
    media_type: str
    data: bytes
    url: str = ""
    """The address of a linked file, which a tool made. Then there are no bytes."""
    extension: str = ""
    """Of a linked file, as the tool gave it."""


def read_file(content: Mapping[str, object], before: Sequence[Artifact]) -> Artifact | None:
    """The file in a file part; None when it is unreadable, or too many or too large after those before."""
    encoded = as_str(content.get("data"))
    room = MAX_FILES_BYTES - sum(len(file.data) for file in before)
    # Four characters are three bytes: a file that is far too large is not even decoded.
    if len(before) >= MAX_FILES or len(encoded) // 4 > room // 3 + 1:
        return None
    try:
        data = _decoded(encoded)
    except ValueError:
        return None
    if not data or len(data) > room:
        return None
    return Artifact(len(before) + 1, clean_text(as_str(content.get("media_type"))), data)


def files_in(returned: object) -> list[Mapping[str, object]]:
    """The files that a tool returned, alone or in a list."""
    values = returned if isinstance(returned, list) else [returned]
    return [value for value in values if isinstance(value, dict) and value.get("kind") == "binary"]


def without_bytes(returned: object) -> object:
    """What a tool returned, without the bytes of its files: those are files of the answer."""
    if isinstance(returned, list):
        return [_without_bytes(value) for value in returned]
    return _without_bytes(returned)


def _without_bytes(value: object) -> object:
    if not isinstance(value, dict) or value.get("kind") != "binary":
        return value
    return {key: held for key, held in value.items() if key != "data"}


def linked_files(metadata: object) -> list[Mapping[str, object]]:
    """The files that a tool made and only links to, from the metadata of its result."""
    held = as_dict(metadata)
    named = (held.get(name) for name in ("dify_tool_files", "tool_files"))
    return [as_dict(file) for file in next(filter(None, map(as_list, named)), [])]


def read_link(file: Mapping[str, object], before: Sequence[Artifact]) -> Artifact | None:
    """The linked file; None when it has no web address, or when there are too many."""
    url = as_str(file.get("url"))
    if len(before) >= MAX_FILES or not _WEB_URL.fullmatch(url):
        return None
    kind = clean_text(as_str(file.get("mime_type")))[:MAX_URL]
    extension = clean_text(as_str(file.get("extension")))[:MAX_URL]
    return Artifact(len(before) + 1, kind, b"", url, extension)


def as_stored(made: Artifact, message_id: str) -> StoredFile:
    """The stored file that an artifact becomes."""
    what = describe_artifact(made.number, made.media_type, made.extension)
    file_id = artifact_id(message_id, made.number)
    return StoredFile(file_id, what.name, what.type, what.mime_type, len(made.data), url=made.url)


def number_artifacts(files: Sequence[StoredFile], position: int) -> tuple[StoredFile, ...]:
    """The files, numbered after `position`. They come last: the turn's end decides which are stored."""
    return tuple(
        msgspec.structs.replace(file, position=position + number)
        for number, file in enumerate(files, start=1)
    )


def _decoded(encoded: str) -> bytes:
    """Base64 in either alphabet, with or without padding. Raises ValueError for anything else."""
    plain = encoded.translate(_PLAIN_BASE64).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
