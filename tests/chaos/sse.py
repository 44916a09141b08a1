"""Server-sent events as browsers read them: a frame counts when its blank line has come."""

from dataclasses import dataclass


@dataclass
class Frame:
    """One dispatched block."""

    event: str = ""
    data: str = ""
    id: str | None = None
    retry: int | None = None


class FrameReader:
    """Feed it bytes as they come; what is left over at a cut is dropped, as browsers do."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        return [_frame(block) for block in blocks]


def _frame(block: bytes) -> Frame:
    frame = Frame()
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
