"""Counts the values of a JSON body while it comes in.

The cost of parsing, cleaning and storing a body grows with the number of its values: 8 MiB of text take
20 ms of the event loop, 8 MiB of empty lists take seconds. A body with too many values is refused before it
is parsed.
"""

import re
from typing import Final

MAX_VALUES: Final = 20_000
"""Values of a body: lists, objects and everything in them."""

_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
"""The rest of a string, with its closing quote if the piece has it."""
_NEXT: Final = re.compile(rb'[,\[{]|"(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
"""A character that stands once for each value; or a string, as far as the piece has it."""


class ValueCounter:
    """Counts the values in the pieces of a body.

    The count of a body that is not JSON means nothing, but it takes no longer.
    """

    def __init__(self) -> None:
        self.values = 1
        self._texts = 0
        self._in_string = False
        self._escaped = False
        """The last piece ended with a backslash in a string."""

    def feed(self, piece: bytes) -> None:
        """Count the values of the next piece. Stops as soon as there are too many."""
        if not piece:
            return
        start = 0
        if self._in_string:
            rest = _REST.match(piece, 1 if self._escaped else 0)
            assert rest is not None, "it matches nothing, too"
            start = self._leave(rest, piece)
        for found in _NEXT.finditer(piece, start):
            if found[1] is not None:
                self._leave(found, piece)
                self._texts += 1
            else:
                self.values += 1
            if self._texts > 2 * MAX_VALUES:
                # A value has at most one name: these are too many, or not JSON.
                self.values = MAX_VALUES + 1
            if self.values > MAX_VALUES:
                return

    def _leave(self, string: re.Match[bytes], piece: bytes) -> int:
        """Note whether a string continues in the next piece; returns where this piece continues."""
        self._in_string = not string[1]
        # A string without its end stops at the end of the piece, or before a backslash at that end.
        self._escaped = self._in_string and string.end() < len(piece)
        return string.end()
