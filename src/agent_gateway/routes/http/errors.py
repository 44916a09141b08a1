"""Errors on the wire: the one table from code to status, and the envelope of every non-2xx body."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from agent_gateway.errors import (
    FileNotFound,
    GatewayError,
    ObjectError,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from agent_gateway.routes.schemas.base import ErrorBody
from agent_gateway.server.requests import route_of

logger = logging.getLogger(__name__)

MAX_MISTAKES: Final = 20
"""Mistakes that one response names."""

STATUSES: Final[Mapping[str, int]] = {
    "invalid_param": 400,
    "bad_request": 400,
    "app_unavailable": 400,
    "not_workflow_app": 400,
    "provider_not_initialize": 400,
    "provider_quota_exceeded": 400,
    "completion_request_error": 400,
    "model_currently_not_support": 400,
    "context_length_exceeded": 400,
    "output_length_exceeded": 400,
    "content_filtered": 400,
    "agent_run_limit_exceeded": 400,
    "no_file_uploaded": 400,
    "too_many_files": 400,
    "filename_not_exists_error": 400,
    "unauthorized": 401,
    "not_found": 404,
    "end_user_not_found": 404,
    "file_not_found": 404,
    "method_not_allowed": 405,
    "conversation_busy": 409,
    "human_input_required": 409,
    "human_input_form_submitted": 412,
    "human_input_form_expired": 412,
    "request_too_large": 413,
    "file_too_large": 413,
    "unsupported_file_type": 415,
    "range_not_satisfiable": 416,
    "idempotency_conflict": 409,
    "too_many_requests": 429,
    "rate_limit_error": 429,
    "internal_server_error": 500,
    "not_supported": 501,
    "turn_interrupted": 500,
    "backend_refused": 502,
    "answer_incomplete": 502,
    "output_invalid": 502,
    "provider_unavailable": 503,
    "service_unavailable": 503,
    "turn_timeout": 504,
    "provider_timeout": 504,
}

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorBody, "description": "Invalid request, or the provider rejected it."},
    401: {"model": ErrorBody, "description": "No valid API key or ticket."},
    404: {"model": ErrorBody, "description": "Unknown to this app and user."},
    412: {"model": ErrorBody, "description": "The form was submitted before, or has expired."},
    429: {
        "model": ErrorBody,
        "description": "A limit of the app, or the model provider's rate limit.",
    },
    500: {"model": ErrorBody, "description": "The turn failed."},
    502: {"model": ErrorBody, "description": "The backend refused the turn, or its provider broke it off."},
    503: {"model": ErrorBody, "description": "Draining, full, or the backend, database or provider is away."},
    504: {"model": ErrorBody, "description": "The turn took too long."},
}
"""The errors of routes in the OpenAPI document."""


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route in the OpenAPI document, by their statuses."""
    return {status: ERRORS[status] for status in statuses}


RESOURCE_ERRORS: Final = error_responses(400, 401, 404, 503)
"""Of a route for a thing that belongs to one end user."""

_HTTP_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    503: "service_unavailable",
}
NO_OBJECT: Final = frozenset({"missing", "model_attributes_type", "model_type"})
"""Kinds of pydantic's errors for a body that is absent, or JSON of another type."""
_FILES_AWAY = "The service can not reach its file store. Please try again."
_DATABASE_AWAY = "The service can not reach its database. Please try again."


class BodyNotRead(HTTPException):
    """Why a body was not read. From the reading of a body the framework passes on only HTTP exceptions."""

    def __init__(self, error: GatewayError | StoreError) -> None:
        super().__init__(400)
        self.error = error


def envelope(
    code: str, message: str, *, retry_after: int | None = None, details: Mapping[str, str] | None = None
) -> JSONResponse:
    """The error body of the contract."""
    status = STATUSES[code]
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="api"'
    body = {"code": code, "message": message, "status": status, **(details or {})}
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of this app with the envelope."""
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)

    @app.exception_handler(GatewayError)
    async def gateway_error(request: Request, error: GatewayError) -> JSONResponse:
        return envelope(error.code, error.message, retry_after=error.retry_after, details=error.details)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return envelope("invalid_param", _explain(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _of_framework(request, error)

    @app.exception_handler(StoreError)
    async def store_error(request: Request, error: StoreError) -> JSONResponse:
        if isinstance(error, StoreUnavailable):
            # What is away is told by its condition, not by every request that needs it.
            logger.debug("%s %s: store: %s", request.method, route_of(request.scope), error)
            return envelope("service_unavailable", _DATABASE_AWAY, retry_after=2)
        logger.error("%s %s: store: %s", request.method, route_of(request.scope), error)
        return envelope("internal_server_error", "The request could not be stored.")

    @app.exception_handler(ObjectError)
    async def object_error(request: Request, error: ObjectError) -> JSONResponse:
        if isinstance(error, ObjectMissing):
            logger.error("%s %s: file store: %s", request.method, route_of(request.scope), error)
            return envelope(FileNotFound.code, FileNotFound().message)
        return envelope("service_unavailable", _FILES_AWAY, retry_after=2)

    @app.exception_handler(BodyNotRead)
    async def not_read(request: Request, not_read: BodyNotRead) -> JSONResponse:
        if isinstance(not_read.error, GatewayError):
            return await gateway_error(request, not_read.error)
        return await store_error(request, not_read.error)


async def _unexpected(request: Request, error: Exception) -> Response:
    return envelope("internal_server_error", "Internal server error.")


def _of_framework(request: Request, error: HTTPException) -> JSONResponse:
    if isinstance(error.__cause__, UnicodeDecodeError):
        return envelope("invalid_param", "The body is not valid JSON: it is not UTF-8.")
    code = _HTTP_CODES.get(error.status_code, "internal_server_error")
    response = envelope(code, str(error.detail))
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


async def _gone(request: Request, error: Exception) -> Response:
    """A response that nobody receives. A client that left is no error of the service."""
    return Response(status_code=400)


def _allowed(request: Request) -> list[str]:
    """The methods that routes of this path have; the framework names those of the first route alone."""
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _explain(error: RequestValidationError) -> str:
    """Name the fields and what is wrong with them; never their values."""
    mistakes: list[str] = []
    for problem in error.errors():
        if problem["type"] == "json_invalid":
            return "The body is not valid JSON."
        if problem["loc"] == ("body",) and problem["type"] in NO_OBJECT:
            return "The body must be a JSON object."
        where = ".".join(str(part) for part in problem["loc"][1:])
        message = str(problem["msg"]).removeprefix("Value error, ")
        mistakes.append(f"{where}: {message}" if where else message)
    return join_mistakes(list(dict.fromkeys(mistakes))) or "The request is not valid."


def join_mistakes(mistakes: Sequence[str]) -> str:
    """Mistakes in one text: the first ones, and how many more there are."""
    more = len(mistakes) - MAX_MISTAKES
    return "; ".join([*mistakes[:MAX_MISTAKES], *([f"and {more} more"] if more > 0 else [])])
