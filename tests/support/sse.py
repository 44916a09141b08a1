"""Server-sent events as browsers read them: a frame counts when its blank line has come."""

import json
from dataclasses import dataclass

from tests.support.json_type import Json


@dataclass
class Frame:
    """One block: an event, a ping or a `retry:`."""

    raw: bytes
    """Its bytes, without the blank line."""
    event: str = ""
    data: str = ""
    id: str | None = None
    retry: int | None = None

    @property
    def json(self) -> Json:
        """What the data of an event says."""
        said: Json = json.loads(self.data)
        return said


class FrameReader:
    """Decodes bytes as they come. What is left over at a cut is dropped, as browsers do."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        return [_frame(block) for block in blocks]


def _frame(block: bytes) -> Frame:
    frame = Frame(block)
    data: list[str] = []
    for line in block.decode().split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                frame.event = value
            case "data":
                data.append(value)
            case "id":
                frame.id = value
            case "retry":
                frame.retry = int(value)
            case _:
                raise ValueError(f"a line that no client expects: {line!r}")
    frame.data = "\n".join(data)
    return frame
