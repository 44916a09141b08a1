"""Marks: where every chunk of a stored answer lies, so that any cursor gets exactly its rest.

Packed as two arrays of little-endian unsigned 32-bit numbers, each chunk's distance from the position
of the one before it, then the lengths (in characters), compressed: about one byte a chunk.
"""

import sys
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate

from agent_gateway.events import LLMChunk


def pack(chunks: Sequence[LLMChunk]) -> bytes:
    """The marks of these chunks."""
    numbers = array("I")
    before = 0
    for chunk in chunks:
        numbers.append(chunk.position - before)
        before = chunk.position
    numbers.extend(len(chunk.text) for chunk in chunks)
    if sys.byteorder == "big":
        numbers.byteswap()
    return zlib.compress(numbers.tobytes(), level=1)


def unpack(marks: bytes, answer: str) -> tuple[LLMChunk, ...]:
    """Cut the stored answer into its chunks again; no marks mean no chunks."""
    if not marks:
        return ()
    numbers = array("I", zlib.decompress(marks))
    if sys.byteorder == "big":
        numbers.byteswap()
    count = len(numbers) // 2
    chunks: list[LLMChunk] = []
    start = 0
    for position, length in zip(accumulate(numbers[:count]), numbers[count:], strict=True):
        chunks.append(LLMChunk(position, answer[start : start + length]))
        start += length
    return tuple(chunks)
