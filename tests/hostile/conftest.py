from collections.abc import Iterator

import pytest

from agent_gateway.limits import DEFAULTS, ServerLimits
from tests.support.raw_http import RecordingServer


@pytest.fixture
def server_limits() -> ServerLimits:
    """Of the server that records requests; a test file may have its own."""
    return DEFAULTS.server


@pytest.fixture
def recording(server_limits: ServerLimits) -> Iterator[RecordingServer]:
    """The project's server with an application that records requests."""
    with RecordingServer(server_limits) as server:
        yield server
