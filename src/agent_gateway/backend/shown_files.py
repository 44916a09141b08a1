"""Files of a message as entries of a user prompt layer: images that a model sees, and files to download.

A layer whose config says `files: ${files}` gets them as this list. Uploaded images are sent as bytes, because
every later turn of the conversation sends them to the model again, when a signed URL has long expired.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Final

from agent_gateway.apps.config import CompositionTemplate
from agent_gateway.apps.template import Placeholder, parse
from agent_gateway.domain.files import InputFile

MAX_ENTRY_BYTES: Final = 8 * 1024 * 1024
"""Of the uploaded images of one message that are sent as bytes; the others are sent as URLs."""
FILES: Final = "files"
"""Key of a prompt layer's config that may hold the list."""

_ALONE: Final = (Placeholder("turn", "files"),)
_FORMATS: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/gif": "gif"}
"""The media types that models can see, and the names of these formats."""


def takes_list(config: object) -> bool:
    """Whether a layer's config asks for the files as a list. Raises TemplateError."""
    said = config.get(FILES) if isinstance(config, dict) else None
    return isinstance(said, str) and parse(said) == _ALONE


def images_for_model(template: CompositionTemplate, files: list[InputFile]) -> list[str]:
    """The ids of the uploaded images whose bytes a model is to see, up to MAX_ENTRY_BYTES."""
    if not any(takes_list(layer.config) for layer in template.layers):
        return []
    ids: list[str] = []
    room = MAX_ENTRY_BYTES
    for file in files:
        if file.transfer_method == "local_file" and file.mime_type in _FORMATS and file.size <= room:
            room -= file.size
            ids.append(file.upload_file_id)
    return ids


def entry(file: InputFile, url: str, images: Mapping[str, bytes]) -> Mapping[str, object]:
    """One entry of the list. `url` is the address of the file, `images` has the bytes of uploads by id."""
    # The name of a remote image need not show its media type; the backend finds out when it fetches it.
    mime_type = file.mime_type or "image/jpeg"
    if file.type != "image" or mime_type not in _FORMATS:
        return {"delivery": "download", "type": file.type, "transfer_method": "remote_url", "url": url}
    data = images.get(file.upload_file_id) if file.upload_file_id else None
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


def entries(
    files: list[InputFile], file_url: Callable[[str], str], images: Mapping[str, bytes]
) -> list[Mapping[str, object]]:
    """All files of a message as the list."""
    return [entry(file, url_of(file, file_url), images) for file in files]


def url_of(file: InputFile, file_url: Callable[[str], str]) -> str:
    """The address under which an agent gets a file of a message."""
    return file_url(file.upload_file_id) if file.transfer_method == "local_file" else file.url
