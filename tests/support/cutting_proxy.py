"""A TCP proxy between a client and the gateway that cuts connections where a test says."""

import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Cuts its first connections after so many bytes of the response each; passes on all later ones."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._cuts = cuts
        self._sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            connection.close()

    @property
    def heads(self) -> list[str]:
        """First lines and headers of all requests, in order."""
        heads: list[str] = []
        for sent in self._sent:
            for part in bytes(sent).split(b"\r\n\r\n"):
                text = part.decode("latin-1")
                if text.split("\r\n")[0].endswith("HTTP/1.1"):
                    heads.append(text.lower())
        return heads

    def wait_for_connections(self, count: int, seconds: float = 60) -> None:
        """Until so many connections were made, cut ones too."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._sent) >= count, seconds), "too few connections"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            sent = bytearray()
            with self._changed:
                self._sent.append(sent)
                self._changed.notify_all()
            left = self._cuts[len(self._sent) - 1] if len(self._sent) <= len(self._cuts) else None
            threading.Thread(target=_upwards, args=(client, server, sent), daemon=True).start()
            threading.Thread(target=_downwards, args=(server, client, left), daemon=True).start()


def _upwards(client: socket.socket, server: socket.socket, sent: bytearray) -> None:
    try:
        while data := client.recv(65536):
            sent += data
            server.sendall(data)
    except OSError:
        pass
    finally:
        _close(client, server)


def _downwards(server: socket.socket, client: socket.socket, left: int | None) -> None:
    try:
        while left != 0 and (data := server.recv(65536 if left is None else left)):
            client.sendall(data)
            left = None if left is None else left - len(data)
    except OSError:
        pass
    finally:
        _close(client, server)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # already gone
