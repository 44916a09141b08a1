"""The trace of a request: ids by which a turn is found again in the logs of clients, proxies and agents."""

import re
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Depends, Header, Request

from agent_gateway.domain.turns import Trace
from agent_gateway.server.requests import REQUEST_ID, traceparent_of

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")

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
    return Trace(request_id=request.scope.get(REQUEST_ID, ""), parent=traceparent_of(request.scope))


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
