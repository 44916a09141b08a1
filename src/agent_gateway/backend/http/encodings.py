"""Compressed bodies. None is asked for, but some proxies compress anyway."""

import zlib
from typing import Final

from agent_gateway.errors import BackendGarbage

PLAIN: Final = ("", "identity")
PACKED: Final = ("gzip", "deflate")

_EITHER_HEADER: Final = 32 + zlib.MAX_WBITS
"""gzip or zlib, whichever it is."""
_NO_HEADER: Final = -zlib.MAX_WBITS


class Unpacker:
    """Unpacks one body in an encoding of PACKED, as it arrives."""

    def __init__(self, encoding: str) -> None:
        self._inflater = zlib.decompressobj(_EITHER_HEADER)
        self._begin: bytes | None = b"" if encoding == "deflate" else None
        """The first bytes of deflate until there are two: they show whether it has the header of zlib."""

    def unpack(self, data: bytes) -> bytes:
        """What these bytes add to the body. Raises BackendGarbage."""
        if self._begin is not None:
            data = self._begin + data
            if len(data) < 2:
                self._begin = data
                return b""
            self._begin = None
            if data[0] & 15 != zlib.DEFLATED or int.from_bytes(data[:2]) % 31:
                # The standard wants the header, but many servers leave it out.
                self._inflater = zlib.decompressobj(_NO_HEADER)
        try:
            return self._inflater.decompress(data)
        except zlib.error:
            raise BackendGarbage("the answer cannot be unpacked") from None
