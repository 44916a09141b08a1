"""Asks a server again and again, as a load balancer does, while it has other work."""

import http.client
import threading
import time
from typing import Final, Self
from urllib.parse import urlsplit

PAUSE_SECONDS: Final = 0.05
TIMEOUT_SECONDS: Final = 10.0


class Probe:
    """A context manager: asks in a thread, over one connection, until it is left."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._milliseconds: list[float] = []
        self.failed = 0
        """Answers that were not 200, or did not come."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the time that an answer took."""
        ordered = sorted(self._milliseconds)
        return ordered[int(0.99 * (len(ordered) - 1))]

    def _ask(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                self._connection.request("GET", self._path)
                response = self._connection.getresponse()
                response.read()
                self.failed += response.status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
                self._connection.close()
            self._milliseconds.append((time.perf_counter() - began) * 1000)
            if self._stopped.wait(PAUSE_SECONDS):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._connection.close()
