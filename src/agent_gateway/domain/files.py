"""Files of messages. Pure data."""

import uuid

import msgspec

from agent_gateway.apps.config import UploadMethod
from agent_gateway.domain.ids import FileId
from agent_gateway.filetypes import FileType


class InputFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that comes with a query: a stored one, or only where somebody else has it."""

    type: FileType
    transfer_method: UploadMethod
    url: str = ""
    """Of a remote file. It is passed on as it is and never fetched."""
    upload_file_id: str = ""
    name: str = ""
    mime_type: str = ""
    size: int = 0
    """Bytes of a stored file; 0 when nobody knows."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file whose bytes are in the file store, or one that is only linked."""

    id: FileId
    name: str
    type: FileType
    mime_type: str
    size: int
    position: int = 0
    """Of the turn event that announced it, when an agent made it."""
    url: str = ""
    """Where a linked file is: a tool made it, and its bytes are not in the file store."""


def artifact_id(message_id: str, number: int) -> FileId:
    """The id of a file that an agent made: derived, so that whoever stores it stores it once (R7)."""
    return FileId(str(uuid.uuid5(uuid.UUID(message_id), f"file-{number}")))


def input_file_id(message_id: str, number: int) -> str:
    """The public id of a remote file that came with a query, which has no other."""
    return str(uuid.uuid5(uuid.UUID(message_id), f"input-file-{number}"))
