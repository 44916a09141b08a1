"""Files of a message as entries of a user prompt layer: those that a model sees, and those to download.

A layer whose config says `files: ${files}` gets them as this list. Uploaded files that a model sees are sent
as bytes, because every later turn of the conversation sends them to the model again, when a signed URL has
long expired.

Every backend takes images. A backend that declares it (`Backend.takes_files`) takes PDFs and texts as well,
and each of its entries has the line that describes the file, for a model that does not take the content.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent_gateway.apps.config import CompositionTemplate
from agent_gateway.apps.template import Placeholder, parse
from agent_gateway.domain.files import InputFile
from agent_gateway.filetypes import OCTETS, PDF, is_text

MAX_ENTRY_BYTES: Final = 8 * 1024 * 1024
"""Of the uploaded images and PDFs of one message that are sent as bytes; the others are sent as URLs."""
MAX_TEXT_BYTES: Final = 256 * 1024
"""The same for its texts, which fill the context of a model much faster."""
FILES: Final = "files"
"""Key of a prompt layer's config that may hold the list."""

Entry = Mapping[str, object]
_ALONE: Final = (Placeholder("turn", "files"),)
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/gif": "gif"}
"""The media types that models can see, and the names of these formats."""


def takes_list(config: object) -> bool:
    """Whether a layer's config asks for the files as a list. Raises TemplateError."""
    said = config.get(FILES) if isinstance(config, dict) else None
    return isinstance(said, str) and parse(said) == _ALONE


def has_list(template: CompositionTemplate) -> bool:
    """Whether a layer of this composition asks for the files as a list. Raises TemplateError."""
    return any(takes_list(layer.config) for layer in template.layers)


def shown_with_bytes(files: Sequence[InputFile], *, only_images: bool) -> list[str]:
    """The ids of the uploaded files whose bytes a model is to see, up to the bounds, in order."""
    ids: list[str] = []
    room = {MAX_ENTRY_BYTES: MAX_ENTRY_BYTES, MAX_TEXT_BYTES: MAX_TEXT_BYTES}
    for file in files:
        bound = _bound(file, only_images=only_images)
        if bound and file.transfer_method == "local_file" and file.size <= room[bound]:
            room[bound] -= file.size
            ids.append(file.upload_file_id)
    return ids


def _bound(file: InputFile, *, only_images: bool) -> int:
    """The bound that a file counts for; 0 when no model can see it."""
    if file.mime_type in _FORMATS:
        return MAX_ENTRY_BYTES
    if only_images:
        return 0
    if file.mime_type == PDF:
        return MAX_ENTRY_BYTES
    # A file of an unknown type may be a text: the agent finds out when it decodes it.
    return MAX_TEXT_BYTES if is_text(file.mime_type) or file.mime_type == OCTETS else 0


def entry(file: InputFile, url: str, contents: Mapping[str, bytes]) -> Entry:
    """An entry that every backend takes. `url` is its address, `contents` has bytes of uploads by id."""
    # The name of a remote image need not show its media type; the backend finds out when it fetches it.
    mime_type = file.mime_type or "image/jpeg"
    if file.type != "image" or mime_type not in _FORMATS:
        return _download(file, url)
    data = contents.get(file.upload_file_id) if file.upload_file_id else None
    where = {"url": url} if data is None else {"base64_data": base64.b64encode(data).decode()}
    return {
        "delivery": "multimodal",
        "type": "image",
        "filename": file.name,
        "mime_type": mime_type,
        "format": _FORMATS[mime_type],
        **where,
        "detail": "high",
    }


def entry_with_line(file: InputFile, url: str, contents: Mapping[str, bytes], line: str) -> Entry:
    """An entry for a backend that declares that it takes files."""
    data = contents.get(file.upload_file_id) if file.upload_file_id else None
    if data is None and file.upload_file_id:
        # The model would get this URL again in every later turn, when it has long expired.
        return {**_download(file, url), "line": line}
    if data is None or file.mime_type in _FORMATS:
        return {**entry(file, url, contents), "line": line}
    return {
        "delivery": "multimodal",
        "type": file.type,
        "filename": file.name,
        "mime_type": file.mime_type,
        "base64_data": base64.b64encode(data).decode(),
        "line": line,
    }


def _download(file: InputFile, url: str) -> Entry:
    return {"delivery": "download", "type": file.type, "transfer_method": "remote_url", "url": url}


def url_of(file: InputFile, file_url: Callable[[str], str]) -> str:
    """The address under which an agent gets a file of a message."""
    return file_url(file.upload_file_id) if file.transfer_method == "local_file" else file.url
