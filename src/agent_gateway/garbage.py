"""The garbage collector of a process that serves.

A turn leaves no cycles behind, unless a connection breaks: what it made is freed at once, by reference
counts. The collector found nothing, and took a quarter of a turn's time, since it looks at all objects of the
process again and again: at those of the libraries, and at the turns that are kept for their readers.
"""

import gc
from typing import Final

THRESHOLD: Final = 10_000
"""So many objects more than before start a collection of the young ones; Python's default is 700."""


def spare_loaded_objects() -> None:
    """Call it once, when everything is imported: what exists now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
