"""The configuration of every server of this project."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import uvicorn

from agent_gateway.crowd import Ticker
from agent_gateway.limits import DEFAULTS, ServerLimits
from agent_gateway.server.connection import Connection


def server_config(app: Any, limits: ServerLimits = DEFAULTS.server, **more: Any) -> uvicorn.Config:
    """uvicorn's configuration, with the connections and the event loop of this package."""
    given: Mapping[str, Any] = {
        "http": partial(Connection, limits=limits, looks=Ticker(limits.look_seconds)),
        "loop": "agent_gateway.server.listener:Loop",
        "ws": "none",
        "log_config": None,
        # An access log would have tickets, which are part of URLs.
        "access_log": False,
        "lifespan": "on",
        "timeout_keep_alive": 65,
        # After the drain there is nothing to wait for.
        "timeout_graceful_shutdown": 5,
        "server_header": False,
    }
    return uvicorn.Config(app, **{**given, **more})
