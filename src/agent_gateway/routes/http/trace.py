"""The trace of a request: ids by which a client finds a turn again in what the agent logs."""

import re
from typing import Annotated

from fastapi import Depends, Header

from agent_gateway.domain.turns import Trace

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

TraceId = Annotated[
    str | None,
    Header(description="Passed on to the agent as `${trace_id}`; wins over `trace_id`.", alias="X-Trace-Id"),
]
TraceSessionId = Annotated[
    str | None,
    Header(description="Passed on to the agent as `${trace_session_id}`.", alias="X-Trace-Session-Id"),
]


class TraceHeaders:
    """The trace in the headers of a request. A value that is no id is ignored, as everywhere in this API."""

    def __init__(self, trace_id: TraceId = None, session_id: TraceSessionId = None) -> None:
        self._trace_id = trace_id
        self._session_id = session_id

    def with_body(self, trace_id: str | None) -> Trace:
        """The whole trace. The id in the body counts when the headers have none."""
        return Trace(_id(self._trace_id) or _id(trace_id), _id(self._session_id))


def _id(text: str | None) -> str:
    return text if text and _ID.fullmatch(text) else ""


TraceDep = Annotated[TraceHeaders, Depends()]
