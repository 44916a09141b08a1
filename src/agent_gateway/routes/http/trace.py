"""The trace of a request: ids by which a turn is found again in the logs of clients, proxies and agents."""

import re
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Depends, Header, Request

from agent_gateway.domain.turns import Trace
from agent_gateway.server.requests import REQUEST_ID

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""As in version 00 of W3C Trace Context. A later version may be longer, and is not passed on."""

TraceId = Annotated[
    str | None,
    Header(description="Passed on to the agent as `${trace_id}`; wins over `trace_id`.", alias="X-Trace-Id"),
]
TraceSessionId = Annotated[
    str | None,
    Header(description="Passed on to the agent as `${trace_session_id}`.", alias="X-Trace-Session-Id"),
]


def request_trace(request: Request) -> Trace:
    """The request's own id, and its place in a W3C trace if it has one."""
    given = [value for name, value in request.scope["headers"] if name == b"traceparent"]
    # Two of them are none: nobody could tell which is right.
    parent = given[0].decode() if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else ""
    return Trace(request_id=request.scope.get(REQUEST_ID, ""), parent=parent)


RequestTrace = Annotated[Trace, Depends(request_trace)]


class TraceHeaders:
    """The trace in the headers of a request. A value that is no id is ignored, as everywhere in this API."""

    def __init__(
        self, request: RequestTrace, trace_id: TraceId = None, session_id: TraceSessionId = None
    ) -> None:
        self._request = request
        self._trace_id = trace_id
        self._session_id = session_id

    def with_body(self, trace_id: str | None) -> Trace:
        """The whole trace. The id in the body counts when the headers have none."""
        return replace(
            self._request, id=_id(self._trace_id) or _id(trace_id), session_id=_id(self._session_id)
        )


def _id(text: str | None) -> str:
    return text if text and _ID.fullmatch(text) else ""


TraceDep = Annotated[TraceHeaders, Depends()]
