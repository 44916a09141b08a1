"""The files of a POST /chat-messages, checked against the limits of the app."""

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from agent_gateway.domain.files import InputFile
from agent_gateway.domain.turns import App
from agent_gateway.errors import InvalidParam, UploadRefused
from agent_gateway.filetypes import OCTETS, describe
from agent_gateway.routes.schemas.chat_messages import InputFileBody


def input_files(app: App, given: Sequence[InputFileBody]) -> list[InputFile]:
    """The files of a body. Whether stored files belong to the caller is checked when the turn begins.

    Raises InvalidParam naming each that does not fit, or UploadRefused when there are too many.
    """
    upload = app.config.file_upload
    if given and not upload.enabled:
        raise InvalidParam("files: this app takes no files")
    if len(given) > upload.number_limits:
        raise UploadRefused(
            "too_many_files", f"files: at most {upload.number_limits} can come with a message."
        )
    problems: list[str] = []
    for index, file in enumerate(given):
        if file.transfer_method not in upload.allowed_file_upload_methods:
            problems.append(f"files.{index}.transfer_method: this app does not allow it")
        if file.type not in upload.allowed_file_types and file.upload_file_id is None:
            problems.append(f"files.{index}.type: this app takes no files of this kind")
    if problems:
        raise InvalidParam("; ".join(problems))
    return [_input_file(file) for file in given]


def _input_file(file: InputFileBody) -> InputFile:
    if file.upload_file_id is not None:
        # Its type was determined at its upload.
        return InputFile(file.type, "local_file", upload_file_id=file.upload_file_id)
    url = file.url or ""
    said = describe(unquote(urlsplit(url).path))
    name, mime_type = (said.name, said.mime_type) if said else ("", OCTETS)
    return InputFile(
        file.type, "remote_url", url, name=name, mime_type="" if mime_type == OCTETS else mime_type
    )
