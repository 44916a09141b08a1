"""Files of messages. Pure data."""

import uuid

import msgspec

from agent_gateway.apps.config import UploadMethod
from agent_gateway.domain.ids import FileId
from agent_gateway.filetypes import FileType


class InputFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that comes with a query: a stored one, or the URL of a remote one."""

    type: FileType
    transfer_method: UploadMethod
    url: str = ""
    """Of a remote file. The gateway passes it on unchanged and never fetches it."""
    upload_file_id: str = ""
    name: str = ""
    mime_type: str = ""
    size: int = 0
    """Bytes of a stored file; 0 when the size is unknown."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file whose bytes are in the file store, or a linked one."""

    id: FileId
    name: str
    type: FileType
    mime_type: str
    size: int
    position: int = 0
    """Position of the turn event that announced it, when an agent made it."""
    url: str = ""
    """The address of a linked file: a tool made it, and its bytes are not in the file store."""


def artifact_id(message_id: str, number: int) -> FileId:
    """The id of a file that an agent made. It is derived, so that several processes store it once (R7)."""
    return FileId(str(uuid.uuid5(uuid.UUID(message_id), f"file-{number}")))


def input_file_id(message_id: str, number: int) -> str:
    """The public id of a remote file that came with a query: it has no id of its own."""
    return str(uuid.uuid5(uuid.UUID(message_id), f"input-file-{number}"))
