"""How many values a JSON body has, found out while it comes in.

To parse, clean and store a body costs by its values: 8 MiB of text take 20 ms of the event loop, 8 MiB of
empty lists take seconds. So many values are refused before anything is parsed.
"""

import re
from typing import Final

MAX_VALUES: Final = 20_000
"""Values of a body: of lists and objects, and these themselves."""

_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
"""What is left of a string, and its end if that is there."""
_NEXT: Final = re.compile(rb'[,\[{]|"(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
"""What there is one of for each value; or a whole string, as far as it is there."""


class ValueCounter:
    """Counts the values in the pieces of a body.

    What is no JSON is counted somehow; that, too, takes a time that its size bounds.
    """

    def __init__(self) -> None:
        self.values = 1
        self._texts = 0
        self._in_string = False
        self._escaped = False
        """The piece before ended behind the backslash of a string."""

    def feed(self, piece: bytes) -> None:
        """Count on; it stops as soon as there are too many."""
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
                # A value has one name at most: these are too many, or no JSON.
                self.values = MAX_VALUES + 1
            if self.values > MAX_VALUES:
                return

    def _leave(self, string: re.Match[bytes], piece: bytes) -> int:
        """Remember whether a string goes on in the next piece; where to go on in this one."""
        self._in_string = not string[1]
        # Without its end it stops at that of the piece, or before a backslash that has nothing behind it.
        self._escaped = self._in_string and string.end() < len(piece)
        return string.end()
