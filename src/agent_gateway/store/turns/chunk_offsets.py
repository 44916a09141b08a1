"""Where every chunk of a stored answer lies, so that a reader gets exactly the rest after any cursor.

Stored in the column `marks`: two arrays of little-endian unsigned 32-bit numbers, compressed. The first
holds each chunk's distance from the position of the chunk before it, the second the lengths in
characters. That is about one byte per chunk.
"""

import asyncio
import sys
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Final, overload

from typing_extensions import override

from agent_gateway.domain.events import LLMChunk

BLOCK: Final = 16_384
"""Chunks whose offsets are summed at once."""
WINDOW_BITS: Final = 12
MEMORY_LEVEL: Final = 5
"""The size of zlib's window and of its tables, as powers of two. Every zlib reads what they make."""
LONG: Final = 20_000
"""Chunks or characters from which on an answer is packed and unpacked in a thread."""


class StoredChunks(Sequence[LLMChunk]):
    """The chunks of a stored answer. Each is cut out of the answer when it is read."""

    def __init__(self, answer: str, positions: Sequence[int], ends: Sequence[int]) -> None:
        self._answer = answer
        self._positions = positions
        self._ends = ends
        """Where each chunk ends, in characters."""

    @override
    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> LLMChunk: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LLMChunk, ...]: ...
    @override
    def __getitem__(self, index: int | slice) -> LLMChunk | tuple[LLMChunk, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        if index < 0:
            index += len(self)
        start = self._ends[index - 1] if index else 0
        return LLMChunk(self._positions[index], self._answer[start : self._ends[index]])

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def pack(chunks: Sequence[LLMChunk]) -> bytes:
    """The offsets of these chunks, as they are stored."""
    numbers = array("I")
    before = 0
    for chunk in chunks:
        numbers.append(chunk.position - before)
        before = chunk.position
    numbers.extend(len(chunk.text) for chunk in chunks)
    if sys.byteorder == "big":
        numbers.byteswap()
    # With zlib's own defaults an answer of one chunk would cost 70 us: they take 256 KiB of memory first.
    compressor = zlib.compressobj(level=1, wbits=WINDOW_BITS, memLevel=MEMORY_LEVEL)
    return compressor.compress(numbers.tobytes()) + compressor.flush()


def unpack(marks: bytes, answer: str) -> StoredChunks:
    """The chunks of a stored answer; empty `marks` mean no chunks."""
    numbers = array("I", zlib.decompress(marks) if marks else b"")
    if sys.byteorder == "big":
        numbers.byteswap()
    count = len(numbers) // 2
    return StoredChunks(answer, _sums(numbers[:count]), _sums(numbers[count:]))


async def pack_in_thread(chunks: Sequence[LLMChunk]) -> bytes:
    """`pack`; in a thread when there are many chunks, so that the event loop is not held up."""
    return pack(chunks) if len(chunks) < LONG else await asyncio.to_thread(pack, chunks)


async def unpack_in_thread(marks: bytes, answer: str) -> StoredChunks:
    """`unpack`; in a thread when the answer is long."""
    return unpack(marks, answer) if len(answer) < LONG else await asyncio.to_thread(unpack, marks, answer)


def _sums(numbers: Sequence[int]) -> Sequence[int]:
    """The running sums. Block by block, so that a thread that does this lets the others run in between."""
    sums, last = array("I"), 0
    for start in range(0, len(numbers), BLOCK):
        sums.extend(islice(accumulate(numbers[start : start + BLOCK], initial=last), 1, None))
        last = sums[-1]
    return sums
