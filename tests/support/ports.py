"""Ports of 127.0.0.1 that nobody else gets."""

import socket


def hold_port() -> socket.socket:
    """A port that no other program gets while this socket is open; a server may listen on it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
