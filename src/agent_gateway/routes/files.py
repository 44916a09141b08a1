"""Files: uploads, and their bytes for those who may read them."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.domain.turns import App, Caller
from agent_gateway.errors import (
    FileNotFound,
    FileTooLarge,
    InvalidParam,
    Unauthorized,
    UnsupportedFileType,
    UploadRefused,
)
from agent_gateway.filetypes import MB, Description, describe, may_be_inline, served_as
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep, TicketText
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.byte_ranges import WantedBytes, WantedBytesDep
from agent_gateway.routes.http.disposition import content_disposition
from agent_gateway.routes.http.errors import RESOURCE_ERRORS, envelope, error_responses
from agent_gateway.routes.http.middleware import HEAD_ONLY
from agent_gateway.routes.http.multipart import MultipartBody
from agent_gateway.routes.schemas.base import ErrorBody, User
from agent_gateway.routes.schemas.files import UploadedFile
from agent_gateway.store.files import FileLocation, Upload

router = APIRouter(tags=["files"])

# A browser must not run a file from here, whatever type it guesses.
SAFE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    # Cached, but checked each time: a file can be deleted at any moment.
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}
BYTES: Final[dict[str, object]] = {
    "description": "The bytes of the file.",
    "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
}
UPLOAD_BODY: Final[dict[str, object]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "An upload.",
                    "required": ["file", "user"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The file."},
                        "user": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 255,
                            "description": "The client's own identifier of its end user.",
                        },
                    },
                }
            }
        },
    }
}

FilePath = Annotated[str, Path(description="`id` of the file.")]
AsAttachment = Annotated[bool, Query(description="Have browsers save the file, never show it.")]

_user = TypeAdapter(User)


@router.post(
    "/files/upload",
    operation_id="uploadFile",
    summary="Upload a file",
    response_description="The file.",
    status_code=201,
    openapi_extra=UPLOAD_BODY,
    responses={
        **error_responses(400, 401, 503),
        415: {"model": ErrorBody, "description": "The app takes no files of this kind."},
    },
)
async def post_upload(request: Request, app: AppDep, state: StateDep) -> UploadedFile:
    """Upload one file of one end user, to come with queries of theirs.

    One that no message uses is deleted after a day.
    """
    form = MultipartBody(aiter(request.stream()), request.headers.get("content-type", ""))
    part = await form.file()
    what = describe(part.filename, part.content_type)
    if what is None:
        raise UploadRefused("filename_not_exists_error", "The file has no name.")
    _check_type(app, what)
    limit = state.file_sizes.most(what.type)
    received = await state.files.receive(_limited(form.data(), limit))
    try:
        await form.finish()
        caller = Caller(app, _user_of(form))
        upload = await state.files.add(caller, what, received)
    except BaseException:
        await state.files.discard(received)
        raise
    return _uploaded(state, what, upload)


@router.get(
    "/files/{file_id}/preview",
    operation_id="previewFile",
    summary="Get a file",
    response_class=StreamingResponse,
    responses={
        200: BYTES,
        206: {**BYTES, "description": "The asked range of its bytes."},
        304: {"description": "The file that the client has."},
        416: {"model": ErrorBody, "description": "The file is shorter than the asked range."},
        **RESOURCE_ERRORS,
    },
)
async def get_preview(
    request: Request,
    file_id: FilePath,
    app: AppDep,
    state: StateDep,
    wanted: WantedBytesDep,
    user: Annotated[User, Query(description="The client's own identifier of its end user.")] = DEFAULT_USER,
    as_attachment: AsAttachment = False,
) -> Response:
    """The bytes of a file that this user uploaded, or that an agent made for them."""
    canonical = canonical_uuid(file_id)
    if canonical is None:
        raise FileNotFound
    location = await state.files.find(app.id, user, canonical)
    return await _bytes(request, state, location, wanted, as_attachment=as_attachment)


@router.get(
    "/files/{file_id}/download",
    operation_id="downloadFile",
    summary="Get a file without a key",
    response_class=StreamingResponse,
    responses={
        200: BYTES,
        206: {**BYTES, "description": "The asked range of its bytes."},
        304: {"description": "The file that the client has."},
        416: {"model": ErrorBody, "description": "The file is shorter than the asked range."},
        **RESOURCE_ERRORS,
    },
)
async def get_download(
    request: Request,
    file_id: FilePath,
    state: StateDep,
    ticket: TicketText,
    wanted: WantedBytesDep,
    as_attachment: AsAttachment = False,
) -> Response:
    """The bytes of a file for whoever has its signed, expiring URL: agents, and pages that show it."""
    if ticket is None:
        raise Unauthorized("A ticket is required.")
    known = state.file_tickets.read(ticket)
    if known != canonical_uuid(file_id):
        raise FileNotFound
    location = await state.files.find_any(known)
    return await _bytes(request, state, location, wanted, as_attachment=as_attachment)


def _check_type(app: App, what: Description) -> None:
    if not app.config.file_upload.enabled:
        raise UnsupportedFileType("This app takes no files.")
    if not app.config.file_upload.allows(what.type, what.extension):
        named = f"with the extension {what.extension!r}" if what.extension else "without an extension"
        raise UnsupportedFileType(f"This app takes no files {named}.")


async def _limited(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise FileTooLarge(f"The file is larger than {most // MB} MB.")
        yield chunk


def _user_of(form: MultipartBody) -> str:
    try:
        return _user.validate_python(form.fields.get("user", ""))
    except ValidationError as error:
        mistakes = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise InvalidParam(f"user: {mistakes}") from None


def _uploaded(state: AppState, what: Description, upload: Upload) -> UploadedFile:
    return UploadedFile(
        id=upload.file.id,
        name=upload.file.name,
        size=upload.file.size,
        extension=what.extension,
        mime_type=upload.file.mime_type,
        created_by=upload.created_by,
        created_at=int(upload.created_at.timestamp()),
        preview_url=None,
        source_url=state.file_tickets.url(upload.file.id),
        original_url=None,
        user_id=None,
        tenant_id=None,
        conversation_id=None,
        file_key=None,
        reference=None,
    )


def _etag(file: StoredFile) -> str:
    # Bytes never change under an id.
    return f'"{file.id}"'


async def _bytes(
    request: Request, state: AppState, location: FileLocation, wanted: WantedBytes, *, as_attachment: bool
) -> Response:
    """The bytes of a file that the client wants."""
    file = location.file
    etag = _etag(file)
    if wanted.not_modified(etag):
        return Response(status_code=304, headers={**SAFE_HEADERS, "ETag": etag})
    span = wanted.span(etag, file.size)
    start, end = span or (0, file.size)
    if span is not None and start >= file.size:
        response = envelope("range_not_satisfiable", f"The file has {file.size} bytes.")
        response.headers["Content-Range"] = f"bytes */{file.size}"
        return response
    headers = {
        **SAFE_HEADERS,
        "Content-Type": served_as(file.mime_type),
        "Content-Length": str(end - start),
        "Content-Disposition": content_disposition(
            file.name, may_be_inline(file.mime_type) and not as_attachment
        ),
        "ETag": etag,
    }
    if file.mime_type != "application/pdf":
        # The PDF viewers of browsers do not work in a sandbox.
        headers["Content-Security-Policy"] += "; sandbox"
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    status = 200 if span is None else 206
    if HEAD_ONLY in request.scope:
        return Response(status_code=status, headers=headers)
    data = await state.files.read(location, start, end)
    return StreamingResponse(data, status_code=status, headers=headers)
