"""What is known of a turn while it is read, the same for both clients."""

from agent_gateway_client.errors import GatewayError
from agent_gateway_client.resumption import Resumption


class TurnState:
    """Ids, text and end of a turn, as far as it was read."""

    def __init__(self, resumption: Resumption) -> None:
        self._resumption = resumption

    @property
    def answer(self) -> str:
        """The text so far."""
        return self._resumption.text

    @property
    def task_id(self) -> str | None:
        """Id of the turn, once the gateway has answered."""
        return self._resumption.task_id

    @property
    def conversation_id(self) -> str | None:
        """Its conversation, from the first event on."""
        return self._resumption.conversation_id

    @property
    def message_id(self) -> str | None:
        """Its message, from the first event on."""
        return self._resumption.message_id

    @property
    def events_url(self) -> str | None:
        """Follows the turn without a key, for a limited time: for a browser, or another process."""
        return self._resumption.events_url

    @property
    def last_event_id(self) -> int:
        """Position of the last event that was read; another process goes on after it. 0 before the first."""
        return self._resumption.last_event_id

    @property
    def ended(self) -> bool:
        """Whether its last event was read."""
        return self._resumption.ended

    @property
    def error(self) -> GatewayError | None:
        """Why the turn failed, if it did and its last event was read."""
        return self._resumption.error

    def __repr__(self) -> str:
        # Without the URL: its ticket opens the turn.
        name, state = type(self).__name__, "ended" if self.ended else f"after event {self.last_event_id}"
        return f"<{name} {self.task_id or 'not begun'}, {state}>"
