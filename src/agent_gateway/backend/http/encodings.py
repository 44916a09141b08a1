"""Compressed bodies. None is asked for, but some proxies compress anyway."""

import zlib
from typing import Final

from agent_gateway.errors import BackendGarbage

PLAIN: Final = ("", "identity")
PACKED: Final = ("gzip", "deflate")

MAX_UNPACKED: Final = 64 * 1024 * 1024
"""Bytes that one read of a body may unpack to."""

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
        unpacked = b""
        try:
            while data:
                unpacked += self._inflater.decompress(data, MAX_UNPACKED)
                if self._inflater.unconsumed_tail or len(unpacked) > MAX_UNPACKED:
                    raise BackendGarbage("the answer unpacks to too much")
                data = self._inflater.unused_data
                if data:
                    # Another part: a stream may be packed piece by piece.
                    self._inflater = zlib.decompressobj(_EITHER_HEADER)
        except zlib.error:
            raise BackendGarbage("the answer cannot be unpacked") from None
        return unpacked
