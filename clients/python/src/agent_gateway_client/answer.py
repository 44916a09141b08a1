"""The text of an answer, from the events that tell it."""

from agent_gateway_client.types import ChatStreamEvent


class Answer:
    """Collects the text of one turn, over any number of connections.

    In mode `agent` the whole answer comes once more, as a `message` right before the end. Its pieces were
    `agent_message`. It is not added to them.
    """

    def __init__(self, text: str = "", *, from_start: bool = True, is_agent: bool = False) -> None:
        self._pieces = [text]
        self._is_agent = is_agent
        """Whether a `message` repeats what there is."""
        self._repeated: list[str] | None = None if from_start else []
        """The pieces in `message` events, while they may turn out to be the whole answer."""
        self._last_message = 0
        """Position of the last of them."""

    @property
    def text(self) -> str:
        """The text so far."""
        # Joined once: a long answer has many thousand pieces.
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def reconnected(self) -> None:
        """A long text that was cut in between comes again, as a whole."""
        if self._repeated is not None:
            self._repeated.clear()

    def add(self, event: ChatStreamEvent) -> None:
        """Take one event."""
        match event["event"]:
            case "agent_message":
                self._is_agent = True
                self._pieces.append(event["answer"])
            case "agent_thought":
                self._is_agent = True
            case "message_replace":
                self._pieces = [event["answer"]]
                self._repeated = None
            case "message" if not self._is_agent:
                self._pieces.append(event["answer"])
                self._last_message = event["event_id"]
                if self._repeated is not None:
                    self._repeated.append(event["answer"])
            case "message_end" if self._repeated is not None and self._last_message == event["event_id"] - 1:
                # A reader that began after the last piece: only the place of the `message` tells what it is.
                self._pieces = self._repeated
            case _:
                pass
