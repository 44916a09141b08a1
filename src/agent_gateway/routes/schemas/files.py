"""Public JSON of files."""

from typing import Literal

from pydantic import BaseModel, Field

from agent_gateway.filetypes import FileType
from agent_gateway.routes.schemas.base import UnixTime


class UploadedFile(BaseModel):
    """A file that was uploaded and can come with a query."""

    id: str = Field(description="Send it as `upload_file_id`.")
    name: str = Field(description="The file's name, without what is not safe to show.")
    size: int = Field(description="Bytes.")
    extension: str = Field(description="Lower case, without the dot; may be empty.")
    mime_type: str = Field(description="By the extension, whatever the client said.")
    created_by: str = Field(description="Id of the end user.")
    created_at: UnixTime
    preview_url: str | None = Field(description="Always null: use GET /files/{file_id}/preview.")
    source_url: str = Field(description="A URL of the file that needs no key, for a limited time.")
    original_url: str | None = Field(description="Always null.")
    user_id: str | None = Field(description="Always null.")
    tenant_id: str | None = Field(description="Always null.")
    conversation_id: str | None = Field(description="Always null.")
    file_key: str | None = Field(description="Always null.")
    reference: str | None = Field(description="Always null.")


class MessageFileItem(BaseModel):
    """A file of a message: one that came with the query, or one that the agent made."""

    id: str = Field(description="The file's id; of a remote file, one of its own.")
    filename: str
    type: FileType
    url: str = Field(description="A URL that needs no key, for a limited time; of a remote file, its own.")
    mime_type: str = Field(description="Empty when it is not known.")
    size: int = Field(description="Bytes; 0 when it is not known.")
    transfer_method: Literal["local_file", "remote_url", "tool_file"]
    belongs_to: Literal["user", "assistant"]
    upload_file_id: str | None = Field(description="Null for a remote file.")
    reference: str | None = Field(description="Always null.")
