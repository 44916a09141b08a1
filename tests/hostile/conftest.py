from collections.abc import Iterator

import pytest

from tests.support.raw_http import RecordingServer


@pytest.fixture
def recording() -> Iterator[RecordingServer]:
    """The project's server with an application that records requests."""
    with RecordingServer() as server:
        yield server
